//! What `up`, `service` and `node run` share: signals, and the way that a
//! command's flags become a service's settings.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use pinfold_service::{
    RateLimits, Service, Tls, TrustedProxies,
    db::{self, Database},
    tokens::{self, Keyring, Secret, TokenRequest},
};
use sd_notify::NotifyState;

use super::{DEFAULT_ACCOUNT, data::named};
use crate::{
    cli::{DataArgs, RateChoice, Replicas, ServiceArgs},
    output::print,
};

/// What the first token is called.
const FIRST_TOKEN: &str = "first";
/// What the audit table calls the start that made it.
const FIRST_START: &str = "first start";

/// A service with the database that it runs on.
pub(crate) struct Running {
    pub(crate) service: Service,
    pub(crate) database: Database,
    pub(crate) keyring: Keyring,
}

/// How `up` and `service` differ.
pub(crate) struct Mode {
    pub(crate) replicas: Replicas,
    /// Whether an older database is migrated.
    pub(crate) migrate: bool,
    /// Whether a missing secret is made.
    pub(crate) make_secret: bool,
    /// For the settings that are on or off by themselves: whether this is an
    /// `up` that serves its own machine alone.
    pub(crate) private: bool,
    /// Keys of nodes in this process.
    pub(crate) own_nodes: Vec<[u8; 32]>,
}

/// Opens the database and starts a service on it.
pub(crate) async fn start(data: &DataArgs, args: &ServiceArgs, mode: Mode) -> Result<Running> {
    // What is wrong with the flags is said before anything is made.
    let (own, make_secret) = (database_settings(data, args, &mode)?, mode.make_secret);
    let settings = service_settings(data, args, mode)?;
    let place = named(&own.location);
    let database = Database::open(own).await.with_context(|| format!("cannot open the database {place}"))?;
    // A new secret opens none of the keys that are there already.
    let make = make_secret && database.keys().await?.is_empty();
    let secret = if make { Secret::read_or_make(&data.secret_path())? } else { data.secret()? };
    let keyring = Keyring::open(database.clone(), secret).await?;
    let service = Service::start(settings, database.clone(), keyring.clone()).await?;
    Ok(Running { service, database, keyring })
}

impl Running {
    /// On the first start: an account, and a token that is shown this once.
    pub(crate) async fn first_token(&self) -> Result<Option<String>> {
        if !self.database.tokens(None).await?.is_empty() {
            return Ok(None);
        }
        let account = match self.database.account_by_name(DEFAULT_ACCOUNT).await? {
            Some(account) => account,
            None => self.database.create_account(DEFAULT_ACCOUNT, None).await?,
        };
        let request = TokenRequest {
            account: account.id,
            name: FIRST_TOKEN.into(),
            scopes: vec![db::Scope::PinsRead, db::Scope::PinsWrite],
            expires: None,
        };
        let issued = tokens::issue(&self.database, &self.keyring, request, FIRST_START).await?;
        Ok(Some(issued.text))
    }

    /// Whether nobody has ever used a token.
    pub(crate) async fn has_unused_tokens_alone(&self) -> Result<bool> {
        Ok(self.database.tokens(None).await?.iter().all(|token| token.last_used.is_none()))
    }

    /// Ends the service, then the database.
    pub(crate) async fn stop(self) {
        self.service.shutdown();
        self.service.join().await;
        self.database.close().await;
    }
}

fn database_settings(data: &DataArgs, args: &ServiceArgs, mode: &Mode) -> Result<db::Settings> {
    let mut settings = data.settings()?;
    settings.migrate = mode.migrate;
    settings.replicas_min = mode.replicas.min;
    settings.replicas_target = mode.replicas.target;
    settings.repair_after = args.repair_after;
    settings.pin_deadline = args.pin_deadline;
    settings.max_queued = args.max_queued;
    settings.free_quota = args.free_quota.as_u64();
    Ok(settings)
}

fn service_settings(data: &DataArgs, args: &ServiceArgs, mode: Mode) -> Result<pinfold_service::Settings> {
    let mut settings = pinfold_service::Settings::new(args.api);
    settings.metrics = args.metrics;
    settings.public_url = args.public_url();
    settings.tls = args.tls.tls(data)?;
    if let Some(Tls::Acme { cache, .. }) = &settings.tls {
        make_private_dir(cache)?;
    }
    // A node in this process has no certificate to check and no way to leave
    // the machine: it speaks the node API in the clear, over loopback.
    if settings.tls.is_some() && !mode.own_nodes.is_empty() {
        settings.node_api = Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    }
    settings.trusted_proxies = TrustedProxies::parse(&args.trusted_proxy)?;
    settings.rate_limits = match args.rate_limits {
        Some(RateChoice(limits)) => limits,
        None => (!mode.private).then(RateLimits::default),
    };
    settings.operator_nodes = mode.own_nodes;
    for peer in &args.operator_node {
        settings.operator_nodes.push(pinfold_node::peer_key(peer).context("in --operator-node")?);
    }
    settings.allow_private_addresses = allow_private(args, mode.private);
    settings.denylist = args.denylist.clone();
    settings.access_log = args.access_log.is_on();
    Ok(settings)
}

/// Whether pins may be fetched from private addresses.
pub(crate) fn allow_private(args: &ServiceArgs, private: bool) -> bool {
    args.allow_private_addresses.map_or(private, crate::cli::Switch::is_on)
}

/// The address of a listener as a program on this machine dials it.
pub(crate) fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Makes a folder that its owner alone can read.
pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Tells systemd, where it asked.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told how this process is");
    }
}

/// How long everything together may take to end. With [`crate::LAST_TASKS`] and
/// the last traces that is less than the ten seconds that are promised.
const STOP: Duration = Duration::from_secs(7);

/// Ends all parts, at once and within one limit, however many hang.
pub(crate) async fn stop(parts: impl Future<Output = ()>) {
    if tokio::time::timeout(STOP, parts).await.is_err() {
        tracing::warn!("not everything ended in time; what was acknowledged is on disk");
    }
}

/// Says that everything listens, to people and to systemd where it asked, and
/// waits for Ctrl-C or SIGTERM. A second one ends the process at once.
pub(crate) async fn until_stopped(lines: &[String]) -> Result<()> {
    // Who knows that it is ready may already stop it.
    let mut signals = Signals::listen()?;
    if let Err(error) = print(&lines.join("\n")) {
        tracing::warn!(error = format!("{error:#}"), "nobody reads the addresses");
    }
    tell_manager(NotifyState::Ready);
    signals.next().await?;
    tracing::info!("stopping; a second signal stops at once");
    tell_manager(NotifyState::Stopping);
    tokio::spawn(async move {
        if signals.next().await.is_ok() {
            std::process::exit(1);
        }
    });
    Ok(())
}

/// The signals that ask to stop. One listener hears them all: none is lost
/// between the first and the second.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?,
        })
    }

    async fn next(&mut self) -> Result<()> {
        tokio::select! {
            heard = self.terminate.recv() => heard,
            heard = self.interrupt.recv() => heard,
        }
        .context("signals cannot be heard any more")
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Result<()> {
        tokio::signal::ctrl_c().await.context("cannot listen for Ctrl-C")
    }
}
