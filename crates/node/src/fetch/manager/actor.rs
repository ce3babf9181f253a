//! The task behind the manager's handle.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libp2p::PeerId;
use pinfold_core::content::{self, BlockCid, ContentKey};
use pinfold_core::policy::{self, RootError};
use pinfold_core::status::Reason;
use pinfold_node_api::{AllocationId, Answer, Event, EventKind, ManifestSummary};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::transfer::{Input, Outcome};
use super::super::until;
use super::attempt::{Attempt, let_go};
use super::expected::Expected;
use super::job::{Job, Running, State, Then};
use super::queue::Queue;
use super::writes::{Write, Writes};
use super::{Command, Context, Examined, Peers, examine};
use crate::assignments::{Assignments, Record, State as Noted};

/// Records read at a time when the node starts.
const PAGE: usize = 1_024;

/// Contents that a newly connected peer is asked about.
const MAX_ASKED: usize = 256;
/// Newly connected peers that are asked at a time.
const MAX_ASKING: usize = 4;

/// What a task of the manager has to say when it ends.
pub(super) enum Ended {
    Attempt(i64, Outcome),
    /// Its root is kept where another content has the same.
    Released {
        record: Box<Record>,
        is_kept: bool,
    },
    Asked(Vec<BlockCid>, HashMap<BlockCid, i64>),
    /// The node is being shut down.
    Stopped,
}

pub(super) struct Actor<P: Peers> {
    context: Arc<Context>,
    network: P,
    cancel: CancellationToken,
    jobs: HashMap<i64, Job<PeerId>>,
    queue: Queue,
    /// When waiting contents are tried again.
    timers: BTreeSet<(Instant, i64)>,
    expected: Expected<PeerId, P::Guard>,
    asking: usize,
    tasks: JoinSet<Ended>,
    /// Contents that are being let go, and what has been assigned meanwhile.
    releasing: HashMap<i64, Option<Examined>>,
    writes: Writes,
}

impl<P: Peers> Actor<P> {
    pub(super) fn new(context: Arc<Context>, network: P, cancel: CancellationToken) -> Self {
        Self {
            context,
            network,
            cancel,
            jobs: HashMap::new(),
            queue: Queue::default(),
            timers: BTreeSet::new(),
            expected: Expected::new(),
            asking: 0,
            tasks: JoinSet::new(),
            releasing: HashMap::new(),
            writes: Writes::default(),
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, loaded: watch::Sender<bool>) {
        self.load().await;
        loaded.send_replace(true);
        let cancel = self.cancel.clone();
        loop {
            self.start_attempts();
            self.writes.carry_out(&self.context).await;
            self.measure();
            let next = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(command) = commands.recv() => self.on_command(command),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(ended) => self.on_ended(ended),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = until(next) => self.on_time(),
            }
        }
        // What was answered is noted, so that it is not told again.
        commands.close();
        while let Ok(command) = commands.try_recv() {
            self.on_command(command);
        }
        self.writes.carry_out(&self.context).await;
        // Attempts are told to stop by the same token, and keep what they have.
        while self.tasks.join_next().await.is_some() {}
    }

    fn measure(&self) {
        metrics::gauge!("pinfold_fetch_open_contents").set(self.jobs.len() as f64);
        metrics::gauge!("pinfold_fetch_waiting_contents").set(self.timers.len() as f64);
        metrics::gauge!("pinfold_fetch_running_attempts").set(self.queue.running() as f64);
    }

    /// Takes up what was open when the node stopped.
    async fn load(&mut self) {
        let mut after = None;
        loop {
            let assignments = self.context.assignments.clone();
            let read = self.context.workers.run(move || assignments.open_after(after, PAGE)).await;
            let records = match read {
                Ok(records) => records,
                Err(error) => {
                    tracing::error!(%error, "cannot take up the open assignments");
                    return;
                }
            };
            let Some(last) = records.last() else { return };
            after = Some(last.content);
            for examined in examine(&self.context, records).await {
                self.on_record(examined);
            }
            self.writes.carry_out(&self.context).await;
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Noted(records) => records.into_iter().for_each(|record| self.on_record(record)),
            Command::Answered(answers) => {
                answers.into_iter().for_each(|(event, answer)| self.on_answer(event, answer));
            }
            Command::Arrived(peer) => self.on_arrival(peer),
            Command::Denied => self.on_denied(),
            Command::Lost(key, blocks) => self.on_lost(&key, blocks),
        }
    }

    fn on_record(&mut self, examined: Examined) {
        let content = examined.record.content;
        if let Some(then) = self.releasing.get_mut(&content) {
            // Its old generation is being let go; this one begins afterwards.
            *then = Some(examined);
            return;
        }
        let Examined { record, manifest } = examined;
        let id = record.allocation();
        match (&record.state, manifest) {
            (Noted::Releasing, _) => self.release(record),
            (Noted::Failed { reason, detail }, _) => {
                self.tell_failed(id, *reason, detail.clone());
            }
            (Noted::Open | Noted::Held, Some(manifest)) if !self.jobs.contains_key(&content) => {
                self.stored(id, manifest);
            }
            (Noted::Held, None) => {
                self.writes.push(Write::State(id, Noted::Lost));
                self.assign(&Record { state: Noted::Lost, ..record });
            }
            (Noted::Open | Noted::Held | Noted::Lost, _) => self.assign(&record),
            (Noted::Stopped, _) => {}
        }
    }

    /// Begins a fetch, or tells a running one what is new.
    fn assign(&mut self, record: &Record) {
        let id = record.allocation();
        let lost = record.state == Noted::Lost;
        if let Err((reason, detail)) = check_root(record) {
            return self.failed(id, reason, detail);
        }
        let peers: Box<[_]> = P::peers_of(&record.origins).into();
        for peer in &peers {
            let network = &self.network;
            self.expected.add(*peer, record.content, || network.expect(*peer));
        }
        let Some(job) = self.jobs.get_mut(&record.content) else {
            let job = Job::new(record, lost, peers);
            self.queue.push(job.class(false), job.fairness, record.content);
            self.jobs.insert(record.content, job);
            return;
        };
        let gone: Vec<_> = job.peers.iter().filter(|peer| !peers.contains(peer)).copied().collect();
        self.expected.remove(record.content, &gone);
        let job = self.jobs.get_mut(&record.content).expect("found above");
        job.generation.store(record.generation, Ordering::Relaxed);
        (job.fairness, job.peers) = (record.fairness, peers);
        job.repair |= record.repair;
        job.granted = job.granted.max(record.granted_bytes);
        job.vain = 0;
        let granted = job.granted;
        if let Some(running) = job.running() {
            if running.then == Then::Stop {
                running.then = Then::Again;
            }
            running.tell(|input| input.granted = input.granted.max(granted));
            // A full channel holds origins enough for this attempt.
            let _ = running.origins.try_send(record.origins.clone());
            return;
        }
        self.hurry(record.content, false);
    }

    /// Tries a waiting content now.
    fn hurry(&mut self, content: i64, arrived: bool) {
        let Some(job) = self.jobs.get_mut(&content) else { return };
        match job.state {
            State::Running(_) => return,
            // It is in the queue, and once more in front at most.
            State::Queued if !arrived || job.arrived => return,
            State::Queued => {}
            State::Waiting(at) => {
                self.timers.remove(&(at, content));
                job.state = State::Queued;
            }
        }
        job.arrived |= arrived;
        self.queue.push(job.class(arrived), job.fairness, content);
    }

    fn start_attempts(&mut self) {
        while let Some(content) =
            self.queue.pop(|content| self.jobs.get(&content).is_some_and(Job::is_queued))
        {
            self.start_attempt(content);
        }
    }

    fn start_attempt(&mut self, content: i64) {
        let Some(job) = self.jobs.get_mut(&content) else { return };
        job.attempts = job.attempts.saturating_add(1);
        job.vain = job.vain.saturating_add(1);
        job.arrived = false;
        let start = Input { granted: job.granted, ..Input::default() };
        let ((input, told), (origins, more_origins)) = (watch::channel(start), mpsc::channel(4));
        let running = Running {
            cancel: self.cancel.child_token(),
            input,
            origins,
            fairness: job.fairness,
            then: Then::Nothing,
        };
        let attempt = Attempt {
            content,
            context: self.context.clone(),
            input: told,
            origins: more_origins,
            report: job.reporter(&self.context.outbox, content),
            fairness: job.fairness,
            repair: job.repair,
            cancel: running.cancel.clone(),
        };
        self.queue.begin(job.fairness);
        job.state = State::Running(running);
        self.tasks.spawn(attempt.run(self.network.clone()));
    }

    fn on_ended(&mut self, ended: Ended) {
        match ended {
            Ended::Attempt(content, outcome) => self.on_attempt(content, outcome),
            Ended::Released { record, is_kept } => self.on_released(&record, is_kept),
            Ended::Stopped => {}
            Ended::Asked(have, contents) => {
                self.asking -= 1;
                for cid in have {
                    contents.get(&cid).into_iter().for_each(|content| self.hurry(*content, true));
                }
            }
        }
    }

    fn on_attempt(&mut self, content: i64, outcome: Outcome) {
        metrics::counter!("pinfold_fetch_attempts_total", "outcome" => outcome.as_str()).increment(1);
        let Some(job) = self.jobs.get_mut(&content) else { return };
        let State::Running(running) = std::mem::replace(&mut job.state, State::Queued) else { return };
        self.queue.end(running.fairness);
        job.granted = running.input.borrow().granted;
        let id = job.allocation(content);
        match (running.then, outcome) {
            (Then::Release(record), _) => {
                self.drop_job(content);
                self.release(*record);
            }
            (Then::Stop, _) => self.stop(id),
            (_, Outcome::Stored(manifest)) => {
                self.drop_job(content);
                self.stored(id, manifest);
            }
            (_, Outcome::Failed { reason, detail }) => {
                self.drop_job(content);
                self.failed(id, reason, detail);
            }
            (_, Outcome::Refused) => {
                self.drop_job(content);
                self.context.outbox.forget(id);
                self.writes.push(Write::Remove(id));
            }
            (Then::Again, _) => self.queue.push(job.class(true), job.fairness, content),
            (Then::Nothing, outcome) => self.pause(content, id, outcome),
        }
    }

    /// Puts off a content that could not be fetched now.
    fn pause(&mut self, content: i64, id: AllocationId, outcome: Outcome) {
        let Some(job) = self.jobs.get_mut(&content) else { return };
        let pauses = self.context.pauses;
        let (pause, reason) = match outcome {
            Outcome::Retry { reason, progressed } => {
                job.vain = if progressed { 1 } else { job.vain };
                (pauses.after(job.vain), reason)
            }
            Outcome::NoCapacity => {
                self.context.outbox.tell(id, EventKind::NoCapacity);
                (pauses.full, Reason::NoCapacity)
            }
            Outcome::Broken(error) => {
                tracing::error!(content, error, "a fetch was given up for now");
                (pauses.after(job.vain.max(3)), Reason::Searching)
            }
            // Cancelled, by the node's end; the others are not put off.
            _ => (pauses.first, Reason::Searching),
        };
        let at = Instant::now() + pause;
        job.state = State::Waiting(at);
        self.timers.insert((at, content));
        if reason != Reason::NoCapacity {
            let report = job.reporter(&self.context.outbox, content);
            report.waits(reason, now_ms() + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX / 2));
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        while let Some(&(at, content)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, content));
            if let Some(job) = self.jobs.get_mut(&content) {
                job.state = State::Queued;
                self.queue.push(job.class(false), job.fairness, content);
            }
        }
    }

    fn stored(&mut self, id: AllocationId, manifest: ManifestSummary) {
        self.writes.push(Write::State(id, Noted::Held));
        self.context.outbox.tell(id, EventKind::Stored { manifest });
    }

    fn failed(&mut self, id: AllocationId, reason: Reason, detail: String) {
        tracing::info!(content = id.content, ?reason, detail, "a content can never be held");
        self.drop_job(id.content);
        self.writes.push(Write::State(id, Noted::Failed { reason, detail: detail.clone() }));
        self.tell_failed(id, reason, detail);
    }

    fn tell_failed(&self, id: AllocationId, reason: Reason, detail: String) {
        self.context.outbox.tell(id, EventKind::Failed { reason, detail });
    }

    /// The service does not know the allocation: nothing is done about it, and
    /// nothing deleted, before a release says so.
    fn stop(&mut self, id: AllocationId) {
        self.drop_job(id.content);
        self.context.outbox.forget(id);
        self.writes.push(Write::State(id, Noted::Stopped));
    }

    fn drop_job(&mut self, content: i64) {
        let Some(job) = self.jobs.remove(&content) else { return };
        self.expected.remove(content, &job.peers);
        if let State::Waiting(at) = job.state {
            self.timers.remove(&(at, content));
        }
    }

    fn release(&mut self, record: Record) {
        let content = record.content;
        // Whatever is assigned from here on waits until it is gone.
        self.releasing.entry(content).or_default();
        if let Some(running) = self.jobs.get_mut(&content).and_then(Job::running) {
            return running.stop(Then::Release(Box::new(record)));
        }
        self.drop_job(content);
        self.context.outbox.forget(record.allocation());
        self.tasks.spawn(let_go(self.context.clone(), record, self.cancel.clone()));
    }

    fn on_released(&mut self, record: &Record, is_kept: bool) {
        self.context.outbox.tell(record.allocation(), EventKind::Released);
        if let Some(root) = record.key().filter(|_| !is_kept) {
            self.context.denied.withhold(root, false);
        }
        if let Some(Some(next)) = self.releasing.remove(&record.content) {
            self.on_record(next);
        }
    }

    fn on_answer(&mut self, event: Event, answer: Answer) {
        let Event { allocation: id, kind } = event;
        match (kind, answer) {
            (EventKind::Released | EventKind::Failed { .. }, _) => self.writes.push(Write::Remove(id)),
            (EventKind::Stored { .. }, Answer::Stale) => self.stop_current(id),
            (EventKind::Stored { .. }, _) => self.writes.push(Write::Settle(id)),
            (_, Answer::Stale) => self.stop_current(id),
            (EventKind::Compared { denylist, denied }, _) => {
                self.writes.push(Write::Compared(id, denylist, denied));
            }
            (_, Answer::Granted { bytes }) => self.answer_running(id, |input| {
                input.granted = input.granted.max(bytes);
            }),
            (_, Answer::Refused { reason }) => self.answer_running(id, |input| {
                input.refused = Some(reason);
            }),
            (_, Answer::Noted) => {}
        }
    }

    fn answer_running(&mut self, id: AllocationId, change: impl FnOnce(&mut Input)) {
        let job = self.jobs.get_mut(&id.content).filter(|job| job.allocation(id.content) == id);
        if let Some(running) = job.and_then(Job::running) {
            running.tell(change);
        }
    }

    /// Stops an allocation, unless it has been replaced by a newer one since.
    fn stop_current(&mut self, id: AllocationId) {
        if self.releasing.contains_key(&id.content) {
            return;
        }
        match self.jobs.get_mut(&id.content) {
            Some(job) if job.allocation(id.content) != id => {}
            Some(job) => match job.running() {
                Some(running) => running.stop(Then::Stop),
                None => self.stop(id),
            },
            None => self.stop(id),
        }
    }

    fn on_arrival(&mut self, peer: PeerId) {
        let named = self.expected.contents(&peer);
        named.iter().for_each(|content| self.hurry(*content, true));
        self.ask(peer, &named.into_iter().collect());
    }

    /// Asks a newly connected peer about contents that wait for a source.
    fn ask(&mut self, peer: PeerId, named: &HashSet<i64>) {
        if self.asking >= MAX_ASKING {
            return;
        }
        let waiting =
            self.timers.iter().map(|(_, content)| *content).filter(|content| !named.contains(content));
        let contents: Vec<_> = waiting.take(MAX_ASKED).collect();
        if contents.is_empty() {
            return;
        }
        self.asking += 1;
        let (context, network) = (self.context.clone(), self.network.clone());
        let asked = async move {
            let assignments = context.assignments.clone();
            let roots: HashMap<_, _> = context.workers.run(move || roots_of(&assignments, &contents)).await;
            let have = network.ask(peer, roots.keys().copied().collect()).await;
            Ended::Asked(have, roots)
        };
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move { cancel.run_until_cancelled(asked).await.unwrap_or(Ended::Stopped) });
    }

    /// New rules hold for what was walked already, too.
    fn on_denied(&mut self) {
        self.context.compare.all();
        for running in self.jobs.values_mut().filter_map(Job::running) {
            running.stop(Then::Again);
        }
    }

    fn on_lost(&mut self, key: &ContentKey, blocks: u64) {
        let record = match self.context.assignments.by_root(key.as_bytes()) {
            Ok(Some(record)) if record.state == Noted::Held => record,
            Ok(_) => return,
            Err(error) => return tracing::error!(%error, root = %key, "cannot tell whose blocks were lost"),
        };
        tracing::warn!(root = %key, blocks, "blocks were lost and are fetched again");
        let record = Record { state: Noted::Lost, repair: true, ..record };
        self.writes.push(Write::State(record.allocation(), Noted::Lost));
        self.context.outbox.tell(record.allocation(), EventKind::Lost { blocks });
        self.assign(&record);
    }
}

/// The root of each content that still exists.
fn roots_of(assignments: &Assignments, contents: &[i64]) -> HashMap<BlockCid, i64> {
    let root = |content: &i64| {
        let key = assignments.get(*content).ok()??.key()?;
        Some((content::block_cid(&key.to_cid())?, *content))
    };
    contents.iter().filter_map(root).collect()
}

/// Whether a root can be fetched at all.
fn check_root(record: &Record) -> Result<(), (Reason, String)> {
    let cid = content::parse(&record.root).map_err(|error| (Reason::InvalidBlock, error.to_string()))?;
    policy::check_root(&cid).map(drop).map_err(|error| {
        let reason = match error {
            RootError::Codec(_) => Reason::UnsupportedCodec,
            RootError::Policy(_) | RootError::Inline(_) => Reason::InvalidBlock,
        };
        (reason, error.to_string())
    })
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
