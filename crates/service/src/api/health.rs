//! `/healthz`: the process answers. `/readyz`: it may be given requests.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::chain, state::App};

/// Whether the process may be given requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether it may.
    ready: bool,
    /// What is missing, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'static str>,
}

/// Answers as long as the process does.
#[utoipa::path(get, path = "/healthz", operation_id = "health", tag = "operation", security(()),
    responses((status = 200, description = "The process answers", content_type = "text/plain", body = String)))]
pub(crate) async fn live() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n")
}

/// Tells load balancers whether to send requests here.
#[utoipa::path(get, path = "/readyz", operation_id = "readiness", tag = "operation", security(()),
    responses(
        (status = 200, description = "Requests are welcome", body = Readiness),
        (status = 503, description = "Send requests elsewhere", body = Readiness),
    ))]
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let reason = unready(&app).await;
    let status = if reason.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut response = (status, Json(Readiness { ready: reason.is_none(), reason })).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn unready(app: &App) -> Option<&'static str> {
    if app.stopping.is_cancelled() {
        return Some("the service is shutting down");
    }
    match app.database.health().await {
        Ok(health) if health.ready => None,
        Ok(health) => {
            tracing::error!(behind_ms = health.clock_behind_ms, "the clock is behind the nodes' heartbeats");
            Some("the clock is far behind the nodes' last heartbeats; set it")
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "the database does not answer");
            Some("the database does not answer")
        }
    }
}
