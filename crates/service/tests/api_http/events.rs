//! Server-sent events of a pin.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, BodyDataStream},
    http::{Request, header},
};
use futures::StreamExt;
use pinfold_service::Service;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    fake_node::FakeNode,
    server::{Backend, Server, cid, settings},
};

crate::on_both!(
    a_stream_shows_progress_and_ends_when_pinned,
    a_stream_ends_when_the_pin_is_removed,
    a_stream_of_what_is_pinned_is_one_event,
    streams_end_at_shutdown,
    foreign_and_missing_pins_have_no_events,
);

pub(crate) struct Events {
    stream: BodyDataStream,
    buffered: String,
}

impl Events {
    async fn open(server: &Server, requestid: &Value) -> Self {
        Self::at(server.router.clone(), server, requestid).await
    }

    /// Of another service on the server's data.
    pub(crate) async fn at(router: Router, server: &Server, requestid: &Value) -> Self {
        let request = Request::get(format!("/api/v1/pins/{}/events", requestid.as_str().unwrap()))
            .header(header::AUTHORIZATION, format!("Bearer {}", server.token))
            .body(Body::empty())
            .unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { stream: response.into_body().into_data_stream(), buffered: String::new() }
    }

    /// The next event's name and data; none at the end.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.buffered.split_once("\n\n") {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                        .trim()
                        .to_owned()
                };
                let found = (field("event:"), serde_json::from_str(&field("data:")).unwrap());
                self.buffered = rest.to_owned();
                return Some(found);
            }
            let part =
                tokio::time::timeout(Duration::from_secs(20), self.stream.next()).await.unwrap()?.unwrap();
            self.buffered.push_str(std::str::from_utf8(&part).unwrap());
        }
    }
}

/// The router of a service whose tasks run.
async fn live(on: Backend) -> (Server, Service) {
    let server = Server::start(on).await;
    let service = Service::start(settings(), server.database.clone(), server.keyring.clone()).await.unwrap();
    let router = service.router();
    (Server { router, ..server }, service)
}

async fn a_stream_shows_progress_and_ends_when_pinned(on: Backend) {
    let (server, service) = live(on).await;
    let mut node = FakeNode::join(&server).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let mut events = Events::open(&server, &pin["requestid"]).await;
    let (name, first) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &first["status"]), ("status", &json!("queued")));
    let work = node.take().await;
    node.progress(work[0].allocation, 5_000).await;
    let (_, second) = events.next().await.unwrap();
    assert_eq!((&second["status"], &second["info"]["bytes"]), (&json!("pinning"), &json!("5000")));
    node.stored(work[0].allocation, 9_000).await;
    let mut last = second;
    while let Some((_, status)) = events.next().await {
        last = status;
    }
    assert_eq!(last["status"], "pinned");
    assert_eq!(last, server.get(&format!("/pins/{}", pin["requestid"].as_str().unwrap())).await.json());
    service.shutdown();
    service.join().await;
}

async fn a_stream_ends_when_the_pin_is_removed(on: Backend) {
    let (server, service) = live(on).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let mut events = Events::open(&server, &pin["requestid"]).await;
    events.next().await.unwrap();
    server.delete(&format!("/pins/{}", pin["requestid"].as_str().unwrap())).await;
    assert_eq!(events.next().await.unwrap().0, "removed");
    assert_eq!(events.next().await, None);
    service.shutdown();
    service.join().await;
}

async fn a_stream_of_what_is_pinned_is_one_event(on: Backend) {
    let server = Server::start(on).await;
    let pin = server.pin(json!({ "cid": "bafkqaaa" })).await;
    let mut events = Events::open(&server, &pin["requestid"]).await;
    assert_eq!(events.next().await.unwrap().1["status"], "pinned");
    assert_eq!(events.next().await, None);
}

async fn streams_end_at_shutdown(on: Backend) {
    let (server, service) = live(on).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let mut events = Events::open(&server, &pin["requestid"]).await;
    events.next().await.unwrap();
    service.shutdown();
    assert_eq!(events.next().await, None);
    service.join().await;
}

async fn foreign_and_missing_pins_have_no_events(on: Backend) {
    let server = Server::start(on).await;
    let path = format!("/api/v1/pins/{}/events", uuid::Uuid::now_v7());
    server.get(&path).await.failure(404, "NOT_FOUND");
}
