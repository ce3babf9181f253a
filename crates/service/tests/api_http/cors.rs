//! Cross-origin requests, preflights and errors included.

use axum::{
    body::Body,
    http::{Method, Request},
};

use crate::server::{Backend, Server};

crate::on_both!(
    every_path_answers_a_preflight_that_names_authorization,
    errors_can_be_read_by_pages,
    an_options_request_that_is_no_preflight_is_405,
);

async fn every_path_answers_a_preflight_that_names_authorization(on: Backend) {
    let server = Server::start(on).await;
    for path in
        ["/pins", "/pins/x", "/api/v1/account", "/api/v1/tokens", "/routing/v1/providers/x", "/", "/nowhere"]
    {
        let request = Request::builder()
            .method(Method::OPTIONS)
            .uri(path)
            .header("origin", "https://app.example")
            .header("access-control-request-method", "DELETE")
            .header("access-control-request-headers", "authorization,x-custom")
            .body(Body::empty())
            .unwrap();
        let answer = server.send(request).await;
        assert_eq!(answer.status.as_u16(), 204, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("access-control-allow-methods").contains("DELETE"));
        let headers = answer.header("access-control-allow-headers");
        assert!(headers.contains("Authorization") && headers.contains("x-custom"), "{headers}");
        assert!(answer.headers.get("access-control-allow-credentials").is_none());
    }
}

async fn errors_can_be_read_by_pages(on: Backend) {
    let server = Server::start(on).await;
    let bare = Request::get("/pins").body(Body::empty()).unwrap();
    // `failure` asserts the header.
    server.send(bare).await.failure(401, "UNAUTHORIZED");
    server.get("/nowhere").await.failure(404, "NOT_FOUND");
    let long = "x".repeat(300_000);
    server.call(Method::POST, "/pins", long).await.failure(413, "PAYLOAD_TOO_LARGE");
    assert!(server.get("/pins").await.header("access-control-expose-headers").contains("Retry-After"));
}

async fn an_options_request_that_is_no_preflight_is_405(on: Backend) {
    let server = Server::start(on).await;
    server.call(Method::OPTIONS, "/pins", Body::empty()).await.failure(405, "METHOD_NOT_ALLOWED");
}
