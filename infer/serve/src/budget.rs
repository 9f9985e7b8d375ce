//! Budgets of pixels and bytes: semaphores whose permits are taken before memory is, so that memory
//! has a bound under any load.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a pixel of an admitted image stands for: 3 of input, 2 of output, 5 of scratch.
pub const PIXEL_BYTES: u64 = 10;

/// Largest amount of one [`Permit`]: tokio counts in `u32`.
pub(crate) const MAX_PERMIT: u64 = u32::MAX as u64;

#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    semaphore: Arc<Semaphore>,
}

/// An amount of a budget, given back on drop.
#[derive(Debug)]
pub struct Permit(OwnedSemaphorePermit);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BudgetExceeded {
    /// Amount that was asked for beyond what is available.
    pub(crate) missing: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { limit, semaphore: Arc::new(Semaphore::new(limit)) }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit as u64
    }

    pub(crate) fn held(&self) -> u64 {
        (self.limit - self.semaphore.available_permits()) as u64
    }

    /// Takes an amount at once, or fails.
    pub(crate) fn try_acquire(&self, amount: u64) -> Result<Permit, BudgetExceeded> {
        acquire(&self.semaphore, amount).map(Permit)
    }
}

fn acquire(
    semaphore: &Arc<Semaphore>,
    amount: u64,
) -> Result<OwnedSemaphorePermit, BudgetExceeded> {
    let permit = u32::try_from(amount)
        .ok()
        .and_then(|amount| Arc::clone(semaphore).try_acquire_many_owned(amount).ok());
    permit.ok_or_else(|| {
        let missing = amount.saturating_sub(semaphore.available_permits() as u64);
        BudgetExceeded { missing }
    })
}

impl Permit {
    pub fn amount(&self) -> u64 {
        self.0.num_permits() as u64
    }

    /// Takes more at once, or fails and keeps what it has. The sum is at most [`MAX_PERMIT`].
    pub(crate) fn grow(&mut self, amount: u64) -> Result<(), BudgetExceeded> {
        if self.amount() + amount > MAX_PERMIT {
            return Err(BudgetExceeded { missing: amount });
        }
        self.0.merge(acquire(self.0.semaphore(), amount)?);
        Ok(())
    }

    /// Gives back all above an amount.
    pub(crate) fn shrink(&mut self, amount: u64) {
        let surplus = self.amount().saturating_sub(amount);
        drop(self.0.split(surplus as usize));
    }
}

/// Shrinks the permits of decoded images to those of their response of so many bytes.
pub(crate) fn shrink_permits(mut permits: Vec<Permit>, bytes: usize) -> Vec<Permit> {
    let mut left = bytes as u64 / PIXEL_BYTES;
    for permit in &mut permits {
        permit.shrink(left);
        left -= permit.amount();
    }
    permits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_never_exceed_the_budget_and_come_back() {
        let budget = Budget::new(100);
        let mut first = budget.try_acquire(60).unwrap();
        assert_eq!(budget.try_acquire(41).unwrap_err(), BudgetExceeded { missing: 1 });
        assert_eq!((budget.held(), budget.limit()), (60, 100));
        let second = budget.try_acquire(40).unwrap();
        assert!(first.grow(1).is_err());
        drop(second);
        first.grow(40).unwrap();
        assert_eq!((budget.held(), first.amount()), (100, 100));
        let mut kept = shrink_permits(vec![first, budget.try_acquire(0).unwrap()], 300);
        assert_eq!((budget.held(), kept[0].amount()), (30, 30));
        kept[0].shrink(50);
        assert_eq!(budget.held(), 30);
        drop(kept);
        assert_eq!(budget.held(), 0);
        assert!(budget.try_acquire(u64::MAX).is_err());
    }

    #[test]
    fn amounts_beyond_those_of_a_semaphore_are_refused() {
        let budget = Budget::new(u64::MAX);
        let mut permit = budget.try_acquire(MAX_PERMIT).unwrap();
        assert!(permit.grow(1).is_err() && budget.try_acquire(MAX_PERMIT + 1).is_err());
        drop(permit);
        assert_eq!(budget.held(), 0);
    }
}
