//! Signed requests to the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pinfold_node_api::signature::{
    self, Context, NODE_HEADER, SEQUENCE_HEADER, SESSION_HEADER, SIGNATURE_HEADER,
};
use pinfold_node_api::{ErrorBody, Hello, HelloAck, path};
use reqwest::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use url::Url;

use crate::identity::Identity;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take, beyond what the service was told that it may
/// wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes: a denylist of half a million
/// rules has about 40 MB.
const MAX_ANSWER: usize = 64 << 20;

/// How much later than the last hello a refused one is dated next; doubled
/// each time. The clock was set back, or another hello was signed meanwhile.
const HELLO_STEP_MS: i64 = 1_000;

/// Why a request came to nothing. It is tried again in any case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The service could not be reached, or broke off.
    #[error("the service cannot be reached: {0}")]
    Transport(String),
    /// The service said no.
    #[error("the service answered {status}, {}: {}", body.error, body.details)]
    Refused { status: u16, body: ErrorBody },
    /// The answer is not one of the node API's.
    #[error("the service's answer to {path} is not understood: {error}")]
    Malformed { path: String, error: String },
}

impl CallError {
    /// The word of a refusal.
    fn word(&self) -> Option<&str> {
        match self {
            Self::Refused { body, .. } => Some(&body.error),
            Self::Transport(_) | Self::Malformed { .. } => None,
        }
    }
}

/// An open session.
pub(crate) struct Session {
    service: String,
    pub(crate) ack: HelloAck,
}

/// Speaks to one service, in one session at a time.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    identity: Identity,
    session: Mutex<Option<Arc<Session>>>,
    sequence: AtomicI64,
    /// The date of the last hello, and by how much the next must exceed it.
    last_hello: AtomicI64,
    hello_step: AtomicI64,
}

/// Where, in which session and with which number a request goes.
struct Target<'a> {
    path: &'a str,
    service: &'a str,
    session: i64,
    sequence: i64,
}

impl Client {
    pub(crate) fn new(base: Url, identity: Identity, agent: &str) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(agent)
            .tls_backend_preconfigured(crate::net::http::tls(None))
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirected POST would become a GET, and its signature names
            // this service's path.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            http,
            base,
            identity,
            session: Mutex::new(None),
            sequence: AtomicI64::new(0),
            last_hello: AtomicI64::new(0),
            hello_step: AtomicI64::new(HELLO_STEP_MS),
        })
    }

    /// The open session, or a new one.
    pub(crate) async fn session(&self, hello: impl FnOnce() -> Hello) -> Result<Arc<Session>, CallError> {
        let mut session = self.session.lock().await;
        if let Some(open) = &*session {
            return Ok(open.clone());
        }
        let service = self.service().await?;
        let ack = self.hello(&service, hello()).await?;
        let open = Arc::new(Session { service, ack });
        *session = Some(open.clone());
        Ok(open)
    }

    /// Sends one request of a session. Each carries a number of its own, also
    /// when it repeats one whose answer was lost.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        session: &Arc<Session>,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<A, CallError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let target = Target { path, service: &session.service, session: session.ack.session, sequence };
        let answer = self.post(&target, body, wait).await;
        if let Err(CallError::Refused { .. }) = &answer {
            self.reconsider(session, answer.as_ref().err().and_then(CallError::word)).await;
        }
        answer
    }

    /// Gives up a session that the service does not take any more.
    async fn reconsider(&self, session: &Arc<Session>, word: Option<&str>) {
        if matches!(word, Some("old_session" | "replayed" | "bad_signature" | "unknown_node" | "version")) {
            let mut open = self.session.lock().await;
            if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, session)) {
                *open = None;
            }
        }
    }

    /// The service's id, which every signature names.
    async fn service(&self) -> Result<String, CallError> {
        let request = self.http.get(self.url(path::SERVICE)).timeout(ANSWER_TIMEOUT);
        receive(path::SERVICE, request).await
    }

    async fn hello(&self, service: &str, mut hello: Hello) -> Result<HelloAck, CallError> {
        let step = self.hello_step.load(Ordering::Relaxed);
        let least = self.last_hello.load(Ordering::Relaxed).saturating_add(1);
        hello.sent_at_ms = hello.sent_at_ms.max(least);
        self.last_hello.store(hello.sent_at_ms, Ordering::Relaxed);
        let body = serde_json::to_vec(&hello).expect("a hello always serialises").into();
        let target = Target { path: path::HELLO, service, session: 0, sequence: hello.sent_at_ms };
        let answer = self.post(&target, body, Duration::ZERO).await;
        match answer.as_ref().err().and_then(CallError::word) {
            Some("replayed") => {
                self.last_hello.fetch_add(step, Ordering::Relaxed);
                self.hello_step.store(step.saturating_mul(2).min(i64::MAX >> 8), Ordering::Relaxed);
            }
            _ => self.hello_step.store(HELLO_STEP_MS, Ordering::Relaxed),
        }
        answer
    }

    async fn post<A: DeserializeOwned>(
        &self,
        target: &Target<'_>,
        body: Bytes,
        wait: Duration,
    ) -> Result<A, CallError> {
        let Target { path, service, session, sequence } = *target;
        let key = &self.identity.signing;
        let signature = signature::sign(key, Context { service, path, session, sequence }, &body);
        let request = self
            .http
            .post(self.url(path))
            .header(CONTENT_TYPE, "application/json")
            .header(NODE_HEADER, signature::encode_key(&key.verifying_key()))
            .header(SESSION_HEADER, session)
            .header(SEQUENCE_HEADER, sequence)
            .header(SIGNATURE_HEADER, signature)
            .timeout(ANSWER_TIMEOUT + wait)
            .body(body);
        receive(path, request).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let below = format!("{}{path}", self.base.path().trim_end_matches('/'));
        url.set_path(&below);
        url
    }
}

async fn receive<A: DeserializeOwned>(path: &str, request: reqwest::RequestBuilder) -> Result<A, CallError> {
    let mut response = request.send().await.map_err(transport)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            let error = format!("it has more than {MAX_ANSWER} bytes");
            return Err(CallError::Malformed { path: path.into(), error });
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|error| CallError::Malformed { path: path.into(), error: error.to_string() });
    }
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| ErrorBody { error: "unavailable".into(), details: "no explanation".into() });
    Err(CallError::Refused { status: status.as_u16(), body })
}

/// The innermost cause says what happened; the outer ones repeat the address.
fn transport(error: reqwest::Error) -> CallError {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    CallError::Transport(cause.to_string())
}
