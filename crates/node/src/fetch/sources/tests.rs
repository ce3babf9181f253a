//! Searches in a network that the test plays: every dial and question is
//! noted, and answered at once or never.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures::FutureExt;
use parking_lot::Mutex;
use pinfold_core::content::Cid;
use pinfold_node_api::PeerHint;

use super::super::testing::Dag;
use super::*;
use crate::net::http::HttpError;
use crate::net::{DialError, MAX_ADDRESSES_PER_ORIGIN, Source};

/// Polls in a row that bring nothing, after which nothing more will come of
/// itself: more than any task here takes turns.
const QUIET: usize = 1_000;

/// Turns that a gateway takes to answer: whatever else can begin meanwhile
/// does.
const ANSWER: usize = 10;

/// What a search did.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    /// Dialled somebody at so many addresses.
    Dial(Option<PeerId>, usize),
    Find,
    Get(String),
}

/// See the module's description.
struct World {
    bitswap: bitswap::Handle,
    _behaviour: bitswap::Behaviour,
    arrivals: broadcast::Sender<PeerId>,
    recent: Mutex<Vec<PeerId>>,
    connected: Mutex<HashSet<PeerId>>,
    /// Those whose dials do not end.
    silent: Mutex<HashSet<PeerId>>,
    providers: Mutex<Vec<PeerId>>,
    /// What gateways have, by their host.
    gateways: Mutex<HashMap<(String, BlockCid), Bytes>>,
    did: Mutex<Vec<Did>>,
    asked: AtomicUsize,
    most_asked: AtomicUsize,
}

#[derive(Clone)]
struct Played(Arc<World>);

impl Played {
    fn new() -> Self {
        let (behaviour, bitswap) =
            bitswap::Behaviour::new(bitswap::Config::default(), Arc::new(bitswap::NoBlocks));
        Self(Arc::new(World {
            bitswap,
            _behaviour: behaviour,
            arrivals: broadcast::channel(64).0,
            recent: Mutex::default(),
            connected: Mutex::default(),
            silent: Mutex::default(),
            providers: Mutex::default(),
            gateways: Mutex::default(),
            did: Mutex::default(),
            asked: AtomicUsize::new(0),
            most_asked: AtomicUsize::new(0),
        }))
    }

    fn open(&self, search: Search, gateways: &[&str], more: mpsc::Receiver<Vec<String>>) -> Sources<Self> {
        let gateways = gateways.iter().map(|url| url.parse().unwrap()).collect();
        Sources::new(&Net { network: self.clone(), gateways, private: Arc::default() }, search, more)
    }

    fn did(&self) -> Vec<Did> {
        self.0.did.lock().clone()
    }

    fn dials(&self) -> usize {
        self.did().iter().filter(|did| matches!(did, Did::Dial(..))).count()
    }

    fn connect(&self) -> PeerId {
        let peer = PeerId::random();
        self.0.connected.lock().insert(peer);
        peer
    }
}

impl Reach for Played {
    fn bitswap(&self) -> &bitswap::Handle {
        &self.0.bitswap
    }

    fn newcomers(&self) -> (Vec<PeerId>, broadcast::Receiver<PeerId>) {
        (self.0.recent.lock().clone(), self.0.arrivals.subscribe())
    }

    fn is_connected(&self, peer: &PeerId) -> bool {
        self.0.connected.lock().contains(peer)
    }

    fn has_routing(&self) -> bool {
        true
    }

    fn is_public(&self) -> bool {
        false
    }

    fn find_providers(&self, _: BlockCid) -> Providers {
        self.0.did.lock().push(Did::Find);
        let (found, providers) = mpsc::channel(64);
        for peer in self.0.providers.lock().iter() {
            let provider = Provider { peer: *peer, addresses: vec![address()], source: Source::Dht };
            found.try_send(provider).unwrap();
        }
        Providers(providers)
    }

    async fn dial(
        &self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        _: bool,
    ) -> Result<PeerId, DialError> {
        self.0.did.lock().push(Did::Dial(peer, addresses.len()));
        let is_silent = peer.is_some_and(|peer| self.0.silent.lock().contains(&peer));
        if is_silent {
            std::future::pending::<()>().await;
        }
        Err(DialError::Closed)
    }

    async fn get_block(&self, gateway: &Url, cid: &BlockCid, _: bool) -> Result<Bytes, HttpError> {
        let host = gateway.host_str().unwrap().to_owned();
        let found = self.0.gateways.lock().get(&(host.clone(), *cid)).cloned();
        self.0.did.lock().push(Did::Get(host));
        let asked = self.0.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.most_asked.fetch_max(asked, Ordering::Relaxed);
        for _ in 0..ANSWER {
            tokio::task::yield_now().await;
        }
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
        found.ok_or(HttpError::Status(404))
    }
}

fn address() -> Multiaddr {
    "/ip4/11.2.3.4/tcp/4001".parse().unwrap()
}

fn origin(peer: PeerId) -> String {
    format!("{}/p2p/{peer}", address())
}

fn search(root: Cid) -> Search {
    Search { root, origins: Vec::new(), hints: Vec::new() }
}

fn none() -> mpsc::Receiver<Vec<String>> {
    mpsc::channel(1).1
}

fn root() -> (Cid, BlockCid, Bytes) {
    let mut dag = Dag::default();
    let root = dag.leaf("root");
    (root, content::block_cid(&root).unwrap(), dag.get(&root).unwrap().into())
}

/// Lets a search do what it can without time passing; what it said.
async fn settle(sources: &mut Sources<Played>) -> Vec<Supply> {
    let (mut said, mut quiet) = (Vec::new(), 0);
    while quiet < QUIET {
        match sources.next().now_or_never() {
            Some(supply) => (quiet, _) = (0, said.push(supply)),
            None => quiet += 1,
        }
        tokio::task::yield_now().await;
    }
    said
}

#[tokio::test]
async fn origins_then_nodes_then_providers_then_one_gateway_after_the_other() {
    let (world, (root, cid, data)) = (Played::new(), root());
    let (named, node, provider) = (PeerId::random(), PeerId::random(), PeerId::random());
    world.0.providers.lock().push(provider);
    world.0.gateways.lock().insert(("second.test".to_owned(), cid), data.clone());
    let hint = PeerHint { addresses: vec![origin(node)], gateway: Some("http://node.test".to_owned()) };
    let search = Search { origins: vec![origin(named)], hints: vec![hint], ..search(root) };
    let mut sources = world.open(search, &["http://first.test", "http://second.test"], none());
    sources.want(&[cid]);
    let found = loop {
        match sources.next().await {
            Supply::Block { data, .. } => break data,
            Supply::Reason(_) => {}
            Supply::Exhausted(reason) => panic!("{reason:?}"),
        }
    };
    assert_eq!(found, data);
    let dialled =
        [Did::Dial(Some(named), 1), Did::Dial(Some(node), 1), Did::Find, Did::Dial(Some(provider), 1)];
    let asked = ["node.test", "first.test", "second.test"].map(|host| Did::Get(host.to_owned()));
    assert_eq!(world.did(), [&dialled[..], &asked].concat());
}

#[tokio::test]
async fn a_later_stage_waits_for_dials_that_are_under_way() {
    let (world, (root, cid, _)) = (Played::new(), root());
    let named = PeerId::random();
    world.0.silent.lock().insert(named);
    let hint = PeerHint { addresses: vec![origin(PeerId::random())], gateway: None };
    let search = Search { origins: vec![origin(named)], hints: vec![hint], ..search(root) };
    let mut sources = world.open(search, &["http://first.test"], none());
    sources.want(&[cid]);
    settle(&mut sources).await;
    assert_eq!(world.did(), [Did::Dial(Some(named), 1)]);
}

#[tokio::test]
async fn a_search_in_vain_says_so_once_all_was_tried() {
    let (world, (root, cid, _)) = (Played::new(), root());
    let mut sources =
        world.open(Search { origins: vec![origin(PeerId::random())], ..search(root) }, &[], none());
    sources.want(&[cid]);
    let said = settle(&mut sources).await;
    assert!(matches!(said.last(), Some(Supply::Exhausted(Reason::OriginUnreachable))), "{said:?}");
    let exhausted = said.iter().filter(|supply| matches!(supply, Supply::Exhausted(_))).count();
    assert_eq!((exhausted, world.did().last()), (1, Some(&Did::Find)));
}

#[tokio::test]
async fn twenty_addresses_of_an_origin_are_dialled() {
    let (world, (root, cid, _)) = (Played::new(), root());
    let named = PeerId::random();
    let address = |host: usize| format!("/ip4/11.2.3.{host}/tcp/4001/p2p/{named}");
    let search = Search { origins: (0..21).map(address).collect(), ..search(root) };
    let mut sources = world.open(search, &[], none());
    sources.want(&[cid]);
    settle(&mut sources).await;
    assert_eq!((MAX_ADDRESSES_PER_ORIGIN, &world.did()[0]), (20, &Did::Dial(Some(named), 20)));
}

#[tokio::test]
async fn an_attempt_dials_so_many_origins_and_so_many_others() {
    let (world, (root, cid, _)) = (Played::new(), root());
    let (more, origins) = mpsc::channel(8);
    for _ in 0..6 {
        let some = (0..MAX_ORIGINS).map(|_| origin(PeerId::random())).collect();
        more.try_send(some).unwrap();
    }
    let mut sources = world.open(search(root), &[], origins);
    sources.want(&[cid]);
    settle(&mut sources).await;
    assert_eq!((MAX_ORIGIN_DIALS, world.dials()), (256, 256));

    let world = Played::new();
    let hint = |_| PeerHint { addresses: vec![origin(PeerId::random())], gateway: None };
    world.0.providers.lock().extend((0..20).map(|_| PeerId::random()));
    let search = Search { hints: (0..20).map(hint).collect(), ..search(root) };
    let mut sources = world.open(search, &[], none());
    sources.want(&[cid]);
    settle(&mut sources).await;
    assert_eq!((MAX_OTHER_DIALS, world.dials()), (32, 32));
}

#[tokio::test]
async fn few_strangers_are_asked_and_every_origin_that_comes() {
    let (world, (root, cid, _)) = (Played::new(), root());
    let named = PeerId::random();
    // Not to be dialled, as one behind NAT.
    let origins = vec![format!("/p2p/{named}")];
    *world.0.recent.lock() = (0..6).map(|_| world.connect()).collect();
    let mut sources = world.open(Search { origins, ..search(root) }, &[], none());
    sources.want(&[cid]);
    for _ in 0..6 {
        world.0.arrivals.send(world.connect()).unwrap();
    }
    settle(&mut sources).await;
    assert_eq!((MAX_STRANGERS, sources.known.len()), (8, 8));
    world.0.connected.lock().insert(named);
    world.0.arrivals.send(named).unwrap();
    settle(&mut sources).await;
    assert!(sources.known.len() == 9 && sources.known.contains(&named));
    assert_eq!(world.dials(), 0);
}

#[tokio::test]
async fn nobody_who_merely_connects_is_asked_once_blocks_come() {
    let (world, (root, cid, data)) = (Played::new(), root());
    world.0.gateways.lock().insert(("first.test".to_owned(), cid), data);
    let mut sources = world.open(search(root), &["http://first.test"], none());
    sources.want(&[cid]);
    while !matches!(sources.next().await, Supply::Block { .. }) {}
    world.0.arrivals.send(world.connect()).unwrap();
    settle(&mut sources).await;
    assert!(sources.known.is_empty());
}

#[tokio::test]
async fn gateways_are_asked_for_eight_blocks_at_a_time() {
    let (world, mut dag) = (Played::new(), Dag::default());
    let cids: Vec<_> = (0..50_u8).filter_map(|n| content::block_cid(&dag.leaf([n]))).collect();
    let root = content::of_block_cid(&cids[0]);
    let mut sources = world.open(search(root), &["http://first.test", "http://second.test"], none());
    sources.want(&cids);
    settle(&mut sources).await;
    let gets = world.did().iter().filter(|did| matches!(did, Did::Get(_))).count();
    assert_eq!(gets, 100, "each block of each gateway, once");
    assert_eq!((GATEWAY_REQUESTS, world.0.most_asked.load(Ordering::Relaxed)), (8, 8));
}
