//! Decides what is fetched when, and what becomes of it.
//!
//! One task owns all unfinished contents. It hears of assignments, releases,
//! answers of the service, arriving peers and ended attempts, in one place,
//! and applies them without waiting. What it changes on disk is collected and
//! written before it listens again; everything there can be derived anew after
//! a crash, so that nothing has to be synced.
//!
//! Attempts and releases run as tasks of their own, owned by this one.

mod actor;
mod attempt;
mod expected;
mod job;
mod queue;
mod writes;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use libp2p::PeerId;
use pinfold_blockstore::{RootState, Store};
use pinfold_core::content::{BlockCid, Cid, ContentKey};
use pinfold_node_api::{Answer, Event, ManifestSummary, PeerHint};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::exchange::Exchange;
use super::limits::Limits;
use super::meta;
use super::slots::Slots;
use super::workers::Workers;
use crate::agent::Outbox;
use crate::assignments::{Assignments, Record, State as Noted};
use crate::compare::Compare;
use crate::denied::Denied;
use actor::Actor;

pub use job::Pauses;

/// Commands that wait to be heard; senders wait beyond.
const COMMANDS: usize = 256;

/// What an attempt looks for, and what it knows of where.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub(crate) root: Cid,
    /// Multiaddrs of origins.
    pub(crate) origins: Vec<String>,
    /// Other nodes.
    pub(crate) hints: Vec<PeerHint>,
}

/// The network as fetches use it.
pub(crate) trait Peers: Clone + Send + Sync + 'static {
    /// Delivers blocks.
    type Exchange: Exchange + 'static;
    /// Keeps the connection with a peer while it lives.
    type Guard: Send + 'static;

    /// Opens an exchange; further origins may follow.
    fn open(&self, search: Search, origins: mpsc::Receiver<Vec<String>>) -> Self::Exchange;
    /// Expects a peer to connect, or to stay connected.
    fn expect(&self, peer: PeerId) -> Self::Guard;
    /// Which of these roots a connected peer has. Ends by itself.
    fn ask(&self, peer: PeerId, roots: Vec<BlockCid>) -> impl Future<Output = Vec<BlockCid>> + Send;
    /// Tells the network that a root is held here now.
    fn provide(&self, root: &BlockCid);
    /// The peers that origins name.
    fn peers_of(origins: &[String]) -> Vec<PeerId>;
}

/// What fetches share.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) assignments: Assignments,
    pub(crate) outbox: Outbox,
    pub(crate) denied: Denied,
    pub(crate) compare: Compare,
    pub(crate) workers: Workers,
    pub(crate) slots: Slots,
    pub(crate) limits: Limits,
    pub(crate) pauses: Pauses,
}

/// A record, and the manifest of its root where the store holds that.
pub(crate) struct Examined {
    record: Record,
    manifest: Option<ManifestSummary>,
}

/// What the manager is told.
pub(crate) enum Command {
    /// Assignments and releases that are noted on disk.
    Noted(Vec<Examined>),
    /// What the service made of events.
    Answered(Vec<(Event, Answer)>),
    /// A peer connected.
    Arrived(PeerId),
    /// The denylist has changed.
    Denied,
    /// Blocks of a root are gone.
    Lost(ContentKey, u64),
}

/// The handle in front of the manager.
#[derive(Clone)]
pub(crate) struct Manager {
    commands: mpsc::Sender<Command>,
    context: Arc<Context>,
    loaded: watch::Receiver<bool>,
}

impl Manager {
    /// A manager, and the task that is its life.
    pub(crate) fn new<P: Peers>(
        context: Context,
        peers: P,
        cancel: CancellationToken,
    ) -> (Self, BoxFuture<'static, ()>) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let context = Arc::new(context);
        let actor = Actor::new(context.clone(), peers, cancel);
        let (load, loaded) = watch::channel(false);
        (Self { commands: sender, context, loaded }, Box::pin(actor.run(commands, load)))
    }

    /// Waits until it has taken up what was open before; new work is noted
    /// only then, so that it is not taken up twice.
    pub(crate) async fn loaded(&self) {
        // An error means that it has ended, and nothing comes of new work.
        let _ = self.loaded.clone().wait_for(|loaded| *loaded).await;
    }

    /// Tells it something; waits while it has much to do. False when it has
    /// ended.
    pub(crate) async fn send(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Tells it about records that are noted on disk.
    pub(crate) async fn noted(&self, records: Vec<Record>) -> bool {
        let examined = examine(&self.context, records).await;
        self.send(Command::Noted(examined)).await
    }
}

/// Looks up which of the roots are held.
async fn examine(context: &Arc<Context>, records: Vec<Record>) -> Vec<Examined> {
    let store = context.store.clone();
    let look = move |record: Record| {
        let may_be_held = matches!(record.state, Noted::Open | Noted::Held);
        let info = record.key().filter(|_| may_be_held).and_then(|key| {
            store.root(key.as_bytes()).unwrap_or_else(|error| {
                tracing::error!(root = record.root, %error, "cannot tell whether a root is held");
                None
            })
        });
        let held = info.filter(|info| info.state == RootState::Held);
        let manifest = held.and_then(|info| meta::decode(&info.meta));
        Examined { record, manifest }
    };
    context.workers.run(move || records.into_iter().map(look).collect()).await
}
