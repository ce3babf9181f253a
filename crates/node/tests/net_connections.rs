//! Connections between networks on loopback: dialled, refused, kept, dropped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net_support;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, identify, identity::Keypair, swarm::SwarmEvent};
use net_support::{PATIENCE, Stub, arrival, config, gone, is_isolated, join, network, start, until};
use pinfold_bitswap::NoBlocks;
use pinfold_node::net::{Config, DialError, Limits, Network, dns::Resolver};

#[tokio::test]
async fn a_dial_connects_and_both_sides_hear_of_it() {
    let (a, b) = (network().await, network().await);
    let (mut at_a, mut at_b) = (a.arrivals(), b.arrivals());
    let peer = a.dial(Some(b.peer_id()), b.listen_addresses(), true).await.unwrap();
    assert_eq!(peer, b.peer_id());
    assert_eq!(arrival(&mut at_a).await, b.peer_id());
    assert_eq!(arrival(&mut at_b).await, a.peer_id());
    assert!(a.is_connected(&b.peer_id()));
    assert_eq!(a.connected(), [b.peer_id()]);
    a.disconnect(b.peer_id());
    gone(&a, &b).await;
    gone(&b, &a).await;
    a.shutdown().await;
    b.shutdown().await;
    let after = a.dial(Some(b.peer_id()), b.listen_addresses(), true).await;
    assert_eq!(after, Err(DialError::Closed));
}

#[tokio::test]
async fn every_transport_connects() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0/ws"] {
        let mut settings = config();
        settings.listen = vec![listen.parse().unwrap()];
        let (a, b) = (network().await, start(settings).await);
        let dialled = a.dial(None, b.listen_addresses(), true).await;
        assert_eq!(dialled, Ok(b.peer_id()), "{listen}");
        a.shutdown().await;
        b.shutdown().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_refused() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0/ws"] {
        let first = start(Config { listen: vec![listen.parse().unwrap()], ..config() }).await;
        let mut taken = first.listen_addresses().remove(0);
        taken.pop();
        let settings = Config { listen: vec![taken.clone()], ..config() };
        let second = Network::start(settings, Keypair::generate_ed25519(), Arc::new(NoBlocks)).await;
        let Err(error) = second.map(drop) else { panic!("two listen on {taken}") };
        let said = error.to_string();
        assert!(said.contains(&taken.to_string()) && said.contains("in use"), "{said}");
        first.shutdown().await;
    }
}

#[tokio::test]
async fn a_port_can_be_taken_again_though_connections_of_it_linger() {
    let (first, peer) = (network().await, network().await);
    let mut bound = first.listen_addresses().remove(0);
    peer.dial(None, vec![bound.clone()], true).await.unwrap();
    first.shutdown().await;
    drop(first);
    bound.pop();
    let next = start(Config { listen: vec![bound], ..config() }).await;
    next.shutdown().await;
    peer.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_nobody_names_is_dialled_by_its_address() {
    let (a, b) = (network().await, network().await);
    let bare: Vec<Multiaddr> =
        b.listen_addresses().iter().map(|address| address.iter().take(2).collect()).collect();
    assert_eq!(a.dial(None, bare.clone(), true).await, Ok(b.peer_id()));
    let stranger = PeerId::random();
    let wrong = a.dial(Some(stranger), bare, true).await.unwrap_err();
    assert!(matches!(wrong, DialError::Unreachable(_)), "{wrong}");
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn dials_of_one_peer_share_one_connection() {
    let (a, b) = (network().await, network().await);
    let mut at_b = b.arrivals();
    let dials = (0..20).map(|_| a.dial(Some(b.peer_id()), b.listen_addresses(), true));
    for result in futures::future::join_all(dials).await {
        assert_eq!(result, Ok(b.peer_id()));
    }
    assert_eq!(arrival(&mut at_b).await, a.peer_id());
    assert!(at_b.try_recv().is_err());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn an_idle_connection_is_dropped_unless_its_peer_is_expected() {
    let mut settings = config();
    settings.idle_timeout = Duration::from_millis(100);
    settings.arrival_grace = Duration::from_millis(50);
    let b = start(settings.clone()).await;
    let (kept, dropped) = (start(settings.clone()).await, start(settings).await);
    // The dialling side expects as well, or it would hang up itself.
    let here = b.expect(kept.peer_id());
    let there = kept.expect(b.peer_id());
    join(&kept, &b).await;
    join(&dropped, &b).await;
    gone(&b, &dropped).await;
    // The one that is kept has outlived one that came later.
    assert!(b.is_connected(&kept.peer_id()));
    drop((here, there));
    gone(&b, &kept).await;
    for network in [b, kept, dropped] {
        network.shutdown().await;
    }
}

#[tokio::test]
async fn a_new_inbound_connection_is_kept_until_its_grace_ends() {
    let mut settings = config();
    settings.idle_timeout = Duration::from_millis(50);
    settings.arrival_grace = Duration::from_millis(700);
    let b = start(settings.clone()).await;
    let a = start(settings).await;
    // The dialling side keeps its end; the accepting side decides.
    let _end = a.expect(b.peer_id());
    let began = tokio::time::Instant::now();
    join(&a, &b).await;
    gone(&b, &a).await;
    assert!(began.elapsed() >= Duration::from_millis(700), "dropped after {:?}", began.elapsed());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn an_expectation_that_comes_within_the_grace_keeps_the_connection() {
    let mut settings = config();
    settings.idle_timeout = Duration::from_millis(50);
    settings.arrival_grace = Duration::from_millis(300);
    let b = start(settings.clone()).await;
    let (a, other) = (start(settings.clone()).await, start(settings).await);
    let _ends = (a.expect(b.peer_id()), other.expect(b.peer_id()));
    join(&a, &b).await;
    let _expected = b.expect(a.peer_id());
    join(&other, &b).await;
    gone(&b, &other).await;
    assert!(b.is_connected(&a.peer_id()));
    for network in [a, b, other] {
        network.shutdown().await;
    }
}

#[tokio::test]
async fn too_many_strangers_lose_their_grace_first() {
    let mut settings = config();
    settings.idle_timeout = Duration::from_millis(50);
    settings.limits.kept_alive = 2;
    let b = start(settings.clone()).await;
    let mut ends = Vec::new();
    let mut strangers = Vec::new();
    for _ in 0..3 {
        let stranger = start(settings.clone()).await;
        ends.push(stranger.expect(b.peer_id()));
        join(&stranger, &b).await;
        strangers.push(stranger);
    }
    gone(&b, &strangers[0]).await;
    assert!(b.is_connected(&strangers[1].peer_id()) && b.is_connected(&strangers[2].peer_id()));
    for network in strangers.iter().chain([&b]) {
        network.shutdown().await;
    }
}

#[tokio::test]
async fn strangers_leave_room_for_expected_peers() {
    let mut settings = config();
    settings.limits.inbound = 4;
    let b = start(settings).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let stranger = network().await;
        join(&stranger, &b).await;
        others.push(stranger);
    }
    let (stranger, friend) = (network().await, network().await);
    let _expected = b.expect(friend.peer_id());
    // A refused connection is closed after the handshake.
    let _ = stranger.dial(Some(b.peer_id()), b.listen_addresses(), true).await;
    gone(&stranger, &b).await;
    join(&friend, &b).await;
    assert!(!b.is_connected(&stranger.peer_id()));
    for network in others.iter().chain([&b, &stranger, &friend]) {
        network.shutdown().await;
    }
}

/// Whether `stranger` is turned away by `at`.
async fn is_refused(at: &Network, stranger: &Network) -> bool {
    let dialled = stranger.dial(Some(at.peer_id()), at.listen_addresses(), true).await;
    // A refused connection is closed after the handshake, or before.
    if dialled.is_ok() {
        let settled = || at.is_connected(&stranger.peer_id()) || !stranger.is_connected(&at.peer_id());
        until(settled).await;
    }
    !at.is_connected(&stranger.peer_id())
}

#[tokio::test]
async fn connections_of_strangers_are_capped_by_address_number_and_memory() {
    let check = async |change: fn(&mut Limits), taken: usize, spares_expected: bool| {
        let mut settings = config();
        change(&mut settings.limits);
        let b = start(settings).await;
        let mut strangers = Vec::new();
        for n in 0..=taken {
            let stranger = network().await;
            assert_eq!(is_refused(&b, &stranger).await, n == taken, "number {n} of {taken}");
            strangers.push(stranger);
        }
        let friend = network().await;
        let _expected = b.expect(friend.peer_id());
        assert_eq!(is_refused(&b, &friend).await, !spares_expected);
        strangers.extend([b, friend]);
        for network in strangers {
            network.shutdown().await;
        }
    };
    check(|limits| limits.per_address = 2, 2, true).await;
    check(|limits| limits.memory_bytes = 0, 0, true).await;
    check(|limits| limits.total = 3, 3, false).await;
}

#[tokio::test]
async fn an_end_to_dials_and_outbound_connections() {
    let others = [network().await, network().await];
    let mut settings = config();
    settings.limits.outbound = 1;
    let a = start(settings).await;
    join(&a, &others[0]).await;
    let refused = a.dial(Some(others[1].peer_id()), others[1].listen_addresses(), true).await;
    assert!(matches!(refused, Err(DialError::Busy)), "{refused:?}");
    let mut settings = config();
    settings.limits.pending_outbound = 0;
    let b = start(settings).await;
    let refused = b.dial(Some(others[1].peer_id()), others[1].listen_addresses(), true).await;
    assert!(matches!(refused, Err(DialError::Busy)), "{refused:?}");
    for network in others.iter().chain([&a, &b]) {
        network.shutdown().await;
    }
}

/// Who opens connections and says nothing keeps nobody else out.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn half_open_connections_leave_room_for_others() {
    let b = network().await;
    let port = b.listen_addresses()[0].iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], port.unwrap()));
    let mut silent = Vec::new();
    for _ in 0..100 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        silent.push(socket.connect(to).await.unwrap());
    }
    // Its connection is accepted after those, which would have taken all room.
    let friend = network().await;
    join(&friend, &b).await;
    friend.shutdown().await;
    drop(silent);
    b.shutdown().await;
}

#[tokio::test]
async fn of_expected_peers_too_only_so_many_are_kept() {
    let mut settings = config();
    settings.idle_timeout = Duration::from_millis(50);
    settings.arrival_grace = Duration::from_millis(50);
    settings.limits.kept_alive = 1;
    let b = start(settings.clone()).await;
    let (first, second) = (start(settings.clone()).await, start(settings).await);
    let _expected = [&first, &second].map(|peer| (b.expect(peer.peer_id()), peer.expect(b.peer_id())));
    join(&first, &b).await;
    join(&second, &b).await;
    gone(&b, &second).await;
    assert!(b.is_connected(&first.peer_id()));
    for network in [b, first, second] {
        network.shutdown().await;
    }
}

/// Each protocol is a door: these are all.
#[tokio::test]
async fn no_protocol_is_spoken_that_is_not_used() {
    let nobody = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", PeerId::random());
    for bootstrap in [Vec::new(), vec![nobody.parse().unwrap()]] {
        let b = start(Config { bootstrap, ..config() }).await;
        let mut swarm = libp2p::SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(Default::default(), libp2p::noise::Config::new, libp2p::yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| {
                identify::Behaviour::new(identify::Config::new("x".to_owned(), key.public()))
            })
            .unwrap()
            .build();
        swarm.dial(b.listen_addresses()[0].clone()).unwrap();
        let identified = async {
            loop {
                if let SwarmEvent::Behaviour(identify::Event::Received { info, .. }) =
                    swarm.next().await.unwrap()
                {
                    return info.protocols;
                }
            }
        };
        let spoken = tokio::time::timeout(PATIENCE, identified).await.expect("it identifies itself");
        let mut spoken: Vec<_> = spoken.iter().map(ToString::to_string).collect();
        spoken.sort_unstable();
        let want = [
            "/ipfs/bitswap",
            "/ipfs/bitswap/1.0.0",
            "/ipfs/bitswap/1.1.0",
            "/ipfs/bitswap/1.2.0",
            "/ipfs/id/1.0.0",
            "/ipfs/id/push/1.0.0",
            "/ipfs/ping/1.0.0",
        ];
        assert_eq!(spoken, want);
        b.shutdown().await;
    }
}

#[tokio::test]
async fn private_addresses_need_both_permissions() {
    let b = network().await;
    let mut closed = config();
    closed.allow_private_addresses = false;
    for (settings, private) in [(closed, true), (config(), false)] {
        let a = start(settings).await;
        let refused = a.dial(Some(b.peer_id()), b.listen_addresses(), private).await.unwrap_err();
        assert!(matches!(refused, DialError::Refused(_)), "{refused}");
        a.shutdown().await;
    }
    b.shutdown().await;
}

/// Names lead to the same filter as literal addresses, on every transport.
#[tokio::test]
async fn names_that_resolve_to_forbidden_addresses_are_refused() {
    let inside = network().await;
    let port = inside.listen_addresses()[0].iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let port = port.unwrap();
    let stub = Stub::default();
    for (name, ip) in [
        ("loopback", "127.0.0.1"),
        ("mapped", "::ffff:127.0.0.1"),
        ("nat64", "64:ff9b::7f00:1"),
        ("sixtofour", "2002:7f00:1::1"),
        ("metadata", "169.254.169.254"),
        ("unspecified", "0.0.0.0"),
    ] {
        stub.address(&format!("{name}.test"), &[ip]);
    }
    let peer = inside.peer_id();
    stub.text("_dnsaddr.indirect.test", &format!("dnsaddr=/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"));
    stub.text("_dnsaddr.twice.test", &format!("dnsaddr=/dns/loopback.test/tcp/{port}/p2p/{peer}"));
    let mut settings = config();
    settings.resolver = Some(Resolver::new(stub.clone()));
    let a = start(settings).await;
    let check = async |text: String, word: &str| {
        for peer in [None, Some(inside.peer_id())] {
            let error = a.dial(peer, vec![text.parse().unwrap()], false).await.unwrap_err();
            let DialError::Unreachable(why) = &error else { panic!("{text}: {error:?}") };
            assert!(why.contains(word), "{text}: {why}");
        }
    };
    for name in ["loopback", "mapped", "nat64", "sixtofour"] {
        check(format!("/dns/{name}.test/tcp/{port}"), "private").await;
    }
    check(format!("/dns4/loopback.test/udp/{port}/quic-v1"), "private").await;
    check(format!("/dns/loopback.test/tcp/{port}/ws"), "private").await;
    check(format!("/dns/loopback.test/tcp/{port}/tls/ws"), "private").await;
    check("/dns/metadata.test/tcp/80".to_owned(), "never").await;
    check("/dns/unspecified.test/tcp/80".to_owned(), "never").await;
    check("/dnsaddr/indirect.test".to_owned(), "private").await;
    check("/dnsaddr/twice.test".to_owned(), "private").await;
    assert!(inside.connected().is_empty());
    a.shutdown().await;
    inside.shutdown().await;
}

/// A name that first resolves to a public address and then to loopback: what
/// is judged is what is dialled, each time.
#[tokio::test]
async fn rebinding_gains_nothing_in_namespaces() {
    if !is_isolated("rebinding_gains_nothing_in_namespaces") {
        return;
    }
    let inside = network().await;
    let tail: Multiaddr = inside.listen_addresses()[0].iter().skip(1).collect();
    for ends in ["", "/ws"] {
        let stub = Stub::default();
        let mut settings = config();
        settings.resolver = Some(Resolver::new(stub.clone()));
        let a = start(settings).await;
        let port: Multiaddr = tail.iter().take(1).collect();
        let address: Multiaddr = format!("/dns/rebind.test{port}{ends}").parse().unwrap();
        let dial = async |private| a.dial(Some(inside.peer_id()), vec![address.clone()], private).await;
        // Nothing leads to the first address here, which lets the second be
        // tried if it is looked up again.
        stub.sequence("rebind.test", &[&["11.0.0.1"], &["127.0.0.1"]]);
        let unreachable = dial(false).await.unwrap_err();
        assert!(unreachable.to_string().contains("unreachable"), "{unreachable}");
        assert_eq!(stub.lookups(), 1, "one lookup for each dial");
        let refused = dial(false).await.unwrap_err();
        assert!(refused.to_string().contains("private"), "{refused}");
        assert_eq!(stub.lookups(), 2);
        assert!(inside.connected().is_empty());
        if ends.is_empty() {
            // With the permission the name works, which shows that the stub does.
            assert!(dial(true).await.is_ok());
            a.disconnect(inside.peer_id());
            gone(&inside, &a).await;
        }
        a.shutdown().await;
    }
    inside.shutdown().await;
}

#[tokio::test]
async fn link_local_is_never_dialled() {
    let a = network().await;
    for text in
        ["/ip4/169.254.169.254/tcp/80", "/ip6/fe80::1/tcp/80", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/tcp/1"]
    {
        let refused = a.dial(None, vec![text.parse().unwrap()], true).await.unwrap_err();
        assert!(matches!(refused, DialError::Refused(_)), "{text}: {refused}");
    }
    a.shutdown().await;
}
