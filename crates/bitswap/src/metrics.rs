//! What is counted, through the `metrics` facade.

use metrics::{Counter, Gauge, counter, gauge};

/// The counters and gauges, registered once.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) received_blocks: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) duplicate_blocks: Counter,
    pub(crate) duplicate_bytes: Counter,
    pub(crate) wrong_blocks: Counter,
    pub(crate) unwanted_blocks: Counter,
    pub(crate) oversize_blocks: Counter,
    pub(crate) dropped_blocks: Counter,
    pub(crate) received_messages: Counter,
    pub(crate) sent_messages: Counter,
    pub(crate) sent_wants: Counter,
    pub(crate) resent: Counter,
    pub(crate) hedged: Counter,
    pub(crate) stalls: Counter,
    pub(crate) bans: Counter,
    pub(crate) sent_blocks: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) sent_presences: Counter,
    pub(crate) refused_wants: Counter,
    pub(crate) dropped_streams: Counter,
    pub(crate) inbound_streams: Gauge,
    pub(crate) partial_bytes: Gauge,
    pub(crate) served_wants: Gauge,
    pub(crate) serving_bytes: Gauge,
    pub(crate) wants: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Registers them under names that begin with `prefix`.
    pub(crate) fn new(prefix: &str) -> Self {
        let (counter, gauge) = (
            |name: &str| counter!(format!("{prefix}_{name}")),
            |name: &str| gauge!(format!("{prefix}_{name}")),
        );
        Self {
            received_blocks: counter("received_blocks_total"),
            received_bytes: counter("received_bytes_total"),
            duplicate_blocks: counter("duplicate_blocks_total"),
            duplicate_bytes: counter("duplicate_bytes_total"),
            wrong_blocks: counter("wrong_blocks_total"),
            unwanted_blocks: counter("unwanted_blocks_total"),
            oversize_blocks: counter("oversize_blocks_total"),
            dropped_blocks: counter("dropped_blocks_total"),
            received_messages: counter("received_messages_total"),
            sent_messages: counter("sent_messages_total"),
            sent_wants: counter("sent_wants_total"),
            resent: counter("resends_total"),
            hedged: counter("hedged_wants_total"),
            stalls: counter("stalls_total"),
            bans: counter("bans_total"),
            sent_blocks: counter("sent_blocks_total"),
            sent_bytes: counter("sent_bytes_total"),
            sent_presences: counter("sent_presences_total"),
            refused_wants: counter("refused_wants_total"),
            dropped_streams: counter("dropped_streams_total"),
            inbound_streams: gauge("inbound_streams"),
            partial_bytes: gauge("partial_bytes"),
            served_wants: gauge("served_wants"),
            serving_bytes: gauge("serving_bytes"),
            wants: gauge("wants"),
        }
    }
}
