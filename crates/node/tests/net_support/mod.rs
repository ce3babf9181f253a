//! What the network's tests share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use futures::{FutureExt, future::BoxFuture};
use libp2p::{PeerId, identity::Keypair};
use pinfold_bitswap::{Blocks, NoBlocks};
use pinfold_node::net::{
    Config, Network,
    dns::{Family, Lookup},
};
use tokio::sync::broadcast;

/// Longer than anything here takes, short enough not to hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Loopback, private addresses allowed, no public network.
pub fn config() -> Config {
    Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        allow_private_addresses: true,
        resolver: Some(pinfold_node::net::dns::Resolver::new(Stub::default())),
        ..Config::default()
    }
}

pub async fn start(config: Config) -> Network {
    Network::start(config, Keypair::generate_ed25519(), Arc::new(NoBlocks)).await.unwrap()
}

pub async fn serve(config: Config, blocks: impl Blocks) -> Network {
    Network::start(config, Keypair::generate_ed25519(), Arc::new(blocks)).await.unwrap()
}

pub async fn network() -> Network {
    start(config()).await
}

pub async fn arrival(arrivals: &mut broadcast::Receiver<PeerId>) -> PeerId {
    tokio::time::timeout(PATIENCE, arrivals.recv()).await.expect("an arrival").unwrap()
}

/// Waits until `at` knows of no connection with `of`.
pub async fn gone(at: &Network, of: &Network) {
    until(|| !at.is_connected(&of.peer_id())).await;
}

/// Connects `a` with `b` and waits until both sides know.
pub async fn join(a: &Network, b: &Network) {
    a.dial(Some(b.peer_id()), b.listen_addresses(), true).await.unwrap();
    until(|| a.is_connected(&b.peer_id()) && b.is_connected(&a.peer_id())).await;
}

/// Polls a condition that no event tells of.
pub async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it becomes true in time");
}

/// Scripted name servers.
#[derive(Clone, Default)]
pub struct Stub {
    addresses: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    texts: Arc<Mutex<HashMap<String, Vec<String>>>>,
    lookups: Arc<AtomicUsize>,
}

impl Stub {
    pub fn address(&self, name: &str, ips: &[&str]) {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.addresses.lock().unwrap().insert(name.to_owned(), ips);
    }

    pub fn text(&self, name: &str, text: &str) {
        self.texts.lock().unwrap().entry(name.to_owned()).or_default().push(text.to_owned());
    }

    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }

    fn answer<T: Clone + Send + 'static>(
        &self,
        from: &Mutex<HashMap<String, Vec<T>>>,
        name: &str,
    ) -> BoxFuture<'static, io::Result<Vec<T>>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let found = from.lock().unwrap().get(name.trim_end_matches('.')).cloned();
        let found = found.ok_or_else(|| io::Error::other(format!("{name} does not exist")));
        futures::future::ready(found).boxed()
    }
}

impl Lookup for Stub {
    fn addresses(&self, name: String, _: Family) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.answer(&self.addresses, &name)
    }

    fn texts(&self, name: String) -> BoxFuture<'static, io::Result<Vec<String>>> {
        self.answer(&self.texts, &name)
    }
}

/// Blocks in memory.
#[derive(Clone, Default)]
pub struct Memory(pub Arc<HashMap<Cid, Bytes>>);

impl Blocks for Memory {
    fn size(&self, _: &PeerId, cid: &Cid) -> Option<u32> {
        self.0.get(cid).map(|block| block.len() as u32)
    }

    fn get(&self, _: &PeerId, cid: &Cid) -> Option<Bytes> {
        self.0.get(cid).cloned()
    }
}
