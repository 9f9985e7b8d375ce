//! The scheduler as a library: batches across images, canceled jobs, and the end.

use std::sync::Arc;
use std::time::Duration;

use image::RgbImage;
use protoseg_infer::segmenter::{SegmentError, Segmenter};
use protoseg_infer::upsample::{Outputs, into_vec};
use protoseg_serve::BatchLimit;
use protoseg_serve::metrics::Metrics;
use protoseg_serve::scheduler::{PredictRequest, Scheduler, SchedulerError, SchedulerOptions};

use crate::common::{fixture, stripe_labels, stripes};

/// Longer than a test takes: a batch that is not full is never run.
const NEVER: Duration = Duration::from_secs(3600);

/// A scheduler of the fixture `colors`, whose windows are 48 pixels wide, and its metrics.
fn scheduler(segmenters: usize, windows: usize, delay: Duration) -> (Scheduler, Metrics) {
    let open = || Segmenter::open(fixture("colors")).unwrap();
    let metrics = Metrics::default();
    let model_metrics = metrics.for_model("colors", &open().model().classes);
    let options =
        SchedulerOptions { limit: BatchLimit { windows, pixels: 1 << 30 }, delay, threads: 1 };
    (
        Scheduler::start((0..segmenters).map(|_| open()).collect(), options, model_metrics)
            .unwrap(),
        metrics,
    )
}

fn request(image: RgbImage) -> PredictRequest {
    let outputs = Outputs { confidence: true, margin: true, logits: false };
    PredictRequest { image: Arc::new(image), outputs }
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
fn windows_of_several_images_share_a_batch_and_each_gets_its_labels() {
    let (scheduler, metrics) = scheduler(1, 5, NEVER);
    // Of two windows, one, and two.
    let images = [stripes(70, 48), stripes(48, 48), stripes(60, 48)];
    let handles: Vec<_> =
        images.iter().map(|image| scheduler.submit(request(image.clone())).unwrap()).collect();
    for (handle, image) in handles.into_iter().zip(&images) {
        let response = handle.blocking_recv().unwrap().unwrap();
        assert_eq!(
            into_vec(response.prediction.labels.clone()),
            stripe_labels(image.width(), image.height())
        );
        let mut alone = Segmenter::open(fixture("colors")).unwrap();
        let expected = alone
            .predict(image, Outputs { confidence: true, margin: true, logits: false })
            .unwrap();
        assert_eq!(response.prediction, expected);
    }
    assert_eq!(count(&metrics, "protoseg_batch_windows_count"), 1.0);
    assert_eq!(count(&metrics, "protoseg_batch_windows_sum"), 5.0);
}

#[test]
fn canceled_jobs_are_not_run() {
    let (scheduler, metrics) = scheduler(2, 4, NEVER);
    // Three windows wait for a fourth, and are canceled.
    drop(scheduler.submit(request(stripes(100, 20))).unwrap());
    let kept = scheduler.submit(request(stripes(112, 32))).unwrap();
    let more = scheduler.submit(request(stripes(48, 20))).unwrap();
    for (handle, width, height) in [(kept, 112, 32), (more, 48, 20)] {
        assert_eq!(
            into_vec(handle.blocking_recv().unwrap().unwrap().prediction.labels),
            stripe_labels(width, height)
        );
    }
    assert_eq!(count(&metrics, "protoseg_windows_total"), 4.0);
    assert_eq!(count(&metrics, "protoseg_queue_windows"), 0.0);
}

#[test]
fn invalid_images_are_refused_and_queued_jobs_answered_at_the_end() {
    let (scheduler, _) = scheduler(2, 8, NEVER);
    let Err(SchedulerError::Segment(error)) = scheduler.submit(request(RgbImage::new(0, 5))) else {
        panic!("taken")
    };
    assert!(matches!(*error, SegmentError::Empty));
    let handles: Vec<_> =
        (1..6).map(|index| scheduler.submit(request(stripes(16 * index, 16))).unwrap()).collect();
    drop(scheduler);
    for (handle, index) in handles.into_iter().zip(1..) {
        assert_eq!(
            into_vec(handle.blocking_recv().unwrap().unwrap().prediction.labels),
            stripe_labels(16 * index, 16)
        );
    }
}
