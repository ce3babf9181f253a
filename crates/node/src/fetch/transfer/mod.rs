//! Brings one root's DAG into the store: the walk says what is next, the
//! exchange delivers it, blocking threads verify, derive and store.
//!
//! A link goes this way: looked ahead → probed in the store → held, or wanted
//! from the exchange → arrived → derived and put → found by the walk →
//! consumed in pre-order → referenced, and looked for once more. When all are,
//! the root is completed, and durable.
//!
//! One task owns a transfer. It awaits in one place ([`Transfer::run`]); what
//! comes of an event is applied without waiting.

mod flow;
mod jobs;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use pinfold_blockstore::{self as blockstore, Multihash, Store};
use pinfold_core::content::{self, BlockCid, Cid};
use pinfold_core::manifest::Manifest;
use pinfold_core::policy;
use pinfold_core::status::Reason;
use pinfold_node_api::ManifestSummary;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::derive;
use super::exchange::{Exchange, Supply};
use super::report::Reporter;
use super::slots::{Slot, Slots};
use super::walk::{Ahead, Limits, Totals, Walk, WalkError};
use super::workers::Workers;
use crate::denied::Denied;
use flow::Flow;
use jobs::{Arrival, Done, JobError};

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

/// Arrived and not stored bytes, of all transfers together, at which no more
/// are taken from the exchange; it holds its peers back then.
const IN_MEMORY: u64 = 32 << 20;
/// The least of those that one transfer may have: two of the largest blocks.
const LEAST_IN_MEMORY: u64 = 4 << 20;

/// A transfer that gets nothing for so long ends its attempt.
const STALL: Duration = Duration::from_secs(60);

/// A transfer that gets blocks, but never the one that its walk waits for,
/// ends its attempt after so long, and finds other sources.
const HEAD_STALL: Duration = Duration::from_secs(600);

/// The pause before a grant is asked for again that was answered with no more
/// than there was.
const ASK_AGAIN: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(2) };

/// What a running transfer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// Bytes of distinct blocks that may be held.
    pub(crate) granted: u64,
    /// Grows with each answer, whether it allowed more or not.
    pub(crate) answers: u64,
    /// No account has quota left.
    pub(crate) refused: Option<Reason>,
}

/// How a transfer ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every block is held, durably.
    Stored(ManifestSummary),
    /// It can never succeed. Nothing is kept.
    Failed { reason: Reason, detail: String },
    /// No account has quota left. Nothing is kept.
    Refused,
    /// The store is full.
    NoCapacity,
    /// Not everything could be had. What was, is kept.
    Retry { reason: Reason, progressed: bool },
    /// It was told to stop. What was had is kept.
    Cancelled,
    /// The store failed; the sentence is for the log.
    Broken(String),
}

/// What a transfer works with.
pub(crate) struct Setup {
    pub(crate) root: Cid,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) workers: Workers,
    pub(crate) denied: Denied,
    pub(crate) input: watch::Receiver<Input>,
    pub(crate) report: Reporter,
    pub(crate) slots: Slots,
    pub(crate) fairness: i64,
    pub(crate) repair: bool,
    pub(crate) cancel: CancellationToken,
}

type Job = BoxFuture<'static, Result<Done, JobError>>;

/// Runs a transfer to its end.
pub(crate) async fn run<X: Exchange>(setup: Setup, exchange: &mut X) -> Outcome {
    let (store, key) = (setup.store.clone(), content::ContentKey::of(&setup.root));
    let begun = setup.workers.run(move || store.begin(key.as_bytes())).await;
    let held = match begun {
        Ok(held) => Arc::new(Mutex::new(held)),
        Err(error) => return of_store(&error),
    };
    let mut transfer = Transfer::new(setup, exchange, held);
    let outcome = transfer.run().await.unwrap_or_else(|ended| ended);
    transfer.close(outcome).await
}

struct Transfer<'a, X> {
    setup: Setup,
    exchange: &'a mut X,
    walk: Walk,
    manifest: Option<Manifest>,
    held: Arc<Mutex<blockstore::Walk>>,
    flow: Flow,
    jobs: FuturesUnordered<Job>,
    /// Links that are being probed.
    probing: usize,
    /// Wanted from the exchange: the CIDs that the walk waits for, none where
    /// the block only fills a gap in the store.
    wanted: HashMap<Multihash, Vec<BlockCid>>,
    /// Arrived, to be stored.
    arrivals: VecDeque<Arrival>,
    /// Bytes of `arrivals` and of those that are being stored.
    arriving_bytes: u64,
    storing: usize,
    /// Arrived beyond the grant.
    parked: VecDeque<Arrival>,
    parked_bytes: u64,
    /// Consumed, to be referenced in this order.
    unreferenced: Vec<Multihash>,
    referencing: bool,
    reloading: bool,
    slot: Option<Slot>,
    acquiring: Option<BoxFuture<'static, Slot>>,
    reason: Reason,
    progressed: bool,
    /// The exchange has nobody left to ask.
    exhausted: Option<Reason>,
    last_arrival: Instant,
    last_consumed: Instant,
    ask_again: Option<Instant>,
    answers: u64,
}

impl Outcome {
    /// A word for metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Stored(_) => "stored",
            Self::Failed { .. } => "failed",
            Self::Refused => "refused",
            Self::NoCapacity => "no_capacity",
            Self::Retry { .. } => "retry",
            Self::Cancelled => "cancelled",
            Self::Broken(_) => "broken",
        }
    }
}

impl<'a, X: Exchange> Transfer<'a, X> {
    fn new(setup: Setup, exchange: &'a mut X, held: Arc<Mutex<blockstore::Walk>>) -> Self {
        let input = *setup.input.borrow();
        Self {
            walk: Walk::new(&setup.root, setup.limits, derive::inline),
            manifest: None,
            held,
            flow: Flow::new(input.granted),
            jobs: FuturesUnordered::new(),
            probing: 0,
            wanted: HashMap::new(),
            arrivals: VecDeque::new(),
            arriving_bytes: 0,
            storing: 0,
            parked: VecDeque::new(),
            parked_bytes: 0,
            unreferenced: Vec::new(),
            referencing: false,
            reloading: false,
            slot: None,
            acquiring: None,
            reason: Reason::Searching,
            progressed: false,
            exhausted: None,
            last_arrival: Instant::now(),
            last_consumed: Instant::now(),
            ask_again: None,
            answers: input.answers,
            setup,
            exchange,
        }
    }

    /// Waits for the next event and applies it, until there is an outcome.
    async fn run(&mut self) -> Result<Outcome, Outcome> {
        let cancel = self.setup.cancel.clone();
        loop {
            let again = self.advance()?;
            let open = self.in_memory() < self.memory_limit();
            let deadline = self.deadline();
            tokio::select! {
                () = cancel.cancelled() => return Ok(Outcome::Cancelled),
                Some(done) = self.jobs.next() => {
                    if let Some(outcome) = self.on_done(done.map_err(of_job)?)? {
                        return Ok(outcome);
                    }
                }
                supply = self.exchange.next(), if open => self.on_supply(supply)?,
                changed = self.setup.input.changed() => {
                    changed.map_err(|_| Outcome::Cancelled)?;
                    self.on_input()?;
                }
                slot = acquired(&mut self.acquiring) => self.slot = Some(slot),
                () = tokio::task::yield_now(), if again => {}
                () = tokio::time::sleep_until(deadline) => self.on_time()?,
            }
        }
    }

    /// Does everything that needs no waiting. Whether there is more to do at
    /// once.
    fn advance(&mut self) -> Result<bool, Outcome> {
        let again = self.look_ahead().map_err(of_walk)?;
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
    fn look_ahead(&mut self) -> Result<bool, WalkError> {
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

    fn consume(&mut self) -> Result<(), WalkError> {
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
    fn room(&self) -> usize {
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
    fn is_searching(&self) -> bool {
        self.manifest.is_none() && self.walk.totals().blocks == 0 && self.in_memory() == 0
    }

    /// Gets in the queue for a slot when there is something to move, and gives
    /// the slot back when its turn is over and nothing is under way.
    fn take_turns(&mut self) {
        let idle = self.probing == 0 && self.wanted.is_empty() && self.in_memory() == 0;
        if idle && self.slot.as_ref().is_some_and(Slot::should_yield) {
            self.slot = None;
        }
        if self.slot.is_none() && self.acquiring.is_none() && !self.is_searching() {
            let slots = self.setup.slots.clone();
            self.acquiring = Some(Box::pin(slots.acquire(self.setup.fairness, self.setup.repair)));
        }
    }

    fn start_storing(&mut self) {
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
    fn start_referencing(&mut self) {
        if self.referencing || self.unreferenced.is_empty() {
            return;
        }
        let rest = self.unreferenced.split_off(self.unreferenced.len().min(REFERENCE_BATCH));
        let batch = std::mem::replace(&mut self.unreferenced, rest);
        self.referencing = true;
        let (store, held) = (self.setup.store.clone(), self.held.clone());
        self.spawn(move || jobs::reference(&store, &held, &batch));
    }

    fn start_reloading(&mut self, reload: super::walk::Reload) {
        let Some(cid) = content::block_cid(&reload.cid).filter(|_| !self.reloading) else { return };
        self.reloading = true;
        let store = self.setup.store.clone();
        self.spawn(move || jobs::reload(&store, reload, &cid));
    }

    /// Asks for more before the grant is used up.
    fn ask(&mut self) {
        let expected = self.flow.expected(self.probing + self.wanted.len()) + self.in_memory();
        let complete = self.manifest.is_some() || self.walk.is_done();
        let used = self.walk_totals().bytes;
        let covered = complete && used <= self.flow.granted;
        let too_early = self.is_searching() && self.flow.granted > 0;
        if covered || too_early {
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
    fn least(&self) -> u64 {
        let used = self.walk_totals().bytes;
        if let Some(next) = self.parked.front() {
            return used + self.arriving_bytes + next.data.len() as u64;
        }
        let idle =
            self.probing == 0 && self.wanted.is_empty() && self.in_memory() == 0 && self.jobs.is_empty();
        match used.cmp(&self.flow.granted) {
            std::cmp::Ordering::Greater => used,
            std::cmp::Ordering::Equal if idle && !self.walk.is_done() => used + 1,
            _ => 0,
        }
    }

    fn start_completing(&mut self) {
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
        let meta = self.manifest.as_ref().map(|manifest| summary(manifest)).map(super::meta::encode);
        let (held, meta) = (self.held.clone(), meta.unwrap_or_default());
        self.spawn(move || jobs::complete(&held, &meta));
    }

    fn spawn(&mut self, work: impl FnOnce() -> Result<Done, JobError> + Send + 'static) {
        let workers = self.setup.workers.clone();
        self.jobs.push(Box::pin(async move { workers.run(work).await }));
    }

    fn on_done(&mut self, done: Done) -> Result<Option<Outcome>, Outcome> {
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

    fn on_probed(&mut self, held: Vec<(BlockCid, super::walk::Derived)>, missing: Vec<BlockCid>) {
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
    fn fill(&mut self, missing: Vec<Multihash>) {
        let mut new = Vec::new();
        for multihash in missing {
            self.wanted.entry(multihash).or_insert_with(|| {
                new.push(raw(multihash));
                Vec::new()
            });
        }
        self.want(&new);
    }

    fn want(&mut self, cids: &[BlockCid]) {
        if !cids.is_empty() {
            // The time to deliver begins now, not when the last block came.
            if self.wanted.len() == cids.len() {
                self.last_arrival = Instant::now();
            }
            self.exhausted = None;
            self.exchange.want(cids);
        }
    }

    fn on_supply(&mut self, supply: Supply) -> Result<(), Outcome> {
        match supply {
            Supply::Block { cid, data } => self.on_block(&cid, data),
            Supply::Reason(reason) => {
                if self.is_searching() {
                    self.reason = reason;
                }
            }
            Supply::Exhausted(reason) => self.exhausted = Some(reason),
            Supply::TooLarge(cid) => {
                let detail = format!("the block {cid} exceeds the limit of {} bytes", policy::MAX_BLOCK);
                return Err(Outcome::Failed { reason: Reason::InvalidBlock, detail });
            }
        }
        Ok(())
    }

    fn on_block(&mut self, cid: &BlockCid, data: Bytes) {
        let Some(codecs) = self.wanted.remove(cid.hash()) else { return };
        self.last_arrival = Instant::now();
        self.exhausted = None;
        self.progressed = true;
        self.reason = Reason::Retrieving;
        let length = data.len() as u64;
        metrics::counter!("pinfold_fetch_blocks_total").increment(1);
        metrics::counter!("pinfold_fetch_bytes_total").increment(length);
        self.flow.arrived(length);
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

    fn on_input(&mut self) -> Result<(), Outcome> {
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

    fn on_time(&mut self) -> Result<(), Outcome> {
        let now = Instant::now();
        if self.ask_again.is_some_and(|at| at <= now) {
            self.ask_again = None;
            self.flow.ask_again();
        }
        let starving = self.awaits_sources() && self.last_arrival + STALL <= now;
        let headless = !self.wanted.is_empty() && self.last_consumed + HEAD_STALL <= now && self.progressed;
        let overstays = self.slot.as_ref().is_some_and(Slot::overstays);
        if starving || headless || overstays {
            return Err(self.retry(self.reason));
        }
        Ok(())
    }

    /// When [`on_time`](Self::on_time) has to look. Every second is enough for
    /// turns, which nobody tells about.
    fn deadline(&self) -> Instant {
        let mut deadline = Instant::now() + Duration::from_secs(1);
        if self.awaits_sources() {
            deadline = deadline.min(self.last_arrival + STALL);
        }
        self.ask_again.map_or(deadline, |at| at.min(deadline))
    }

    fn awaits_sources(&self) -> bool {
        !self.wanted.is_empty() && self.jobs.is_empty() && self.in_memory() == 0
    }

    fn retry(&self, reason: Reason) -> Outcome {
        Outcome::Retry { reason, progressed: self.progressed }
    }

    fn in_memory(&self) -> u64 {
        self.arriving_bytes + self.parked_bytes
    }

    fn memory_limit(&self) -> u64 {
        (IN_MEMORY / self.setup.slots.moving() as u64).max(LEAST_IN_MEMORY)
    }

    fn walk_totals(&self) -> Totals {
        self.manifest
            .as_ref()
            .map_or_else(|| self.walk.totals(), |done| Totals { blocks: done.blocks, bytes: done.bytes })
    }

    /// Ends the store's walk as the outcome asks. The jobs that run are
    /// awaited first: they hold it too.
    async fn close(mut self, outcome: Outcome) -> Outcome {
        while self.jobs.next().await.is_some() {}
        let keep = !matches!(outcome, Outcome::Failed { .. } | Outcome::Refused);
        let mut waiting = std::mem::take(&mut self.unreferenced);
        waiting.extend(self.walk.waiting());
        let held = self.held.clone();
        drop(self.held);
        let ended = self.setup.workers.run(move || match (keep, Arc::try_unwrap(held)) {
            (true, Ok(_)) if waiting.is_empty() => Ok(()),
            (true, Ok(held)) => held.into_inner().reference(&waiting),
            (false, Ok(held)) => held.into_inner().abandon(),
            (_, Err(_)) => Ok(()),
        });
        match (ended.await, outcome) {
            (Err(error), Outcome::Failed { .. } | Outcome::Refused) => of_store(&error),
            (_, outcome) => outcome,
        }
    }
}

async fn acquired(acquiring: &mut Option<BoxFuture<'static, Slot>>) -> Slot {
    match acquiring {
        Some(slot) => {
            let slot = slot.await;
            *acquiring = None;
            slot
        }
        None => std::future::pending().await,
    }
}

/// A block by its multihash alone.
fn raw(multihash: Multihash) -> BlockCid {
    const RAW: u64 = 0x55;
    BlockCid::new_v1(RAW, multihash)
}

fn summary(manifest: &Manifest) -> ManifestSummary {
    ManifestSummary {
        version: manifest.version,
        root: manifest.root,
        bytes: manifest.bytes,
        blocks: manifest.blocks,
    }
}

fn of_walk(error: WalkError) -> Outcome {
    let reason = match error {
        WalkError::OverLimit { .. } => Reason::OverLimit,
        WalkError::Denied(_) => Reason::Denied,
        WalkError::Digest(_) | WalkError::Inline(_) | WalkError::Manifest { .. } => Reason::InvalidBlock,
    };
    Outcome::Failed { reason, detail: error.to_string() }
}

fn of_job(error: JobError) -> Outcome {
    match error {
        JobError::Invalid { .. } => {
            Outcome::Failed { reason: Reason::InvalidBlock, detail: error.to_string() }
        }
        JobError::Store(error) => of_store(&error),
    }
}

fn of_store(error: &blockstore::Error) -> Outcome {
    match error {
        blockstore::Error::Full { .. } | blockstore::Error::DiskFull { .. } => Outcome::NoCapacity,
        blockstore::Error::Released => Outcome::Cancelled,
        _ => Outcome::Broken(error.to_string()),
    }
}
