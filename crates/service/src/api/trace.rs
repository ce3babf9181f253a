//! The span of a request for distributed tracing, with OpenTelemetry's names.
//!
//! It is made under a target of its own, [`TARGET`], that nothing but an
//! exporter enables: without one it costs nothing, and logs do not repeat it.
//! Like the access log it has no token, no query, no path beyond its route, and
//! no body.

use axum::http::StatusCode;
use tracing::{Span, field::Empty};

use crate::db::AccountId;

/// What subscribers find the spans by.
pub const TARGET: &str = "pinfold::request";

/// Begins the span of a request.
pub(crate) fn begin(method: &str, route: &str, request_id: &str) -> Span {
    tracing::info_span!(
        target: TARGET,
        "request",
        otel.kind = "server",
        otel.name = %format_args!("{method} {route}"),
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        pinfold.account = Empty,
        pinfold.request_id = request_id,
    )
}

/// Notes how the request ended.
pub(crate) fn end(span: &Span, status: StatusCode, account: Option<AccountId>) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if let Some(account) = account {
        span.record("pinfold.account", account);
    }
    // The client's mistakes are no errors of the server's span.
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
