//! Names that lead far are cut off; names that fit are dialled.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net_support;

use net_support::{Stub, config, network, start};
use pinfold_node::net::{
    DialError,
    dns::{MAX_LOOKUPS, Resolver},
};

#[tokio::test]
async fn dnsaddr_leads_to_the_peer_it_names() {
    let (b, other) = (network().await, network().await);
    let stub = Stub::default();
    for network in [&other, &b] {
        stub.text("_dnsaddr.b.test", &format!("dnsaddr={}", network.listen_addresses()[0]));
    }
    stub.text("_dnsaddr.b.test", "dnsaddr=nonsense");
    stub.text("_dnsaddr.b.test", "something else");
    stub.text("_dnsaddr.start.test", &format!("dnsaddr=/dnsaddr/b.test/p2p/{}", b.peer_id()));
    let mut settings = config();
    settings.resolver = Some(Resolver::new(stub));
    let a = start(settings).await;
    let address = "/dnsaddr/start.test".parse().unwrap();
    assert_eq!(a.dial(Some(b.peer_id()), vec![address], true).await, Ok(b.peer_id()));
    assert!(!a.is_connected(&other.peer_id()));
    for network in [a, b, other] {
        network.shutdown().await;
    }
}

#[tokio::test]
async fn dnsaddr_recursion_and_fan_out_have_an_end() {
    let stub = Stub::default();
    stub.text("_dnsaddr.loop.test", "dnsaddr=/dnsaddr/loop.test");
    for n in 0..100 {
        stub.text("_dnsaddr.wide.test", &format!("dnsaddr=/dnsaddr/w{n}.test"));
    }
    let mut settings = config();
    settings.resolver = Some(Resolver::new(stub.clone()));
    let a = start(settings).await;
    let failed = a.dial(None, vec!["/dnsaddr/loop.test".parse().unwrap()], true).await.unwrap_err();
    assert!(matches!(&failed, DialError::Unreachable(why) if why.contains("too far")), "{failed}");
    assert!(stub.lookups() <= MAX_LOOKUPS, "{} lookups", stub.lookups());
    let before = stub.lookups();
    assert!(a.dial(None, vec!["/dnsaddr/wide.test".parse().unwrap()], true).await.is_err());
    assert!(stub.lookups() - before <= MAX_LOOKUPS, "{} lookups", stub.lookups() - before);
    a.shutdown().await;
}
