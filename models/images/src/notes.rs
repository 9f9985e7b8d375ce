//! Remarks on images that were read, but may not mean what their reader takes them for, and their
//! summary: one warning of each kind, with its number, an example and the way out.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use protoseg_models::reading::SampleRange;

/// Images that a warning names.
const EXAMPLES: usize = 3;

/// Remarks on one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageNotes {
    /// A channel beside the colors that was left out, though it is not opaque everywhere.
    pub extra_channel: Option<ExtraChannel>,
    /// 16 bits of which a small part is used.
    pub unused_range: Option<UnusedRange>,
    /// Samples outside the chosen range.
    pub clamped: Option<Clamped>,
    /// The JPEG has no end marker, but all of its blocks.
    pub no_end_marker: bool,
    /// The TIFF's pages of full resolution beside the one that was read.
    pub other_pages: usize,
    /// Frames of an animation behind the one that was read.
    pub other_frames: usize,
    /// EXIF turns or mirrors the image.
    pub is_turned: bool,
}

/// A channel beside the colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtraChannel {
    /// Number of channels of the file.
    pub channels: usize,
    /// Number of this channel, from 1.
    pub number: usize,
    /// The file calls it opacity.
    pub has_opacity: bool,
    /// Number of values that occur, scaled to 8 bits.
    pub values: usize,
    /// The smallest.
    pub low: u8,
    /// The largest.
    pub high: u8,
    /// Pixels of value 0.
    pub transparent: u64,
    /// Pixels of value 255.
    pub opaque: u64,
    /// All pixels.
    pub pixels: u64,
}

/// The used part of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedRange {
    /// The largest value.
    pub largest: u16,
    /// The largest value but for one sample in a thousand where that is far below.
    pub used: u16,
}

/// Samples outside the chosen range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clamped {
    /// The smallest value of the image.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// Number of samples outside.
    pub outside: u64,
    /// Number of samples.
    pub samples: u64,
    /// The range.
    pub range: SampleRange,
}

/// Images with one kind of remark.
#[derive(Debug, Clone)]
struct Seen<T> {
    /// Hashes of their names, as training reads an image many times.
    names: HashSet<u64>,
    /// The first by name.
    examples: BTreeMap<String, T>,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self { names: HashSet::new(), examples: BTreeMap::new() }
    }
}

impl<T> Seen<T> {
    fn add(&mut self, name: &str, note: Option<T>) {
        let Some(note) = note else { return };
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        self.names.insert(hasher.finish());
        self.examples.insert(name.to_owned(), note);
        if self.examples.len() > EXAMPLES {
            self.examples.pop_last();
        }
    }

    /// Returns a text about the examples and the number of images, if there is any.
    fn describe(&self, text: impl Fn(&String, &T) -> String) -> Option<(String, usize)> {
        let texts: Vec<String> =
            self.examples.iter().map(|(name, note)| text(name, note)).collect();
        (!texts.is_empty()).then(|| (texts.join("; "), self.names.len()))
    }
}

#[derive(Debug, Default, Clone)]
struct Collected {
    extra_channel: Seen<ExtraChannel>,
    unused_range: Seen<UnusedRange>,
    /// The largest value in use.
    used: u16,
    clamped: Seen<Clamped>,
    no_end_marker: Seen<()>,
    other_pages: Seen<usize>,
    other_frames: Seen<usize>,
    turned: Seen<()>,
    turned_masks: Seen<()>,
    /// Masks with an orientation of their own, which was applied or not.
    oriented_masks: Seen<()>,
    unclear_masks: Seen<()>,
    ignored_orientations: Seen<()>,
    /// Warnings that [`NoteCollector::add_once`] returned, by kind.
    told: [bool; KINDS],
}

/// Number of kinds of warnings.
const KINDS: usize = 11;

/// Use of the EXIF orientation that a mask has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskTurn {
    /// It was applied, as the image says too by its size or its orientation.
    Confirmed,
    /// It was applied, and the size of the image fits either way.
    Unconfirmed,
    /// It was not applied, as only the stored pixels have the size of the image.
    Ignored,
}

/// Collects remarks of many images, from any thread.
#[derive(Debug, Default)]
pub struct NoteCollector {
    inner: Mutex<Collected>,
}

impl NoteCollector {
    /// Adds the remarks on an image. The same name again is the same image.
    pub fn add(&self, name: &str, notes: &ImageNotes) {
        self.with(|collected| collected.add(name, notes));
    }

    /// Adds an image with a mask that EXIF turns. `with_mask` tells that its mask has the size of the
    /// stored pixels and was turned too; else the mask's size fits either way.
    pub fn add_turned(&self, name: &str, with_mask: bool) {
        self.with(|collected| {
            let seen = if with_mask { &mut collected.turned_masks } else { &mut collected.turned };
            seen.add(name, Some(()));
        });
    }

    /// Adds a mask whose file has an EXIF orientation.
    pub fn add_oriented_mask(&self, name: &str, turn: MaskTurn) {
        self.with(|collected| {
            let seen = match turn {
                MaskTurn::Confirmed => &mut collected.oriented_masks,
                MaskTurn::Unconfirmed => &mut collected.unclear_masks,
                MaskTurn::Ignored => &mut collected.ignored_orientations,
            };
            seen.add(name, Some(()));
        });
    }

    /// Adds the remarks on an image, and returns the warnings of kinds that were not there before:
    /// for services, which have no end.
    pub fn add_once(&self, name: &str, notes: &ImageNotes) -> Vec<String> {
        let mut alone = Collected::default();
        alone.add(name, notes);
        self.with(|collected| {
            let kinds = alone.warnings(1).into_iter().zip(&mut collected.told);
            kinds
                .filter_map(|(warning, told)| {
                    let warning = warning.filter(|_| !*told)?;
                    *told = true;
                    Some(warning)
                })
                .collect()
        })
    }

    /// Returns one warning of each kind; `images` were read in all.
    pub fn warnings(&self, images: usize) -> Vec<String> {
        self.with(|collected| collected.warnings(images)).into_iter().flatten().collect()
    }

    fn with<R>(&self, work: impl FnOnce(&mut Collected) -> R) -> R {
        // Counts stay usable where a thread panicked between two of them.
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Collected {
    fn add(&mut self, name: &str, notes: &ImageNotes) {
        self.extra_channel.add(name, notes.extra_channel);
        self.unused_range.add(name, notes.unused_range);
        self.used = self.used.max(notes.unused_range.map_or(0, |note| note.used));
        self.clamped.add(name, notes.clamped);
        self.no_end_marker.add(name, notes.no_end_marker.then_some(()));
        self.other_pages.add(name, (notes.other_pages > 0).then_some(notes.other_pages));
        self.other_frames.add(name, (notes.other_frames > 0).then_some(notes.other_frames));
    }

    fn warnings(&self, images: usize) -> [Option<String>; KINDS] {
        let extra = self.extra_channel.describe(ExtraChannel::describe).map(|(seen, count)| {
            format!(
                "{count} of {images} images have channels beside their colors, which are left out: {seen}; \
                 choose --channels color to keep this reading, alpha-black or alpha-white to apply opacity, or \
                 three channels such as 3,2,1"
            )
        });
        let text = |name: &String, note: &UnusedRange| note.describe(name);
        let unused = self.unused_range.describe(text).map(|(seen, count)| {
            let used = self.used;
            let bits = (u16::BITS - used.leading_zeros()).max(8);
            let all = (1_u32 << bits) - 1;
            format!(
                "{seen}: {count} of {images} images use a small part of 16 bits and come out dark; --range 0:{used} \
                 scales what is used to the whole of 8 bits, --range 0:{all} all of {bits} bits"
            )
        });
        let clamped = self.clamped.describe(Clamped::describe).map(|(seen, count)| {
            format!(
                "{count} of {images} images have values outside --range, which are clamped: {seen}"
            )
        });
        let ends = self.no_end_marker.describe(|name, ()| name.clone()).map(|(seen, count)| {
            format!(
                "{count} of {images} images are JPEG files without end marker, whose blocks are all there: {seen}"
            )
        });
        let text = |name: &String, pages: &usize| format!("{pages} of {name}");
        let pages = self.other_pages.describe(text).map(|(seen, count)| {
            format!(
                "{count} of {images} images are TIFF files with further pages of full resolution, which are left out: \
                 {seen}; split them to have all pages (`tiffsplit`, or `gdal_translate GTIFF_DIR:2:in.tif out.tif`)"
            )
        });
        let text = |name: &String, frames: &usize| format!("{frames} of {name}");
        let frames = self.other_frames.describe(text).map(|(seen, count)| {
            format!(
                "{count} of {images} images are animations, of which the first frame is read; further frames: {seen}; \
                 extract them to have all (`ffmpeg -i FILE frames/%06d.png`)"
            )
        });
        let turned = self.turned.describe(|name, ()| name.clone()).map(|(seen, count)| {
            format!(
                "{count} of {images} images are turned or mirrored by their EXIF orientation, and the size of their \
                 masks does not tell for which side: {seen}; if the masks were made for the pixels as stored, remove \
                 the orientation (`exiftool -Orientation= FILES`)"
            )
        });
        let masks = self.turned_masks.describe(|name, ()| name.clone()).map(|(seen, count)| {
            format!(
                "{count} of {images} images are turned by their EXIF orientation, and their masks, which have the size of \
                 the stored pixels, were turned with them: {seen}"
            )
        });
        let [own, unclear, ignored] =
            [&self.oriented_masks, &self.unclear_masks, &self.ignored_orientations]
                .map(|seen| seen.describe(|name, ()| name.clone()));
        let own = own.map(|(seen, count)| {
            format!("{count} masks were turned by the EXIF orientation of their own files: {seen}")
        });
        let unclear = unclear.map(|(seen, count)| {
            format!(
                "{count} masks were turned by the EXIF orientation of their own files, and the size of their \
                 images does not tell whether that is right: {seen}; if the pixels as stored are, remove the \
                 orientation (`exiftool -Orientation= FILES`)"
            )
        });
        let ignored = ignored.map(|(seen, count)| {
            format!(
                "{count} masks have an EXIF orientation that was not applied, as only the pixels as stored have \
                 the size of their images: {seen}; remove it (`exiftool -Orientation= FILES`)"
            )
        });
        [extra, unused, clamped, ends, pages, frames, turned, masks, own, unclear, ignored]
    }
}

impl ExtraChannel {
    fn describe(name: &String, note: &Self) -> String {
        let Self { channels, number, has_opacity, values, low, high, transparent, .. } = *note;
        let Self { opaque, pixels, .. } = *note;
        if !has_opacity {
            return format!("{name} has {channels} channels, of which it calls none opacity");
        }
        if transparent == pixels {
            format!("all pixels of {name} are transparent")
        } else if values == 1 && opaque < pixels {
            format!("channel {number} of {name} is {low} of 255 everywhere")
        } else if opaque == 0 {
            format!("channel {number} of {name} has {values} values from {low} to {high}: a band?")
        } else if opaque == pixels {
            format!("{name} has {channels} channels")
        } else {
            let clear = pixels - opaque;
            format!("{clear} of {pixels} pixels of {name} are not opaque")
        }
    }
}

impl UnusedRange {
    fn describe(&self, name: &str) -> String {
        let Self { largest, used } = *self;
        if used == largest {
            format!("the largest value of {name} is {largest} of {}", u16::MAX)
        } else {
            format!("all but 0.1 % of the values of {name} are at most {used} of {}", u16::MAX)
        }
    }
}

impl Clamped {
    fn describe(name: &String, note: &Self) -> String {
        let Self { low, high, outside, samples, range } = *note;
        let share = 100.0 * outside as f64 / samples.max(1) as f64;
        format!("{share:.1} % of the values of {name}, {low} to {high}, lie outside {range}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dark(largest: u16) -> ImageNotes {
        let unused_range = Some(UnusedRange { largest, used: largest });
        ImageNotes { unused_range, ..ImageNotes::default() }
    }

    #[test]
    fn a_kind_has_one_warning_with_number_examples_and_the_way_out() {
        let collector = NoteCollector::default();
        assert!(collector.warnings(9).is_empty());
        for name in ["b.png", "a.png", "c.png", "d.png", "a.png"] {
            collector.add(name, &dark(if name == "d.png" { 9945 } else { 4080 }));
            collector.add("plain.png", &ImageNotes::default());
        }
        let warnings = collector.warnings(9);
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(
            warning.starts_with("the largest value of a.png is 4080 of 65535; the"),
            "{warning}"
        );
        assert!(warning.contains("4 of 9 images") && !warning.contains("d.png"), "{warning}");
        assert!(
            warning.contains("--range 0:9945") && warning.contains("--range 0:16383"),
            "{warning}"
        );
    }

    #[test]
    fn a_service_is_told_once_of_each_kind() {
        let collector = NoteCollector::default();
        assert_eq!(collector.add_once("a request", &dark(4080)).len(), 1);
        assert!(collector.add_once("a request", &dark(9)).is_empty());
        let other = ImageNotes { no_end_marker: true, ..dark(9) };
        let warnings = collector.add_once("a request", &other);
        assert!(
            matches!(&warnings[..], [warning] if warning.contains("end marker")),
            "{warnings:?}"
        );
    }

    #[test]
    fn opacity_is_described_by_what_was_seen() {
        let full = ExtraChannel {
            channels: 4,
            number: 4,
            has_opacity: true,
            values: 1,
            low: 0,
            high: 0,
            transparent: 64,
            opaque: 0,
            pixels: 64,
        };
        let describe = |note: &ExtraChannel| ExtraChannel::describe(&"x".to_owned(), note);
        assert_eq!(describe(&full), "all pixels of x are transparent");
        let some = ExtraChannel { transparent: 8, opaque: 56, values: 2, high: 255, ..full };
        assert_eq!(describe(&some), "8 of 64 pixels of x are not opaque");
        let band = ExtraChannel { transparent: 0, values: 100, low: 20, high: 119, ..full };
        assert_eq!(describe(&band), "channel 4 of x has 100 values from 20 to 119: a band?");
        let one = ExtraChannel { transparent: 0, low: 128, high: 128, ..full };
        assert_eq!(describe(&one), "channel 4 of x is 128 of 255 everywhere");
        let more = ExtraChannel { has_opacity: false, channels: 8, ..full };
        assert_eq!(describe(&more), "x has 8 channels, of which it calls none opacity");
    }
}
