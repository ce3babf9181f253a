//! The node's side of the node API.
//!
//! Three loops, each a task: *pull* brings assignments and releases, which are
//! noted on disk before the next pull acknowledges them; *report* carries what
//! became of them, at once where it is urgent; *inventory* compares once a day
//! what both sides believe is held. They share one session, which the first to
//! need it opens.
//!
//! A request that fails is tried again, for ever, with growing pauses. A
//! report whose answer was lost is sent again as it was: amounts are totals.
//! Nothing that waits to be sent is durable; it is derived again from the
//! store and the assignments ([`crate::assignments`]).

mod client;
mod outbox;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pinfold_blockstore::Store;
use pinfold_node_api::{
    AllocationId, Denylist, Event, Hello, Inventory, InventoryAck, MAX_ALLOCATIONS, MAX_PULL_WAIT_MS, Pull,
    Pulled, Report, ReportAck, VERSION, path,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::assignments::{self, Assignments};
use crate::denied::Denied;
use crate::fetch::{Command, Manager, Workers};
use crate::identity::Identity;
use client::{CallError, Client, Session};

pub(crate) use outbox::Outbox;

/// The pause after the first failure; each following one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause: a service that comes back is found within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The bounds of the heartbeat, whatever the service asks for: not so often
/// that it is a load, not so rarely that a node is taken for dead.
const HEARTBEAT: std::ops::RangeInclusive<u64> = 500..=60_000;

/// What the agent tells the service about the node in each session.
pub(crate) trait About: Send + Sync + 'static {
    /// Multiaddrs that peers can dial.
    fn addresses(&self) -> Vec<String>;
    /// The base URL of the gateway, if peers can reach it.
    fn gateway(&self) -> Option<String>;
    /// Takes what the service said about private addresses.
    fn allow_private_addresses(&self, allow: bool);
}

/// What the agent works with.
pub(crate) struct Setup {
    pub(crate) service: Url,
    pub(crate) identity: Identity,
    /// Name and version of the software.
    pub(crate) agent: String,
    pub(crate) data: PathBuf,
    pub(crate) about: Arc<dyn About>,
    pub(crate) store: Store,
    pub(crate) assignments: Assignments,
    pub(crate) denied: Denied,
    pub(crate) workers: Workers,
    pub(crate) outbox: Outbox,
    pub(crate) manager: Manager,
    /// How often the inventory is compared, about.
    pub(crate) inventory_every: Duration,
}

/// See the module's description.
pub(crate) struct Agent {
    setup: Setup,
    client: Client,
    /// That of the service's database, which grows when it was restored.
    generation: watch::Sender<i64>,
}

impl Agent {
    /// # Errors
    /// When no HTTP client can be made.
    pub(crate) fn new(setup: Setup) -> Result<Arc<Self>, reqwest::Error> {
        let client = Client::new(setup.service.clone(), setup.identity.clone(), &setup.agent)?;
        Ok(Arc::new(Self { setup, client, generation: watch::Sender::new(0) }))
    }

    /// Starts the loops; they end when `cancel` says so.
    pub(crate) fn start(self: &Arc<Self>, tasks: &TaskTracker, cancel: &CancellationToken) {
        let spawn = |future: futures::future::BoxFuture<'static, ()>| {
            let cancel = cancel.clone();
            tasks.spawn(async move { cancel.run_until_cancelled(future).await });
        };
        let (pull, report, inventory) = (self.clone(), self.clone(), self.clone());
        spawn(Box::pin(async move { pull.pull().await }));
        spawn(Box::pin(async move { report.report().await }));
        spawn(Box::pin(async move { inventory.inventory().await }));
    }

    /// Brings work, notes it, hands it on.
    async fn pull(&self) {
        self.setup.manager.loaded().await;
        let mut acknowledge = VecDeque::new();
        loop {
            let batch: Vec<AllocationId> =
                acknowledge.drain(..acknowledge.len().min(MAX_ALLOCATIONS)).collect();
            // Further acknowledgements are not kept waiting.
            let wait_ms = if acknowledge.is_empty() { MAX_PULL_WAIT_MS } else { 0 };
            let pull = Pull { acknowledged: batch, denylist_version: self.setup.denied.version(), wait_ms };
            let pulled: Pulled = self.insist(path::PULL, encode(&pull), Duration::from_millis(wait_ms)).await;
            let denylist_version = pulled.denylist_version;
            acknowledge.extend(self.note(pulled).await);
            if denylist_version != self.setup.denied.version() {
                self.update_denylist().await;
            }
        }
    }

    /// Notes work on disk. What is returned may be acknowledged: nothing,
    /// where the disk failed, so that it comes again.
    async fn note(&self, pulled: Pulled) -> Vec<AllocationId> {
        let Pulled { assignments, releases, .. } = pulled;
        let assigned = assignments.iter().map(|assignment| assignment.allocation);
        let ids: Vec<_> = assigned.chain(releases.iter().map(|release| release.allocation)).collect();
        if ids.is_empty() {
            return ids;
        }
        let store = self.setup.assignments.clone();
        match self.setup.workers.run(move || store.note(assignments, &releases)).await {
            Ok(records) => {
                self.setup.manager.noted(records).await;
                ids
            }
            Err(error) => {
                tracing::error!(%error, "work from the service cannot be noted; it will come again");
                tokio::time::sleep(LONGEST_PAUSE).await;
                Vec::new()
            }
        }
    }

    async fn update_denylist(&self) {
        let list: Denylist = self.insist(path::DENYLIST, Bytes::new(), Duration::ZERO).await;
        let (denied, data) = (self.setup.denied.clone(), self.setup.data.clone());
        let version = list.version;
        match self.setup.workers.run(move || denied.update(&data, &list)).await {
            Ok(()) => tracing::info!(version, "a new denylist is in force"),
            Err(error) => {
                tracing::error!(%error, "the denylist cannot be saved; it is asked for again");
                tokio::time::sleep(LONGEST_PAUSE).await;
            }
        }
        self.setup.manager.send(Command::Denied).await;
    }

    /// Carries what became of the work.
    async fn report(&self) {
        let mut last = Instant::now();
        let heartbeat = self.heartbeat().await;
        loop {
            let events = self.setup.outbox.batch(last, last + heartbeat).await;
            let usage = self.setup.store.usage();
            let report = Report {
                events: events.clone(),
                used_bytes: usage.disk_bytes,
                capacity_bytes: usage.capacity_bytes,
            };
            let ack = self.insist_on(path::REPORT, encode(&report), |ack: &ReportAck| {
                ack.answers.len() == report.events.len()
            });
            let answers = ack.await.answers;
            last = Instant::now();
            if !events.is_empty() {
                let answered: Vec<(Event, _)> = events.into_iter().zip(answers).collect();
                self.setup.manager.send(Command::Answered(answered)).await;
            }
        }
    }

    async fn heartbeat(&self) -> Duration {
        let session = self.open().await;
        let asked = session.ack.heartbeat_ms;
        Duration::from_millis(asked.clamp(*HEARTBEAT.start(), *HEARTBEAT.end()))
    }

    /// Compares what both sides believe is held, now and then, and at once where
    /// the service's database was restored.
    async fn inventory(&self) {
        let mut generation = self.generation.subscribe();
        loop {
            self.open().await;
            generation.mark_unchanged();
            if let Err(error) = self.compare_held().await {
                tracing::error!(%error, "what is held cannot be listed; the service hears of it next time");
            }
            let pause = self.setup.inventory_every.mul_f64(rand::random_range(0.9..1.1));
            // Its sender is this agent's own: an error cannot come.
            let _ = tokio::time::timeout(pause, generation.changed()).await;
        }
    }

    /// Tells the service what is held, part by part.
    async fn compare_held(&self) -> Result<(), assignments::Error> {
        let mut after = i64::MIN;
        loop {
            let assignments = self.setup.assignments.clone();
            let held = self.setup.workers.run(move || assignments.held_after(after, MAX_ALLOCATIONS)).await?;
            let last = held.last().filter(|_| held.len() == MAX_ALLOCATIONS).map(|id| id.content);
            let ack: InventoryAck =
                self.insist(path::INVENTORY, encode(&Inventory { after, held }), Duration::ZERO).await;
            if !ack.unknown.is_empty() || !ack.missing.is_empty() {
                let (unknown, missing) = (ack.unknown.len(), ack.missing.len());
                tracing::warn!(unknown, missing, "the service's list of what is held here differs");
            }
            let Some(last) = last else { return Ok(()) };
            after = last;
        }
    }

    /// Sends a request until it is answered.
    async fn insist<A: DeserializeOwned>(&self, path: &str, body: Bytes, wait: Duration) -> A {
        self.repeat(path, body, wait, |_| true).await
    }

    /// Sends a request until the answer is as it must be.
    async fn insist_on<A: DeserializeOwned>(
        &self,
        path: &str,
        body: Bytes,
        is_valid: impl Fn(&A) -> bool,
    ) -> A {
        self.repeat(path, body, Duration::ZERO, is_valid).await
    }

    async fn repeat<A: DeserializeOwned>(
        &self,
        path: &str,
        body: Bytes,
        wait: Duration,
        is_valid: impl Fn(&A) -> bool,
    ) -> A {
        let mut failures = Failures::default();
        loop {
            let session = self.open().await;
            metrics::counter!("pinfold_agent_requests_total", "path" => path.to_owned()).increment(1);
            match self.client.call::<A>(&session, path, body.clone(), wait).await {
                Ok(answer) if is_valid(&answer) => return answer,
                Ok(_) => {
                    let error = "it does not fit the request".to_owned();
                    failures.pause(path, &CallError::Malformed { path: path.to_owned(), error }).await;
                }
                Err(error) => failures.pause(path, &error).await,
            }
        }
    }

    /// The open session, however long it takes to open one.
    async fn open(&self) -> Arc<Session> {
        let mut failures = Failures::default();
        loop {
            match self.client.session(|| self.introduce()).await {
                Ok(session) => {
                    let allow = session.ack.allow_private_addresses;
                    self.setup.about.allow_private_addresses(allow);
                    let generation = session.ack.database_generation;
                    self.generation
                        .send_if_modified(|known| std::mem::replace(known, generation) != generation);
                    return session;
                }
                Err(error) => failures.pause(path::HELLO, &error).await,
            }
        }
    }

    fn introduce(&self) -> Hello {
        let usage = self.setup.store.usage();
        Hello {
            version: VERSION,
            sent_at_ms: jiff::Timestamp::now().as_millisecond(),
            addresses: self.setup.about.addresses(),
            gateway: self.setup.about.gateway(),
            capacity_bytes: usage.capacity_bytes,
            used_bytes: usage.disk_bytes,
            agent: self.setup.agent.clone(),
        }
    }
}

fn encode(message: &impl Serialize) -> Bytes {
    serde_json::to_vec(message).expect("the messages always serialise").into()
}

/// Failures of one request.
#[derive(Default)]
struct Failures {
    count: u32,
    logged: String,
}

impl Failures {
    /// Logs what is new, and waits.
    async fn pause(&mut self, path: &str, error: &CallError) {
        let text = error.to_string();
        metrics::counter!("pinfold_agent_failures_total", "path" => path.to_owned()).increment(1);
        if self.logged == text {
            tracing::debug!(path, error = text, "still failing");
        } else {
            tracing::warn!(path, error = text, "a request to the service failed; it is tried again");
            self.logged = text;
        }
        // The first renewal of a session needs no pause.
        let renewed = matches!(error, CallError::Refused { body, .. } if body.error == "old_session");
        if !(renewed && self.count == 0) {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.count.min(16)).min(LONGEST_PAUSE);
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        }
        self.count += 1;
    }
}
