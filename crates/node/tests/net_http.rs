//! Routers and gateways over HTTP: what is understood, what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net_support;

use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
};

use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Redirect},
    routing::get,
};
use cid::Cid;
use libp2p::PeerId;
use net_support::{Stub, config, is_alone, is_isolated, network, start};
use pinfold_node::net::{Source, dns::Resolver, http::HttpError};
use url::Url;

const CID: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

fn cid() -> Cid {
    CID.parse().unwrap()
}

/// Serves `router` on loopback until the test ends.
async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn url(text: impl AsRef<str>) -> Url {
    text.as_ref().parse().unwrap()
}

fn gateway() -> Router {
    let block = |Path(cid): Path<String>| async move {
        assert_eq!(cid, CID);
        "the block"
    };
    Router::new()
        .route("/ipfs/{cid}", get(block))
        .route("/base/ipfs/{cid}", get(block))
        .route("/missing/ipfs/{cid}", get(|| async { StatusCode::NOT_FOUND }))
        .route(
            "/busy/ipfs/{cid}",
            get(|| async { (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "7")]) }),
        )
        .route("/large/ipfs/{cid}", get(|| async { vec![0_u8; (2 << 20) + 1] }))
        .route("/endless/ipfs/{cid}", get(|| async { axum::body::Body::from_stream(endless()) }))
        .route("/loop/ipfs/{cid}", get(|| async { Redirect::temporary("/loop/ipfs/x") }))
        .route("/file/ipfs/{cid}", get(|| async { Redirect::temporary("file:///etc/passwd") }))
        .route("/meta/ipfs/{cid}", get(|| async { Redirect::temporary("http://169.254.169.254/latest") }))
        .route("/named/ipfs/{cid}", get(|| async { Redirect::temporary("http://metadata.test/latest") }))
}

fn endless() -> impl futures::Stream<Item = std::io::Result<bytes::Bytes>> {
    futures::stream::repeat_with(|| Ok(bytes::Bytes::from_static(&[0; 65536])))
}

#[tokio::test]
async fn blocks_come_from_a_gateway() {
    let address = serve(gateway()).await;
    let network = network().await;
    for base in ["", "/", "/base", "/base/"] {
        let block = network.http().get_block(&url(format!("http://{address}{base}")), &cid(), true).await;
        assert_eq!(block.unwrap(), "the block", "{base}");
    }
    let from = async |base: &str| {
        network.http().get_block(&url(format!("http://{address}{base}")), &cid(), true).await.unwrap_err()
    };
    assert!(matches!(from("/missing").await, HttpError::NotFound(404)));
    let HttpError::Busy { retry_after, .. } = from("/busy").await else { panic!("not busy") };
    assert_eq!(retry_after.unwrap().as_secs(), 7);
    assert!(matches!(from("/large").await, HttpError::TooLarge(_)));
    assert!(matches!(from("/endless").await, HttpError::TooLarge(_)));
    network.shutdown().await;
}

#[tokio::test]
async fn redirects_are_judged_and_end() {
    let address = serve(gateway()).await;
    let stub = Stub::default();
    stub.address("metadata.test", &["169.254.169.254"]);
    let mut settings = config();
    settings.resolver = Some(Resolver::new(stub));
    let network = start(settings).await;
    let from = async |base: &str| {
        network.http().get_block(&url(format!("http://{address}{base}")), &cid(), true).await.unwrap_err()
    };
    assert!(matches!(from("/loop").await, HttpError::Failed(why) if why.contains("redirects")));
    assert!(!matches!(from("/file").await, HttpError::NotFound(_)));
    for base in ["/meta", "/named"] {
        let why = from(base).await.to_string();
        assert!(why.contains("never dialled"), "{base}: {why}");
    }
    network.shutdown().await;
}

#[tokio::test]
async fn private_addresses_are_refused_however_they_are_written() {
    let address = serve(gateway()).await;
    let port = address.port();
    let stub = Stub::default();
    stub.address("inside.test", &["127.0.0.1"]);
    stub.address("mapped.test", &["::ffff:127.0.0.1"]);
    stub.address("nat64.test", &["64:ff9b::7f00:1"]);
    stub.address("localhost", &["127.0.0.1"]);
    let mut settings = config();
    settings.resolver = Some(Resolver::new(stub));
    let network = start(settings).await;
    let hosts = ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"];
    let odd = ["2130706433", "0x7f.1", "127.1", "localhost", "inside.test", "mapped.test", "nat64.test"];
    for host in hosts.iter().chain(&odd) {
        let gateway = url(format!("http://{host}:{port}"));
        let refused = network.http().get_block(&gateway, &cid(), false).await.unwrap_err();
        assert!(matches!(refused, HttpError::Refused(_)), "{host}: {refused:?}");
    }
    let allowed = url(format!("http://inside.test:{port}"));
    assert!(network.http().get_block(&allowed, &cid(), true).await.is_ok());
    network.shutdown().await;

    let mut settings = config();
    settings.allow_private_addresses = false;
    let closed = start(settings).await;
    let refused = closed.http().get_block(&url(format!("http://{address}")), &cid(), true).await;
    assert!(matches!(refused, Err(HttpError::Refused(_))));
    closed.shutdown().await;
}

/// A name that first resolves to a public address and then to loopback, asked
/// for directly and after a redirect.
#[tokio::test]
async fn rebinding_gains_nothing_in_namespaces() {
    if !is_isolated("rebinding_gains_nothing_in_namespaces") {
        return;
    }
    let inside = serve(gateway()).await;
    let to = format!("http://rebind.test:{}/ipfs/{CID}", inside.port());
    let redirecting = Router::new().route("/ipfs/{cid}", get(async move || Redirect::temporary(&to)));
    let redirecting = url(format!("http://{}", serve(redirecting).await));
    let direct = url(format!("http://rebind.test:{}", inside.port()));
    for (base, private) in [(&direct, false), (&redirecting, true)] {
        let stub = Stub::default();
        let bad = if private { "169.254.169.254" } else { "127.0.0.1" };
        stub.sequence("rebind.test", &[&["11.0.0.1"], &[bad]]);
        let mut settings = config();
        settings.resolver = Some(Resolver::new(stub.clone()));
        let network = start(settings).await;
        let ask = async || network.http().get_block(base, &cid(), private).await.unwrap_err();
        let unreachable = ask().await.to_string();
        assert!(unreachable.contains("unreachable"), "{unreachable}");
        assert_eq!(stub.lookups(), 1, "one lookup for each request");
        let refused = ask().await;
        assert!(matches!(refused, HttpError::Refused(_)), "{refused:?}");
        assert_eq!(stub.lookups(), 2);
        network.shutdown().await;
    }
}

/// Whoever sets the environment could read and change what is fetched.
#[tokio::test]
async fn no_proxy_is_taken_from_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url_of_proxy = format!("http://{}", proxy.local_addr().unwrap());
    let with_proxies = |program: &std::path::Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(name, &url_of_proxy).env(name.to_lowercase(), &url_of_proxy);
        }
        for name in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
            command.env_remove(name);
        }
        command
    };
    if !is_alone("no_proxy_is_taken_from_the_environment", with_proxies) {
        let nobody = proxy.accept().expect_err("nobody has connected");
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
        return;
    }
    assert!(std::env::var("HTTP_PROXY").is_ok());
    let address = serve(gateway()).await;
    let network = network().await;
    let block = network.http().get_block(&url(format!("http://{address}")), &cid(), true).await;
    assert_eq!(block.unwrap(), "the block");
    network.shutdown().await;
}

#[tokio::test]
async fn providers_come_from_routers_in_every_form() {
    let (a, b, c) = (PeerId::random(), PeerId::random(), PeerId::random());
    let json = format!(
        r#"{{"Providers":[{{"Schema":"peer","ID":"{a}","Addrs":["/ip4/1.2.3.4/tcp/1","bad"],"Protocols":["x"]}},
        {{"Schema":"unknown","x":1}},{{"Schema":"bitswap","ID":"{b}","Addrs":null}}]}}"#
    );
    let lines = format!("{{\"Schema\":\"peer\",\"ID\":\"{c}\",\"Addrs\":[]}}\nnot json\n");
    let path = "/routing/v1/providers/{cid}";
    let typed = |kind: &'static str, body: String| {
        get(async move || ([(header::CONTENT_TYPE, kind)], body).into_response())
    };
    let first = serve(Router::new().route(path, typed("application/json", json))).await;
    let second = serve(Router::new().route(path, typed("application/x-ndjson", lines))).await;
    let third = serve(Router::new()).await;
    let mut settings = config();
    settings.routers = [first, second, third].iter().map(|at| url(format!("http://{at}"))).collect();
    let network = start(settings).await;
    assert!(network.has_routing());
    let mut search = network.find_providers(cid());
    let mut found = Vec::new();
    while let Some(provider) = search.next().await {
        assert_eq!(provider.source, Source::Router);
        found.push((provider.peer, provider.addresses.len()));
    }
    found.sort_unstable();
    let mut expected = vec![(a, 1), (b, 0), (c, 0)];
    expected.sort_unstable();
    assert_eq!(found, expected);
    network.shutdown().await;
}

#[tokio::test]
async fn without_routing_a_search_ends_at_once() {
    let network = network().await;
    assert!(!network.has_routing());
    assert_eq!(network.find_providers(cid()).next().await, None);
    network.shutdown().await;
}
