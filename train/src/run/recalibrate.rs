//! Calibration of a finished checkpoint, without its run.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use protoseg_models::checkpoint::Checkpoint;
use protoseg_models::window::LogitGrid;
use tch::Device;

use crate::calibrate::Calibrator;
use crate::config::Config;
use crate::data::lists::Lists;
use crate::evaluate::Protocol;
use crate::net::Net;
use crate::progress::{self, Progress};
use crate::run::finish::unless_interrupted;
use crate::run::memory::{Phase, in_phase};
use crate::run::stop::{StopMonitor, StopReason};

/// Calibrates the checkpoint in a folder on the labeled images of a configuration, and writes the ranges into it. Returns the
/// reason to stop if it was interrupted; the checkpoint is unchanged then.
pub fn recalibrate(
    folder: &Path,
    config: &Config,
    device: Device,
    monitor: &StopMonitor,
) -> Result<Option<StopReason>> {
    let mut checkpoint = Checkpoint::read(folder)?;
    let lists = Lists::open(config)?;
    ensure!(
        lists.classes == checkpoint.header.classes,
        "{} has other classes than the labeled images: {} and {}",
        folder.display(),
        checkpoint.header.classes.count(),
        lists.classes.count()
    );
    let arch = checkpoint.header.arch;
    let net =
        Net::new(arch.graph(), &checkpoint.weights, device)?.interruptible(monitor.interrupt());
    let protocol = Protocol { grid: LogitGrid::from_arch(arch), window: config.window };
    let calibrator = Calibrator { net: &net, images: &lists.labeled, protocol };
    let images = config.calibration_images.min(lists.labeled.count());
    let parts = Calibrator::parts(images);
    let bar = progress::message_bar();
    let progress = Progress::new(&bar, "calibrating", "parts", parts);
    let recorded =
        in_phase(Phase::Calibration, || calibrator.record(images, &config.name, &progress));
    bar.finish_and_clear();
    let Some(calibration) = unless_interrupted(recorded)? else { return Ok(monitor.due()) };
    checkpoint.calibration = Some(calibration);
    checkpoint.write(folder)?;
    Ok(None)
}

/// Reads the configuration of a calibration: a file, or that of the checkpoint, with settings.
pub fn configuration(folder: &Path, file: Option<&Path>, settings: &[String]) -> Result<Config> {
    let config = match file {
        Some(file) => Config::read(file, settings)?,
        None => {
            let text = Checkpoint::read(folder)?.config;
            ensure!(
                !text.is_empty(),
                "{} has no configuration of a training: give --config FILE",
                folder.display()
            );
            Config::parse(&text, settings)
                .with_context(|| format!("the configuration in {}", folder.display()))?
        }
    };
    ensure!(
        config.calibration_images > 0,
        "`calibration_images` is 0: give the number of images, such as --set calibration_images=8"
    );
    Ok(config)
}
