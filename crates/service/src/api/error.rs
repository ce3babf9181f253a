//! The one mapping from what can go wrong to HTTP.
//!
//! A handler returns [`ApiError`]; turning it into a response leaves its
//! content in the response's extensions, and [`render`] writes the body once
//! the request's id is known. Clients show `reason` and `details` verbatim, and
//! drop both unless the content type is exactly `application/json`. What is
//! internal is logged here, once, and never shown.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::db::{self, AccountRefusal, PinRefusal};

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request breaks a rule of the specification; says which.
    #[error("{0}")]
    BadRequest(Cow<'static, str>),
    /// No token, or one that is not valid.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The token is valid but may not do this.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// The content is on the denylist.
    #[error("{0}")]
    Denied(&'static str),
    /// There is no such thing, or it is another account's.
    #[error("{0}")]
    NotFound(&'static str),
    /// The path exists, with other methods.
    #[error("this path does not answer this method; the Allow header names those it does")]
    MethodNotAllowed,
    /// The account's quota is used up.
    #[error(
        "the account uses {used} of its {quota} bytes; remove pins to free space, or ask the operator for more"
    )]
    InsufficientFunds {
        /// Bytes charged and reserved.
        used: u64,
        /// The limit in bytes.
        quota: u64,
    },
    /// The state of the account forbids it.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// The body took too long to arrive.
    #[error("the request's body did not arrive in time; send it again")]
    BodyTimeout,
    /// The body exceeds the limit.
    #[error("the request's body exceeds {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Too many requests; may be repeated after the pause.
    #[error("{reason}")]
    TooManyRequests {
        /// What there is too much of.
        reason: Cow<'static, str>,
        /// When to try again.
        retry_after: Duration,
    },
    /// Cannot be served now; may be repeated after the pause.
    #[error("{reason}")]
    Unavailable {
        /// What is missing.
        reason: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// A path parameter that is not what its place asks for.
    #[error("{0}")]
    Unprocessable(Cow<'static, str>),
    /// Ours to mend.
    #[error("an internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How long to wait for a first node, or for a database that is away.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(10);
/// How long to wait when too much is waiting for the database.
const RETRY_BUSY: Duration = Duration::from_secs(1);
/// How long to wait when the account's own queue is full: pins take a while.
const RETRY_QUEUE: Duration = Duration::from_secs(60);

impl ApiError {
    /// A broken rule, in a sentence that names it.
    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::BadRequest(text.into())
    }

    /// An error of ours; its text goes to the log alone.
    pub(crate) fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }

    /// The service cannot serve this now.
    pub(crate) fn unavailable(reason: &'static str) -> Self {
        Self::Unavailable { reason, retry_after: RETRY_UNAVAILABLE }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::InsufficientFunds { .. } | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word for programs.
    fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BAD_REQUEST",
            Self::Unauthorized(_) => "UNAUTHORIZED",
            Self::Forbidden(_) => "FORBIDDEN",
            Self::Denied(_) => "DENIED",
            Self::NotFound(_) => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::InsufficientFunds { .. } => "INSUFFICIENT_FUNDS",
            Self::Conflict(_) => "CONFLICT",
            Self::Unprocessable(_) => "UNPROCESSABLE_ENTITY",
            Self::BodyTimeout => "REQUEST_TIMEOUT",
            Self::TooLarge { .. } => "PAYLOAD_TOO_LARGE",
            Self::TooManyRequests { .. } => "TOO_MANY_REQUESTS",
            Self::Unavailable { .. } => "SERVICE_UNAVAILABLE",
            Self::Internal(_) => "INTERNAL_SERVER_ERROR",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                Some(*retry_after)
            }
            _ => None,
        }
    }
}

impl From<PinRefusal> for ApiError {
    fn from(refusal: PinRefusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            PinRefusal::OverQuota { used, quota } => Self::InsufficientFunds { used, quota },
            PinRefusal::Denied => Self::Denied(DENIED),
            PinRefusal::NotFound => Self::NotFound(NO_SUCH_PIN),
            PinRefusal::TooManyOfRoot => {
                Self::Conflict(format!("{text}; remove some of them, or replace one").into())
            }
            PinRefusal::QueueFull { .. } => Self::TooManyRequests {
                reason: format!("{text}; wait until some are pinned, or remove them").into(),
                retry_after: RETRY_QUEUE,
            },
            PinRefusal::TooFast => Self::TooManyRequests {
                reason: format!("{text}; slow down").into(),
                retry_after: RETRY_QUEUE,
            },
            PinRefusal::NoNode => Self::unavailable(NO_NODE),
            PinRefusal::AccountDisabled => Self::Forbidden(ACCOUNT_DISABLED.into()),
        }
    }
}

/// What a missing pin and another account's pin are answered with alike.
pub(crate) const NO_SUCH_PIN: &str = "there is no pin with this requestid in the token's account";
/// What a missing token and another account's token are answered with alike.
pub(crate) const NO_SUCH_TOKEN: &str = "there is no token with this id in the token's account";
/// What a denied CID is answered with.
pub(crate) const DENIED: &str = "the CID is on this service's denylist and will not be pinned";
/// What a service without nodes says.
pub(crate) const NO_NODE: &str =
    "no storage node has joined this service yet; try again once its operator has started one";
/// What a disabled account's tokens are answered with.
pub(crate) const ACCOUNT_DISABLED: &str = "the account is disabled; ask the service's operator";

impl From<db::Error> for ApiError {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Pin(refusal) => refusal.into(),
            db::Error::Account(refusal) => refusal.into(),
            db::Error::Invalid(text) => Self::bad(text),
            db::Error::QueryTooLong => {
                Self::bad("the query took longer than its time limit; narrow it by status, before and after")
            }
            db::Error::Busy => Self::Unavailable {
                reason: "too many requests are waiting for the database; try again in a moment",
                retry_after: RETRY_BUSY,
            },
            db::Error::Closed => Self::unavailable("the service is shutting down; try again shortly"),
            error if error.is_unreachable() => {
                tracing::error!(error = %chain(&error), "the database cannot be reached");
                Self::unavailable("the database cannot be reached; try again shortly")
            }
            error if error.is_of_the_disk() => {
                tracing::error!(error = %chain(&error), "the database's disk is full or bad");
                Self::unavailable("the service cannot write to its disk at the moment; try again later")
            }
            error => Self::internal(error),
        }
    }
}

impl From<AccountRefusal> for ApiError {
    fn from(refusal: AccountRefusal) -> Self {
        match refusal {
            AccountRefusal::NotFound => Self::NotFound("there is no such account"),
            AccountRefusal::NoSuchToken => Self::NotFound(NO_SUCH_TOKEN),
            AccountRefusal::NameTaken => Self::Conflict(refusal.to_string().into()),
        }
    }
}

/// An error and its sources on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The body of an answer that is not a success.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) error: FailureError,
}

/// The content of a [`Failure`].
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct FailureError {
    /// A word for programs.
    #[schema(value_type = String, example = "BAD_REQUEST")]
    pub(crate) reason: &'static str,
    /// A sentence for people: what happened, to what, and what to do. It ends
    /// with the request's id, which is also in `x-request-id` and in the
    /// service's log. The specification's schema has no field for it.
    #[schema(required = false)]
    pub(crate) details: String,
}

/// What [`render`] needs, until then in the response's extensions.
#[derive(Clone, Debug)]
struct Pending {
    reason: &'static str,
    details: String,
    internal: Option<String>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if let Some(pause) = self.retry_after() {
            // Whole seconds, rounded up: a client that obeys is not early.
            let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        if matches!(self, Self::Unauthorized(_)) {
            let scheme = HeaderValue::from_static("Bearer realm=\"pinfold\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        let internal = match &self {
            Self::Internal(source) => Some(chain(source.as_ref())),
            _ => None,
        };
        response.extensions_mut().insert(Pending {
            reason: self.reason(),
            details: self.to_string(),
            internal,
        });
        response
    }
}

/// Writes the body of an [`ApiError`]; leaves other responses as they are.
pub(crate) fn render(mut response: Response, request_id: &str) -> Response {
    let Some(Pending { reason, details, internal }) = response.extensions_mut().remove::<Pending>() else {
        return response;
    };
    if let Some(internal) = internal {
        tracing::error!(request_id, error = internal, "a request failed by an internal error");
    }
    let details = format!("{details} (request {request_id})");
    let failure = Failure { error: FailureError { reason, details } };
    let body = serde_json::to_vec(&failure).expect("a struct of strings can be written as JSON");
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(body);
    response
}
