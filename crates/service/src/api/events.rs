//! `GET /api/v1/pins/{requestid}/events`: a pin as it changes, as server-sent
//! events.
//!
//! The data of each event is what `GET /pins/{requestid}` answers. The stream
//! begins with the present state and ends when the pin is pinned, failed or
//! removed, when the token ends, or after a while; clients connect again.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use tokio::{sync::watch, time::Instant};

use super::{
    auth::{self, Caller},
    error::{ApiError, NO_SUCH_PIN},
    extract::RequestId,
    hub::Latest,
    limits::Cost,
    pins,
    state::App,
    time,
};
use crate::db::Scope;

/// A silent connection is closed by proxies after a minute or so.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this a stream ends, so that none is held for a client long gone.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How often the token is asked about while nothing happens.
const TOKEN_CHECK: Duration = Duration::from_secs(10);
/// Tells nginx not to hold events back.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Streams one pin's changes.
#[utoipa::path(get, path = "/api/v1/pins/{requestid}/events", operation_id = "watchPin", tag = "pins",
    params(("requestid" = String, Path, description = "Which pin")),
    responses(
        (status = 200, description = "Events named `status`, whose data is a PinStatus; `removed` and `end` have none",
            content_type = "text/event-stream", body = String),
    ))]
pub(crate) async fn watch(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    RequestId(requestid): RequestId,
) -> Result<Response, ApiError> {
    caller.may(&app, Scope::PinsRead, Cost::Read)?;
    let record = app.database.pin(caller.account, requestid).await?;
    let record = record.ok_or(ApiError::NotFound(NO_SUCH_PIN))?;
    let mut latest = app.hub.subscribe(&record)?;
    latest.mark_changed();
    let watch = Watch {
        token: auth::bearer(&headers)?.to_owned(),
        latest,
        ends: Instant::now() + LONGEST,
        token_checked: Instant::now(),
        over: false,
        app,
    };
    let events = Sse::new(watch.events()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = events.into_response();
    response.headers_mut().insert(NO_BUFFERING, HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Watch {
    app: App,
    token: String,
    latest: watch::Receiver<Latest>,
    ends: Instant,
    token_checked: Instant,
    over: bool,
}

impl Watch {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut watch| async move {
            let event = watch.next().await?;
            Some((Ok(event), watch))
        })
    }

    /// The next event; none when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        while !self.over {
            let check = (self.token_checked + TOKEN_CHECK).min(self.ends);
            let stopping = self.app.stopping.clone();
            tokio::select! {
                changed = self.latest.changed() => {
                    return if changed.is_ok() { self.event().await } else { None };
                }
                () = stopping.cancelled() => self.over = true,
                () = tokio::time::sleep_until(check) => self.over = !self.may_go_on().await,
            }
        }
        None
    }

    async fn may_go_on(&mut self) -> bool {
        self.token_checked = Instant::now();
        self.token_checked < self.ends && self.app.verifier.access(&self.token, time::now()).await.is_ok()
    }

    async fn event(&mut self) -> Option<Event> {
        let latest = self.latest.borrow_and_update().clone();
        let Some(record) = latest else {
            self.over = true;
            return Some(Event::default().event("removed").data("{}"));
        };
        let status = pins::shown(&self.app, record).await;
        self.over = status.is_final();
        Event::default().event("status").json_data(&status).ok()
    }
}
