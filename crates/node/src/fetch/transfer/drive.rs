//! What a transfer does without waiting: whatever can be begun is begun.

use std::cmp::Ordering;

use pinfold_core::content;
use tokio::time::Instant;

use super::super::derive;
use super::super::exchange::Exchange;
use super::super::slots::Slot;
use super::super::walk::{Ahead, Reload, Totals, Walk, WalkError};
use super::jobs::{self, Done, JobError};
use super::{Outcome, Transfer, of_walk, summary};

/// Links probed by one job: few enough that both processors get some.
const PROBE_BATCH: usize = 32;

/// What one job stores at most, in blocks and in bytes, so that the walk gets
/// on while the rest arrives.
const STORE_BATCH: usize = 256;
const STORE_BATCH_BYTES: usize = 4 << 20;

/// Jobs that store at the same time: one computes while one writes.
const STORE_JOBS: usize = 2;

/// References taken by one job.
const REFERENCE_BATCH: usize = 4_096;

impl<X: Exchange> Transfer<'_, X> {
    /// Does everything that needs no waiting. Whether there is more to do at
    /// once.
    pub(super) fn advance(&mut self) -> Result<bool, Outcome> {
        let again = self.look_ahead().map_err(|error| of_walk(&error))?;
        self.take_turns();
        self.start_storing();
        self.start_referencing();
        self.ask();
        self.start_completing();
        if let Some(reason) = self.exhausted.filter(|_| self.awaits_sources()) {
            return Err(self.retry(reason));
        }
        let Totals { blocks, bytes } = self.walk_totals();
        self.setup.report.progress(blocks, bytes, self.reason);
        Ok(again)
    }

    /// Consumes what is known and looks up what is next, in turns, because
    /// identity CIDs are both at once.
    pub(super) fn look_ahead(&mut self) -> Result<bool, WalkError> {
        if self.manifest.is_some() {
            return Ok(false);
        }
        let mut links = Vec::new();
        let denied = self.setup.denied.clone();
        let again = loop {
            self.consume()?;
            let room = self.room().saturating_sub(links.len());
            let max = links.len() + room;
            let ahead = self.walk.look_ahead(max, &|cid| denied.is_denied(cid), &mut links)?;
            if self.walk.can_consume() {
                continue;
            }
            break match ahead {
                Ahead::Wait => false,
                Ahead::Again => true,
                Ahead::Reload(reload) => {
                    self.start_reloading(reload);
                    false
                }
            };
        };
        self.probing += links.len();
        for batch in links.chunks(PROBE_BATCH) {
            let (store, batch) = (self.setup.store.clone(), batch.to_vec());
            self.spawn(move || jobs::probe(&store, batch));
        }
        Ok(again)
    }

    pub(super) fn consume(&mut self) -> Result<(), WalkError> {
        self.walk.consume()?;
        let consumed = self.walk.take_consumed();
        if !consumed.is_empty() {
            self.last_consumed = Instant::now();
            self.unreferenced.extend(consumed);
        }
        Ok(())
    }

    /// How many links may be looked up. Without a slot the root alone: looking
    /// for it is cheap, and tells whether a slot is of use.
    pub(super) fn room(&self) -> usize {
        let under_way = self.probing + self.wanted.len();
        match &self.slot {
            Some(slot) if slot.should_yield() => 0,
            Some(_) => {
                let moving = self.setup.slots.moving();
                self.flow.room(under_way, self.in_memory(), self.walk.totals().bytes, moving)
            }
            None => usize::from(under_way == 0 && self.is_searching()),
        }
    }

    /// Whether not even the root is known.
    pub(super) fn is_searching(&self) -> bool {
        self.manifest.is_none() && self.walk.totals().blocks == 0 && self.in_memory() == 0
    }

    /// Gets in the queue for a slot when there is something to move, and gives
    /// the slot back when its turn is over and nothing is under way.
    pub(super) fn take_turns(&mut self) {
        let idle = self.probing == 0 && self.wanted.is_empty() && self.in_memory() == 0;
        if idle && self.slot.as_ref().is_some_and(Slot::should_yield) {
            self.slot = None;
        }
        if self.slot.is_none() && self.acquiring.is_none() && !self.is_searching() {
            let slots = self.setup.slots.clone();
            self.acquiring = Some(Box::pin(slots.acquire(self.setup.fairness, self.setup.repair)));
        }
    }

    pub(super) fn start_storing(&mut self) {
        while self.storing < STORE_JOBS && !self.arrivals.is_empty() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(arrival) = self.arrivals.pop_front() {
                bytes += arrival.data.len();
                batch.push(arrival);
                if batch.len() >= STORE_BATCH || bytes >= STORE_BATCH_BYTES {
                    break;
                }
            }
            self.storing += 1;
            let store = self.setup.store.clone();
            self.spawn(move || jobs::store(&store, batch));
        }
    }

    /// One job at a time, because the list is in the order of the walk.
    pub(super) fn start_referencing(&mut self) {
        if self.referencing || self.unreferenced.is_empty() {
            return;
        }
        let rest = self.unreferenced.split_off(self.unreferenced.len().min(REFERENCE_BATCH));
        let batch = std::mem::replace(&mut self.unreferenced, rest);
        self.referencing = true;
        let (store, held) = (self.setup.store.clone(), self.held.clone());
        self.spawn(move || jobs::reference(&store, &held, &batch));
    }

    pub(super) fn start_reloading(&mut self, reload: Reload) {
        let Some(cid) = content::block_cid(&reload.cid).filter(|_| !self.reloading) else { return };
        self.reloading = true;
        let store = self.setup.store.clone();
        self.spawn(move || jobs::reload(&store, reload, &cid));
    }

    /// Asks for more before the grant is used up. What nobody may have is not
    /// worth a reservation: an account's quota would be tied up by searches.
    pub(super) fn ask(&mut self) {
        let expected = self.flow.expected(self.probing + self.wanted.len()) + self.in_memory();
        let complete = self.manifest.is_some() || self.walk.is_done();
        let used = self.walk_totals().bytes;
        let covered = complete && used <= self.flow.granted;
        if covered || self.is_searching() {
            return;
        }
        let least = self.least();
        if least > self.flow.granted && self.ask_again.take().is_some() {
            self.flow.ask_again();
        }
        if let Some(total) = self.flow.ask(expected, used) {
            self.setup.report.want_grant(total.max(least), least);
        }
    }

    /// The total of bytes without which nothing moves any more; 0 while
    /// something does.
    pub(super) fn least(&self) -> u64 {
        let used = self.walk_totals().bytes;
        if let Some(next) = self.parked.front() {
            return used + self.arriving_bytes + next.data.len() as u64;
        }
        let idle =
            self.probing == 0 && self.wanted.is_empty() && self.in_memory() == 0 && self.jobs.is_empty();
        match used.cmp(&self.flow.granted) {
            Ordering::Greater => used,
            Ordering::Equal if idle && !self.walk.is_done() => used + 1,
            _ => 0,
        }
    }

    pub(super) fn start_completing(&mut self) {
        let idle = self.jobs.is_empty() && self.wanted.is_empty() && self.in_memory() == 0;
        if !idle || !self.unreferenced.is_empty() || self.walk_totals().bytes > self.flow.granted {
            return;
        }
        if self.manifest.is_none() {
            if !self.walk.is_done() {
                return;
            }
            let spent = Walk::new(&self.setup.root, self.setup.limits, derive::inline);
            self.manifest = Some(std::mem::replace(&mut self.walk, spent).finish());
        }
        let meta = self.manifest.as_ref().map(summary).map(super::super::meta::encode);
        let (held, meta) = (self.held.clone(), meta.unwrap_or_default());
        self.spawn(move || jobs::complete(&held, &meta));
    }

    pub(super) fn spawn(&mut self, work: impl FnOnce() -> Result<Done, JobError> + Send + 'static) {
        let workers = self.setup.workers.clone();
        self.jobs.push(Box::pin(async move { workers.run(work).await }));
    }
}
