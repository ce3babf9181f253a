//! The running service: what it is started with, and the tasks that it owns.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use data_encoding::HEXLOWER;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    address::TrustedProxies,
    denylist::{DenylistError, Denylists, Watcher},
    hub::Hub,
    instances::{HEARTBEAT, Instance},
    jobs,
    limits::{Limits, RateLimits},
    listener::{Listener, Terms, Timeouts},
    monitor, router,
    state::{App, State},
    tls::{self, Tls, TlsError},
};
use crate::{
    db::{self, Database},
    tokens::{Keyring, verifier::Verifier},
};

/// What the HTTP side of a service is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API listens; port 0 takes any free one.
    pub api: SocketAddr,
    /// How the API's listener speaks TLS, if it does.
    pub tls: Option<Tls>,
    /// Where the node API is answered without TLS too: a loopback address, for
    /// a node in this process. Port 0 takes any free one.
    pub node_api: Option<SocketAddr>,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// Where metrics are shown, if they are.
    pub metrics: Option<SocketAddr>,
    /// The endpoint as clients reach it, shown on the landing page.
    pub public_url: Option<String>,
    /// Proxies whose headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// Rates beyond which requests are refused, of all services on the database
    /// together; none: no limits.
    pub rate_limits: Option<RateLimits>,
    /// How often a service with rate limits says that it lives, so that the
    /// others give a smaller share. Far below the 20 s after which it counts no
    /// more.
    pub heartbeat: Duration,
    /// Ed25519 keys of the operator's own nodes: no others may speak the node
    /// API.
    pub operator_nodes: Vec<[u8; 32]>,
    /// Told to nodes: whether private addresses may be dialled for pins.
    pub allow_private_addresses: bool,
    /// A file of rules in the compact denylist format, beside those in the
    /// database.
    pub denylist: Option<PathBuf>,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Whether this process runs the service's own jobs. One process at least
    /// of those on a database must.
    pub run_jobs: bool,
}

impl Settings {
    /// Defaults, for an API at this address.
    #[must_use]
    pub fn new(api: SocketAddr) -> Self {
        Self {
            api,
            tls: None,
            node_api: None,
            timeouts: Timeouts::default(),
            metrics: None,
            public_url: None,
            trusted_proxies: TrustedProxies::default(),
            rate_limits: Some(RateLimits::default()),
            heartbeat: HEARTBEAT,
            operator_nodes: Vec::new(),
            allow_private_addresses: false,
            denylist: None,
            access_log: true,
            run_jobs: true,
        }
    }
}

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is it in use? choose another with {flag}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The process has a metrics recorder of somebody else's.
    #[error("metrics cannot be shown: the process has another recorder already")]
    Recorder,
    /// The certificate cannot be used.
    #[error("the API cannot speak TLS: {0}")]
    Tls(#[from] TlsError),
    /// The denylist cannot be used.
    #[error(transparent)]
    Denylist(#[from] DenylistError),
    /// The database failed.
    #[error("the service cannot start: {0}")]
    Database(#[from] db::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// How long running requests may take to end at shutdown. Long polls and
/// streams are ended at once; the rest are milliseconds.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A running service. Dropping it aborts its tasks; [`Service::shutdown`] and
/// [`Service::join`] end them in order. The database stays open: whoever opened
/// it closes it afterwards.
#[derive(Debug)]
pub struct Service {
    api: SocketAddr,
    node_api: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    live: watch::Receiver<u32>,
    denylist: watch::Receiver<i64>,
    service_id: String,
    router: Router,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

impl Service {
    /// Binds, starts every task, and answers requests when this returns.
    ///
    /// # Errors
    /// When an address is taken, the certificate or the denylist cannot be read
    /// or the database fails. Nothing runs on then.
    pub async fn start(settings: Settings, database: Database, keyring: Keyring) -> Result<Self, StartError> {
        let sockets = Sockets::bind(&settings).await?;
        let tls = match &settings.tls {
            Some(tls) => Some(tls::start(tls).await?),
            None => None,
        };
        let app = state(&settings, database.clone(), keyring).await?;
        let beside = Beside::prepare(&settings, &app).await?;
        let mut service = Self {
            api: sockets.api.address(),
            node_api: sockets.node_api.as_ref().map(Listener::address),
            metrics: sockets.metrics.as_ref().map(Listener::address),
            live: beside.instance.as_ref().map_or_else(|| watch::channel(1).1, Instance::live),
            denylist: app.denylists.subscribe(),
            service_id: app.service_id.clone(),
            router: router::router(app.clone()),
            stopping: app.stopping.clone(),
            tasks: JoinSet::new(),
        };
        let acceptor = tls.map(|(acceptor, keeper)| {
            service.tasks.spawn(keeper.run(app.stopping.clone()));
            acceptor
        });
        let plain = Terms { timeouts: settings.timeouts, tls: None, grace: GRACE };
        if let (Some(listener), Some(recorder)) = (sockets.metrics, &beside.recorder) {
            service.serve(listener, monitor::router(recorder.clone()), plain.clone());
        }
        if let Some(listener) = sockets.node_api {
            service.serve(listener, router::node_router(app.clone()), plain.clone());
        }
        service.run_beside(beside, &settings, &app);
        service.serve(sockets.api, service.router.clone(), Terms { tls: acceptor, ..plain });
        Ok(service)
    }

    /// Starts the tasks that run beside the requests.
    fn run_beside(&mut self, beside: Beside, settings: &Settings, app: &App) {
        let (database, stopping) = (&app.database, &app.stopping);
        self.tasks.spawn(beside.denylist.run(stopping.clone()));
        if let Some(instance) = beside.instance {
            self.tasks.spawn(instance.run(settings.heartbeat, stopping.clone()));
        }
        if let Some(recorder) = beside.recorder {
            self.tasks.spawn(monitor::run(recorder, Some(database.clone()), stopping.clone()));
        }
        if settings.run_jobs {
            self.tasks.spawn(jobs::run(database.clone(), stopping.clone()));
        }
        self.tasks.spawn(app.hub.clone().run(database.clone(), stopping.clone()));
    }

    fn serve(&mut self, listener: Listener, router: Router, terms: Terms) {
        self.tasks.spawn(listener.serve(router, self.stopping.clone(), terms));
    }

    /// Where a node in this process reaches the node API without TLS: the
    /// listener of [`Settings::node_api`], else the API's own.
    #[must_use]
    pub fn node_api_address(&self) -> SocketAddr {
        self.node_api.unwrap_or(self.api)
    }

    /// How many services with rate limits live on the database, this one
    /// included, as it changes. Stands at 1 without rate limits.
    #[must_use]
    pub fn live(&self) -> watch::Receiver<u32> {
        self.live.clone()
    }

    /// The version of the denylist that it applies, as it changes.
    #[must_use]
    pub fn denylist(&self) -> watch::Receiver<i64> {
        self.denylist.clone()
    }

    /// Where the API listens.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where metrics are shown.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The service's own id, which nodes sign their requests for.
    #[must_use]
    pub fn service_id(&self) -> &str {
        &self.service_id
    }

    /// What the API's listener serves, to be driven in process.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Asks every task to end. Returns at once; see [`Self::join`].
    pub fn shutdown(&self) {
        self.stopping.cancel();
    }

    /// Waits until every task has ended: at most about ten seconds after
    /// [`Self::shutdown`]. Ends early, by shutting down, when a task fails.
    pub async fn join(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the service failed; shutting down");
            }
            if !self.stopping.is_cancelled() {
                self.stopping.cancel();
            }
        }
    }
}

/// What tasks beside the requests begin with.
struct Beside {
    denylist: Watcher,
    instance: Option<Instance>,
    recorder: Option<PrometheusHandle>,
}

impl Beside {
    async fn prepare(settings: &Settings, app: &App) -> Result<Self, StartError> {
        Ok(Self {
            recorder: match settings.metrics {
                Some(_) => Some(monitor::install_recorder().ok_or(StartError::Recorder)?),
                None => None,
            },
            denylist: watcher(settings, app).await?,
            instance: match settings.rate_limits {
                Some(_) => Some(Instance::join(app.database.clone(), app.limits.clone()).await?),
                None => None,
            },
        })
    }
}

/// Everything that listens, before anything is accepted.
struct Sockets {
    api: Listener,
    node_api: Option<Listener>,
    metrics: Option<Listener>,
}

impl Sockets {
    async fn bind(settings: &Settings) -> Result<Self, StartError> {
        Ok(Self {
            api: bind(settings.api, "--api").await?,
            node_api: match settings.node_api {
                Some(address) => Some(bind(address, "--api").await?),
                None => None,
            },
            metrics: match settings.metrics {
                Some(address) => Some(bind(address, "--metrics").await?),
                None => None,
            },
        })
    }
}

pub(super) async fn bind(address: SocketAddr, flag: &'static str) -> Result<Listener, StartError> {
    Listener::bind(address).await.map_err(|source| StartError::Bind { address, flag, source })
}

async fn watcher(settings: &Settings, app: &App) -> Result<Watcher, StartError> {
    Ok(Watcher::start(settings.denylist.clone(), app.database.clone(), app.denylists.clone()).await?)
}

/// The API as a router alone: no listener and no tasks, so that events and
/// jobs stand still.
///
/// # Errors
/// As [`Service::start`].
pub async fn router(settings: &Settings, database: Database, keyring: Keyring) -> Result<Router, StartError> {
    let app = state(settings, database, keyring).await?;
    watcher(settings, &app).await?;
    Ok(router::router(app))
}

async fn state(settings: &Settings, database: Database, keyring: Keyring) -> Result<App, StartError> {
    let mut proposal = [0; 16];
    getrandom::fill(&mut proposal)?;
    let service_id = database.service_id(&HEXLOWER.encode(&proposal)).await?;
    Ok(Arc::new(State {
        verifier: Verifier::new(database.clone(), keyring),
        limits: Arc::new(Limits::new(settings.rate_limits)),
        proxies: settings.trusted_proxies.clone(),
        denylists: Denylists::default(),
        hub: Hub::default(),
        operator_nodes: settings.operator_nodes.iter().copied().collect(),
        service_id,
        public_url: settings.public_url.clone(),
        allow_private_addresses: settings.allow_private_addresses,
        access_log: settings.access_log,
        body_time: settings.timeouts.body,
        delegates: Default::default(),
        stopping: CancellationToken::new(),
        database,
    }))
}
