//! Delegated routing.

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::json;

use crate::{
    fake_node::{self, FakeNode},
    server::{Backend, Server, cid},
};

crate::on_both!(holders_are_found_without_a_token, what_is_no_cid_is_422,);

async fn providers(server: &Server, cid: &str, accept: Option<&str>) -> crate::server::Answer {
    let mut request = Request::get(format!("/routing/v1/providers/{cid}"));
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    server.send(request.body(Body::empty()).unwrap()).await
}

async fn holders_are_found_without_a_token(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    server.pin(json!({ "cid": cid(1) })).await;
    let none = providers(&server, &cid(1), None).await;
    assert_eq!((none.status.as_u16(), none.json()), (200, json!({ "Providers": [] })));
    node.store_all(100).await;
    let found = providers(&server, &cid(1), Some("application/json")).await;
    assert_eq!(found.header("content-type"), "application/json");
    assert_eq!(found.header("access-control-allow-origin"), "*");
    let address = fake_node::address(&node.key);
    let (bare, id) = address.rsplit_once("/p2p/").unwrap();
    let peer = json!({
        "Schema": "peer",
        "ID": id,
        "Addrs": [bare, "/ip4/127.0.0.1/tcp/8071/http"],
        "Protocols": ["transport-bitswap", "transport-ipfs-gateway-http"],
    });
    assert_eq!(found.json(), json!({ "Providers": [&peer] }));

    let lines = providers(&server, &cid(1), Some("application/json;q=0.5, application/x-ndjson")).await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let line: serde_json::Value = serde_json::from_str(lines.body.strip_suffix('\n').unwrap()).unwrap();
    assert_eq!(line, peer);
}

async fn what_is_no_cid_is_422(on: Backend) {
    let server = Server::start(on).await;
    providers(&server, "nonsense", None).await.failure(422, "UNPROCESSABLE_ENTITY");
}
