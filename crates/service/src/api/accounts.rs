//! `/api/v1/account`: the caller's own account.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{auth::Caller, error::ApiError, limits::Cost, state::App, time};
use crate::db::{Account, Scope};

/// An account and what it uses.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountStatus {
    /// Its number.
    id: i64,
    /// Its name.
    name: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created: String,
    /// Bytes that it may use.
    quota_bytes: u64,
    /// Bytes charged to it.
    used_bytes: u64,
    /// Bytes granted to fetches that run.
    reserved_bytes: u64,
    /// Pins by status.
    pins: PinCounts,
    /// The token that asked.
    token: OwnToken,
}

/// How many pins have which status.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PinCounts {
    queued: u64,
    pinning: u64,
    pinned: u64,
    failed: u64,
}

/// The token that asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnToken {
    /// Its id.
    id: String,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<&'static str>,
}

/// Shows the caller's account.
#[utoipa::path(get, path = "/api/v1/account", operation_id = "getAccount", tag = "account",
    responses(
        (status = 200, description = "The account", body = AccountStatus),
    ))]
pub(crate) async fn get(State(app): State<App>, caller: Caller) -> Result<Json<AccountStatus>, ApiError> {
    caller.charge(&app, Cost::Read)?;
    let account = app.database.account(caller.account).await?;
    let account = account.ok_or(ApiError::NotFound("the token's account is gone"))?;
    Ok(Json(AccountStatus::new(account, &caller)))
}

impl AccountStatus {
    fn new(account: Account, caller: &Caller) -> Self {
        let [queued, pinning, pinned, failed] = account.pins;
        Self {
            id: account.id,
            name: account.name,
            created: time::format(account.created),
            quota_bytes: account.quota,
            used_bytes: account.used,
            reserved_bytes: account.reserved,
            pins: PinCounts { queued, pinning, pinned, failed },
            token: OwnToken {
                id: caller.token.to_string(),
                scopes: caller.scopes.iter().copied().map(Scope::as_str).collect(),
            },
        }
    }
}
