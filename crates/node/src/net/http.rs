//! The HTTP client for delegated routers and trustless gateways.
//!
//! Its addresses pass the same policy as dials: literal ones before the
//! request and at every redirect, names when they resolve, and what resolved
//! is what is connected to. No proxy is taken from the environment, bodies
//! are cut at their cap, and everything has an end.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cid::Cid;
use futures::FutureExt;
use libp2p::{Multiaddr, PeerId};
use reqwest::{
    Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT, RETRY_AFTER},
    redirect,
};
use serde::Deserialize;
use url::{Host, Url};

use super::{
    MAX_ADDRESSES_PER_ORIGIN, Provider, StartError,
    dns::{Family, Resolver},
    filter::{Policy, Refused},
    providers::{MAX_PROVIDERS, Source},
};

/// The largest block that is taken.
const MAX_BLOCK: usize = 2 << 20;

/// The largest answer of a router: 64 providers with twenty addresses each
/// are about 150 KiB.
const MAX_ROUTER_ANSWER: usize = 1 << 20;

/// Redirects that are followed: path to subdomain gateway, plain to TLS.
const MAX_REDIRECTS: usize = 4;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one request may take with its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an answer may stand still.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Idle connections kept per host.
const MAX_IDLE_CONNECTIONS: usize = 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL cannot be asked: not HTTP, or it has no host.
    #[error("{0} is not an HTTP URL with a host")]
    Url(Url),
    /// The address is refused by the dial filter.
    #[error("{0}")]
    Refused(String),
    /// The server does not have it.
    #[error("the server does not have it (status {0})")]
    NotFound(u16),
    /// The server wants to be asked later.
    #[error("the server asks to be left alone for a while (status {status})")]
    Busy {
        /// The HTTP status.
        status: u16,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// Any other status that is no success.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// The answer exceeds its cap in bytes.
    #[error("the answer exceeds {0} bytes")]
    TooLarge(usize),
    /// The connection failed, or time ran out.
    #[error("the request failed: {0}")]
    Failed(String),
}

impl From<Refused> for HttpError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused.to_string())
    }
}

impl From<reqwest::Error> for HttpError {
    fn from(error: reqwest::Error) -> Self {
        let mut cause: &(dyn std::error::Error + 'static) = &error;
        loop {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return Self::Refused(refused.to_string());
            }
            match cause.source() {
                Some(source) => cause = source,
                None => return Self::Failed(cause.to_string()),
            }
        }
    }
}

/// Asks routers and gateways. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    public: reqwest::Client,
    private: reqwest::Client,
    policy: Arc<Policy>,
}

impl Client {
    pub(super) fn new(
        policy: &Arc<Policy>,
        resolver: &Resolver,
        agent: &str,
        tls: &rustls::ClientConfig,
    ) -> Result<Self, StartError> {
        let build = |private| client(policy, resolver, agent, tls.clone(), private);
        let failed = |e: reqwest::Error| StartError::Http(e.to_string());
        Ok(Self {
            public: build(false).map_err(failed)?,
            private: build(true).map_err(failed)?,
            policy: policy.clone(),
        })
    }

    /// A block from a trustless gateway, **not verified**: the caller
    /// recomputes its hash. `private` allows private addresses if the
    /// machine's setting does too. At most 2 MiB.
    pub async fn get_block(&self, gateway: &Url, cid: &Cid, private: bool) -> Result<Bytes, HttpError> {
        let mut url = below(gateway, &["ipfs", &cid.to_string()])?;
        url.set_query(Some("format=raw"));
        let response = self.get(url, "application/vnd.ipld.raw", private).await;
        let result = match response {
            Ok(response) => body(response, MAX_BLOCK).await,
            Err(error) => Err(error),
        };
        count("block", result.is_ok());
        result
    }

    /// The providers that a delegated router knows.
    pub async fn get_providers(
        &self,
        router: &Url,
        cid: &Cid,
        private: bool,
    ) -> Result<Vec<Provider>, HttpError> {
        let url = below(router, &["routing", "v1", "providers", &cid.to_string()])?;
        let response = self.get(url, "application/x-ndjson, application/json;q=0.9", private).await;
        let result = match response {
            Ok(response) => body(response, MAX_ROUTER_ANSWER).await.map(|body| parse_providers(&body)),
            Err(HttpError::NotFound(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        count("providers", result.is_ok());
        result
    }

    async fn get(&self, url: Url, accept: &str, private: bool) -> Result<Response, HttpError> {
        check(&self.policy, &url, private)?;
        let client = if private { &self.private } else { &self.public };
        let response = client.get(url).header(ACCEPT, accept).send().await?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status @ (StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::PRECONDITION_FAILED) => {
                Err(HttpError::NotFound(status.as_u16()))
            }
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                Err(HttpError::Busy { status: status.as_u16(), retry_after: retry_after(&response) })
            }
            status => Err(HttpError::Status(status.as_u16())),
        }
    }
}

fn client(
    policy: &Arc<Policy>,
    resolver: &Resolver,
    agent: &str,
    tls: rustls::ClientConfig,
    private: bool,
) -> Result<reqwest::Client, reqwest::Error> {
    let names = Filtering { policy: policy.clone(), resolver: resolver.clone(), private };
    reqwest::Client::builder()
        .user_agent(agent)
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(names))
        .redirect(redirects(policy.clone(), private))
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .build()
}

/// TLS that trusts `authorities`, else the system's, and Mozilla's where the
/// system has none (a bare container).
pub(crate) fn tls(authorities: Option<Arc<rustls::RootCertStore>>) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring implements the default versions")
        .with_root_certificates(authorities.unwrap_or_else(roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Read once: parsing them takes a few milliseconds and some memory.
fn roots() -> Arc<rustls::RootCertStore> {
    static ROOTS: OnceLock<Arc<rustls::RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

/// Follows a few redirects, each to an address that the policy allows.
fn redirects(policy: Arc<Policy>, private: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error(io::Error::other("too many redirects"));
        }
        match check(&policy, attempt.url(), private) {
            Ok(()) => attempt.follow(),
            Err(HttpError::Refused(why)) => attempt.error(io::Error::other(why)),
            Err(error) => attempt.error(error),
        }
    })
}

/// Judges a URL before anything is resolved: a literal address is not looked
/// up later.
fn check(policy: &Policy, url: &Url, private: bool) -> Result<(), HttpError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(HttpError::Url(url.clone()));
    }
    match url.host() {
        Some(Host::Ipv4(ip)) => Ok(policy.check_ip(ip.into(), private)?),
        Some(Host::Ipv6(ip)) => Ok(policy.check_ip(ip.into(), private)?),
        Some(Host::Domain(_)) => Ok(()),
        None => Err(HttpError::Url(url.clone())),
    }
}

/// Resolves names to the addresses that may be connected to.
struct Filtering {
    policy: Arc<Policy>,
    resolver: Resolver,
    private: bool,
}

impl Resolve for Filtering {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, resolver, private) = (self.policy.clone(), self.resolver.clone(), self.private);
        async move {
            let found = resolver.addresses(name.as_str(), Family::Any).await?;
            let allowed = allowed(&policy, &found, private)?;
            // Port 0 stands for the URL's own.
            Ok(Box::new(allowed.into_iter().map(|ip| (ip, 0_u16).into())) as Addrs)
        }
        .boxed()
    }
}

fn allowed(policy: &Policy, found: &[IpAddr], private: bool) -> Result<Vec<IpAddr>, Refused> {
    let mut refused = None;
    let mut allowed = Vec::new();
    for ip in found {
        match policy.check_ip(*ip, private) {
            Ok(()) => allowed.push(*ip),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if allowed.is_empty() => Err(error),
        _ => Ok(allowed),
    }
}

/// `base` with path segments appended, whether or not it ends in a slash.
fn below(base: &Url, segments: &[&str]) -> Result<Url, HttpError> {
    let mut url = base.clone();
    url.path_segments_mut().map_err(|()| HttpError::Url(base.clone()))?.pop_if_empty().extend(segments);
    Ok(url)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads a body, never more than `cap` bytes whatever it declares.
async fn body(mut response: Response, cap: usize) -> Result<Bytes, HttpError> {
    if response.content_length().is_some_and(|length| length > cap as u64) {
        return Err(HttpError::TooLarge(cap));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > cap {
            return Err(HttpError::TooLarge(cap));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn count(what: &'static str, ok: bool) {
    let result = if ok { "ok" } else { "failed" };
    metrics::counter!("pinfold_net_http_requests_total", "what" => what, "result" => result).increment(1);
}

/// A peer record of the delegated routing specification; the older
/// `bitswap` schema has the same two fields.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "Addrs", default)]
    addresses: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Providers", default)]
    providers: Option<Vec<serde_json::Value>>,
}

/// Reads one JSON document or one record a line. What is no peer record is
/// skipped: routers add kinds of their own.
fn parse_providers(body: &[u8]) -> Vec<Provider> {
    let records: Vec<serde_json::Value> = match serde_json::from_slice::<Answer>(body) {
        Ok(Answer { providers: Some(records) }) => records,
        _ => body.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect(),
    };
    records.into_iter().filter_map(provider).take(MAX_PROVIDERS).collect()
}

fn provider(record: serde_json::Value) -> Option<Provider> {
    let record: Record = serde_json::from_value(record).ok()?;
    let peer: PeerId = record.id?.parse().ok()?;
    let texts = record.addresses.unwrap_or_default();
    let parsed = texts.iter().filter_map(|text| text.parse::<Multiaddr>().ok());
    Some(Provider {
        peer,
        addresses: parsed.take(MAX_ADDRESSES_PER_ORIGIN).collect(),
        source: Source::Router,
    })
}
