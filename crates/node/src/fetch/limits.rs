//! The bounds of a fetch.

use std::time::Duration;

use pinfold_core::policy;

/// How large a DAG may be, how much of its walk is held in memory, and how long
/// an attempt at it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Distinct blocks of a root.
    pub blocks: u64,
    /// Links from the root to a block.
    pub depth: u32,
    /// Identity CIDs nested directly in one another.
    pub nesting: u32,
    /// Blocks looked up and not yet consumed.
    pub ahead: usize,
    /// Memory for links not yet looked up, in bytes.
    pub link_memory: usize,
    /// Blocks with links left to look up that are at hand; those of further
    /// ones are written small.
    pub spans: usize,
    /// How long one attempt at a root may take; the next one goes on with what
    /// it has.
    pub attempt_time: Duration,
    /// How long an attempt waits for any of the blocks that it wants.
    pub stall: Duration,
    /// How long an attempt that gets blocks waits for the one that is next in
    /// its walk; then other sources are found.
    pub head_stall: Duration,
    /// Over how long the pace of an attempt is judged: one that falls below
    /// [`policy::LEAST_PACE`] for so long, while it waits for nothing but its
    /// sources, ends.
    pub pace_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blocks: policy::MAX_BLOCKS,
            depth: policy::MAX_DEPTH,
            nesting: policy::MAX_IDENTITY_NESTING,
            // 1 GiB of the usual 256 KiB blocks behind one that is late, at
            // some 500 bytes of memory each.
            ahead: 1 << 12,
            link_memory: 4 << 20,
            spans: 1 << 13,
            attempt_time: policy::MAX_ATTEMPT,
            stall: Duration::from_secs(60),
            head_stall: Duration::from_secs(600),
            pace_window: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_what_is_documented_unless_they_are_set() {
        let limits = Limits::default();
        assert_eq!((limits.blocks, limits.depth, limits.nesting), (67_108_864, 1_048_576, 32));
        assert_eq!((limits.stall.as_secs(), limits.head_stall.as_secs()), (60, 600));
        assert_eq!((limits.attempt_time.as_secs(), limits.pace_window.as_secs()), (7 * 24 * 3_600, 600));
    }
}
