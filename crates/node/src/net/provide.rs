//! Provider records in the DHT, so that strangers find what is held here.
//!
//! A record lives for 48 hours at the twenty servers closest to its key, and
//! servers come and go, so all of them are written anew every
//! [`REPROVIDE_INTERVAL`]. A node may hold a million roots; a walk for each
//! would never end. The **sweep** therefore goes through the key space in
//! order: one walk finds the servers closest to the next key, every other key
//! of the region that these servers are known to be closest for goes to them
//! too, many records over one stream.
//!
//! New roots are provided as they come, in small batches by the same means.

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use libp2p::{Multiaddr, PeerId, kad::KBucketKey};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Inner, Network,
    announce::{Job, add_provider},
    dht::{self, Server},
    swarm::Command,
};

/// How often every record is written anew: as often as Kubo does, well below
/// the 48 hours that servers keep one.
pub const REPROVIDE_INTERVAL: Duration = Duration::from_secs(22 * 3600);

/// New roots that wait to be provided. What finds the queue full waits for
/// the next sweep.
pub(super) const MAX_NEW_ROOTS: usize = 1024;

/// Keys that one part of a sweep holds in memory: about 13 MB. A larger set
/// is swept in several parts of the key space.
const MAX_KEYS: usize = 1 << 17;

/// Parts that a sweep is cut into at most: 2^8 of [`MAX_KEYS`] are 33 million
/// roots.
const MAX_PART_BITS: u32 = 8;

/// Records written to one server over one stream, about 100 bytes each.
const MAX_RECORDS_AT_ONCE: usize = 4096;

/// Addresses in a record, as many as Kubo's servers keep.
const MAX_RECORD_ADDRESSES: usize = 10;

/// Walks that a region may fail before it is left to the next sweep.
const ATTEMPTS: NonZeroU8 = NonZeroU8::new(2).expect("two is not zero");

/// Pause after a failed walk, for example while the machine is offline.
const RETRY_PAUSE: Duration = Duration::from_secs(20);

/// How long new roots gather before they are provided together.
const GATHER: Duration = Duration::from_secs(1);

/// How long one walk, or telling one region's servers, may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// The roots that a sweep provides.
pub trait Roots: Send + Sync + 'static {
    /// Visits the multihash of every held root, in any order. Called on a
    /// thread for blocking work, once or several times a sweep.
    fn for_each(&self, visit: &mut dyn FnMut(&Multihash<64>));
}

/// A key's place in the key space, and the key itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    place: [u8; 32],
    multihash: Vec<u8>,
}

impl Key {
    fn new(multihash: &Multihash<64>) -> Self {
        let multihash = multihash.to_bytes();
        Self { place: place(&KBucketKey::new(multihash.clone())), multihash }
    }
}

fn place<T>(key: &KBucketKey<T>) -> [u8; 32] {
    let mut place = [0; 32];
    place.copy_from_slice(key.hashed_bytes());
    place
}

/// Leading bits that two places share.
fn common_bits(a: &[u8; 32], b: &[u8; 32]) -> u32 {
    let mut bits = 0;
    for (a, b) in a.iter().zip(b) {
        let differing = (a ^ b).leading_zeros();
        bits += differing;
        if differing < u8::BITS {
            break;
        }
    }
    bits
}

impl Network {
    /// Provides a new root soon. When too many wait, it waits for the sweep.
    /// Does nothing unless the settings say that records are published.
    pub fn provide(&self, root: &Cid) {
        if let Some(new_roots) = &self.0.new_roots {
            let _ = new_roots.try_send(*root.hash());
        }
    }

    /// Starts the sweep over `roots`: now, and then every
    /// [`REPROVIDE_INTERVAL`], until the network is shut down. Does nothing
    /// unless the settings say that records are published.
    pub fn reprovide(&self, roots: Arc<dyn Roots>) {
        if self.0.new_roots.is_none() {
            return;
        }
        let network = self.clone();
        self.0.tasks.spawn(async move {
            let stop = network.0.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = sweep_for_ever(network, roots) => {}
            }
        });
    }
}

async fn sweep_for_ever(network: Network, roots: Arc<dyn Roots>) {
    loop {
        let began = Instant::now();
        let provided = sweep(&network, &roots).await;
        let seconds = began.elapsed().as_secs();
        tracing::info!(provided, seconds, "provider records have been published");
        metrics::gauge!("pinfold_net_reprovide_seconds").set(began.elapsed().as_secs_f64());
        tokio::time::sleep_until(began + REPROVIDE_INTERVAL).await;
    }
}

/// Provides every root once, part by part; returns how many.
async fn sweep(network: &Network, roots: &Arc<dyn Roots>) -> usize {
    let mut provided = 0;
    let (mut part, mut bits) = (0_u32, 0_u32);
    // Parts are numbered by their leading bits.
    while part < 1 << bits {
        match collect(roots.clone(), part, bits).await {
            Some(keys) => {
                provided += provide_all(network, keys).await;
                part += 1;
            }
            None => {
                // Too many for memory: halve this part and those after it.
                part <<= 1;
                bits += 1;
            }
        }
    }
    provided
}

/// The sorted keys of one part; `None` when there are too many.
async fn collect(roots: Arc<dyn Roots>, part: u32, bits: u32) -> Option<Vec<Key>> {
    let gathered = tokio::task::spawn_blocking(move || {
        let mut keys = Vec::new();
        roots.for_each(&mut |multihash| {
            let key = Key::new(multihash);
            if keys.len() <= MAX_KEYS && is_in(&key, part, bits) {
                keys.push(key);
            }
        });
        keys
    });
    let mut keys = gathered.await.unwrap_or_default();
    if keys.len() > MAX_KEYS && bits < MAX_PART_BITS {
        return None;
    }
    keys.truncate(MAX_KEYS);
    keys.sort_unstable();
    keys.dedup();
    Some(keys)
}

fn is_in(key: &Key, part: u32, bits: u32) -> bool {
    let [a, b, c, d, ..] = key.place;
    bits == 0 || u32::from_be_bytes([a, b, c, d]) >> (u32::BITS - bits) == part
}

/// Provides sorted keys, region by region; returns how many.
async fn provide_all(network: &Network, keys: Vec<Key>) -> usize {
    let mut provided = 0;
    let mut rest = keys.as_slice();
    while let Some(first) = rest.first() {
        let (region, ok) = match closest(network, first).await {
            Some(servers) => {
                let region = region(rest, &servers);
                (region, announce(network, &rest[..region], &servers).await)
            }
            None => (1, false),
        };
        if ok {
            provided += region;
        }
        rest = &rest[region..];
    }
    provided
}

/// The servers closest to a key.
async fn closest(network: &Network, key: &Key) -> Option<Vec<Server>> {
    for attempt in 0..ATTEMPTS.get() {
        if attempt > 0 {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let (reply, end) = oneshot::channel();
        let command = dht::Command::Closest { key: key.multihash.clone(), reply };
        network.command(Command::Dht(command)).await.ok()?;
        match tokio::time::timeout(STEP_TIMEOUT, end).await {
            Ok(Ok(servers)) if !servers.is_empty() => return Some(servers),
            _ => metrics::counter!("pinfold_net_walks_failed_total").increment(1),
        }
    }
    None
}

/// How many of the sorted `keys` have their closest servers among `servers`,
/// which are the closest to the first of them.
///
/// The farthest server shares `n` leading bits with the key, so every server
/// that shares more is among `servers`: the region of `n + 1` bits is fully
/// known. Each key in it gets its closest servers, as many as lie within the
/// region; those beyond it are the first key's, which are near enough to be
/// asked. Where the DHT is smaller than one answer, the region is everything.
fn region(keys: &[Key], servers: &[Server]) -> usize {
    let Some(first) = keys.first() else { return 0 };
    let shared = |server: &Server| common_bits(&first.place, &place(&KBucketKey::from(server.0)));
    let full = servers.len() >= libp2p::kad::K_VALUE.get();
    let known = if full { servers.iter().map(shared).min().unwrap_or(0) + 1 } else { 0 };
    let within = |key: &&Key| common_bits(&first.place, &key.place) >= known;
    keys.iter().take(MAX_RECORDS_AT_ONCE).take_while(within).count().max(1)
}

/// Tells the servers that this node provides the keys; true when at least
/// half of them took it.
async fn announce(network: &Network, keys: &[Key], servers: &[Server]) -> bool {
    let messages = messages(network, keys);
    let mut taken = Vec::new();
    for (peer, addresses) in servers {
        let (done, end) = oneshot::channel();
        let job = Job { peer: *peer, addresses: addresses.clone(), messages: messages.clone(), done };
        if network.command(Command::Dht(dht::Command::Announce(job))).await.is_err() {
            return false;
        }
        taken.push(tokio::time::timeout(STEP_TIMEOUT, end));
    }
    let taken = futures::future::join_all(taken).await;
    let count = taken.iter().filter(|end| matches!(end, Ok(Ok(true)))).count();
    metrics::counter!("pinfold_net_records_published_total").increment((count * keys.len()) as u64);
    count * 2 >= servers.len()
}

fn messages(network: &Network, keys: &[Key]) -> Bytes {
    let addresses: Vec<Multiaddr> =
        network.announced().iter().take(MAX_RECORD_ADDRESSES).map(without_peer).collect();
    let peer: PeerId = network.peer_id();
    let mut messages = Vec::new();
    for key in keys {
        add_provider(&key.multihash, &peer, &addresses, &mut messages);
    }
    messages.into()
}

fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, libp2p::multiaddr::Protocol::P2p(_))).collect()
}

/// Provides new roots as they come, until the network is shut down.
pub(super) fn provide_new(inner: Arc<Inner>, mut new_roots: mpsc::Receiver<Multihash<64>>) {
    let tasks = inner.tasks.clone();
    let network = Network(inner);
    tasks.spawn(async move {
        let stop = network.0.stop.clone();
        let provide = async {
            let mut batch = Vec::new();
            while new_roots.recv_many(&mut batch, MAX_NEW_ROOTS).await > 0 {
                tokio::time::sleep(GATHER).await;
                while let Ok(more) = new_roots.try_recv() {
                    batch.push(more);
                }
                let mut keys: Vec<Key> = batch.drain(..).map(|root| Key::new(&root)).collect();
                keys.sort_unstable();
                keys.dedup();
                provide_all(&network, keys).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = provide => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key::new(&Multihash::wrap(0x12, &[number.to_be_bytes(); 8].concat()).unwrap())
    }

    #[test]
    fn common_bits_are_counted_from_the_front() {
        let mut other = [0; 32];
        assert_eq!(common_bits(&[0; 32], &other), 256);
        other[1] = 0x10;
        assert_eq!(common_bits(&[0; 32], &other), 11);
        assert_eq!(common_bits(&[0xff; 32], &[0; 32]), 0);
    }

    #[test]
    fn every_key_of_a_region_has_its_nearest_servers_among_those_told() {
        let all: Vec<Server> = (0..500).map(|_| (PeerId::random(), Vec::new())).collect();
        let mut keys: Vec<Key> = (0..3000).map(key).collect();
        keys.sort_unstable();
        let nearest = |key: &Key, count: usize| {
            let place = KBucketKey::new(key.multihash.clone());
            let mut servers = all.clone();
            servers.sort_by_key(|server| place.distance(&KBucketKey::from(server.0)));
            servers.truncate(count);
            servers
        };
        let (mut rest, mut walks) = (keys.as_slice(), 0);
        while let Some(first) = rest.first() {
            let told = nearest(first, 20);
            let region = region(rest, &told);
            for key in rest[..region].iter().step_by(19) {
                // A reader asks the twenty nearest; some of them must know.
                let knowing = nearest(key, 20).iter().filter(|server| told.contains(server)).count();
                assert!(knowing >= 5, "{knowing} of 20 know");
                assert!(told.contains(&nearest(key, 1)[0]));
            }
            (rest, walks) = (&rest[region..], walks + 1);
            if walks == 15 {
                break;
            }
        }
        assert!(keys.len() - rest.len() > 10 * walks, "a walk serves many keys");
    }

    #[test]
    fn a_small_dht_is_one_region() {
        let mut keys: Vec<Key> = (0..100).map(key).collect();
        keys.sort_unstable();
        assert_eq!(region(&keys, &[(PeerId::random(), Vec::new())]), 100);
    }

    struct Counted(u32);

    impl Roots for Counted {
        fn for_each(&self, visit: &mut dyn FnMut(&Multihash<64>)) {
            (0..self.0).for_each(|n| visit(&Multihash::wrap(0x12, &[n.to_be_bytes(); 8].concat()).unwrap()));
        }
    }

    #[tokio::test]
    async fn parts_cover_the_key_space_without_overlap() {
        let roots: Arc<dyn Roots> = Arc::new(Counted(3000));
        let mut seen = Vec::new();
        for part in 0..8 {
            seen.extend(collect(roots.clone(), part, 3).await.unwrap());
        }
        assert_eq!(seen, collect(roots, 0, 0).await.unwrap());
        assert_eq!(seen.len(), 3000);
    }
}
