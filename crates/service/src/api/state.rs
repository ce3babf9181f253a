//! What every handler may use.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{address::TrustedProxies, denylist::Denylists, hub::Hub, limits::Limits, peers};
use crate::{
    db::{Database, Node},
    tokens::verifier::Verifier,
};

/// State shared by all requests. Cheap to clone.
pub(crate) type App = Arc<State>;

/// See [`App`].
pub(crate) struct State {
    pub(crate) database: Database,
    pub(crate) verifier: Verifier,
    pub(crate) limits: Arc<Limits>,
    pub(crate) proxies: TrustedProxies,
    pub(crate) denylists: Denylists,
    pub(crate) hub: Hub,
    pub(crate) operator_nodes: HashSet<[u8; 32]>,
    /// What node requests are signed for.
    pub(crate) service_id: String,
    /// What the landing page shows; the address of the request where none.
    pub(crate) public_url: Option<String>,
    /// Told to nodes: whether they may dial private addresses.
    pub(crate) allow_private_addresses: bool,
    pub(crate) access_log: bool,
    /// How long the body of a request may take to arrive.
    pub(crate) body_time: Duration,
    pub(crate) delegates: Delegates,
    /// Ends streams and long polls.
    pub(crate) stopping: CancellationToken,
}

/// The addresses of known nodes, for pins whose record names none.
#[derive(Default)]
pub(crate) struct Delegates(Mutex<Option<(Instant, Arc<[String]>)>>);

/// How old the known addresses may be.
const DELEGATES_AGE: Duration = Duration::from_secs(5);
/// How many nodes stand in.
const MAX_DELEGATES: usize = 3;

impl State {
    /// Addresses of up to three nodes, live ones first; none when no node was
    /// ever known, or the database cannot tell.
    pub(crate) async fn known_delegates(&self) -> Arc<[String]> {
        if let Some((read, known)) = &*self.delegates.0.lock()
            && read.elapsed() < DELEGATES_AGE
        {
            return known.clone();
        }
        let nodes = self.database.nodes().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the nodes' addresses cannot be read");
            Vec::new()
        });
        let known: Arc<[String]> = delegates_of(nodes).into();
        if !known.is_empty() {
            *self.delegates.0.lock() = Some((Instant::now(), known.clone()));
        }
        known
    }
}

fn delegates_of(mut nodes: Vec<Node>) -> Vec<String> {
    nodes.sort_by_key(|node| (!node.live, -node.last_seen));
    let first = |node: Node| {
        let key = node.hello.key;
        node.hello.addresses.into_iter().find(|address| peers::belongs_to(address, &key))
    };
    nodes.into_iter().filter_map(first).take(MAX_DELEGATES).collect()
}
