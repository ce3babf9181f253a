//! What a transfer makes of an event. Nothing here waits.

use std::time::Duration;

use bytes::Bytes;
use pinfold_blockstore::Multihash;
use pinfold_core::content::{self, BlockCid};
use pinfold_core::status::Reason;
use tokio::time::Instant;

use super::super::exchange::{Exchange, Supply};
use super::super::slots::Slot;
use super::super::walk::Derived;
use super::jobs::{Arrival, Done};
use super::pace::Pace;
use super::{Outcome, Transfer, raw, summary};

/// How often a transfer looks at its turn and its times, of which nobody tells.
const LOOK: Duration = Duration::from_secs(1);

/// The pause before a grant is asked for again that was answered with no more
/// than there was.
const ASK_AGAIN: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(2) };

impl<X: Exchange> Transfer<'_, X> {
    pub(super) fn on_done(&mut self, done: Done) -> Result<Option<Outcome>, Outcome> {
        match done {
            Done::Probed { held, missing } => self.on_probed(held, missing),
            Done::Stored { bytes, blocks, multihashes } => {
                self.storing -= 1;
                self.arriving_bytes -= bytes;
                for (cid, block) in blocks {
                    self.walk.found(&content::of_block_cid(&cid), block);
                }
                let cids: Vec<_> = multihashes.into_iter().map(raw).collect();
                self.exchange.stored(&cids);
            }
            Done::Reloaded(reload, links) => {
                self.reloading = false;
                // Gone since it was found: the next attempt fetches it again.
                self.walk.reloaded(&reload, links.ok_or_else(|| self.retry(self.reason))?);
            }
            Done::Referenced { missing } => {
                self.referencing = false;
                self.fill(missing);
            }
            Done::Incomplete(first) => self.fill(vec![first]),
            Done::Completed => return Ok(self.manifest.as_ref().map(summary).map(Outcome::Stored)),
        }
        Ok(None)
    }

    pub(super) fn on_probed(&mut self, held: Vec<(BlockCid, Derived)>, missing: Vec<BlockCid>) {
        self.probing -= held.len() + missing.len();
        for (cid, block) in held {
            self.walk.found(&content::of_block_cid(&cid), block);
        }
        let mut new = Vec::with_capacity(missing.len());
        for cid in missing {
            let cids = self.wanted.entry(*cid.hash()).or_default();
            if cids.is_empty() {
                new.push(cid);
            }
            cids.push(cid);
        }
        self.want(&new);
    }

    /// Wants blocks that a walk has passed already and the store lost since.
    pub(super) fn fill(&mut self, missing: Vec<Multihash>) {
        let mut new = Vec::new();
        for multihash in missing {
            self.wanted.entry(multihash).or_insert_with(|| {
                new.push(raw(multihash));
                Vec::new()
            });
        }
        self.want(&new);
    }

    pub(super) fn want(&mut self, cids: &[BlockCid]) {
        if !cids.is_empty() {
            // The time to deliver begins now, not when the last block came.
            if self.wanted.len() == cids.len() {
                self.last_arrival = Instant::now();
            }
            self.exhausted = None;
            self.exchange.want(cids);
        }
    }

    pub(super) fn on_supply(&mut self, supply: Supply) {
        match supply {
            Supply::Block { cid, data } => self.on_block(&cid, data),
            Supply::Reason(reason) => {
                if self.is_searching() {
                    self.reason = reason;
                }
            }
            Supply::Exhausted(reason) => self.exhausted = Some(reason),
        }
    }

    pub(super) fn on_block(&mut self, cid: &BlockCid, data: Bytes) {
        let Some(codecs) = self.wanted.remove(cid.hash()) else { return };
        self.last_arrival = Instant::now();
        self.exhausted = None;
        self.progressed = true;
        self.reason = Reason::Retrieving;
        let length = data.len() as u64;
        metrics::counter!("pinfold_fetch_blocks_total").increment(1);
        metrics::counter!("pinfold_fetch_bytes_total").increment(length);
        self.flow.arrived(length);
        self.pace.arrived(length);
        // Bytes of their own: what the walk has passed was granted before.
        let fills_gap = codecs.is_empty();
        let arrival = Arrival { multihash: *cid.hash(), codecs, data };
        if fills_gap || self.walk_totals().bytes + self.arriving_bytes + length <= self.flow.granted {
            self.arriving_bytes += length;
            self.arrivals.push_back(arrival);
        } else {
            self.parked_bytes += length;
            self.parked.push_back(arrival);
        }
    }

    pub(super) fn on_input(&mut self) -> Result<(), Outcome> {
        let input = *self.setup.input.borrow_and_update();
        if input.refused.is_some() {
            return Err(Outcome::Refused);
        }
        if !self.flow.grant(input.granted) && input.answers != self.answers && self.flow.is_asking() {
            self.ask_again = Some(Instant::now() + ASK_AGAIN);
        }
        self.answers = input.answers;
        let used = self.walk_totals().bytes;
        while let Some(next) = self.parked.front() {
            let length = next.data.len() as u64;
            if used + self.arriving_bytes + length > self.flow.granted {
                break;
            }
            self.parked_bytes -= length;
            self.arriving_bytes += length;
            self.arrivals.extend(self.parked.pop_front());
        }
        Ok(())
    }

    pub(super) fn on_time(&mut self) -> Result<(), Outcome> {
        let now = Instant::now();
        if self.ask_again.is_some_and(|at| at <= now) {
            self.ask_again = None;
            self.flow.ask_again();
        }
        let limits = &self.setup.limits;
        let starving = self.awaits_sources() && self.last_arrival + limits.stall <= now;
        let headless =
            !self.wanted.is_empty() && self.last_consumed + limits.head_stall <= now && self.progressed;
        let overstays = self.slot.as_ref().is_some_and(Slot::overstays);
        let is_over = self.began + self.setup.limits.attempt_time <= now;
        self.look_at = now + LOOK;
        if self.is_too_slow(now) {
            // As good as nothing: the pauses between such attempts grow.
            return Err(Outcome::Retry { reason: self.reason, progressed: false });
        }
        if starving || headless || overstays || is_over {
            return Err(self.retry(self.reason));
        }
        Ok(())
    }

    /// Whether its sources are too slow, and nothing else is in the way.
    fn is_too_slow(&mut self, now: Instant) -> bool {
        if self.slot.is_none() || !self.awaits_sources() {
            self.pace = Pace::new(now);
        }
        self.pace.is_too_slow(self.setup.limits.pace_window, now)
    }

    /// When [`on_time`](Self::on_time) has to look, however much arrives before.
    pub(super) fn deadline(&self) -> Instant {
        let limits = &self.setup.limits;
        let mut deadline = self.look_at.min(self.began + limits.attempt_time);
        if self.slot.is_some() {
            deadline = deadline.min(self.pace.due(limits.pace_window));
        }
        if self.awaits_sources() {
            deadline = deadline.min(self.last_arrival + limits.stall);
        }
        self.ask_again.map_or(deadline, |at| at.min(deadline))
    }

    pub(super) fn awaits_sources(&self) -> bool {
        !self.wanted.is_empty() && self.jobs.is_empty() && self.in_memory() == 0
    }
}
