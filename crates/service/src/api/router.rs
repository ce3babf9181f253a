//! Which path is answered by what.

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use pinfold_node_api::path;

use super::{
    access, accounts, cors, error::ApiError, events, health, landing, node, openapi, pins, routing,
    state::App, tokens,
};

/// Every path of the API's listener.
pub(crate) fn router(app: App) -> Router {
    let paths = Router::new()
        .merge(pinning())
        .merge(own())
        .merge(nodes())
        .route("/", get(landing::page))
        .route("/openapi.json", get(openapi::serve))
        .route("/api/v1/openapi.json", get(openapi::serve))
        .route("/routing/v1/providers/{cid}", get(routing::providers))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready));
    finish(paths, app)
}

/// The node API alone.
pub(crate) fn node_router(app: App) -> Router {
    finish(nodes(), app)
}

/// Adds what wraps every request.
fn finish(paths: Router<App>, app: App) -> Router {
    paths
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        // The layer added last is the outermost. As route layers they know
        // the route; the fallbacks are wrapped as well.
        .layer(from_fn(cors::layer))
        .layer(from_fn_with_state(app.clone(), access::layer))
        .with_state(app)
}

/// The Pinning Service API. No path redirects, with or without a slash at its
/// end: a redirected POST arrives as a GET.
fn pinning() -> Router<App> {
    Router::new()
        .route("/pins", get(pins::list).post(pins::add))
        .route("/pins/{requestid}", get(pins::get).post(pins::replace).delete(pins::remove))
}

fn own() -> Router<App> {
    Router::new()
        .route("/api/v1/account", get(accounts::get))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/api/v1/tokens/{id}", axum::routing::delete(tokens::revoke))
        .route("/api/v1/pins/{requestid}/events", get(events::watch))
}

fn nodes() -> Router<App> {
    Router::new()
        .route(path::SERVICE, get(node::service))
        .route(path::HELLO, post(node::hello))
        .route(path::PULL, post(node::pull))
        .route(path::REPORT, post(node::report))
        .route(path::INVENTORY, post(node::inventory))
        .route(path::DENYLIST, post(node::denylist))
}

async fn nowhere() -> ApiError {
    ApiError::NotFound("there is nothing at this path; an endpoint for clients ends before /pins")
}

async fn other_method() -> ApiError {
    ApiError::MethodNotAllowed
}
