//! A plain client of the Pinning Service API: sends what a test says, and
//! checks nothing by itself but the shape of a pin.

use std::{collections::BTreeMap, sync::Once, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::wait::eventually;

/// The longest that an answer takes.
const LIMIT: Duration = Duration::from_secs(30);

/// All four statuses, as a filter.
pub const EVERY_STATUS: &str = "status=queued,pinning,pinned,failed";

/// A pin as the service shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct PinStatus {
    /// What the pin is addressed by.
    pub requestid: String,
    /// `queued`, `pinning`, `pinned` or `failed`.
    pub status: String,
    /// RFC 3339.
    pub created: String,
    /// What was asked for.
    pub pin: Pin,
    /// Multiaddrs of the nodes that take it.
    pub delegates: Vec<String>,
    /// Strings for people and programs.
    #[serde(default)]
    pub info: BTreeMap<String, String>,
}

/// What was asked for.
#[derive(Clone, Debug, Deserialize)]
pub struct Pin {
    /// As it was submitted.
    pub cid: String,
    /// None when it was left out.
    pub name: Option<String>,
    /// Strings of whoever asked for it.
    #[serde(default)]
    pub meta: Option<BTreeMap<String, String>>,
}

/// A page of pins.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// All that match, not just this page.
    pub count: u64,
    /// Newest first.
    pub results: Vec<PinStatus>,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body; null when it was empty.
    pub body: Value,
}

impl Answer {
    /// The body as `T` when the status is `status`.
    pub fn expect<T: serde::de::DeserializeOwned>(self, status: StatusCode) -> Result<T> {
        ensure!(self.status == status, "answered {} instead of {status}: {}", self.status, self.body);
        serde_json::from_value(self.body.clone()).with_context(|| format!("unexpected body {}", self.body))
    }
}

/// One account's view of a service.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    endpoint: String,
    token: String,
}

impl Api {
    /// Speaks to `endpoint` with `token`.
    pub fn new(endpoint: &str, token: &str) -> Result<Self> {
        let http = client()?;
        Ok(Self { http, endpoint: endpoint.to_owned(), token: token.to_owned() })
    }

    /// Sends a request below the endpoint.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer> {
        let mut request =
            self.http.request(method, format!("{}{path}", self.endpoint)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status();
        let bytes = response.bytes().await?;
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        Ok(Answer { status, body })
    }

    /// `POST /pins`, accepted.
    pub async fn add(&self, pin: Value) -> Result<PinStatus> {
        self.send(Method::POST, "/pins", Some(pin)).await?.expect(StatusCode::ACCEPTED)
    }

    /// `POST /pins` of a bare CID, accepted.
    pub async fn add_cid(&self, cid: &str) -> Result<PinStatus> {
        self.add(json!({ "cid": cid })).await
    }

    /// `GET /pins/{requestid}`.
    pub async fn get(&self, requestid: &str) -> Result<PinStatus> {
        self.send(Method::GET, &format!("/pins/{requestid}"), None).await?.expect(StatusCode::OK)
    }

    /// `GET /pins?{query}`.
    pub async fn list(&self, query: &str) -> Result<Page> {
        self.send(Method::GET, &format!("/pins?{query}"), None).await?.expect(StatusCode::OK)
    }

    /// `POST /pins/{requestid}`, accepted.
    pub async fn replace(&self, requestid: &str, pin: Value) -> Result<PinStatus> {
        self.send(Method::POST, &format!("/pins/{requestid}"), Some(pin)).await?.expect(StatusCode::ACCEPTED)
    }

    /// `DELETE /pins/{requestid}`, accepted.
    pub async fn delete(&self, requestid: &str) -> Result<()> {
        let answer = self.send(Method::DELETE, &format!("/pins/{requestid}"), None).await?;
        ensure!(answer.status == StatusCode::ACCEPTED, "answered {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Waits until a pin has a status. A pin that fails ends the wait.
    pub async fn until(&self, requestid: &str, status: &str, limit: Duration) -> Result<PinStatus> {
        let what = format!("{requestid} to be {status}");
        let pin = eventually(&what, limit, async || {
            let pin = self.get(requestid).await?;
            let settled = pin.status == status || pin.status == "failed";
            ensure!(settled, "it is {} with {:?}", pin.status, pin.info);
            Ok(Some(pin))
        })
        .await?;
        ensure!(pin.status == status, "{requestid} is {} with {:?}", pin.status, pin.info);
        Ok(pin)
    }

    /// Every pin that a filter finds, page after page as Kubo reads them.
    pub async fn all(&self, filter: &str, limit: u32) -> Result<Vec<PinStatus>> {
        let mut pins: Vec<PinStatus> = Vec::new();
        loop {
            let cursor = pins.last().map(|last| format!("&before={}", last.created)).unwrap_or_default();
            let page = self.list(&format!("{filter}&limit={limit}{cursor}")).await?;
            let complete = page.count == page.results.len() as u64;
            ensure!(complete || !page.results.is_empty(), "an empty page counts {}", page.count);
            pins.extend(page.results);
            if complete {
                return Ok(pins);
            }
        }
    }
}

/// An HTTP client without proxies or redirects, as a service must not need them.
pub fn client() -> Result<reqwest::Client> {
    Ok(builder().build()?)
}

/// The same, which trusts certificates of this root, and no others.
pub fn client_trusting(root: reqwest::Certificate) -> Result<reqwest::Client> {
    Ok(builder().tls_certs_only([root]).build()?)
}

/// What both are made of.
pub fn builder() -> reqwest::ClientBuilder {
    install_tls();
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(LIMIT)
}

/// The HTTP client asks for a TLS provider even where it only speaks HTTP.
fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
