//! Cooperative interruption: a check that long computations make between their parts.

use std::sync::Arc;

/// A computation was interrupted, as the run is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Tells long computations to end; cheap enough to ask at every node of a network.
#[derive(Clone, Default)]
pub struct Interrupt(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Interrupt {
    /// Interrupts once the condition is true.
    pub fn when(condition: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(condition)))
    }

    /// Never interrupts.
    pub fn never() -> Self {
        Self(None)
    }

    /// Fails once the computation is to end.
    pub fn check(&self) -> Result<(), Interrupted> {
        match &self.0 {
            Some(condition) if condition() => Err(Interrupted),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Interrupt").field(&self.0.is_some()).finish()
    }
}
