//! Settings.

use std::time::Duration;

/// What can be set. The defaults suit a node on anything from a Raspberry Pi
/// up; the bounds that protect memory are constants beside the code that they
/// bound.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a peer that sent wrong bytes is banned.
    pub ban: Duration,
    /// The most bytes that are expected from one peer at a time.
    pub peer_window_bytes: usize,
    /// The most bytes that one session holds in flight and undelivered.
    pub session_window_bytes: usize,
    /// The most wants that one peer is asked at a time. Kubo keeps 1,024 of a
    /// peer and silently drops most of the rest.
    pub peer_window_wants: usize,
    /// A peer that answers nothing for this long while it owes something
    /// stalls: it is asked nothing more until it answers, or there is nobody
    /// else. What takes much longer than the peer's pace promises is asked of
    /// others long before; a peer to whom that happens 16 times in a row
    /// stalls too.
    pub stall: Duration,
    /// What the names of the metrics begin with: `bitswap` gives
    /// `bitswap_received_blocks_total`.
    pub metrics_prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ban: Duration::from_secs(600),
            peer_window_bytes: 16 << 20,
            session_window_bytes: 32 << 20,
            peer_window_wants: 512,
            stall: Duration::from_secs(5),
            metrics_prefix: "bitswap".to_owned(),
        }
    }
}
