//! Provider records in a DHT of one server on loopback: published by one
//! network, found by another.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net_support;
mod support;

use std::{collections::HashSet, sync::Arc};

use cid::{Cid, multihash::Multihash};
use libp2p::Multiaddr;
use multihash_codetable::{Code, MultihashDigest};
use net_support::{PATIENCE, config, start};
use pinfold_node::net::{Config, Provider, Roots, Source};
use support::dht::server;

const RAW: u64 = 0x55;
/// Public by its looks; nobody dials it here.
const ANNOUNCED: &str = "/ip4/11.1.1.1/tcp/4001";

fn settings(server: &Multiaddr) -> Config {
    Config { bootstrap: vec![server.clone()], ..config() }
}

fn publisher(server: &Multiaddr) -> Config {
    Config { provide: true, announce: vec![ANNOUNCED.parse().unwrap()], ..settings(server) }
}

fn root(n: u32) -> Cid {
    Cid::new_v1(RAW, Code::Sha2_256.digest(&n.to_be_bytes()))
}

#[tokio::test]
async fn a_new_root_is_published_and_found() {
    let (address, mut given) = server().await;
    let publisher = start(publisher(&address)).await;
    publisher.provide(&root(1));
    let key = tokio::time::timeout(PATIENCE, given.recv()).await.expect("a record").unwrap();
    assert_eq!(key, root(1).hash().to_bytes());

    let seeker = start(settings(&address)).await;
    assert!(seeker.has_routing());
    // Providers go by multihash, whatever the codec.
    let other_codec = Cid::new_v1(0x70, *root(1).hash());
    let mut search = seeker.find_providers(other_codec);
    let found = tokio::time::timeout(PATIENCE, search.next()).await.expect("a provider");
    let addresses = publisher.announced();
    assert_eq!(found, Some(Provider { peer: publisher.peer_id(), addresses, source: Source::Dht }));
    let mut nothing = seeker.find_providers(root(2));
    assert_eq!(tokio::time::timeout(PATIENCE, nothing.next()).await.expect("an end"), None);
    seeker.shutdown().await;
    publisher.shutdown().await;
}

struct Held(u32);

impl Roots for Held {
    fn for_each(&self, visit: &mut dyn FnMut(&Multihash<64>)) {
        (0..self.0).for_each(|n| visit(root(n).hash()));
    }
}

#[tokio::test]
async fn the_sweep_publishes_every_root() {
    let (address, mut given) = server().await;
    let publisher = start(publisher(&address)).await;
    publisher.reprovide(Arc::new(Held(700)));
    let mut seen = HashSet::new();
    while seen.len() < 700 {
        let key = tokio::time::timeout(PATIENCE, given.recv()).await.expect("a record").unwrap();
        seen.insert(key);
    }
    assert!((0..700).all(|n| seen.contains(&root(n).hash().to_bytes())));
    publisher.shutdown().await;
}

#[tokio::test]
async fn nothing_is_published_unless_the_settings_say_so() {
    let (address, mut given) = server().await;
    let silent = start(settings(&address)).await;
    silent.provide(&root(1));
    silent.reprovide(Arc::new(Held(1)));
    let speaking = start(publisher(&address)).await;
    speaking.provide(&root(2));
    let key = tokio::time::timeout(PATIENCE, given.recv()).await.expect("a record").unwrap();
    assert_eq!(key, root(2).hash().to_bytes());
    silent.shutdown().await;
    speaking.shutdown().await;
}
