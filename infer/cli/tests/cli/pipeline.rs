//! The pipeline as a library: every item once, failures, memory limits, runs that end early.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::common::{LABELED, TestDir, answer, fixture, stripe_labels, stripes};
use protoseg_infer::config::ExecutionMode;
use protoseg_infer::pipeline::{DecodedImage, PendingImage, Pipeline, PipelineEvent, RunControl};
use protoseg_infer::segmenter::SegmentError;
use protoseg_infer::upsample::into_vec;
use protoseg_infer::{EngineConfig, Outputs, Prediction, Segmenter};

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("no image {0}")]
    Missing(usize),
    #[error("disk full")]
    Full,
}

fn pipeline(segmenters: usize) -> Pipeline {
    let open = || Segmenter::open(fixture("colors")).unwrap();
    Pipeline::new(open(), (1..segmenters).map(|_| open()).collect())
}

fn image(index: usize) -> PendingImage<impl FnOnce() -> Result<DecodedImage<usize>, Error>> {
    let width = 16 * (1 + index as u32 % 5);
    let decode = move || Ok(DecodedImage { image: stripes(width, 32), extra: 10 * index });
    PendingImage { pixels: u64::from(width) * 32, decode }
}

#[test]
fn every_item_goes_through_once() {
    for segmenters in [1, 3] {
        let seen = Mutex::new(BTreeSet::new());
        let events = AtomicUsize::new(0);
        let observe = |event: PipelineEvent<'_, Error>| match event {
            PipelineEvent::Done(_) => _ = events.fetch_add(1, Ordering::Relaxed),
            PipelineEvent::Failed(index, error) => {
                assert!(
                    [7, 9].contains(&index)
                        && matches!(error, Error::Missing(missing) if *missing == index)
                );
            }
        };
        let outputs = Outputs { confidence: true, margin: true, logits: false };
        let control = RunControl { outputs, observe: &observe, ..RunControl::default() };
        let mut pipeline = pipeline(segmenters);
        let report = pipeline.run(
            40,
            &control,
            |index| {
                let PendingImage { pixels, decode } = image(index);
                let decode = move || if index == 9 { Err(Error::Missing(9)) } else { decode() };
                if index == 7 {
                    Err(Error::Missing(7))
                } else {
                    Ok(PendingImage { pixels, decode })
                }
            },
            |index, item, prediction: Prediction| {
                let width = item.image.width();
                assert_eq!(item.extra, 10 * index);
                assert_eq!(prediction.confidence.unwrap().len(), prediction.labels.len());
                assert_eq!(prediction.margin.unwrap().len(), prediction.labels.len());
                assert_eq!(into_vec(prediction.labels), stripe_labels(width, 32));
                assert!(seen.lock().unwrap().insert(index));
                Ok(())
            },
        );
        assert_eq!((report.done, report.interrupted, events.into_inner()), (38, false, 38));
        assert!(
            report.stopped.is_none()
                && matches!(report.failed[..], [(7, Error::Missing(7)), (9, Error::Missing(9))]),
            "{report:?}"
        );
        assert_eq!(
            seen.into_inner().unwrap(),
            (0..40).filter(|index| ![7, 9].contains(index)).collect()
        );
        assert_eq!(
            (report.stages.run.threads, pipeline.setup().sessions),
            (segmenters, segmenters)
        );
        assert!(report.stages.run.busy > 0.0 && report.stages.run.busy <= 1.0, "{report:?}");
        assert!(report.stages.bottleneck.contains(" busy "), "{report:?}");
    }
}

#[test]
fn images_in_flight_are_finished_after_a_stop() {
    let (stop, begun, done) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let control = RunControl::<Error> { stop: &stop, ..RunControl::default() };
    let report = pipeline(2).run(
        10_000,
        &control,
        |index| {
            let PendingImage { pixels, decode } = image(index);
            let begun = &begun;
            let decode = move || {
                begun.fetch_add(1, Ordering::Relaxed);
                decode()
            };
            Ok(PendingImage { pixels, decode })
        },
        |_, _, _| {
            if done.fetch_add(1, Ordering::Relaxed) == 4 {
                stop.store(true, Ordering::Relaxed);
            }
            Ok(())
        },
    );
    assert!(report.interrupted && report.stopped.is_none() && report.failed.is_empty());
    // No started item is lost, and few were started: two queues of two, and one in each thread.
    assert_eq!((report.done, report.done), (begun.into_inner(), done.into_inner()));
    assert!((5..100).contains(&report.done), "{}", report.done);
    // A stop after the last item interrupts nothing.
    let report = pipeline(1).run(0, &control, |index| Ok(image(index)), |_, _, _| Ok(()));
    assert!(!report.interrupted);
}

#[test]
fn a_result_that_cannot_be_written_stops_the_run() {
    let report = pipeline(2).run(
        10_000,
        &RunControl::default(),
        |index| Ok(image(index)),
        |index, _, _| if index == 3 { Err(Error::Full) } else { Ok(()) },
    );
    assert!(
        matches!(report.stopped, Some(Error::Full)) && !report.interrupted,
        "{:?}",
        report.stopped
    );
    assert!(report.done < 100, "{}", report.done);
}

#[test]
fn images_in_flight_stay_within_the_pixel_budget() {
    const PIXEL_BUDGET: u64 = 4_000;
    let config = EngineConfig {
        pixel_budget: Some(PIXEL_BUDGET),
        mode: Some(ExecutionMode::Throughput),
        ..EngineConfig::default()
    };
    let mut pipeline = Pipeline::open(fixture("colors"), &config, None).unwrap();
    let (held, peak) = (AtomicU64::new(0), AtomicU64::new(0));
    let pixels = |index: usize| if index % 10 == 3 { 6_400 } else { image(index).pixels };
    let report = pipeline.run(
        60,
        &RunControl::<Error>::default(),
        |index| {
            let (held, peak) = (&held, &peak);
            let decode = move || {
                let now = held.fetch_add(pixels(index), Ordering::SeqCst) + pixels(index);
                assert!(now <= PIXEL_BUDGET || now == 6_400, "{now} pixels at image {index}");
                peak.fetch_max(now, Ordering::SeqCst);
                (image(index).decode)()
            };
            Ok(PendingImage { pixels: pixels(index), decode })
        },
        |index, _, _| {
            held.fetch_sub(pixels(index), Ordering::SeqCst);
            Ok(())
        },
    );
    assert_eq!((report.done, pipeline.setup().pixels), (60, PIXEL_BUDGET), "{report:?}");
    assert_eq!((held.into_inner(), peak.into_inner()), (0, 6_400));
}

#[test]
fn sessions_are_as_many_as_cores_and_memory_allow() {
    let open = |images: usize, mode: Option<ExecutionMode>, memory: Option<u64>| {
        let threads = NonZeroUsize::new(3);
        let config = EngineConfig { threads, mode, memory, ..EngineConfig::default() };
        let pipeline = Pipeline::open(fixture("colors"), &config, Some(images)).unwrap();
        let setup = pipeline.setup();
        (setup.mode, setup.sessions, setup.threads)
    };
    assert_eq!(open(11, None, None), (ExecutionMode::Latency, 1, 3));
    assert_eq!(open(12, None, Some(1 << 40)), (ExecutionMode::Throughput, 3, 1));
    assert_eq!(
        open(1, Some(ExecutionMode::Throughput), Some(1 << 40)),
        (ExecutionMode::Throughput, 3, 1)
    );
    // Remaining cores go to the session that fits.
    #[cfg(target_os = "linux")]
    assert_eq!(open(12, None, Some(1)), (ExecutionMode::Throughput, 1, 3));
    assert_eq!(open(1_000, Some(ExecutionMode::Latency), None), (ExecutionMode::Latency, 1, 3));
}

#[test]
fn both_modes_write_the_same_files() {
    let dir = TestDir::new();
    for index in 0..9 {
        stripes(40 + 8 * index, 50).save(dir.at(&format!("in/images/{index}.png"))).unwrap();
    }
    for mode in ["latency", "throughput"] {
        let command = format!(
            "label bundle in/images --out {mode} --format ids,color --threads 3 --mode {mode} --json -v"
        );
        let given = answer(&mut dir.command(&command));
        assert_eq!(given.status, 0, "{given:?}");
        assert!(given.stderr.starts_with(&format!("cpu, {mode}: sessions ")), "{given:?}");
        let summary: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
        assert_eq!((&summary[LABELED], &summary["setup"]["mode"]), (&10.into(), &mode.into()));
        assert!(summary["stages"]["bottleneck"].as_str().unwrap().contains("busy"), "{summary}");
    }
    for name in crate::common::results(&dir.at("latency")) {
        let [one, other] =
            ["latency", "throughput"].map(|mode| std::fs::read(dir.at(mode).join(&name)).unwrap());
        assert!(one == other, "{name}");
    }
}

#[test]
fn a_panic_anywhere_stops_the_run_and_propagates() {
    for segmenters in [1, 3] {
        for site in ["open", "decode", "observe", "encode"] {
            let panics =
                |here: &str, index: usize| assert!(here != site || index != 5, "on purpose");
            let observe = |event: PipelineEvent<'_, Error>| {
                if let PipelineEvent::Done(index) = event {
                    panics("observe", index);
                }
            };
            let control = RunControl { observe: &observe, ..RunControl::default() };
            let mut pipeline = pipeline(segmenters);
            let run = std::panic::AssertUnwindSafe(|| {
                pipeline.run(
                    200,
                    &control,
                    |index| {
                        panics("open", index);
                        let PendingImage { pixels, decode } = image(index);
                        let decode = move || {
                            panics("decode", index);
                            decode()
                        };
                        Ok(PendingImage { pixels, decode })
                    },
                    |index, _, _: Prediction| {
                        panics("encode", index);
                        Ok(())
                    },
                )
            });
            let panic = std::panic::catch_unwind(run).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"on purpose"), "{site}");
        }
    }
}
