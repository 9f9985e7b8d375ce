//! What a service takes on: pixels of pictures and bytes of requests that it holds at a time, so that its memory has a bound
//! under any load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes for each pixel of a picture that is held: three of its own, two of what is decided, the rest for what is made of
/// them.
pub const PIXEL_BYTES: u64 = 10;

/// What pictures held once all that is left of them is an answer of so many bytes.
pub fn shrink_permits(mut shares: Vec<Permit>, bytes: usize) -> Vec<Permit> {
    let mut left = bytes as u64 / PIXEL_BYTES;
    for share in &mut shares {
        share.shrink(left);
        left -= share.amount;
    }
    shares
}

/// Amounts held, of at most so many.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: AtomicU64,
}

/// A share of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    amount: u64,
}

/// There is no room for what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{held} of {limit} are taken, and {asked} were asked for")]
pub struct BudgetExceeded {
    /// What was asked for.
    pub asked: u64,
    /// What is held.
    pub held: u64,
    /// What can be held.
    pub limit: u64,
}

impl Budget {
    /// Nothing is held yet.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0) })
    }

    /// What can be held.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What is held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes a share, at once or not at all.
    pub fn try_acquire(self: &Arc<Self>, amount: u64) -> Result<Permit, BudgetExceeded> {
        let mut share = Permit { budget: Arc::clone(self), amount: 0 };
        share.grow(amount)?;
        Ok(share)
    }
}

impl Permit {
    /// Takes more, at once or not at all.
    pub fn grow(&mut self, amount: u64) -> Result<(), BudgetExceeded> {
        let Budget { limit, held } = &*self.budget;
        let more = |held: u64| held.checked_add(amount).filter(|sum| sum <= limit);
        match held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => {
                self.amount += amount;
                Ok(())
            }
            Err(held) => Err(BudgetExceeded { asked: amount, held, limit: *limit }),
        }
    }

    /// Gives back all but so much.
    pub fn shrink(&mut self, amount: u64) {
        let back = self.amount.saturating_sub(amount);
        self.budget.held.fetch_sub(back, Ordering::Relaxed);
        self.amount -= back;
    }

    /// What it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_come_back() {
        let budget = Budget::new(100);
        let mut first = budget.try_acquire(60).unwrap();
        assert_eq!(
            budget.try_acquire(41).unwrap_err(),
            BudgetExceeded { asked: 41, held: 60, limit: 100 }
        );
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
}
