//! Figures for whoever collects metrics.

use std::io;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

/// The counters of the hot paths, looked up once.
#[derive(Debug)]
pub(crate) struct Meter {
    put_blocks: Counter,
    put_bytes: Counter,
    get_blocks: Counter,
    get_bytes: Counter,
    lost_blocks: Counter,
    reclaimed_blocks: Counter,
    reclaimed_bytes: Counter,
    copied_bytes: Counter,
}

impl Meter {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            put_blocks: counter!("pinfold_blockstore_put_blocks_total"),
            put_bytes: counter!("pinfold_blockstore_put_bytes_total"),
            get_blocks: counter!("pinfold_blockstore_get_blocks_total"),
            get_bytes: counter!("pinfold_blockstore_get_bytes_total"),
            lost_blocks: counter!("pinfold_blockstore_lost_blocks_total"),
            reclaimed_blocks: counter!("pinfold_blockstore_reclaimed_blocks_total"),
            reclaimed_bytes: counter!("pinfold_blockstore_reclaimed_bytes_total"),
            copied_bytes: counter!("pinfold_blockstore_copied_bytes_total"),
        }
    }

    pub(crate) fn put(&self, blocks: usize, bytes: u64) {
        self.put_blocks.increment(blocks as u64);
        self.put_bytes.increment(bytes);
    }

    pub(crate) fn get(&self, bytes: usize) {
        self.get_blocks.increment(1);
        self.get_bytes.increment(bytes as u64);
    }

    pub(crate) fn lost(&self) {
        self.lost_blocks.increment(1);
    }

    pub(crate) fn reclaimed(&self, blocks: u64, bytes: u64) {
        self.reclaimed_blocks.increment(blocks);
        self.reclaimed_bytes.increment(bytes);
    }

    pub(crate) fn copied(&self, bytes: u64) {
        self.copied_bytes.increment(bytes);
    }
}

/// Runs a sync and records how long it took.
pub(crate) fn timed(sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let begun = Instant::now();
    let result = sync();
    sync_seconds().record(begun.elapsed());
    result
}

fn sync_seconds() -> Histogram {
    histogram!("pinfold_blockstore_sync_seconds")
}

/// Sets the gauges; called by the background thread now and then.
pub(crate) fn gauge(usage: &crate::Usage) {
    metrics::gauge!("pinfold_blockstore_blocks").set(usage.blocks as f64);
    metrics::gauge!("pinfold_blockstore_block_bytes").set(usage.block_bytes as f64);
    metrics::gauge!("pinfold_blockstore_disk_bytes").set(usage.disk_bytes as f64);
    metrics::gauge!("pinfold_blockstore_capacity_bytes").set(usage.capacity_bytes as f64);
}

fn describe() {
    use metrics::Unit::{Bytes, Count, Seconds};
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("pinfold_blockstore_put_blocks_total", Count, "Blocks appended");
    describe_counter!("pinfold_blockstore_put_bytes_total", Bytes, "Bytes appended for blocks, with heads");
    describe_counter!("pinfold_blockstore_get_blocks_total", Count, "Blocks read");
    describe_counter!("pinfold_blockstore_get_bytes_total", Bytes, "Bytes of blocks read");
    describe_counter!("pinfold_blockstore_lost_blocks_total", Count, "Blocks found damaged");
    describe_counter!(
        "pinfold_blockstore_reclaimed_blocks_total",
        Count,
        "Blocks removed without a reference"
    );
    describe_counter!("pinfold_blockstore_reclaimed_bytes_total", Bytes, "Bytes of blocks removed");
    describe_counter!("pinfold_blockstore_copied_bytes_total", Bytes, "Bytes copied by compaction");
    describe_histogram!("pinfold_blockstore_sync_seconds", Seconds, "Time of one sync of a segment");
    describe_gauge!("pinfold_blockstore_blocks", Count, "Blocks held");
    describe_gauge!("pinfold_blockstore_block_bytes", Bytes, "Bytes of the blocks held");
    describe_gauge!("pinfold_blockstore_disk_bytes", Bytes, "Bytes on disk, segments and index");
    describe_gauge!("pinfold_blockstore_capacity_bytes", Bytes, "Bytes that the store may occupy");
}
