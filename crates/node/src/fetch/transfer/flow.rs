//! How much may be under way: by count, by bytes, by what was granted.

/// Blocks looked up or wanted at a time. Tiny blocks need many, since each
/// costs a round trip; a Bitswap server keeps about a thousand per peer.
const MAX_UNDER_WAY: usize = 1_024;

/// Bytes expected and in memory, of all transfers together: what a source of
/// 200 MiB/s sends within a round trip of 50 ms. Those beyond it do not arrive
/// sooner, and are memory.
const WINDOW_BYTES: u64 = 10 << 20;

/// Bytes that one transfer may expect at least, however many there are: a few
/// blocks, so that it does not stop and go.
const LEAST_WINDOW_BYTES: u64 = 1 << 20;

/// How much of the grant is left when more is asked for, in bytes: what a
/// fast source sends while the question travels.
const ASK_AHEAD: u64 = 32 << 20;

/// How much is asked for beyond what is used, in bytes.
const ASK: u64 = 64 << 20;

/// The length of a block of which nothing is known: the usual leaf of a file.
const FIRST_GUESS: u64 = 256 << 10;

/// A full window is refilled in this many batches.
const BATCHES: usize = 16;

/// The weight of a new length in the moving average is one in this.
const SMOOTHING: u64 = 16;

/// What is under way and allowed; see the module's description.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Bytes of distinct blocks that may be held before the next grant.
    pub(super) granted: u64,
    /// The last total that was asked for and not answered.
    asked: Option<u64>,
    average: u64,
}

impl Flow {
    pub(super) fn new(granted: u64) -> Self {
        Self { granted, asked: None, average: FIRST_GUESS }
    }

    /// Learns from a block that arrived.
    pub(super) fn arrived(&mut self, length: u64) {
        self.average = (self.average * (SMOOTHING - 1) + length.max(1)).div_ceil(SMOOTHING);
    }

    /// How many further blocks may be looked up.
    ///
    /// `under_way` were looked up and have not arrived, `in_memory` bytes have
    /// arrived and are not stored, `used` bytes count against the grant, and
    /// `moving` transfers share the window.
    pub(super) fn room(&self, under_way: usize, in_memory: u64, used: u64, moving: usize) -> usize {
        let expected = under_way as u64 * self.average + in_memory;
        let window = (WINDOW_BYTES / moving.max(1) as u64).max(LEAST_WINDOW_BYTES);
        let by_window = window.saturating_sub(expected) / self.average;
        let by_grant = self.granted.saturating_sub(used + expected) / self.average;
        let room = by_window.min(by_grant).min(MAX_UNDER_WAY.saturating_sub(under_way) as u64);
        // Near the end of a grant the average says little: one at a time.
        let least = usize::from(under_way == 0 && in_memory == 0 && used < self.granted);
        let room = usize::try_from(room).unwrap_or(MAX_UNDER_WAY).max(least);
        // Not one by one as they arrive: each batch costs a job, and a message
        // that the peer has to work through.
        if room < (under_way + room) / BATCHES { 0 } else { room }
    }

    /// The total to ask for, if it is time to.
    pub(super) fn ask(&mut self, expected: u64, used: u64) -> Option<u64> {
        let needed = used + expected;
        if self.asked.is_some() || self.granted > needed.saturating_add(ASK_AHEAD) {
            return None;
        }
        let total = needed.max(self.granted) + ASK;
        self.asked = Some(total);
        Some(total)
    }

    /// Takes the answer. Whether it allows more than before.
    pub(super) fn grant(&mut self, total: u64) -> bool {
        let more = total > self.granted;
        self.granted = self.granted.max(total);
        if more {
            self.asked = None;
        }
        more
    }

    /// Bytes to expect of so many blocks.
    pub(super) fn expected(&self, under_way: usize) -> u64 {
        under_way as u64 * self.average
    }

    /// Forgets that a question is open, so that it is asked again.
    pub(super) fn ask_again(&mut self) {
        self.asked = None;
    }

    /// Whether an answer is awaited.
    pub(super) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_bounded_by_count_bytes_and_grant() {
        let mut flow = Flow::new(1 << 40);
        assert_eq!(flow.room(0, 0, 0, 1), 40);
        assert_eq!(flow.room(34, 0, 0, 1), 6);
        assert_eq!(flow.room(0, WINDOW_BYTES, 0, 1), 0);
        assert_eq!(flow.room(0, 0, 0, 4), 10);
        assert_eq!(flow.room(0, 0, 0, 1_000), 4);
        (0..300).for_each(|_| flow.arrived(100));
        assert_eq!(flow.room(0, 0, 0, 1), 1_024);
        assert_eq!(flow.room(900, 0, 0, 1), 124);
        assert_eq!(flow.room(1_000, 0, 0, 1), 0, "too few to be worth a message");
    }

    #[test]
    fn the_end_of_a_grant_is_approached_one_block_at_a_time() {
        let flow = Flow::new(1 << 20);
        assert_eq!(flow.room(0, 0, 0, 1), 4);
        assert_eq!(flow.room(0, 0, (1 << 20) - 10, 1), 1);
        assert_eq!(flow.room(1, 0, (1 << 20) - 10, 1), 0);
        assert_eq!(flow.room(0, 0, 1 << 20, 1), 0);
    }

    #[test]
    fn grants_are_asked_for_once_and_ahead() {
        let mut flow = Flow::new(64 << 20);
        assert_eq!(flow.ask(0, 0), None);
        assert_eq!(flow.ask(8 << 20, 24 << 20), Some(128 << 20));
        assert_eq!(flow.ask(8 << 20, 30 << 20), None);
        assert!(!flow.grant(64 << 20) && flow.is_asking());
        assert!(flow.grant(100 << 20) && !flow.is_asking());
        assert_eq!(flow.ask(8 << 20, 90 << 20), Some(164 << 20));
    }
}
