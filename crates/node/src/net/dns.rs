//! Names in multiaddrs: looked up here, dialled below.
//!
//! [`Resolving`] is put around the transports twice. Outermost it replaces
//! `/dnsaddr/…` by the addresses of its TXT records; below WebSocket, which
//! must see the name for its certificate, it replaces `/dns…` by IP addresses.
//! Both are bounded: a hostile zone can neither recurse for long nor make one
//! dial into hundreds.

use std::{
    fmt, io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, TryFutureExt, future::BoxFuture, stream};
use hickory_resolver::{TokioResolver, proto::rr::RData};
use libp2p::{
    Multiaddr,
    core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent},
    multiaddr::Protocol,
};
use parking_lot::Mutex;

/// How deep `/dnsaddr` records may name further ones. The public bootstrap
/// peers use two.
pub const MAX_DNSADDR_DEPTH: usize = 3;

/// Lookups on behalf of one dialled address, against records that fan out.
pub const MAX_LOOKUPS: usize = 8;

/// Resolved addresses of one dialled address that are tried.
pub const MAX_RESOLVED: usize = 16;

/// Resolved addresses that are tried at once; the first that answers wins.
const ATTEMPTS_AT_ONCE: usize = 4;

/// How long one lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Any.
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// Looks names up.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of `name`.
    fn addresses(&self, name: String, family: Family) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;

    /// The TXT records of `name`.
    fn texts(&self, name: String) -> BoxFuture<'static, io::Result<Vec<String>>>;
}

/// A shared [`Lookup`].
#[derive(Clone)]
pub struct Resolver(Arc<dyn Lookup>);

impl Resolver {
    /// Uses `lookup`, such as one that a test scripts.
    pub fn new(lookup: impl Lookup) -> Self {
        Self(Arc::new(lookup))
    }

    /// The system's name servers. Where the system has no usable
    /// configuration every lookup fails and says so; addresses still work.
    pub fn system() -> Self {
        let built = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
        match built {
            Ok(resolver) => Self::new(System(resolver)),
            Err(error) => Self::new(Unavailable(error.to_string())),
        }
    }

    /// The addresses of `name`, at most [`MAX_RESOLVED`].
    pub async fn addresses(&self, name: &str, family: Family) -> io::Result<Vec<IpAddr>> {
        let mut found = within(self.0.addresses(name.to_owned(), family)).await?;
        found.truncate(MAX_RESOLVED);
        Ok(found)
    }

    async fn texts(&self, name: &str) -> io::Result<Vec<String>> {
        within(self.0.texts(name.to_owned())).await
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

async fn within<T>(lookup: BoxFuture<'static, io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the name servers did not answer in time")),
    }
}

struct System(TokioResolver);

impl Lookup for System {
    fn addresses(&self, name: String, family: Family) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let resolver = self.0.clone();
        async move {
            let found = resolver.lookup_ip(name).await.map_err(io::Error::other)?;
            let wanted = |ip: &IpAddr| match family {
                Family::Any => true,
                Family::V4 => ip.is_ipv4(),
                Family::V6 => ip.is_ipv6(),
            };
            Ok(found.iter().filter(wanted).collect())
        }
        .boxed()
    }

    fn texts(&self, name: String) -> BoxFuture<'static, io::Result<Vec<String>>> {
        let resolver = self.0.clone();
        async move {
            let found = resolver.txt_lookup(name).await.map_err(io::Error::other)?;
            let text = |data: &RData| match data {
                RData::TXT(text) => Some(text.to_string()),
                _ => None,
            };
            Ok(found.answers().iter().filter_map(|record| text(&record.data)).collect())
        }
        .boxed()
    }
}

struct Unavailable(String);

impl Unavailable {
    fn error<T>(&self) -> io::Result<T> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("no name servers are configured: {}", self.0)))
    }
}

impl Lookup for Unavailable {
    fn addresses(&self, _: String, _: Family) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        futures::future::ready(self.error()).boxed()
    }

    fn texts(&self, _: String) -> BoxFuture<'static, io::Result<Vec<String>>> {
        futures::future::ready(self.error()).boxed()
    }
}

/// Which names a [`Resolving`] transport replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// `/dnsaddr`.
    Dnsaddr,
    /// `/dns`, `/dns4`, `/dns6`.
    Hosts,
}

/// What `address` resolves to; itself when it holds no such name.
pub(super) async fn resolve(
    resolver: &Resolver,
    names: Names,
    address: Multiaddr,
) -> io::Result<Vec<Multiaddr>> {
    match names {
        Names::Hosts => resolve_host(resolver, address).await,
        Names::Dnsaddr => resolve_dnsaddr(resolver, address).await,
    }
}

async fn resolve_host(resolver: &Resolver, address: Multiaddr) -> io::Result<Vec<Multiaddr>> {
    let (name, family) = match address.iter().next() {
        Some(Protocol::Dns(name)) => (name.into_owned(), Family::Any),
        Some(Protocol::Dns4(name)) => (name.into_owned(), Family::V4),
        Some(Protocol::Dns6(name)) => (name.into_owned(), Family::V6),
        _ => return Ok(vec![address]),
    };
    let found = resolver.addresses(&name, family).await?;
    Ok(found.into_iter().filter_map(|ip| address.replace(0, |_| Some(ip.into()))).collect())
}

async fn resolve_dnsaddr(resolver: &Resolver, address: Multiaddr) -> io::Result<Vec<Multiaddr>> {
    let mut open = vec![(address, 0)];
    let mut resolved = Vec::new();
    let mut lookups = 0;
    let mut failure = None;
    while let Some((address, depth)) = open.pop() {
        let Some(Protocol::Dnsaddr(name)) = address.iter().next() else {
            resolved.push(address);
            if resolved.len() == MAX_RESOLVED {
                break;
            }
            continue;
        };
        if depth == MAX_DNSADDR_DEPTH || lookups == MAX_LOOKUPS {
            failure = Some(too_many(&name));
            continue;
        }
        lookups += 1;
        match resolver.texts(&format!("_dnsaddr.{name}")).await {
            Ok(texts) => open.extend(records(&address, &texts).map(|found| (found, depth + 1))),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if resolved.is_empty() => Err(error),
        _ => Ok(resolved),
    }
}

fn too_many(name: &str) -> io::Error {
    io::Error::other(format!("the dnsaddr records under {name} lead too far; its owner should flatten them"))
}

/// The addresses in TXT records that fit what follows the name in `address`
/// (mostly the peer id).
fn records(address: &Multiaddr, texts: &[String]) -> impl Iterator<Item = Multiaddr> {
    let rest: Multiaddr = address.iter().skip(1).collect();
    texts
        .iter()
        .filter_map(|text| text.strip_prefix("dnsaddr=")?.parse::<Multiaddr>().ok())
        .filter(move |found| found.ends_with(&rest))
        .take(MAX_RESOLVED)
}

/// A transport that resolves names before its inner one dials.
pub(super) struct Resolving<T> {
    inner: Arc<Mutex<T>>,
    resolver: Resolver,
    names: Names,
}

impl<T> Resolving<T> {
    pub(super) fn new(inner: T, resolver: Resolver, names: Names) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), resolver, names }
    }
}

impl<T> Transport for Resolving<T>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<T::Output>>;
    type Dial = BoxFuture<'static, io::Result<T::Output>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.lock().listen_on(id, address).map_err(|e| e.map(io::Error::other))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.lock().remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let (inner, resolver, names) = (self.inner.clone(), self.resolver.clone(), self.names);
        Ok(async move { dial_any(inner, resolve(&resolver, names, address).await?, opts).await }.boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut *self.inner.lock()).poll(cx).map(|event| {
            event.map_upgrade(|upgrade| upgrade.map_err(io::Error::other).boxed()).map_err(io::Error::other)
        })
    }
}

/// Dials until one of `addresses` answers.
async fn dial_any<T>(
    transport: Arc<Mutex<T>>,
    addresses: Vec<Multiaddr>,
    opts: DialOpts,
) -> io::Result<T::Output>
where
    T: Transport,
    T::Error: Send + Sync + 'static,
{
    let mut attempts = stream::iter(addresses)
        .map(|address| dial_one(&transport, address, opts))
        .buffer_unordered(ATTEMPTS_AT_ONCE);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address that fits");
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(output) => return Ok(output),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn dial_one<T>(transport: &Mutex<T>, address: Multiaddr, opts: DialOpts) -> io::Result<T::Output>
where
    T: Transport,
    T::Error: Send + Sync + 'static,
{
    let dial = transport.lock().dial(address, opts);
    match dial {
        Ok(dial) => dial.await.map_err(io::Error::other),
        Err(TransportError::MultiaddrNotSupported(address)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("{address} cannot be dialled")))
        }
        Err(TransportError::Other(error)) => Err(io::Error::other(error)),
    }
}
