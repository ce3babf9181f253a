//! Who calls: the token of a request, resolved on every request.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use uuid::Uuid;

use super::{access, error::ApiError, limits::Cost, state::App, time};
use crate::db::{AccountId, Millis, Scope, Token};

/// The caller of a request, by a token that is valid now.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The account that the token acts for.
    pub(crate) account: AccountId,
    /// The token's id.
    pub(crate) token: Uuid,
    /// What the token may do.
    pub(crate) scopes: Vec<Scope>,
    /// When the token ends by itself.
    pub(crate) expires: Option<Millis>,
}

impl Caller {
    /// Whether the token may do this, and charges it to its account.
    ///
    /// # Errors
    /// `Forbidden` without the scope, `TooManyRequests` beyond the limit.
    pub(crate) fn may(&self, app: &App, scope: Scope, cost: Cost) -> Result<(), ApiError> {
        if !self.scopes.contains(&scope) {
            let word = scope.as_str();
            return Err(ApiError::Forbidden(
                format!("the access token lacks the scope {word}; use one that has it").into(),
            ));
        }
        app.limits.charge(self.account, cost)
    }

    /// What the audit table calls it.
    pub(crate) fn actor(&self) -> String {
        format!("token {}", self.token)
    }

    /// Charges a request that any valid token may make.
    ///
    /// # Errors
    /// `TooManyRequests` beyond the limit.
    pub(crate) fn charge(&self, app: &App, cost: Cost) -> Result<(), ApiError> {
        app.limits.charge(self.account, cost)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers)?;
        let access = app.verifier.access(token, time::now()).await?;
        access::note_account(parts, access.token.account);
        let Token { id, account, scopes, expires, .. } = access.token;
        Ok(Self { account, token: id, scopes, expires })
    }
}

/// The token of a request.
///
/// # Errors
/// `Unauthorized` when there is none.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    const MISSING: ApiError =
        ApiError::Unauthorized("no access token; send the header Authorization: Bearer <token>");
    let value = headers.get(header::AUTHORIZATION).ok_or(MISSING)?.to_str().map_err(|_| MISSING)?;
    let (scheme, token) = value.trim().split_once(' ').ok_or(MISSING)?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(MISSING);
    }
    Ok(token.trim())
}
