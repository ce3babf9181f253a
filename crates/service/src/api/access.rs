//! The outermost layer of every request: its id, its log line, its metrics,
//! and the body of its error.
//!
//! The log has no tokens and no query: paths are logged as their route, so that
//! neither names nor request ids of pins end there. What nodes ask, several
//! times a second, is logged at `debug`; everything else at `info`.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;
use uuid::Uuid;

use super::{address::Peer, error, state::App, trace};
use crate::db::AccountId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over from a trusted proxy.
const MAX_REQUEST_ID: usize = 64;
/// What paths that nothing answers are counted under.
const NO_ROUTE: &str = "none";
/// What every route of the node API begins with.
const NODE_ROUTES: &str = "/node/";
/// Accounts are numbered from 1.
const NO_ACCOUNT: AccountId = 0;

/// Filled in by authentication, read when the request ends.
#[derive(Clone, Default)]
struct AccountCell(Arc<AtomicI64>);

/// Notes for the log which account a request acts for.
pub(crate) fn note_account(parts: &Parts, account: AccountId) {
    if let Some(AccountCell(cell)) = parts.extensions.get() {
        cell.store(account, Ordering::Relaxed);
    }
}

/// The client's address, as the listener and trusted proxies tell it.
#[derive(Clone, Copy, Debug)]
struct Origin {
    client: IpAddr,
    through_proxy: bool,
}

/// Wraps a request: see the module.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let origin = origin(&app, &request);
    let id = request_id(request.headers(), origin);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let account = AccountCell::default();
    request.extensions_mut().insert(account.clone());
    let route_name = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let span = tracing::info_span!("request", %method, route = route_name, request_id = id);
    let trace = trace::begin(known_method(&method), route_name, &id);
    let response = match origin.map_or(Ok(()), |origin| app.limits.charge_address(origin.client)) {
        Ok(()) => next.run(request).instrument(span).instrument(trace.clone()).await,
        Err(error) => error.into_response(),
    };
    let mut response = error::render(response, &id);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let seen = Seen {
        method: &method,
        route: route_name,
        status: response.status(),
        took: started.elapsed(),
        account: account.0.load(Ordering::Relaxed),
        client: origin.map(|origin| origin.client),
        request_id: &id,
    };
    seen.count();
    trace::end(&trace, seen.status, seen.account());
    if app.access_log {
        seen.log();
    }
    response
}

fn origin(app: &App, request: &Request) -> Option<Origin> {
    let peer = request.extensions().get::<Peer>()?.0.ip().to_canonical();
    let client = app.proxies.client(peer, request.headers());
    Some(Origin { client, through_proxy: app.proxies.contains(peer) })
}

/// The id that a trusted proxy gave, or a new one.
fn request_id(headers: &HeaderMap, origin: Option<Origin>) -> String {
    let fits = |id: &&str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain)
    };
    let given = headers.get(REQUEST_ID).filter(|_| origin.is_some_and(|origin| origin.through_proxy));
    let given = given.and_then(|id| id.to_str().ok()).filter(fits);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// What is known when a request has been answered.
struct Seen<'a> {
    method: &'a Method,
    route: &'a str,
    status: StatusCode,
    took: Duration,
    account: AccountId,
    client: Option<IpAddr>,
    request_id: &'a str,
}

impl Seen<'_> {
    fn account(&self) -> Option<AccountId> {
        (self.account != NO_ACCOUNT).then_some(self.account)
    }

    fn count(&self) {
        let route = self.route.to_owned();
        let method = known_method(self.method);
        let status = self.status.as_str().to_owned();
        metrics::counter!("pinfold_http_requests_total", "method" => method, "route" => route.clone(), "status" => status)
            .increment(1);
        metrics::histogram!("pinfold_http_request_duration_seconds", "method" => method, "route" => route)
            .record(self.took.as_secs_f64());
    }

    fn log(&self) {
        let account = self.account();
        let client = self.client.map(tracing::field::display);
        // A macro: a log's level is part of its call site.
        macro_rules! answered {
            ($level:ident) => {
                tracing::$level!(
                    target: "pinfold::access",
                    method = %self.method,
                    route = self.route,
                    status = self.status.as_u16(),
                    ms = self.took.as_secs_f64() * 1_000.0,
                    account,
                    client,
                    request_id = self.request_id,
                    "answered"
                )
            };
        }
        if self.route.starts_with(NODE_ROUTES) {
            answered!(debug);
        } else {
            answered!(info);
        }
    }
}

/// Methods are a label of metrics and traces: strangers must not be able to invent any.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
