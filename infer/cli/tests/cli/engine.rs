//! The engine as a library: windows of several pictures in one run, pictures that nobody waits for, the end.

use std::sync::Arc;
use std::time::Duration;

use image::RgbImage;
use protoseg_infer::segmenter::{SegmentError, Segmenter};
use protoseg_infer::upsample::{Outputs, into_vec};
use protoseg_serve::BatchLimit;
use protoseg_serve::metrics::Metrics;
use protoseg_serve::scheduler::{PredictRequest, Scheduler, SchedulerError, SchedulerOptions};

use crate::common::{fixture, stripe_labels, stripes};

/// Longer than a test takes: a run that is not full never begins.
const NEVER: Duration = Duration::from_secs(3600);

/// An engine of the fixture `colors`, whose windows are 48 pixels wide, and what it counts.
fn engine(segmenters: usize, pieces: usize, delay: Duration) -> (Scheduler, Metrics) {
    let open = || Segmenter::open(fixture("colors")).unwrap();
    let metrics = Metrics::default();
    let of_model = metrics.for_model("colors", &open().model().classes);
    let options = SchedulerOptions {
        limit: BatchLimit { windows: pieces, pixels: 1 << 30 },
        delay,
        threads: 1,
    };
    (
        Scheduler::start((0..segmenters).map(|_| open()).collect(), options, of_model).unwrap(),
        metrics,
    )
}

fn ask(picture: RgbImage) -> PredictRequest {
    let outputs = Outputs { confidence: true, margin: true, logits: false };
    PredictRequest { image: Arc::new(picture), outputs }
}

fn count(metrics: &Metrics, start: &str) -> f64 {
    let text = metrics.text(0, 0);
    let line = text
        .lines()
        .find(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("{start}\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn windows_of_several_pictures_fill_one_run_and_each_gets_its_own_labels() {
    let (engine, metrics) = engine(1, 5, NEVER);
    // Of two windows, one, and two.
    let pictures = [stripes(70, 40), stripes(48, 48), stripes(60, 17)];
    let tickets: Vec<_> =
        pictures.iter().map(|picture| engine.submit(ask(picture.clone())).unwrap()).collect();
    for (ticket, picture) in tickets.into_iter().zip(&pictures) {
        let made = ticket.blocking_recv().unwrap().unwrap();
        assert_eq!(
            into_vec(made.prediction.labels.clone()),
            stripe_labels(picture.width(), picture.height())
        );
        let mut alone = Segmenter::open(fixture("colors")).unwrap();
        let expected = alone
            .predict(picture, Outputs { confidence: true, margin: true, logits: false })
            .unwrap();
        assert_eq!(made.prediction, expected);
    }
    assert_eq!(count(&metrics, "protoseg_batch_windows_count"), 1.0);
    assert_eq!(count(&metrics, "protoseg_batch_windows_sum"), 5.0);
}

#[test]
fn pictures_that_nobody_waits_for_are_not_run() {
    let (engine, metrics) = engine(2, 4, NEVER);
    // Three windows wait for a fourth, and then nobody for them.
    drop(engine.submit(ask(stripes(100, 20))).unwrap());
    let kept = engine.submit(ask(stripes(112, 32))).unwrap();
    let more = engine.submit(ask(stripes(48, 20))).unwrap();
    for (ticket, width, height) in [(kept, 112, 32), (more, 48, 20)] {
        assert_eq!(
            into_vec(ticket.blocking_recv().unwrap().unwrap().prediction.labels),
            stripe_labels(width, height)
        );
    }
    assert_eq!(count(&metrics, "protoseg_windows_total"), 4.0);
    assert_eq!(count(&metrics, "protoseg_queue_windows"), 0.0);
}

#[test]
fn what_cannot_be_cut_is_refused_and_what_waits_at_the_end_is_answered() {
    let (engine, _) = engine(2, 8, NEVER);
    let Err(SchedulerError::Segment(error)) = engine.submit(ask(RgbImage::new(0, 5))) else {
        panic!("taken")
    };
    assert!(matches!(*error, SegmentError::Empty));
    let tickets: Vec<_> =
        (1..6).map(|index| engine.submit(ask(stripes(16 * index, 16))).unwrap()).collect();
    drop(engine);
    for (ticket, index) in tickets.into_iter().zip(1..) {
        assert_eq!(
            into_vec(ticket.blocking_recv().unwrap().unwrap().prediction.labels),
            stripe_labels(16 * index, 16)
        );
    }
}
