//! A running node: what it opens, what it starts, in which order it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use pinfold_blockstore::io::Io;
use pinfold_blockstore::{self as blockstore, Store};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::{self, About, Agent, Outbox};
use crate::assignments::{self, Assignments};
use crate::compare::{self, Compare};
use crate::denied::Denied;
use crate::fetch::{Command, Context, Limits, Manager, Net, Pauses, Slots, Workers};
use crate::gateway::{self, Gateway};
use crate::identity::{self, Identity};
use crate::maintain::{self, Rhythm};
use crate::net::{self, Network};
use crate::serve::Held;
use crate::settings::Settings;

/// How long the tasks may take to end: a store's job in progress, at most.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error("the data folder {folder} cannot be made: {source}")]
    Folder {
        /// Which one.
        folder: String,
        /// Why.
        source: std::io::Error,
    },
    /// The key.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The blocks.
    #[error(transparent)]
    Store(#[from] blockstore::Error),
    /// The assignments.
    #[error(transparent)]
    Assignments(#[from] assignments::Error),
    /// The listeners.
    #[error(transparent)]
    Network(#[from] net::StartError),
    /// The gateway's listener.
    #[error(transparent)]
    Gateway(#[from] gateway::BindError),
    /// The client of the node API.
    #[error("no HTTP client for the service can be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// A running node. It stops when [`shutdown`](Self::shutdown) is called, not
/// when the handle is dropped.
pub struct Node {
    identity: Identity,
    network: Network,
    held: Held,
    gateway: Option<Gateway>,
    introduced: CancellationToken,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Node {
    /// Opens the data folder, binds the listeners and starts every task, on
    /// the current tokio runtime. The service need not be there yet.
    ///
    /// # Errors
    /// When a part of the data folder cannot be opened or is in use, or a
    /// listener cannot be bound. Nothing runs then.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let data = Data::open(&settings, None).await?;
        Self::run(settings, data).await
    }

    /// Starts a node whose blocks lie on `io` instead of in the data folder:
    /// for tests of what a disk can do.
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub async fn start_on(io: Arc<dyn Io>, settings: Settings) -> Result<Self, StartError> {
        let data = Data::open(&settings, Some(io)).await?;
        Self::run(settings, data).await
    }

    /// Binds the listeners and starts every task.
    async fn run(settings: Settings, data: Data) -> Result<Self, StartError> {
        let held = Held::new(data.store.clone(), data.denied.clone());
        let gateway = bind_gateway(&settings, &held).await?;
        let agent_name = settings.network.agent.clone();
        let keypair = data.identity.keypair.clone();
        let network = Network::start(settings.network, keypair, Arc::new(held.clone())).await?;
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let (workers, outbox) = (Workers::new(), Outbox::default());
        // What was open goes on at once, as the service allowed it before.
        let private = Arc::new(AtomicBool::new(data.assignments.allows_private()?));

        let (compare, comparing) = data.compare(&workers, &outbox);
        let context = data.context(&workers, &outbox, compare, settings.limits, settings.pauses);
        let peers =
            Net { network: network.clone(), gateways: settings.http_gateways, private: private.clone() };
        let (manager, life) = Manager::new(context, peers, cancel.clone());
        let introduced = CancellationToken::new();
        let introduction = Introduction {
            network: network.clone(),
            gateway: settings.gateway_url,
            private,
            assignments: data.assignments.clone(),
            introduced: introduced.clone(),
        };
        let agent = Agent::new(agent::Setup {
            service: settings.service,
            identity: data.identity.clone(),
            agent: agent_name,
            data: settings.data,
            about: Arc::new(introduction),
            store: data.store.clone(),
            assignments: data.assignments.clone(),
            denied: data.denied.clone(),
            workers: workers.clone(),
            outbox,
            manager: manager.clone(),
            inventory_every: settings.inventory_every,
        })?;

        tasks.spawn(life);
        let stopping = cancel.clone();
        tasks.spawn(async move {
            stopping.run_until_cancelled_owned(comparing).await;
        });
        tasks.spawn(announce_arrivals(network.clone(), manager.clone(), cancel.clone()));
        let rhythm = Rhythm {
            reclaim_every: settings.reclaim_every,
            scrub_bytes_per_second: settings.scrub_bytes_per_second,
            scrub_pause: settings.scrub_pause,
        };
        maintain::start(&data.store, &data.assignments, &manager, &workers, rhythm, &tasks, &cancel);
        agent.start(&tasks, &cancel);
        network.reprovide(Arc::new(held.clone()));
        Ok(Self { identity: data.identity, network, held, gateway, introduced, tasks, cancel })
    }

    /// Who it is on the network.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.network.peer_id()
    }

    /// Its key, which is also how its service knows it.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The addresses that were bound, each with `/p2p/`.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.network.listen_addresses()
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What it holds and serves.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Where its gateway listens, if it has one.
    #[must_use]
    pub fn gateway_address(&self) -> Option<SocketAddr> {
        self.gateway.as_ref().map(Gateway::address)
    }

    /// Waits until the service has answered this node for the first time.
    pub async fn introduced(&self) {
        self.introduced.cancelled().await;
    }

    /// Stops everything and waits until it has ended, at most for some
    /// seconds; what is durable is so at any moment. Can be called again.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        if let Some(gateway) = &self.gateway {
            gateway.shutdown().await;
        }
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "some tasks of the node did not end in time");
        }
        self.network.shutdown().await;
    }

    /// Waits until the node has been shut down.
    pub async fn join(&self) {
        self.cancel.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What a data folder holds.
struct Data {
    identity: Identity,
    store: Store,
    assignments: Assignments,
    denied: Denied,
}

impl Data {
    async fn open(settings: &Settings, io: Option<Arc<dyn Io>>) -> Result<Self, StartError> {
        let dir = settings.data.clone();
        let options = blockstore::Options {
            capacity_bytes: settings.capacity_bytes,
            reclaim_delay: settings.reclaim_delay,
            ..blockstore::Options::default()
        };
        let open = move || {
            let blocks = dir.join("blocks");
            std::fs::create_dir_all(&blocks)
                .map_err(|source| StartError::Folder { folder: blocks.display().to_string(), source })?;
            // The store's lock keeps a second process out of all of it.
            let store = match io {
                Some(io) => Store::open_on(io, blocks, options)?,
                None => Store::open(blocks, options)?,
            };
            let (assignments, denied) = (Assignments::open(&dir.join("assignments"))?, Denied::load(&dir));
            for root in assignments.denied_roots()? {
                denied.withhold(root, true);
            }
            Ok(Self { identity: Identity::load_or_create(&dir)?, store, assignments, denied })
        };
        match tokio::task::spawn_blocking(open).await {
            Ok(data) => data,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// What compares held blocks with the denylist, and the task behind it.
    fn compare(
        &self,
        workers: &Workers,
        outbox: &Outbox,
    ) -> (Compare, impl Future<Output = ()> + Send + use<>) {
        Compare::new(compare::Setup {
            store: self.store.clone(),
            assignments: self.assignments.clone(),
            denied: self.denied.clone(),
            outbox: outbox.clone(),
            workers: workers.clone(),
        })
    }

    /// What fetches share.
    fn context(
        &self,
        workers: &Workers,
        outbox: &Outbox,
        compare: Compare,
        limits: Limits,
        pauses: Pauses,
    ) -> Context {
        Context {
            store: self.store.clone(),
            assignments: self.assignments.clone(),
            outbox: outbox.clone(),
            denied: self.denied.clone(),
            compare,
            workers: workers.clone(),
            slots: Slots::new(),
            limits,
            pauses,
        }
    }
}

async fn bind_gateway(settings: &Settings, held: &Held) -> Result<Option<Gateway>, gateway::BindError> {
    let Some(address) = settings.gateway else { return Ok(None) };
    let settings = gateway::Settings { address, domain: settings.gateway_domain.clone() };
    Gateway::bind(settings, held.clone()).await.map(Some)
}

/// What the service is told about this node.
struct Introduction {
    network: Network,
    gateway: Option<String>,
    private: Arc<AtomicBool>,
    assignments: Assignments,
    introduced: CancellationToken,
}

impl About for Introduction {
    fn addresses(&self) -> Vec<String> {
        self.network.announced().iter().map(ToString::to_string).collect()
    }

    fn gateway(&self) -> Option<String> {
        self.gateway.clone()
    }

    fn allow_private_addresses(&self, allow: bool) {
        // Seldom, and a few bytes.
        if self.private.swap(allow, Ordering::Relaxed) != allow
            && let Err(error) = self.assignments.set_allows_private(allow)
        {
            tracing::warn!(%error, "the next start waits for the service before it dials private addresses");
        }
        self.network.allow_private_addresses(allow);
        self.introduced.cancel();
    }
}

/// Tells the manager who connects.
async fn announce_arrivals(network: Network, manager: Manager, cancel: CancellationToken) {
    let mut arrivals = network.arrivals();
    let announce = async {
        loop {
            match arrivals.recv().await {
                Ok(peer) => {
                    if !manager.send(Command::Arrived(peer)).await {
                        return;
                    }
                }
                // Whoever was missed is asked when its content's time comes.
                Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "many peers connect at once"),
                Err(RecvError::Closed) => return,
            }
        }
    };
    cancel.run_until_cancelled(announce).await;
}
