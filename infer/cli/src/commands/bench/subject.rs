//! What a report says of a model that was measured.

use std::collections::BTreeMap;
use std::path::Path;

use protoseg_bench::images::BenchImage;
use protoseg_bench::report::{Accuracy, Subject};
use protoseg_infer::EngineConfig;
use protoseg_infer::segmenter::{SegmentError, Segmenter};

use super::accuracy;
use super::asked::{OpenTarget, TargetLocation, TargetSpec};
use super::session::BenchSession;

impl BenchSession {
    /// Says what was measured, and where that is to be checked whether it computes what it should.
    pub(crate) fn subject(&self, wanted: &TargetSpec, asked: &OpenTarget, check: bool) -> Subject {
        let mut subject = Subject {
            name: wanted.name.clone(),
            bundle: None,
            url: None,
            model: String::new(),
            file: None,
            precision: None,
            device: None,
            options: BTreeMap::new(),
            images: self.images.summary(),
            windows: None,
            pixel_ratio: None,
            end_to_end: self.end_to_end,
            open_seconds: None,
            first_run_seconds: None,
            nodes: BTreeMap::new(),
            accuracy: Accuracy {
                missing: Some("it was not asked for".to_owned()),
                ..Accuracy::default()
            },
            peak_host_bytes: None,
        };
        match asked {
            OpenTarget::InProcess(model) => {
                let facts = model.facts();
                let devices: Vec<String> =
                    facts.setup.devices.iter().map(ToString::to_string).collect();
                subject.model.clone_from(&facts.fingerprint);
                subject.file = Some(facts.file.clone());
                subject.precision = facts.precision.map(|precision| precision.name().to_owned());
                subject.device = Some(devices.join(", "));
                (subject.windows, subject.pixel_ratio) =
                    (Some(facts.pieces.0), Some(facts.pieces.1));
                (subject.open_seconds, subject.first_run_seconds) =
                    (Some(facts.setup.seconds), Some(facts.first_run_seconds));
            }
            OpenTarget::Http(server) => {
                let (name, version) = server.model();
                subject.model = format!("{name} {version}");
            }
        }
        match &wanted.place {
            TargetLocation::InProcess(bundle, options) => {
                subject.bundle = Some(bundle.clone());
                subject.options = options.clone().into();
                if let (Some(file), true) = (&subject.file, check) {
                    // Where this cannot be found out, the report has no nodes.
                    subject.nodes = nodes(bundle, options, self.images.get(0)).unwrap_or_default();
                    subject.accuracy =
                        accuracy::measure(bundle, file, options, self.labeled.as_ref());
                }
            }
            TargetLocation::Http(url) => {
                subject.url = Some(url.clone());
                subject.accuracy.missing =
                    Some("a server's model is not checked; bench its bundle".to_owned());
            }
        }
        subject
    }
}

/// How many nodes each execution provider runs of the file that runs a picture.
fn nodes(
    bundle: &Path,
    config: &EngineConfig,
    sheet: &BenchImage,
) -> Result<BTreeMap<String, usize>, SegmentError> {
    let segmenter = Segmenter::open_with(bundle, config)?;
    let (width, height) = sheet.image.dimensions();
    Ok(segmenter.profile([height as usize, width as usize])?.nodes)
}
