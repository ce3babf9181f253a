//! `/api/v1/tokens`: the tokens of the caller's own account.
//!
//! A token may make others that can do no more than it can itself, and that
//! end no later, so that handing out a narrow token never widens what its
//! holder may do. Changing tokens takes `pins:write`: who has it could remove
//! every pin, so it is no less powerful.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    auth::Caller,
    error::{ApiError, NO_SUCH_TOKEN},
    extract::{ClientBody, uuid_in_path},
    limits::Cost,
    state::App,
    time,
};
use crate::{
    db::{Millis, Scope, Token},
    tokens::{self, MAX_NAME, TokenRequest},
};

/// Tokens of one account that are neither revoked nor expired.
const MAX_TOKENS: usize = 100;

/// A token without its text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenStatus {
    /// Names the token.
    id: String,
    /// What its owner calls it.
    name: String,
    /// What it may do.
    #[schema(value_type = Vec<String>, example = json!(["pins:read"]))]
    scopes: Vec<&'static str>,
    /// When it was made.
    #[schema(format = DateTime)]
    created: String,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    expires: Option<String>,
    /// When it was last used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    last_used: Option<String>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    revoked: Option<String>,
}

/// Tokens, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenList {
    tokens: Vec<TokenStatus>,
}

/// A token just made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewTokenStatus {
    /// What clients send. Shown this once.
    token: String,
    #[serde(flatten)]
    status: TokenStatus,
}

/// A request for a token.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TokenInput {
    /// What its owner calls it.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// What it may do; what the asking token may do when absent.
    #[schema(nullable = false)]
    scopes: Option<Vec<String>>,
    /// When it ends by itself; no later than the asking token does.
    #[schema(format = DateTime, nullable = false)]
    expires: Option<String>,
}

/// Lists the account's tokens.
#[utoipa::path(get, path = "/api/v1/tokens", operation_id = "listTokens", tag = "account",
    responses(
        (status = 200, description = "The tokens, newest first", body = TokenList),
    ))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<TokenList>, ApiError> {
    caller.may(&app, Scope::PinsRead, Cost::Read)?;
    let tokens = app.database.tokens(Some(caller.account)).await?;
    Ok(Json(TokenList { tokens: tokens.into_iter().map(TokenStatus::new).collect() }))
}

/// Makes a token.
#[utoipa::path(post, path = "/api/v1/tokens", operation_id = "createToken", tag = "account",
    request_body = TokenInput,
    responses(
        (status = 201, description = "The token, with its text", body = NewTokenStatus),
    ))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    ClientBody(body): ClientBody,
) -> Result<Response, ApiError> {
    caller.may(&app, Scope::PinsWrite, Cost::Write)?;
    let now = time::now();
    let request = parse(&body, &caller, now)?;
    let valid = |token: &&Token| token.revoked.is_none() && token.expires.is_none_or(|end| end > now);
    if app.database.tokens(Some(caller.account)).await?.iter().filter(valid).count() >= MAX_TOKENS {
        return Err(ApiError::Conflict(
            format!("the account has {MAX_TOKENS} valid tokens; revoke some of them").into(),
        ));
    }
    let issued = tokens::issue(&app.database, app.verifier.keyring(), request, &caller.actor()).await?;
    let answer = NewTokenStatus { token: issued.text, status: TokenStatus::new(issued.token) };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Revokes a token of the account, at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", operation_id = "revokeToken", tag = "account",
    params(("id" = String, Path, description = "Which token")),
    responses(
        (status = 204, description = "Revoked"),
    ))]
pub(crate) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    TokenId(id): TokenId,
) -> Result<StatusCode, ApiError> {
    caller.may(&app, Scope::PinsWrite, Cost::Write)?;
    app.database.revoke_token(id, Some(caller.account), &caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The `{id}` of a token in a path.
pub(crate) struct TokenId(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for TokenId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        uuid_in_path(parts, state).await.map(Self).ok_or(ApiError::NotFound(NO_SUCH_TOKEN))
    }
}

fn parse(body: &[u8], caller: &Caller, now: Millis) -> Result<TokenRequest, ApiError> {
    let input: TokenInput = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad(format!(
            "the body is not a token's description, such as {{\"name\":\"laptop\"}}: {error}"
        ))
    })?;
    let length = input.name.chars().count();
    if !(1..=MAX_NAME).contains(&length) || input.name.contains('\0') {
        return Err(ApiError::bad(format!("name has 1 to {MAX_NAME} characters, none of them U+0000")));
    }
    let scopes = match input.scopes {
        Some(words) => words.iter().map(|word| scope(word, caller)).collect::<Result<_, _>>()?,
        None => caller.scopes.clone(),
    };
    let asked = input.expires.map(|text| expiry(&text, now)).transpose()?;
    let expires = match (asked, caller.expires) {
        (Some(asked), Some(own)) => Some(asked.min(own)),
        (asked, own) => asked.or(own),
    };
    Ok(TokenRequest { account: caller.account, name: input.name, scopes: distinct(scopes), expires })
}

fn distinct(scopes: Vec<Scope>) -> Vec<Scope> {
    let mut kept = Vec::new();
    for scope in scopes {
        if !kept.contains(&scope) {
            kept.push(scope);
        }
    }
    kept
}

fn scope(word: &str, caller: &Caller) -> Result<Scope, ApiError> {
    let scope =
        Scope::parse(word).ok_or_else(|| ApiError::bad("scopes is a list of pins:read and pins:write"))?;
    if caller.scopes.contains(&scope) {
        return Ok(scope);
    }
    Err(ApiError::Forbidden(format!("the access token lacks {word}, so it cannot give it to another").into()))
}

fn expiry(text: &str, now: Millis) -> Result<Millis, ApiError> {
    let end = time::parse_after(text)
        .ok_or_else(|| ApiError::bad("expires is an instant by RFC 3339, such as 2026-01-02T03:04:05Z"))?;
    if end <= now {
        return Err(ApiError::bad("expires lies in the past"));
    }
    Ok(end)
}

impl TokenStatus {
    fn new(token: Token) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name,
            scopes: token.scopes.into_iter().map(Scope::as_str).collect(),
            created: time::format(token.created),
            expires: token.expires.map(time::format),
            last_used: token.last_used.map(time::format),
            revoked: token.revoked.map(time::format),
        }
    }
}
