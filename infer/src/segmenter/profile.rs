//! What runs the operators of a model's files.

use protoseg_models::window::WindowPlan;

use super::{SegmentError, Segmenter};
use crate::session::Profile;

impl Segmenter {
    /// What runs the operators of the file through which pictures `[height, width]` go, as [`predict`](Self::predict) runs them
    /// where no margin is wanted: [`Runner::profile`](crate::session::Runner::profile) says at what price.
    pub fn profile(&self, size: [usize; 2]) -> Result<Profile, SegmentError> {
        if let Some(frame) = self.frames.iter().find(|frame| frame.size() == size) {
            return frame.profile();
        }
        let (count, [height, width]) = match self.window {
            Some(window) => {
                let plan = WindowPlan::new(size[0], size[1], window, self.model.grid)?;
                (plan.count().min(self.batch), [window.size; 2])
            }
            None => (1, self.sizes.padded(size)?),
        };
        Ok(self.runner.profile([count, height, width])?)
    }
}
