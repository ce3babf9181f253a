//! The one shape of every refusal.

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use serde_json::json;

use crate::server::{Backend, Server, cid};

crate::on_both!(
    unknown_paths_are_404_and_nothing_redirects,
    other_methods_are_405_and_name_those_that_work,
    a_large_body_is_refused_before_it_is_parsed,
    kubo_ends_its_json_with_a_newline,
    every_answer_has_a_request_id_that_strangers_cannot_choose,
    head_answers_like_get_without_a_body,
    the_landing_page_names_the_endpoint,
    health_and_readiness,
);

async fn unknown_paths_are_404_and_nothing_redirects(on: Backend) {
    let server = Server::start(on).await;
    for path in ["/pin", "/pins/", "/pins/a/b", "/api/v1/pins", "/psa/pins", "//pins", "/node/v1/other"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = server.call(method.clone(), path, "{}").await;
            assert!(!answer.status.is_redirection(), "{method} {path}");
            answer.failure(404, "NOT_FOUND");
        }
    }
}

async fn other_methods_are_405_and_name_those_that_work(on: Backend) {
    let server = Server::start(on).await;
    for (path, method, allowed) in [
        ("/pins", Method::DELETE, "GET,HEAD,POST"),
        ("/pins/x", Method::PUT, "GET,HEAD,POST,DELETE"),
        ("/api/v1/account", Method::POST, "GET,HEAD"),
        ("/node/v1/pull", Method::GET, "POST"),
    ] {
        let answer = server.call(method, path, Body::empty()).await;
        answer.failure(405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), allowed);
    }
}

async fn a_large_body_is_refused_before_it_is_parsed(on: Backend) {
    let server = Server::start(on).await;
    let long = format!("{{\"cid\":\"{}\",\"name\":\"{}\"}}", cid(1), "n".repeat(300_000));
    let details = server.call(Method::POST, "/pins", long.clone()).await.failure(413, "PAYLOAD_TOO_LARGE");
    assert!(details.contains("262144"), "{details}");
    // The same without a declared length.
    let parts: Vec<Result<Vec<u8>, std::io::Error>> =
        long.as_bytes().chunks(10_000).map(|part| Ok(part.to_vec())).collect();
    let body = Body::from_stream(futures::stream::iter(parts));
    server.call(Method::POST, "/pins", body).await.failure(413, "PAYLOAD_TOO_LARGE");
}

async fn kubo_ends_its_json_with_a_newline(on: Backend) {
    let server = Server::start(on).await;
    let answer = server.call(Method::POST, "/pins", format!("{{\"cid\":\"{}\"}}\n", cid(1))).await;
    assert_eq!(answer.status.as_u16(), 202);
    let answer = server.call(Method::POST, "/pins", format!("{{\"cid\":\"{}\"}} x", cid(1))).await;
    answer.failure(400, "BAD_REQUEST");
}

async fn every_answer_has_a_request_id_that_strangers_cannot_choose(on: Backend) {
    let server = Server::start(on).await;
    let request = Request::get("/pins")
        .header(header::AUTHORIZATION, format!("Bearer {}", server.token))
        .header("x-request-id", "mine")
        .body(Body::empty())
        .unwrap();
    let first = server.send(request).await;
    let second = server.get("/pins").await;
    assert_ne!(first.header("x-request-id"), "mine");
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

async fn head_answers_like_get_without_a_body(on: Backend) {
    let server = Server::start(on).await;
    let answer = server.call(Method::HEAD, "/pins", Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
}

async fn the_landing_page_names_the_endpoint(on: Backend) {
    let server = Server::start(on).await;
    let request = Request::get("/").header(header::HOST, "127.0.0.1:8070").body(Body::empty()).unwrap();
    let page = server.send(request).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.body.contains("ipfs pin remote service add pinfold http://127.0.0.1:8070 TOKEN"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
}

async fn health_and_readiness(on: Backend) {
    let server = Server::start(on).await;
    assert_eq!(server.get("/healthz").await.body, "ok\n");
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.json()), (200, json!({ "ready": true })));
    server.database.close().await;
    let unready = server.get("/readyz").await;
    assert_eq!(unready.status.as_u16(), 503);
    assert!(unready.json()["reason"].as_str().unwrap().contains("database"));
    let details = server.get("/pins").await.failure(503, "SERVICE_UNAVAILABLE");
    assert!(!details.to_lowercase().contains("sqlite"), "internals stay inside: {details}");
}
