//! Which node sent a request: its signature, checked before anything is read
//! into it.
//!
//! The key must be one that the operator named; the signature covers service,
//! path, session, sequence and body. That session and sequence are fresh is for
//! the database to say, in the transaction of the request itself.

use axum::{
    Json,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use pinfold_node_api::{
    ErrorBody, MAX_BODY,
    signature::{self, Context, NODE_HEADER, SEQUENCE_HEADER, SESSION_HEADER, SIGNATURE_HEADER},
};
use serde::de::DeserializeOwned;

use super::{
    error::{ApiError, chain},
    extract,
    state::App,
};
use crate::db::{self, NodeRefusal, NodeRequest};

/// A signed request of a node that the operator knows.
pub(crate) struct NodeCall {
    /// Which request it is.
    pub(crate) request: NodeRequest,
    body: Bytes,
}

impl NodeCall {
    /// Reads the message.
    ///
    /// # Errors
    /// `malformed`, with what is wrong.
    pub(crate) fn message<T: DeserializeOwned>(&self) -> Result<T, NodeError> {
        serde_json::from_slice(&self.body).map_err(|error| NodeError::malformed(error.to_string()))
    }
}

impl FromRequest<App> for NodeCall {
    type Rejection = NodeError;

    async fn from_request(request: Request, app: &App) -> Result<Self, NodeError> {
        let path = request.uri().path().to_owned();
        let headers = SignedHeaders::read(request.headers())?;
        if !app.operator_nodes.contains(&headers.key_bytes) {
            return Err(NodeError::refused(&NodeRefusal::Unknown));
        }
        let body = extract::read_body(request, MAX_BODY, app.body_time).await.map_err(NodeError::body)?;
        let context = Context {
            service: &app.service_id,
            path: &path,
            session: headers.session,
            sequence: headers.sequence,
        };
        let key = signature::verify(&headers.key, &headers.signature, context, &body)
            .map_err(|error| NodeError::new(StatusCode::UNAUTHORIZED, "bad_signature", error.to_string()))?;
        let request = NodeRequest { key, session: headers.session, sequence: headers.sequence };
        Ok(Self { request, body })
    }
}

struct SignedHeaders {
    key: String,
    key_bytes: [u8; 32],
    signature: String,
    session: i64,
    sequence: i64,
}

impl SignedHeaders {
    fn read(headers: &HeaderMap) -> Result<Self, NodeError> {
        let key = text(headers, NODE_HEADER)?.to_owned();
        let key_bytes = BASE64URL_NOPAD.decode(key.as_bytes()).ok().and_then(|key| key.try_into().ok());
        Ok(Self {
            key_bytes: key_bytes.ok_or_else(|| bad_header(NODE_HEADER))?,
            key,
            signature: text(headers, SIGNATURE_HEADER)?.to_owned(),
            session: number(headers, SESSION_HEADER)?,
            sequence: number(headers, SEQUENCE_HEADER)?,
        })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, NodeError> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or_else(|| bad_header(name))
}

/// A number that is not negative: no session or sequence is.
fn number(headers: &HeaderMap, name: &str) -> Result<i64, NodeError> {
    let number = text(headers, name)?.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| bad_header(name))
}

fn bad_header(name: &str) -> NodeError {
    NodeError::malformed(format!("the header {name} is missing or not of its form"))
}

/// Why a node's request was not served, in the node API's shape.
#[derive(Debug)]
pub(crate) struct NodeError {
    status: StatusCode,
    word: &'static str,
    details: String,
}

impl NodeError {
    pub(crate) fn new(status: StatusCode, word: &'static str, details: String) -> Self {
        Self { status, word, details }
    }

    pub(crate) fn malformed(details: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", details)
    }

    pub(crate) fn refused(refusal: &NodeRefusal) -> Self {
        let (status, word) = match refusal {
            NodeRefusal::Unknown => (StatusCode::FORBIDDEN, "unknown_node"),
            NodeRefusal::OldSession => (StatusCode::CONFLICT, "old_session"),
            NodeRefusal::Replayed => (StatusCode::CONFLICT, "replayed"),
        };
        Self::new(status, word, refusal.to_string())
    }

    fn body(error: ApiError) -> Self {
        match error {
            ApiError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "malformed", error.to_string())
            }
            ApiError::BodyTimeout => Self::new(StatusCode::REQUEST_TIMEOUT, "unavailable", error.to_string()),
            other => Self::malformed(other.to_string()),
        }
    }
}

impl From<db::Error> for NodeError {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Node(refusal) => Self::refused(&refusal),
            db::Error::Invalid(text) => Self::malformed(text),
            error => {
                tracing::error!(error = chain(&error), "a node's request failed in the database");
                let details = "the service cannot serve this now; send it again shortly".to_owned();
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", details)
            }
        }
    }
}

impl IntoResponse for NodeError {
    fn into_response(self) -> Response {
        let counted = metrics::counter!("pinfold_node_requests_refused_total", "reason" => self.word);
        counted.increment(1);
        let body = ErrorBody { error: self.word.to_owned(), details: self.details };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        }
        response
    }
}
