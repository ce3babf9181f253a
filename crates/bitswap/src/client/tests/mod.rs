//! The client without a network, with a clock of its own.

mod asking;
mod links;
mod peers;
mod three_origins;

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use libp2p::swarm::ConnectionId;
use multihash_codetable::{Code, MultihashDigest};
use prost::Message as _;

use super::*;
use crate::link::Link;
use crate::wire::Version;
use crate::wire::tests::proto;

/// A client with connected peers, and a clock.
struct World {
    client: Client,
    links: Vec<Arc<Link>>,
    now: Instant,
    session: SessionId,
}

/// An entry of a wantlist that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    Block(Cid),
    Have(Cid),
    Cancel(Cid),
}

fn data(number: usize) -> Bytes {
    Bytes::from(format!("block {number} {}", "x".repeat(1_000)))
}

fn cid(number: usize) -> Cid {
    Cid::new_v1(0x55, Code::Sha2_256.digest(&data(number)))
}

fn cids(range: std::ops::Range<usize>) -> Vec<Cid> {
    range.map(cid).collect()
}

impl World {
    /// A session with so many connected peers.
    fn new(peers: usize) -> Self {
        let mut client = Client::new(Config::default(), Metrics::new("test"), Arc::default());
        let now = Instant::now();
        let session = client.open();
        let mut world = Self { client, links: Vec::new(), now, session };
        for _ in 0..peers {
            let peer = world.connect();
            assert!(world.client.add_peer(session, world.peer(peer), now));
        }
        world
    }

    fn connect(&mut self) -> usize {
        self.links.push(Arc::new(Link::new(PeerId::random(), ConnectionId::new_unchecked(self.links.len()))));
        let link = self.links[self.links.len() - 1].clone();
        self.client.connected(link, self.now);
        self.links.len() - 1
    }

    fn peer(&self, peer: usize) -> PeerId {
        self.links[peer].peer
    }

    fn want(&mut self, range: std::ops::Range<usize>) {
        assert_eq!(self.client.want(self.session, cids(range), self.now), []);
    }

    /// What is sent to a peer now.
    fn sent_as(&mut self, peer: usize, version: Version) -> Vec<Sent> {
        let link = self.links[peer].clone();
        let Some(bytes) = self.client.take_wants(&link, version, self.now) else { return Vec::new() };
        let message = proto::Message::decode_length_delimited(bytes).unwrap();
        let entries = message.wantlist.unwrap().entries;
        entries
            .iter()
            .map(|entry| {
                let cid = Cid::try_from(&entry.cid[..]).unwrap();
                match (entry.cancel, entry.want_type) {
                    (true, _) => Sent::Cancel(cid),
                    (false, 1) => Sent::Have(cid),
                    (false, _) => Sent::Block(cid),
                }
            })
            .collect()
    }

    fn sent(&mut self, peer: usize) -> Vec<Sent> {
        self.sent_as(peer, Version::V1_2)
    }

    fn arrived(&mut self, peer: usize, arrivals: Arrivals) {
        self.client.arrived(self.peer(peer), arrivals, self.now);
    }

    fn deliver(&mut self, peer: usize, numbers: impl IntoIterator<Item = usize>) {
        let blocks = numbers.into_iter().map(|number| (*cid(number).hash(), data(number))).collect();
        self.arrived(peer, Arrivals { blocks, ..Arrivals::default() });
    }

    fn tell(&mut self, peer: usize, number: usize, have: bool) {
        self.arrived(peer, Arrivals { presences: vec![(cid(number), have)], ..Arrivals::default() });
    }

    /// Lets time pass, with ticks as the swarm gives them.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.client.tick_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.client.tick(self.now);
        }
        self.now = end;
    }

    fn event_of(&mut self, session: SessionId) -> Option<Event> {
        match self.client.poll_next(session, futures::task::noop_waker_ref(), self.now) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.event_of(self.session)).collect()
    }

    /// Blocks that the session got.
    fn blocks(&mut self) -> Vec<Cid> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| if let Event::Block { cid, .. } = event { Some(cid) } else { None })
            .collect()
    }

    /// Nothing is held once nothing is wanted.
    fn assert_empty(&mut self) {
        assert_eq!(self.events(), []);
        let mut stats = Stats::default();
        self.client.fill_stats(&mut stats, self.now);
        assert_eq!((stats.wants, stats.outstanding, stats.undelivered_bytes), (0, 0, 0));
        assert!(self.client.sessions.values().all(|session| session.expected == 0));
        assert!(self.client.peers.values().all(|peer| peer.open_bytes == 0));
    }
}
