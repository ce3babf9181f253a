//! Parts of a request, read so that every refusal has the one error shape.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{header, request::Parts},
};
use bytes::Bytes;
use futures::StreamExt;
use uuid::Uuid;

use super::{
    error::{ApiError, NO_SUCH_PIN},
    state::App,
};

/// The largest body of a client's request, in bytes. A pin with the longest
/// name, all its metadata escaped, and a hundred addresses stays below it.
pub(crate) const MAX_BODY: usize = 256 << 10;
/// A client's body, bounded in bytes and time.
pub(crate) struct ClientBody(pub(crate) Bytes);

impl FromRequest<App> for ClientBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        read_body(request, MAX_BODY, app.body_time).await.map(Self)
    }
}

/// Reads a body up to a limit, within a time; one that says that it is longer
/// is refused before any of it is read.
///
/// # Errors
/// `TooLarge`, `BodyTimeout`, or `BadRequest` when the client breaks off.
pub(crate) async fn read_body(request: Request, limit: usize, time: Duration) -> Result<Bytes, ApiError> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::TooLarge { limit });
    }
    tokio::time::timeout(time, collect(request.into_body(), limit))
        .await
        .map_err(|_| ApiError::BodyTimeout)?
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut parts = body.into_data_stream();
    let mut whole = Bytes::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| ApiError::bad("the request's body broke off; send it again"))?;
        if part.len() > limit - whole.len() {
            return Err(ApiError::TooLarge { limit });
        }
        // Nearly every body comes in one part, which is then not copied.
        whole = if whole.is_empty() { part } else { [whole, part].concat().into() };
    }
    Ok(whole)
}

/// The `{requestid}` of a path. Anything that is not one of ours is answered
/// as a pin that does not exist.
pub(crate) struct RequestId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        uuid_in_path(parts, state).await.map(Self).ok_or(ApiError::NotFound(NO_SUCH_PIN))
    }
}

/// The first parameter of a path, if it is a UUID as we write them.
pub(crate) async fn uuid_in_path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Option<Uuid> {
    const HYPHENATED: usize = 36;
    let text = text_in_path(parts, state).await?;
    if text.len() == HYPHENATED { Uuid::try_parse(&text).ok() } else { None }
}

/// The first parameter of a path, percent-decoded, if it is UTF-8.
pub(crate) async fn text_in_path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Option<String> {
    let parameters = RawPathParams::from_request_parts(parts, state).await.ok()?;
    parameters.iter().next().map(|(_, value)| value.to_owned())
}
