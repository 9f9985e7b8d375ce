//! Every scenario, and which share of the device's ceilings the network reaches.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use protoseg_bench::images::BenchImages;
use protoseg_bench::load::Scenario;
use protoseg_bench::load::StopAfter;
use protoseg_bench::measure::{Measurement, WarmUpPolicy};
use protoseg_bench::report::{BenchRun, ScenarioResult};
use protoseg_bench::stability::StabilityRule;
use protoseg_infer::EngineConfig;
use protoseg_models::variant::Precision;
use protoseg_models::window::Window;

use super::bundles::TestBundle;
use super::findings::CheckResults;
use super::{Acceptance, Ceiling};
use crate::commands::bench;

/// Scenarios whose rate is known from the start; the server's follows from what these show.
const SCENARIOS: [Scenario; 4] = [
    Scenario::SingleStream,
    Scenario::MultiStream { samples: 8 },
    Scenario::Clients { clients: 4 },
    Scenario::Offline,
];

/// At which share of what clients were answered pictures come in the server scenario.
const SERVER_SHARE: f64 = 0.7;

/// Different pictures.
const PICTURES: usize = 4;

impl Acceptance<'_> {
    /// Measures every scenario with the 32-bit and the 16-bit files.
    pub(super) fn measure(
        &self,
        made: &TestBundle,
        ceilings: &[Ceiling],
        findings: &mut CheckResults,
    ) -> Vec<BenchRun> {
        let mut runs = Vec::new();
        for precision in [Precision::Fp32, Precision::Fp16] {
            // The processor counts 16-bit floats as 32-bit ones, more slowly.
            if precision == Precision::Fp16 && !self.device.is_gpu() {
                let what = format!("{}/speed in {}", made.network, precision.name());
                findings.skipped(what, "processors count 16-bit floats as 32-bit ones");
                continue;
            }
            match self.run(made, precision) {
                Ok(run) => {
                    run.points.iter().for_each(|point| tell(made, precision, point, findings));
                    self.roofline(made, precision, &run, ceilings, findings);
                    runs.push(run);
                }
                Err(error) => findings
                    .failed(format!("{}/speed in {}", made.network, precision.name()), &error),
            }
        }
        runs
    }

    fn run(&self, made: &TestBundle, precision: Precision) -> anyhow::Result<BenchRun> {
        let images = BenchImages::synthetic(PICTURES, self.size(), 0)?;
        let options = EngineConfig { precision: Some(precision), ..EngineConfig::on(self.device) };
        let mut session = bench::BenchSession::new(images)?;
        session.stop = Arc::clone(&self.stop);
        let wanted = bench::TargetSpec::bundle(&made.folder, options, precision.name());
        let mut points: Vec<ScenarioResult> = Vec::new();
        let mut first = None;
        for scenario in SCENARIOS {
            let asked = session.open(&wanted, scenario)?;
            points.push(session.point(&asked, &self.how(scenario, &session))?);
            first.get_or_insert(asked);
        }
        let clients =
            points.iter().find(|point| matches!(point.scenario, Scenario::Clients { .. }));
        let rate = SERVER_SHARE * clients.context("no clients were measured")?.images_per_second;
        let scenario = Scenario::Server { rate };
        let asked = session.open(&wanted, scenario)?;
        points.push(session.point(&asked, &self.how(scenario, &session))?);
        let subject =
            session.subject(&wanted, first.as_ref().context("nothing was measured")?, true);
        Ok(BenchRun { subject, points, within_bound: None })
    }

    fn how(&self, scenario: Scenario, session: &bench::BenchSession) -> Measurement {
        let seconds = if self.arguments.brief { 0.5 } else { 4.0 };
        let rule = StabilityRule { seconds: seconds / 8.0, queries: 3, ..StabilityRule::default() };
        let until = StopAfter::Time(Duration::from_secs_f64(seconds), 3);
        Measurement {
            scenario,
            warm_up: WarmUpPolicy::Stable(rule),
            until,
            seed: 0,
            pixels: session.images().mean_pixels(),
        }
    }

    /// How much of the measured ceilings the offline scenario reached: of products, with what the network multiplies and adds;
    /// of copies, with a picture's bytes there and its labels' and confidences' back, where there is a device to copy to.
    fn roofline(
        &self,
        made: &TestBundle,
        precision: Precision,
        run: &BenchRun,
        ceilings: &[Ceiling],
        findings: &mut CheckResults,
    ) {
        let what = format!("{}/roofline in {}", made.network, precision.name());
        let offline = run.points.iter().find(|point| point.scenario == Scenario::Offline);
        let ceiling =
            ceilings.iter().find(|ceiling| ceiling.precision == precision.name() && !ceiling.tf32);
        let (Some(offline), Some(ceiling)) = (offline, ceiling) else {
            return findings.skipped(what, "the offline scenario or the ceilings are missing");
        };
        let pictures = &run.subject.images;
        let window = made
            .manifest
            .model
            .window
            .map_or([pictures.height, pictures.width], |Window { size, .. }| [size; 2]);
        let arch = made.manifest.model.arch;
        let Some(adds) =
            arch.and_then(|arch| arch.graph().multiply_adds(window[0], window[1]).ok())
        else {
            return findings.skipped(what, "the manifest does not say which network it is");
        };
        let reached = &ceiling.reached;
        let operations =
            2.0 * adds as f64 * run.subject.windows.unwrap_or(1) as f64 * offline.images_per_second;
        let of_products = operations / reached.operations_a_second;
        let products = format!(
            "{:.1} % of {:.2} Tflop/s in products of {2}x{2}",
            100.0 * of_products,
            reached.operations_a_second / 1e12,
            reached.side
        );
        if of_products > 1.0 {
            let why = format!(
                "{products}, as other load held the ceiling down when it was measured; try again"
            );
            return findings.skipped(what, why);
        }
        if !self.device.is_gpu() {
            return findings.add(what, true, products, [("of_products", of_products)]);
        }
        let of_copies = 5e6 * offline.megapixels_per_second / reached.copied_bytes_a_second;
        let copies = format!(
            "{:.1} % of {:.2} GB/s in copies",
            100.0 * of_copies,
            reached.copied_bytes_a_second / 1e9
        );
        let figures = [("of_products", of_products), ("of_copies", of_copies)];
        findings.add(what, true, format!("{products}, {copies}"), figures);
    }
}

fn tell(
    made: &TestBundle,
    precision: Precision,
    point: &ScenarioResult,
    findings: &mut CheckResults,
) {
    let what = format!("{}/{} in {}", made.network, point.scenario, precision.name());
    let rate = point.images_per_second;
    let latency = point.latency.as_ref().map_or_else(String::new, |latency| {
        let median = latency.percentiles.first().map_or(f64::NAN, |percentile| percentile.ms);
        format!(", median {median:.2} ms, {:.2} ms at most", latency.max_ms)
    });
    let doubt = if point.unstable.is_some() { ", UNSTABLE" } else { "" };
    let detail = format!(
        "{rate:.2} pictures/s, {:.1} megapixels/s{latency}{doubt}",
        point.megapixels_per_second
    );
    findings.add(what, point.failed == 0, detail, [("images_per_second", rate)]);
}
