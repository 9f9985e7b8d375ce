//! Every file against libtorch's answers, and where its nodes run.

use protoseg_infer::EngineConfig;
use protoseg_infer::config::Device;
use protoseg_infer::session::{self, Profile};
use protoseg_models::bundle::ModelFile;
use protoseg_models::variant::{ModelKind, Precision};

use super::Acceptance;
use super::bundles::TestBundle;
use super::findings::CheckResults;
use protoseg_infer::check;

/// Least share of labels that agree where products are of 10 bits (TF32), as where they are of 16-bit floats, which have as
/// many.
const LEAST_TF32: f64 = 0.999;

/// The provider that runs nodes on the processor.
const CPU_PROVIDER: &str = "CPUExecutionProvider";

impl Acceptance<'_> {
    /// How files are run here.
    pub(super) fn options(&self) -> EngineConfig {
        EngineConfig::on(self.device)
    }

    /// Holds every file against the probe; of CUDA, those of 32 bits with and without TF32.
    pub(super) fn hold_files(&self, made: &TestBundle, findings: &mut CheckResults) {
        for file in &made.manifest.files {
            let tf32 =
                matches!(self.device, Device::Cuda(_)) && file.variant.precision == Precision::Fp32;
            for tf32 in [false, true].into_iter().take(1 + usize::from(tf32)) {
                self.hold(made, file, tf32, findings);
            }
            self.look_at_nodes(made, file, findings);
        }
        self.try_tensorrt(made, findings);
    }

    fn hold(&self, made: &TestBundle, file: &ModelFile, tf32: bool, findings: &mut CheckResults) {
        let of = match file.variant.kind {
            ModelKind::Frame => "windows stitched outside of it, on the CPU",
            ModelKind::Logits | ModelKind::Labels => "libtorch",
        };
        let how = if tf32 { ", with TF32" } else { "" };
        let what = format!("{}/{}{how} labels as {of}", made.network, file.file);
        let least = match tf32 {
            true => LEAST_TF32,
            false => file.limits().label_agreement.unwrap_or(LEAST_TF32),
        };
        let options = EngineConfig { tf32, ..self.options() };
        match check::agreement(&made.folder, &made.manifest, file, &options) {
            Ok(share) => {
                let detail = format!(
                    "{:.4} % of labels, at least {:.2} % wanted",
                    100.0 * share,
                    100.0 * least
                );
                findings.add(
                    what,
                    share >= least,
                    detail,
                    [("agreement", share), ("least", least)],
                );
            }
            Err(error) => findings.failed(what, &error.into()),
        }
    }

    /// Where the nodes of a file run: of a GPU, none on the processor.
    fn look_at_nodes(&self, made: &TestBundle, file: &ModelFile, findings: &mut CheckResults) {
        let what = format!("{}/{} runs where it should", made.network, file.file);
        let frame = file.variant.frame.map(|form| [form.height, form.width]);
        let [height, width] = frame
            .or(made.manifest.model.window.map(|window| [window.size; 2]))
            .unwrap_or(self.size());
        let options = EngineConfig {
            input_size: Some([height, width]),
            cpu_fallback: true,
            ..self.options()
        };
        let profile =
            made.manifest.verified(&made.folder, file).map_err(anyhow::Error::from).and_then(
                |path| {
                    session::profile(&path, file.adapter.as_ref(), &options, [1, height, width])
                        .map_err(anyhow::Error::from)
                },
            );
        match profile {
            Ok(Profile { nodes, .. }) => {
                let on_processor = nodes.get(CPU_PROVIDER).copied().unwrap_or(0);
                let told: Vec<String> = nodes
                    .iter()
                    .map(|(provider, count)| format!("{count} by {provider}"))
                    .collect();
                let holds = !nodes.is_empty() && (!self.device.is_gpu() || on_processor == 0);
                findings.add(
                    what,
                    holds,
                    told.join(", "),
                    [("nodes_on_processor", on_processor as f64)],
                );
            }
            Err(error) => findings.failed(what, &error),
        }
    }

    /// TensorRT beside CUDA, where its library is there.
    fn try_tensorrt(&self, made: &TestBundle, findings: &mut CheckResults) {
        let what = format!("{}/TensorRT labels as libtorch", made.network);
        let Device::Cuda(number) = self.device else {
            return findings.skipped(what, "TensorRT needs a GPU of NVIDIA");
        };
        let device = Device::TensorRt(number);
        if let Err(error) = device.check() {
            return findings.skipped(what, protoseg_models::errors::error_chain(&error));
        }
        let Some(file) = made.file(ModelKind::Logits, Precision::Fp32) else {
            return findings.skipped(what, "the bundle has no file for it");
        };
        let options = EngineConfig::on(device);
        match check::agreement(&made.folder, &made.manifest, file, &options) {
            Ok(share) => {
                let detail = format!("{:.4} % of labels", 100.0 * share);
                findings.add(what, share >= LEAST_TF32, detail, [("agreement", share)]);
            }
            Err(error) => findings.failed(what, &error.into()),
        }
    }
}
