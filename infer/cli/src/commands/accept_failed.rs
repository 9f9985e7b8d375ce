//! `--accept-failed`: failed images that are no failure of a run.

use super::{CommandOutcome, print_stderr};

/// Failed images that a run may have.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AcceptFailedArgs {
    /// Exit with status 0 instead of 3 where no more than N images failed
    ///
    /// They are reported and listed all the same. Not accepted are a folder that cannot be read, as
    /// it may hold any number of images, and a run in which no image was labeled.
    #[arg(long, value_name = "N", default_value_t = 0)]
    accept_failed: usize,
}

/// Inputs of a run by what became of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InputCounts {
    /// Images that are labeled, by this run or an earlier one.
    pub(crate) labeled: usize,
    pub(crate) failed_images: usize,
    pub(crate) unreadable_folders: usize,
}

impl AcceptFailedArgs {
    /// The outcome of a run that came to its end; says why failed images are accepted or not, if
    /// that was asked for.
    pub(crate) fn outcome(&self, counts: InputCounts) -> CommandOutcome {
        let InputCounts { labeled, failed_images, unreadable_folders } = counts;
        if failed_images == 0 && unreadable_folders == 0 {
            return CommandOutcome::Success;
        }
        let most = self.accept_failed;
        let reason = if most == 0 {
            return CommandOutcome::SomeInputsFailed;
        } else if unreadable_folders > 0 {
            format!("folders that cannot be read ({unreadable_folders}) are not accepted")
        } else if failed_images > most {
            format!("{failed_images} images failed, which are more")
        } else if labeled == 0 {
            "no image was labeled".to_owned()
        } else {
            print_stderr(format_args!(
                "note: {failed_images} images failed; --accept-failed {most} accepts them"
            ));
            return CommandOutcome::Success;
        };
        print_stderr(format_args!("warning: --accept-failed {most}: {reason}; exit status 3"));
        CommandOutcome::SomeInputsFailed
    }
}
