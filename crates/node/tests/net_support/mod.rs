//! What the network's tests share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
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
    let mut arrivals = b.arrivals();
    a.dial(Some(b.peer_id()), b.listen_addresses(), true).await.unwrap();
    while !b.is_connected(&a.peer_id()) {
        arrival(&mut arrivals).await;
    }
}

/// Polls a condition that no event tells of, such as the end of a connection.
pub async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it becomes true in time");
}

/// Runs a test once more in a process of its own: `run` starts this program
/// with arguments that select it. Whether this is that process, and the test's
/// body is to go on.
pub fn is_alone(test: &str, run: impl FnOnce(&Path, &[&str]) -> Command) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = run(&program, &["--exact", test, "--nocapture", "--test-threads=1"]);
    let ended = command.env(ALONE, "1").output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(ended.status.success(), "{}", said.concat());
    // A name that selects nothing would succeed, too.
    assert!(said[0].contains("1 passed"), "{}", said.concat());
    false
}

const ALONE: &str = "PINFOLD_TEST_ALONE";

/// The same in a network with nothing but loopback, so that a test can name
/// addresses of the Internet and no packet leaves the machine.
pub fn is_isolated(test: &str) -> bool {
    is_alone(test, |program, arguments| {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let mut command = Command::new("unshare");
        command.args((!is_root).then_some("--map-root-user"));
        command.args(["--net", "sh", "-c", r#"ip link set lo up && exec "$0" "$@""#]);
        command.arg(program).args(arguments);
        command
    })
}

/// Scripted name servers.
#[derive(Clone, Default)]
pub struct Stub {
    /// What each lookup of a name is answered, in turn; the last one stays.
    addresses: Arc<Mutex<HashMap<String, Vec<Vec<IpAddr>>>>>,
    texts: Arc<Mutex<HashMap<String, Vec<String>>>>,
    lookups: Arc<AtomicUsize>,
}

impl Stub {
    pub fn address(&self, name: &str, ips: &[&str]) {
        self.sequence(name, &[ips]);
    }

    /// A name whose address changes from lookup to lookup.
    pub fn sequence(&self, name: &str, answers: &[&[&str]]) {
        let answer = |ips: &&[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.addresses.lock().unwrap().insert(name.to_owned(), answers.iter().map(answer).collect());
    }

    pub fn text(&self, name: &str, text: &str) {
        self.texts.lock().unwrap().entry(name.to_owned()).or_default().push(text.to_owned());
    }

    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }

    fn found<T: Send + 'static>(
        &self,
        name: &str,
        found: Option<Vec<T>>,
    ) -> BoxFuture<'static, io::Result<Vec<T>>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let found = found.ok_or_else(|| io::Error::other(format!("{name} does not exist")));
        futures::future::ready(found).boxed()
    }
}

impl Lookup for Stub {
    fn addresses(&self, name: String, _: Family) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut names = self.addresses.lock().unwrap();
        let answers = names.get_mut(name.trim_end_matches('.'));
        let found =
            answers.map(|answers| if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() });
        self.found(&name, found)
    }

    fn texts(&self, name: String) -> BoxFuture<'static, io::Result<Vec<String>>> {
        let found = self.texts.lock().unwrap().get(name.trim_end_matches('.')).cloned();
        self.found(&name, found)
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
