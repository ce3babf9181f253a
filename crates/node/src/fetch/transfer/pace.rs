//! Whether a transfer's sources are worth waiting for.
//!
//! A source that sends one small block a minute never stalls, and would hold
//! an attempt, its slot and what is reserved for it for as long as it likes.

use std::time::Duration;

use pinfold_core::policy::LEAST_PACE;
use tokio::time::Instant;

/// Bytes that arrived since the judging began; see the module's description.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// Begins to judge.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0 }
    }

    /// A block has arrived.
    pub(super) fn arrived(&mut self, length: u64) {
        self.bytes += length;
    }

    /// When it is judged next.
    pub(super) fn due(&self, window: Duration) -> Instant {
        self.since + window
    }

    /// Whether less came than at the slowest pace that is waited for. Judged
    /// once the window is over, and then anew.
    pub(super) fn is_too_slow(&mut self, window: Duration, now: Instant) -> bool {
        let passed = now.duration_since(self.since);
        if passed < window {
            return false;
        }
        let bytes = std::mem::replace(self, Self::new(now)).bytes;
        u128::from(bytes) * 1_000 < u128::from(LEAST_PACE) * passed.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    #[test]
    fn the_pace_is_judged_over_each_window() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::new(start);
        pace.arrived(600 * LEAST_PACE);
        assert!(!pace.is_too_slow(WINDOW, start + WINDOW - second));
        assert!(!pace.is_too_slow(WINDOW, start + WINDOW));
        pace.arrived(600 * LEAST_PACE - 1);
        assert_eq!(pace.due(WINDOW), start + 2 * WINDOW);
        assert!(!pace.is_too_slow(WINDOW, start + WINDOW + second));
        assert!(pace.is_too_slow(WINDOW, start + 2 * WINDOW), "what came before counts no longer");
    }
}
