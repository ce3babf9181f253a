//! `/routing/v1/providers/{cid}`: delegated routing, from what nodes hold.
//!
//! Open to anyone, since it tells nothing that the network does not know. Only
//! roots are known here; blocks below them are found through Bitswap.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use pinfold_core::content::{self, ContentKey};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, extract::text_in_path, peers, state::App};
use crate::db::Provider;

const NDJSON: &str = "application/x-ndjson";
/// Seconds for which an answer may be kept: nodes come and go by the minute.
const FOUND_AGE: HeaderValue = HeaderValue::from_static("public, max-age=60");
/// An empty answer is soon outdated by a pin that is on its way.
const NONE_AGE: HeaderValue = HeaderValue::from_static("public, max-age=15");

/// Providers of a CID.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Providers {
    /// At most 100.
    #[serde(rename = "Providers")]
    #[schema(max_items = 100)]
    providers: Vec<PeerRecord>,
}

/// A peer by the `peer` schema of delegated routing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PeerRecord {
    /// Always `peer`.
    #[schema(value_type = String)]
    schema: &'static str,
    /// The peer id.
    #[serde(rename = "ID")]
    id: String,
    /// Multiaddrs, without the peer id.
    addrs: Vec<String>,
    /// What the peer speaks.
    #[schema(value_type = Vec<String>)]
    protocols: Vec<&'static str>,
}

/// Lists nodes that hold a root.
#[utoipa::path(get, path = "/routing/v1/providers/{cid}", operation_id = "getProviders", tag = "routing",
    params(("cid" = String, Path, description = "A CID in any version and base")),
    security(()),
    responses(
        (status = 200, description = "Peers, or none; one a line where the client accepts application/x-ndjson",
            body = Providers),
    ))]
pub(crate) async fn providers(
    State(app): State<App>,
    RoutedCid(key): RoutedCid,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let known = app.database.providers(key.as_bytes()).await?;
    let records: Vec<PeerRecord> = known.iter().map(PeerRecord::new).collect();
    let age = if records.is_empty() { NONE_AGE } else { FOUND_AGE };
    let mut response = if wants_lines(&headers) {
        lines(&records)?
    } else {
        Json(Providers { providers: records }).into_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, age);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// The `{cid}` of a path.
pub(crate) struct RoutedCid(ContentKey);

impl<S: Send + Sync> FromRequestParts<S> for RoutedCid {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = text_in_path(parts, state).await.unwrap_or_default();
        let cid = content::parse(&text).map_err(|error| ApiError::Unprocessable(error.to_string().into()))?;
        Ok(Self(ContentKey::of(&cid)))
    }
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(NDJSON)))
}

fn lines(records: &[PeerRecord]) -> Result<Response, ApiError> {
    let mut text = String::new();
    for record in records {
        text.push_str(&serde_json::to_string(record).map_err(ApiError::internal)?);
        text.push('\n');
    }
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, NDJSON)], text).into_response())
}

impl PeerRecord {
    fn new(provider: &Provider) -> Self {
        let bare = |address: &String| peers::without_peer_id(address, &provider.key);
        let mut addrs: Vec<String> = provider.addresses.iter().filter_map(bare).collect();
        let mut protocols = vec!["transport-bitswap"];
        if let Some(gateway) = provider.gateway.as_deref().and_then(peers::gateway_address) {
            protocols.push("transport-ipfs-gateway-http");
            addrs.push(gateway);
        }
        Self { schema: "peer", id: peers::peer_id(&provider.key).to_string(), addrs, protocols }
    }
}
