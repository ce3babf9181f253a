//! Over real sockets: what the router alone cannot show.

use std::time::{Duration, Instant};

use pinfold_service::{Service, Settings, StartError};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    fake_node::FakeNode,
    server::{Backend, Server, cid, settings},
};

crate::on_both!(
    a_pin_over_tcp,
    a_body_that_says_it_is_long_is_refused_before_it_arrives,
    shutdown_answers_what_runs_and_ends_long_polls_at_once,
    metrics_are_shown_on_a_listener_of_their_own,
    an_address_in_use_is_named_with_its_flag,
);

pub(crate) async fn running(on: Backend, settings: Settings) -> (Server, Service) {
    let server = Server::start(on).await;
    let service = Service::start(settings, server.database.clone(), server.keyring.clone()).await.unwrap();
    (server, service)
}

/// Sends a request and reads to the end of the connection.
pub(crate) async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn a_pin_over_tcp(on: Backend) {
    let (server, service) = running(on, settings()).await;
    let body = json!({ "cid": cid(1) }).to_string();
    let request = format!(
        "POST /pins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        server.token,
        body.len()
    );
    let answer = exchange(service.api_address(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n"), "{answer}");
    assert!(answer.contains("\"status\":\"queued\""), "{answer}");
    service.shutdown();
    service.join().await;
}

async fn a_body_that_says_it_is_long_is_refused_before_it_arrives(on: Backend) {
    let (server, service) = running(on, settings()).await;
    let request = format!(
        "POST /pins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 999999999999\r\nConnection: close\r\n\r\n",
        server.token
    );
    let answer = exchange(service.api_address(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("PAYLOAD_TOO_LARGE"), "{answer}");
    service.shutdown();
    service.join().await;
}

async fn shutdown_answers_what_runs_and_ends_long_polls_at_once(on: Backend) {
    let (server, service) = running(on, settings()).await;
    let mut node = FakeNode::connect(service.router(), crate::fake_node::key()).await;
    node.hello().await;
    let idle = TcpStream::connect(service.api_address()).await.unwrap();
    let started = Instant::now();
    let poll = node.pull(25_000, Vec::new());
    let stop = async {
        tokio::task::yield_now().await;
        service.shutdown();
    };
    let (pulled, ()) = tokio::join!(poll, stop);
    assert!(pulled.assignments.is_empty());
    let address = service.api_address();
    service.join().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    drop((server, idle));
}

async fn metrics_are_shown_on_a_listener_of_their_own(on: Backend) {
    let metrics = Some("127.0.0.1:0".parse().unwrap());
    let (server, service) = running(on, Settings { metrics, ..settings() }).await;
    let request = format!(
        "GET /pins?name=secret HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        server.token
    );
    exchange(service.api_address(), &request).await;
    let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let text = exchange(service.metrics_address().unwrap(), ask).await;
    for name in
        ["pinfold_http_requests_total{", "pinfold_http_request_duration_seconds_bucket{", "route=\"/pins\""]
    {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("secret") && !text.contains(&server.token));
    assert!(exchange(service.api_address(), ask).await.starts_with("HTTP/1.1 404 "));
    service.shutdown();
    service.join().await;
}

async fn an_address_in_use_is_named_with_its_flag(on: Backend) {
    let (server, service) = running(on, settings()).await;
    let taken = Settings { api: service.api_address(), ..settings() };
    let error = Service::start(taken, server.database.clone(), server.keyring.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::Bind { .. }));
    assert!(error.to_string().contains("--api"), "{error}");
    service.shutdown();
    service.join().await;
}
