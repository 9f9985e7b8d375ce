//! Some steps of training, by `protoseg-train accept`.

use super::Acceptance;
use super::findings::CheckResults;
use crate::commands::sibling;
use protoseg_infer::config::Device;

impl Acceptance<'_> {
    /// What `protoseg-train accept` found.
    pub(super) fn train(&self, findings: &mut CheckResults) -> Option<serde_json::Value> {
        let what = "training".to_owned();
        let device = match self.device {
            Device::Cpu | Device::OpenVino => "cpu".to_owned(),
            Device::Cuda(number) | Device::TensorRt(number) => format!("cuda:{number}"),
        };
        let report = self.work.join("train-accept.json");
        let mut command = match sibling::command("train") {
            Ok(command) => command,
            Err(error) => {
                findings.failed(what, &error);
                return None;
            }
        };
        command.args(["accept", "--device", &device, "--report"]).arg(&report);
        if self.arguments.brief {
            command.arg("--brief");
        }
        if self.arguments.all {
            command.arg("--all");
        }
        let ended = super::bundles::finish(&mut command);
        let read =
            std::fs::read(&report).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match ended {
            Ok(()) => {
                findings.add(what, true, format!("protoseg-train accept on {device} passed"), [])
            }
            Err(error) => findings.failed(what, &error),
        }
        read
    }
}
