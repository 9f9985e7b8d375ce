//! Run of one image by rows: a thread reads, this one runs the windows, and a thread for each file
//! writes, side by side.

use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use protoseg_images::geo::Place;
use protoseg_images::image_rows::{ImageRows, RowFile};
use protoseg_images::notes::ImageNotes;
use protoseg_infer::segmenter::{RowStream, SegmentError};
use protoseg_infer::upsample::{into_vec, pixels_by_class};
use protoseg_infer::{Prediction, Segmenter, Stage, StageTimes};
use protoseg_models::atomic::PartialFile;
use protoseg_models::classes::IGNORE_INDEX;

use super::super::format::{OutputFormats, RowOutput, RowPlane};
use super::super::inputs::InputImage;
use super::super::{print_stderr, progress};
use super::large::output_error;
use super::record::ResultRecorder;

/// End of a run that did not come to its own.
pub(super) enum RowError {
    /// The image cannot be read or run.
    Image(anyhow::Error),
    /// No image can be run or written any more.
    Lasting(anyhow::Error),
    /// A signal came.
    Interrupted,
}

impl From<SegmentError> for RowError {
    fn from(error: SegmentError) -> Self {
        if error.is_lasting() { Self::Lasting(error.into()) } else { Self::Image(error.into()) }
    }
}

/// An image to run, and what its results depend on.
pub(super) struct RowRun<'a> {
    pub(super) formats: &'a OutputFormats,
    pub(super) record: &'a ResultRecorder<'a>,
    pub(super) stop: &'a AtomicBool,
    pub(super) verbose: bool,
    pub(super) input: &'a InputImage,
}

/// Complete results that are not in their places yet.
pub(super) struct RowResults {
    pub(super) files: Vec<(PathBuf, PartialFile)>,
    pub(super) pixels_by_class: Vec<u64>,
    pub(super) notes: ImageNotes,
}

/// Rows of an image, and those of its pixels that have no data; empty where all have.
struct Block {
    pixels: Vec<u8>,
    missing: Vec<bool>,
}

/// Rows of one plane, shared by the files that hold them.
type Rows = Arc<[u8]>;

impl RowRun<'_> {
    /// Labels the image, and adds the time of reading and writing.
    pub(super) fn label(
        &self,
        segmenter: &mut Segmenter,
        file: RowFile,
        times: &mut StageTimes,
    ) -> Result<RowResults, RowError> {
        let size = file.size();
        let (reading, classes) = (segmenter.model().reading, segmenter.model().classes.clone());
        let image_error = |error| RowError::Image(anyhow::Error::new(error));
        let rows = file.rows(reading).map_err(image_error)?;
        let name = self.formats.names.result_name(&self.input.name);
        let own = rows.geo_reference().cloned().map(|geo| Place { geo, missing: Vec::new() });
        // Images that are turned do not come by rows.
        let place = self.formats.place(own, &ImageNotes::default(), &self.input.path);
        let place = place.map_err(|error| RowError::Image(error.into()))?;
        self.record.count_placeless(self.input, place.as_ref());
        let geo = place.as_ref().map(|place| &place.geo);
        let outputs = self.formats.row_outputs(&name, geo, &classes);
        let mut partial = Vec::new();
        for output in &outputs {
            partial.push(self.record.begin(&output.path).map_err(|error| self.unwritten(error))?);
        }
        let (windows, _) = segmenter.tiling(size)?;
        let bar = progress::window_bar(windows, &self.input.path);
        let (to_run, blocks) = sync_channel(0);
        let ended = std::thread::scope(|scope| {
            let reader = scope.spawn(move || read(rows, &to_run));
            let mut writers = Vec::new();
            let mut senders = Vec::new();
            for (output, file) in outputs.iter().zip(partial) {
                let (sender, rows) = sync_channel(1);
                senders.push((output, sender));
                writers.push(scope.spawn(move || write(output, file, size, &rows)));
            }
            let mut stream = Stream {
                run: self,
                blocks,
                senders,
                missing: VecDeque::new(),
                pixels_by_class: vec![0; classes.count()],
                bar: &bar,
                shown: 0,
            };
            let run = segmenter.predict_rows(size, self.formats.outputs(), &mut stream);
            let pixels_by_class = std::mem::take(&mut stream.pixels_by_class);
            // The threads end once nothing more comes or goes.
            drop(stream);
            self.collect(run, reader, writers, times).map(|(files, notes)| RowResults {
                files,
                pixels_by_class,
                notes,
            })
        });
        bar.finish_and_clear();
        ended
    }

    /// Waits for the threads, and returns the error that was the cause of others.
    fn collect(
        &self,
        run: Result<(), RowError>,
        reader: ScopedJoinHandle<'_, anyhow::Result<Read>>,
        writers: Vec<ScopedJoinHandle<'_, anyhow::Result<Written>>>,
        times: &mut StageTimes,
    ) -> Result<(Vec<(PathBuf, PartialFile)>, ImageNotes), RowError> {
        let read = join(reader);
        let written: Vec<anyhow::Result<Written>> = writers.into_iter().map(join).collect();
        // A file whose rows are not taken any more ended the run; without its error, the rows did.
        let run = match run {
            Err(RowError::Lasting(error)) if error.is::<NotTaken>() => {
                let cause = written.into_iter().find_map(Result::err);
                return Err(self.unwritten(cause.unwrap_or(error)));
            }
            run => run,
        };
        run?;
        let Read { notes, took } = read.map_err(RowError::Image)?;
        times[Stage::Decode] += took;
        let mut files = Vec::new();
        for written in written {
            let Written { path, file, took } = written.map_err(|error| self.unwritten(error))?;
            times[Stage::Encode] += took;
            files.push((path, file));
        }
        Ok((files, notes))
    }

    fn unwritten(&self, error: anyhow::Error) -> RowError {
        output_error(self.record, self.input, error)
    }
}

/// A thread's result; a panic goes on here.
fn join<R>(thread: ScopedJoinHandle<'_, R>) -> R {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// An image that was read to its end.
struct Read {
    notes: ImageNotes,
    took: Duration,
}

/// Reads blocks of rows until the end, or until they are not taken any more.
fn read(mut rows: ImageRows, to_run: &SyncSender<anyhow::Result<Block>>) -> anyhow::Result<Read> {
    let mut took = Duration::ZERO;
    loop {
        let start = Instant::now();
        let mut pixels = Vec::new();
        let count = rows.read(&mut pixels);
        took += start.elapsed();
        match count {
            Ok(0) => return Ok(Read { notes: rows.finish()?, took }),
            Ok(_) => {
                let missing = rows.missing().to_vec();
                if to_run.send(Ok(Block { pixels, missing })).is_err() {
                    return Ok(Read { notes: ImageNotes::default(), took });
                }
            }
            Err(error) => {
                // Whoever waits gets the error.
                let _ = to_run.send(Err(error.into()));
                return Ok(Read { notes: ImageNotes::default(), took });
            }
        }
    }
}

/// A complete file.
struct Written {
    path: PathBuf,
    file: PartialFile,
    took: Duration,
}

/// Writes a file from its rows.
fn write(
    output: &RowOutput,
    mut file: PartialFile,
    size: [usize; 2],
    rows: &Receiver<Rows>,
) -> anyhow::Result<Written> {
    let start = Instant::now();
    let mut waited = Duration::ZERO;
    let mut out = BufWriter::new(file.file());
    let next = || {
        let start = Instant::now();
        let rows = rows.recv().ok();
        waited += start.elapsed();
        let rows = rows?;
        Some(match &output.ids {
            None => rows,
            Some(ids) => rows.iter().map(|&label| ids[usize::from(label)]).collect(),
        })
    };
    let written = output.encoding.write(&mut out, size, std::iter::from_fn(next));
    let written = written.and_then(|()| Ok(out.flush()?)).map_err(anyhow::Error::new);
    drop(out);
    let shown = || output.path.display().to_string();
    written.and_then(|()| Ok(file.sync()?)).with_context(shown)?;
    let took = start.elapsed().saturating_sub(waited);
    Ok(Written { path: output.path.clone(), file, took })
}

/// A file takes no more rows, as it failed.
#[derive(Debug, thiserror::Error)]
#[error("a result takes no more rows")]
struct NotTaken;

/// The image on its way through the segmenter.
struct Stream<'a> {
    run: &'a RowRun<'a>,
    blocks: Receiver<anyhow::Result<Block>>,
    senders: Vec<(&'a RowOutput, SyncSender<Rows>)>,
    /// Rows that were read and not labeled yet: pixels, and those without data.
    missing: VecDeque<(usize, Vec<bool>)>,
    pixels_by_class: Vec<u64>,
    bar: &'a ProgressBar,
    /// Tenths of the windows that were told.
    shown: usize,
}

impl RowStream for Stream<'_> {
    type Error = RowError;

    fn read(&mut self, pixels: &mut Vec<u8>) -> Result<(), RowError> {
        let ended = || anyhow!("the image ended before its last row");
        let block = self.blocks.recv().unwrap_or_else(|_| Err(ended())).map_err(RowError::Image)?;
        // Not twice as much as is needed, as vectors grow by themselves.
        pixels.reserve_exact(block.pixels.len());
        pixels.extend_from_slice(&block.pixels);
        self.missing.push_back((block.pixels.len() / 3, block.missing));
        Ok(())
    }

    fn write(&mut self, rows: Prediction) -> Result<(), RowError> {
        let Prediction { labels, confidence, margin, .. } = rows;
        let mut labels = into_vec(labels);
        ignore_missing(&mut self.missing, &mut labels);
        let counts = pixels_by_class(&labels, self.pixels_by_class.len());
        self.pixels_by_class.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        let labels = Rows::from(labels);
        let [confidence, margin] =
            [confidence, margin].map(|plane| Rows::from(plane.map(into_vec).unwrap_or_default()));
        for (output, sender) in &self.senders {
            let rows = match output.plane {
                RowPlane::Labels => &labels,
                RowPlane::Confidence => &confidence,
                RowPlane::Margin => &margin,
            };
            sender.send(Arc::clone(rows)).map_err(|_| RowError::Lasting(NotTaken.into()))?;
        }
        Ok(())
    }

    fn progress(&mut self, done: usize, all: usize) -> Result<(), RowError> {
        if self.run.stop.load(Ordering::Relaxed) {
            return Err(RowError::Interrupted);
        }
        self.bar.set_position(done as u64);
        let tenths = done * 10 / all.max(1);
        if self.run.verbose && self.bar.is_hidden() && tenths > self.shown {
            self.shown = tenths;
            let path = self.run.input.path.display();
            print_stderr(format_args!("{path}: {done} of {all} windows"));
        }
        Ok(())
    }
}

/// Gives the label of ignored pixels to those without data.
fn ignore_missing(missing: &mut VecDeque<(usize, Vec<bool>)>, labels: &mut [u8]) {
    let mut rest = labels;
    while let Some((left, flags)) = missing.front_mut().filter(|_| !rest.is_empty()) {
        let (part, after) = rest.split_at_mut(rest.len().min(*left));
        let first = flags.len().saturating_sub(*left);
        for (label, _) in part.iter_mut().zip(&flags[first..]).filter(|(_, missing)| **missing) {
            *label = IGNORE_INDEX;
        }
        *left -= part.len();
        rest = after;
        if *left == 0 {
            missing.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_without_data_are_found_across_blocks() {
        let flags = |pixels: usize| (0..pixels).map(|index| index % 3 == 0).collect::<Vec<_>>();
        let expected: Vec<u8> = [(5, true), (4, false), (7, true), (8, true)]
            .into_iter()
            .flat_map(|(pixels, any)| {
                flags(pixels).into_iter().map(move |missing| if missing && any { 255 } else { 1 })
            })
            .collect();
        for step in 1..=24 {
            let mut blocks =
                VecDeque::from([(5, flags(5)), (4, Vec::new()), (7, flags(7)), (8, flags(8))]);
            let mut labels = vec![1; 24];
            labels.chunks_mut(step).for_each(|rows| ignore_missing(&mut blocks, rows));
            assert_eq!(labels, expected, "{step} at a time");
            assert!(blocks.is_empty());
        }
    }
}
