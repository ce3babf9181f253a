//! The Pinning Service API: five operations over the account's pins.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use uuid::Uuid;

use super::{
    auth::Caller,
    cids,
    error::{ApiError, DENIED, NO_SUCH_PIN},
    extract::{ClientBody, RequestId},
    limits::Cost,
    pin_input::PinInput,
    query,
    state::App,
    wire::{PinResults, PinStatus},
};
use crate::db::{NewPin, PinRecord, Scope};

/// Lists pins, newest first.
#[utoipa::path(get, path = "/pins", operation_id = "getPins", tag = "pins",
    params(super::openapi::ListParameters),
    responses(
        (status = 200, description = "A page of pins, and how many match", body = PinResults),
    ))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<PinResults>, ApiError> {
    caller.may(&app, Scope::PinsRead, Cost::Read)?;
    let query = query::parse(query.as_deref().unwrap_or_default())?;
    let page = app.database.list(caller.account, query).await?;
    let lacking = page.pins.iter().any(|pin| pin.delegates.is_empty());
    let known = if lacking { app.known_delegates().await } else { [].into() };
    Ok(Json(PinResults::new(page, &known, app.allow_private_addresses)))
}

/// Pins a CID.
#[utoipa::path(post, path = "/pins", operation_id = "addPin", tag = "pins",
    request_body = PinInput,
    responses(
        (status = 202, description = "Accepted, durably", body = PinStatus),
    ))]
pub(crate) async fn add(
    State(app): State<App>,
    caller: Caller,
    ClientBody(body): ClientBody,
) -> Result<Response, ApiError> {
    caller.may(&app, Scope::PinsWrite, Cost::Write)?;
    let pin = new_pin(&app, &caller, &body)?;
    let record = app.database.add_pin(pin).await?;
    Ok(accepted(&app, record).await)
}

/// Shows one pin.
#[utoipa::path(get, path = "/pins/{requestid}", operation_id = "getPinByRequestId", tag = "pins",
    params(("requestid" = String, Path, description = "Which pin")),
    responses(
        (status = 200, description = "The pin", body = PinStatus),
    ))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    RequestId(requestid): RequestId,
) -> Result<Json<PinStatus>, ApiError> {
    caller.may(&app, Scope::PinsRead, Cost::Poll)?;
    let record = app.database.pin(caller.account, requestid).await?;
    Ok(Json(shown(&app, record.ok_or(ApiError::NotFound(NO_SUCH_PIN))?).await))
}

/// Replaces a pin by another in one step.
///
/// What was held is kept until the new pin is held.
#[utoipa::path(post, path = "/pins/{requestid}", operation_id = "replacePinByRequestId", tag = "pins",
    params(("requestid" = String, Path, description = "Which pin")),
    request_body = PinInput,
    responses(
        (status = 202, description = "Accepted, durably", body = PinStatus),
    ))]
pub(crate) async fn replace(
    State(app): State<App>,
    caller: Caller,
    RequestId(requestid): RequestId,
    ClientBody(body): ClientBody,
) -> Result<Response, ApiError> {
    caller.may(&app, Scope::PinsWrite, Cost::Write)?;
    let pin = new_pin(&app, &caller, &body)?;
    let record = app.database.replace_pin(requestid, pin).await?;
    Ok(accepted(&app, record).await)
}

/// Removes a pin.
#[utoipa::path(delete, path = "/pins/{requestid}", operation_id = "deletePinByRequestId", tag = "pins",
    params(("requestid" = String, Path, description = "Which pin")),
    responses(
        (status = 202, description = "Removed"),
    ))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    RequestId(requestid): RequestId,
) -> Result<StatusCode, ApiError> {
    caller.may(&app, Scope::PinsWrite, Cost::Write)?;
    app.database.delete_pin(caller.account, requestid).await?;
    Ok(StatusCode::ACCEPTED)
}

fn new_pin(app: &App, caller: &Caller, body: &[u8]) -> Result<NewPin, ApiError> {
    let mut input = PinInput::parse(body)?;
    let root = cids::parse_root(&input.cid)?;
    if app.denylists.denies(&root.cid) {
        tracing::info!(cid = %root.cid, account = caller.account, "a pin of what the denylist forbids was refused");
        return Err(ApiError::Denied(DENIED));
    }
    Ok(NewPin {
        requestid: Uuid::now_v7(),
        account: caller.account,
        origins: input.kept_origins(),
        content: root.key,
        inline: root.inline,
        cid: input.cid,
        name: input.name,
        meta: input.meta.unwrap_or_default(),
    })
}

async fn accepted(app: &App, record: PinRecord) -> Response {
    (StatusCode::ACCEPTED, Json(shown(app, record).await)).into_response()
}

/// A record as its owner sees it. What stands in for missing delegates is a
/// help, so that its lack fails nothing: the pin is stored by now.
pub(crate) async fn shown(app: &App, record: PinRecord) -> PinStatus {
    let lacking = record.delegates.is_empty();
    let known = if lacking { app.known_delegates().await } else { [].into() };
    PinStatus::new(record, &known, app.allow_private_addresses)
}
