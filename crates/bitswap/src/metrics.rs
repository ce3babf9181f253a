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
    pub(crate) fn new() -> Self {
        Self {
            received_blocks: counter!("bitswap_received_blocks_total"),
            received_bytes: counter!("bitswap_received_bytes_total"),
            duplicate_blocks: counter!("bitswap_duplicate_blocks_total"),
            duplicate_bytes: counter!("bitswap_duplicate_bytes_total"),
            wrong_blocks: counter!("bitswap_wrong_blocks_total"),
            unwanted_blocks: counter!("bitswap_unwanted_blocks_total"),
            oversize_blocks: counter!("bitswap_oversize_blocks_total"),
            dropped_blocks: counter!("bitswap_dropped_blocks_total"),
            received_messages: counter!("bitswap_received_messages_total"),
            sent_messages: counter!("bitswap_sent_messages_total"),
            sent_wants: counter!("bitswap_sent_wants_total"),
            resent: counter!("bitswap_resends_total"),
            hedged: counter!("bitswap_hedged_wants_total"),
            stalls: counter!("bitswap_stalls_total"),
            bans: counter!("bitswap_bans_total"),
            sent_blocks: counter!("bitswap_sent_blocks_total"),
            sent_bytes: counter!("bitswap_sent_bytes_total"),
            sent_presences: counter!("bitswap_sent_presences_total"),
            refused_wants: counter!("bitswap_refused_wants_total"),
            dropped_streams: counter!("bitswap_dropped_streams_total"),
            inbound_streams: gauge!("bitswap_inbound_streams"),
            partial_bytes: gauge!("bitswap_partial_bytes"),
            served_wants: gauge!("bitswap_served_wants"),
            serving_bytes: gauge!("bitswap_serving_bytes"),
            wants: gauge!("bitswap_wants"),
        }
    }
}
