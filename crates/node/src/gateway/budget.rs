//! The memory that walks may take, one by one and all together.
//!
//! A walk remembers which blocks it has sent and which links wait; a DAG made
//! for it makes it remember much. What it remembers is leased from a budget
//! that all walks of the gateway share, and given back when it ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes for all walks together.
const TOTAL_BYTES: usize = 256 << 20;
/// Bytes for one walk: some three million distinct blocks, 800 GiB of the
/// usual ones, and two such walks at once.
const WALK_BYTES: usize = 128 << 20;

/// What all walks share.
#[derive(Clone, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// What one walk has taken of it.
pub(super) struct Lease {
    budget: Budget,
    taken: usize,
}

impl Budget {
    pub(super) fn lease(&self) -> Lease {
        Lease { budget: self.clone(), taken: 0 }
    }
}

impl Lease {
    /// Takes bytes; false where there is no room.
    #[must_use]
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if self.taken + bytes > WALK_BYTES {
            return false;
        }
        let total = self.budget.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total > TOTAL_BYTES {
            self.budget.0.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.taken += bytes;
        true
    }

    /// Gives back bytes that were taken.
    pub(super) fn give(&mut self, bytes: usize) {
        let bytes = bytes.min(self.taken);
        self.taken -= bytes;
        self.budget.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_bounded_alone_and_together_and_given_back() {
        let budget = Budget::default();
        let (mut first, mut second, mut third) = (budget.lease(), budget.lease(), budget.lease());
        assert!(first.take(WALK_BYTES) && !first.take(1));
        assert!(second.take(WALK_BYTES));
        assert!(!third.take(1));
        first.give(10);
        assert!(third.take(10) && !third.take(1));
        drop((first, second));
        assert!(third.take(WALK_BYTES - 10));
        drop(third);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
