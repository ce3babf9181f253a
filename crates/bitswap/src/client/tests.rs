use std::collections::HashSet;

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
        let mut client = Client::new(Config::default(), Metrics::new(), Arc::default());
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

#[test]
fn a_want_leaves_at_once_and_its_block_comes_once() {
    let mut world = World::new(1);
    world.want(0..1);
    assert_eq!(world.sent(0), [Sent::Block(cid(0))]);
    world.deliver(0, [0]);
    assert_eq!(world.events(), [Event::Block { cid: cid(0), data: data(0), from: world.peer(0) }]);
    assert_eq!(world.sent(0), []);
    world.assert_empty();
}

#[test]
fn wants_stay_within_a_window_that_grows() {
    let mut world = World::new(1);
    world.want(0..5_000);
    let mut next = 0;
    let mut largest = 0;
    loop {
        let sent = world.sent(0).len();
        if sent == 0 {
            break;
        }
        world.now += Duration::from_millis(1);
        let stats = {
            let mut stats = Stats::default();
            world.client.fill_stats(&mut stats, world.now);
            stats
        };
        assert!(stats.outstanding <= Config::default().peer_window_wants);
        largest = largest.max(stats.outstanding);
        world.deliver(0, next..next + stats.outstanding);
        next += stats.outstanding;
        world.events();
    }
    assert_eq!(next, 5_000);
    assert_eq!(largest, Config::default().peer_window_wants);
    world.assert_empty();
}

#[test]
fn of_several_peers_one_is_asked_and_the_others_are_probed() {
    let mut world = World::new(3);
    world.want(0..1);
    assert_eq!(world.sent(0), [Sent::Block(cid(0))]);
    assert_eq!(world.sent(1), [Sent::Have(cid(0))]);
    assert_eq!(world.sent(2), [Sent::Have(cid(0))]);
    world.deliver(0, [0]);
    world.want(1..40);
    world.pass(Duration::from_millis(60));
    assert!(world.sent(0).len() >= 4, "a window's worth");
}

#[test]
fn a_peer_that_lacks_a_block_is_passed_over() {
    let mut world = World::new(2);
    world.want(0..1);
    world.sent(0);
    world.sent(1);
    world.tell(0, 0, false);
    assert_eq!(world.events(), [Event::DontHave { cid: cid(0), from: world.peer(0) }]);
    assert_eq!(world.sent(1), [Sent::Block(cid(0))]);
    world.deliver(1, [0]);
    assert_eq!(world.blocks(), [cid(0)]);
    world.pass(Duration::from_millis(60));
    assert_eq!(world.sent(0), [Sent::Cancel(cid(0))], "the peer would remember the want");
    world.assert_empty();
}

#[test]
fn when_all_lack_it_that_is_told_once_and_it_is_asked_again_later() {
    let mut world = World::new(1);
    world.want(0..1);
    world.sent(0);
    world.tell(0, 0, false);
    assert_eq!(
        world.events(),
        [Event::DontHave { cid: cid(0), from: world.peer(0) }, Event::Stalled { cids: vec![cid(0)] }]
    );
    let mut pauses = 0;
    for _ in 0..600 {
        world.pass(Duration::from_secs(1));
        if world.sent(0).contains(&Sent::Block(cid(0))) {
            pauses += 1;
            world.tell(0, 0, false);
        }
    }
    assert!((6..20).contains(&pauses), "asked {pauses} times in ten minutes");
    assert!(!world.events().iter().any(|event| matches!(event, Event::Stalled { .. })));
    world.deliver(0, [0]);
    assert_eq!(world.blocks(), [cid(0)]);
}

#[test]
fn a_silent_peer_loses_its_wants_to_another() {
    let mut world = World::new(2);
    world.want(0..1);
    world.sent(0);
    world.sent(1);
    world.tell(1, 0, true);
    world.pass(Duration::from_millis(500));
    assert_eq!(world.sent(1), [Sent::Block(cid(0))]);
    world.deliver(1, [0]);
    assert_eq!(world.blocks(), [cid(0)]);
    assert_eq!(world.sent(0), [Sent::Cancel(cid(0))]);
    // The late copy is no offence.
    world.deliver(0, [0]);
    assert!(world.client.banned(&world.peer(0), world.now).is_none());
    world.assert_empty();
}

/// It says HAVE, and the other peer delivers what it owes before that is old.
#[test]
fn a_peer_that_promises_and_never_sends_is_given_up() {
    let mut world = World::new(2);
    let numbers: HashMap<Cid, usize> = (0..2_400).map(|number| (cid(number), number)).collect();
    let mut asked = HashSet::new();
    for batch in 0..40 {
        world.want(batch * 60..(batch + 1) * 60);
        while world.client.wanted(world.session) > 0 {
            for sent in world.sent(1) {
                if let Sent::Block(cid) | Sent::Have(cid) = sent {
                    world.tell(1, numbers[&cid], true);
                    asked.extend(matches!(sent, Sent::Block(_)).then_some(cid));
                }
            }
            for sent in world.sent(0) {
                match sent {
                    Sent::Block(cid) => world.deliver(0, [numbers[&cid]]),
                    Sent::Have(cid) => world.tell(0, numbers[&cid], true),
                    Sent::Cancel(_) => {}
                }
            }
            world.pass(Duration::from_millis(10));
            world.events();
        }
    }
    // What was passed over, what it owes then, and what it is asked until the
    // next tick, at first and after each of the pauses of 0.5 to 8 s.
    let most = 6 * (tick::MAX_PASSED_OVER + 2 * 16);
    assert!((1..=most).contains(&asked.len()), "{} of 2,400 blocks waited for it", asked.len());
}

#[test]
fn the_only_peer_is_asked_again_when_it_is_silent() {
    let mut world = World::new(1);
    world.want(0..3);
    assert_eq!(world.sent(0).len(), 3);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.events(), [Event::Stalled { cids: cids(0..3) }]);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.sent(0).len(), 3);
    world.deliver(0, 0..3);
    assert_eq!(world.blocks().len(), 3);
    world.assert_empty();
}

#[test]
fn a_late_answer_of_a_silent_peer_counts() {
    let mut world = World::new(1);
    world.want(0..3);
    world.sent(0);
    world.pass(Duration::from_secs(6));
    world.deliver(0, 0..3);
    assert_eq!(world.blocks().len(), 3);
    world.assert_empty();
    world.want(3..4);
    assert!(world.sent(0).contains(&Sent::Block(cid(3))), "it is asked as before");
}

#[test]
fn what_a_peer_passes_over_is_asked_again() {
    let mut world = World::new(1);
    world.want(0..200);
    let mut asked = world.sent(0);
    let mut again = 0;
    let mut next = 1;
    for round in 0..400 {
        // Number 0 is never answered; the others are, one each 50 ms.
        world.pass(Duration::from_millis(50));
        if next < 200 {
            world.deliver(0, [next]);
            next += 1;
        }
        let sent = world.sent(0);
        again += sent.iter().filter(|sent| **sent == Sent::Block(cid(0))).count();
        asked.extend(sent);
        world.events();
        if again > 0 {
            assert!(round < 200, "noticed while the others are answered");
            break;
        }
    }
    assert_eq!(again, 1);
}

#[test]
fn wrong_bytes_ban_a_peer_and_its_wants_go_to_another() {
    let mut world = World::new(2);
    world.want(0..1);
    world.sent(0);
    world.sent(1);
    world.deliver(0, [77]);
    let liar = world.peer(0);
    assert!(world.client.banned(&liar, world.now).is_some());
    assert_eq!(world.client.take_disconnect(), Some(liar));
    assert_eq!(world.events(), [Event::PeerBanned { peer: liar, reason: BanReason::WrongBytes }]);
    assert_eq!(world.sent(1), [Sent::Block(cid(0))]);
    assert!(!world.client.add_peer(world.session, liar, world.now), "banned");
    world.now += Duration::from_secs(601);
    assert!(world.client.banned(&liar, world.now).is_none(), "the ban ends");
    assert!(world.client.add_peer(world.session, liar, world.now));
}

#[test]
fn blocks_that_nobody_wants_are_borne_up_to_a_bound() {
    let mut world = World::new(1);
    let mut sent = 0;
    while world.client.banned(&world.peer(0), world.now).is_none() {
        world.arrived(0, Arrivals { skipped: (1, 1 << 20), ..Arrivals::default() });
        sent += 1;
        assert!(sent < 100);
    }
    assert!(sent > 16);
    assert_eq!(world.events(), [Event::PeerBanned { peer: world.peer(0), reason: BanReason::Unsolicited }]);
}

#[test]
fn a_peer_that_breaks_streams_is_banned() {
    let mut world = World::new(1);
    for _ in 0..3 {
        world.client.violation(world.peer(0), world.now);
    }
    assert_eq!(world.events(), [Event::PeerBanned { peer: world.peer(0), reason: BanReason::Protocol }]);
}

#[test]
fn two_sessions_share_one_transfer() {
    let mut world = World::new(1);
    let other = world.client.open();
    assert!(world.client.add_peer(other, world.peer(0), world.now));
    let as_dag_cbor = Cid::new_v1(0x71, *cid(0).hash());
    world.want(0..1);
    world.client.want(other, [as_dag_cbor, cid(1)], world.now);
    assert_eq!(world.sent(0), [Sent::Block(cid(0)), Sent::Block(cid(1))]);
    world.deliver(0, [0, 1]);
    assert_eq!(world.blocks(), [cid(0)]);
    let told: Vec<_> = std::iter::from_fn(|| world.event_of(other)).collect();
    assert_eq!(told.len(), 2);
    assert!(matches!(&told[0], Event::Block { cid, .. } if *cid == as_dag_cbor));
    world.assert_empty();
}

#[test]
fn a_dropped_session_cancels_what_only_it_wanted() {
    let mut world = World::new(1);
    let other = world.client.open();
    world.client.add_peer(other, world.peer(0), world.now);
    world.want(0..2);
    world.client.want(other, cids(1..3), world.now);
    world.sent(0);
    world.client.close(other, world.now);
    assert_eq!(world.sent(0), [Sent::Cancel(cid(2))]);
    world.client.close(world.session, world.now);
    let mut cancelled = world.sent(0);
    cancelled.sort_by_key(|sent| *sent != Sent::Cancel(cid(0)));
    assert_eq!(cancelled, [Sent::Cancel(cid(0)), Sent::Cancel(cid(1))]);
    assert!(world.client.wants.is_empty());
}

#[test]
fn cancelled_wants_free_the_window() {
    let mut world = World::new(1);
    world.want(0..100);
    let first = world.sent(0).len();
    world.client.cancel(world.session, &cids(0..first), world.now);
    let then = world.sent(0);
    assert_eq!(then.iter().filter(|sent| matches!(sent, Sent::Cancel(_))).count(), first);
    assert_eq!(then.iter().filter(|sent| matches!(sent, Sent::Block(_))).count(), first);
    world.client.cancel(world.session, &cids(0..100), world.now);
    world.assert_empty();
}

#[test]
fn a_peer_that_goes_and_comes_is_asked_again() {
    let mut world = World::new(1);
    world.want(0..2);
    world.sent(0);
    let (peer, id) = (world.peer(0), world.links[0].id);
    world.client.disconnected(&peer, id, world.now);
    assert_eq!(world.events(), [Event::PeerGone(peer), Event::NoPeers]);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.events(), [], "told once");
    world.links.push(Arc::new(Link::new(peer, ConnectionId::new_unchecked(9))));
    world.client.connected(world.links[1].clone(), world.now);
    assert_eq!(world.sent(1), [Sent::Block(cid(0)), Sent::Block(cid(1))]);
    world.deliver(1, 0..2);
    assert_eq!(world.blocks().len(), 2);
    world.assert_empty();
}

#[test]
fn a_stalled_peer_that_comes_back_is_asked_at_once() {
    let mut world = World::new(1);
    world.want(0..2);
    world.sent(0);
    world.pass(Duration::from_secs(6));
    let (peer, id) = (world.peer(0), world.links[0].id);
    world.client.disconnected(&peer, id, world.now);
    world.links.push(Arc::new(Link::new(peer, ConnectionId::new_unchecked(9))));
    world.client.connected(world.links[1].clone(), world.now);
    assert_eq!(world.sent(1).len(), 2);
}

#[test]
fn many_sessions_do_not_flood_a_peer() {
    let mut world = World::new(1);
    for number in 0..2_000 {
        let session = world.client.open();
        world.client.want(session, [cid(number)], world.now);
        world.client.add_peer(session, world.peer(0), world.now);
    }
    let sent = world.sent(0).len();
    assert_eq!(sent, 16, "entries at once");
    // All of them come to their turn.
    let mut asked = HashSet::new();
    for _ in 0..3_000 {
        world.pass(Duration::from_millis(50));
        for sent in world.sent(0) {
            if let Sent::Block(cid) | Sent::Have(cid) = sent {
                asked.insert(cid);
                let presences = vec![(cid, false)];
                world.arrived(0, Arrivals { presences, ..Arrivals::default() });
            }
        }
    }
    assert_eq!(asked.len(), 2_000);
}

#[test]
fn a_second_connection_takes_over() {
    let mut world = World::new(1);
    world.want(0..2);
    world.sent(0);
    let (peer, id) = (world.peer(0), world.links[0].id);
    world.links.push(Arc::new(Link::new(peer, ConnectionId::new_unchecked(9))));
    world.client.connected(world.links[1].clone(), world.now);
    assert_eq!(world.sent(1), [], "one connection is used");
    world.client.disconnected(&peer, id, world.now);
    assert_eq!(world.sent(1).len(), 2);
    assert_eq!(world.events(), []);
}

#[test]
fn a_lost_stream_is_made_good() {
    let mut world = World::new(1);
    world.want(0..2);
    world.sent(0);
    world.client.wantlist_lost(&world.peer(0), true, world.now);
    assert_eq!(world.sent(0).len(), 2, "writing failed");
    world.now += Duration::from_millis(1);
    world.client.wantlist_lost(&world.peer(0), false, world.now);
    assert_eq!(world.sent(0), [], "the peer has closed it, and may have read it");
    world.pass(Duration::from_millis(400));
    assert_eq!(world.sent(0).len(), 2);
}

#[test]
fn a_lost_stream_is_made_good_while_the_peer_answers_what_came_before() {
    let mut world = World::new(1);
    world.want(0..2);
    world.sent(0);
    world.client.wantlist_lost(&world.peer(0), false, world.now);
    world.now += Duration::from_millis(1);
    world.deliver(0, [0]);
    world.pass(Duration::from_millis(400));
    assert_eq!(world.sent(0), [Sent::Block(cid(1))]);
}

#[test]
fn a_question_for_have_on_a_lost_stream_is_asked_again() {
    let mut world = World::new(2);
    world.want(0..1);
    world.sent(0);
    assert_eq!(world.sent(1), [Sent::Have(cid(0))]);
    world.client.wantlist_lost(&world.peer(1), false, world.now);
    world.pass(Duration::from_millis(400));
    assert_eq!(world.sent(1), [Sent::Have(cid(0))]);
}

#[test]
fn a_session_that_takes_nothing_asks_for_nothing_more() {
    let mut world = World::new(1);
    let big = |number: usize| Bytes::from(vec![number as u8; 1 << 20]);
    let name = |number: usize| Cid::new_v1(0x55, Code::Sha2_256.digest(&big(number)));
    world.client.want(world.session, (0..120).map(name), world.now);
    for _ in 0..50 {
        world.now += Duration::from_millis(5);
        for sent in world.sent(0) {
            if let Sent::Block(cid) = sent {
                let number = (0..120).find(|number| name(*number) == cid).unwrap();
                let blocks = vec![(*cid.hash(), big(number))];
                world.arrived(0, Arrivals { blocks, ..Arrivals::default() });
            }
        }
    }
    let mut stats = Stats::default();
    world.client.fill_stats(&mut stats, world.now);
    let window = Config::default().session_window_bytes;
    assert!(stats.undelivered_bytes <= window + (4 << 20), "{} bytes", stats.undelivered_bytes);
    assert!(stats.undelivered_bytes >= window / 2);
    assert_eq!(world.sent(0), []);
    world.events();
    assert!(!world.sent(0).is_empty(), "room again");
}

#[test]
fn peers_of_old_versions_are_asked_plainly() {
    let mut world = World::new(2);
    let old = Cid::new_v0(Code::Sha2_256.digest(&data(0))).unwrap();
    world.client.want(world.session, [old], world.now);
    assert_eq!(world.sent_as(0, Version::V1_0), [Sent::Block(old)]);
    assert_eq!(world.sent_as(1, Version::V1_1), [], "it cannot be probed");
    world.deliver(0, [0]);
    assert_eq!(world.events().len(), 1);
    world.want(1..2);
    let sent = [world.sent_as(0, Version::V1_0), world.sent_as(1, Version::V1_1)].concat();
    assert_eq!(sent, [Sent::Block(cid(1))], "only the second can be asked for a CIDv1");
}

#[test]
fn a_block_that_is_too_large_is_found_among_others() {
    let mut world = World::new(1);
    world.want(0..3);
    assert_eq!(world.sent(0).len(), 3);
    // Number 1 is too large: the peer's stream was cut.
    world.client.too_large(world.peer(0), world.now);
    let mut refused = Vec::new();
    for _ in 0..6 {
        for sent in world.sent(0) {
            match sent {
                Sent::Block(sent) if sent == cid(1) => world.client.too_large(world.peer(0), world.now),
                Sent::Block(sent) => world.deliver(0, (0..3).filter(|number| cid(*number) == sent)),
                Sent::Have(_) | Sent::Cancel(_) => {}
            }
        }
        refused.extend(world.events().into_iter().filter(|event| matches!(event, Event::TooLarge { .. })));
    }
    assert_eq!(refused, [Event::TooLarge { cid: cid(1), from: world.peer(0) }]);
    world.assert_empty();
}

#[test]
fn what_cannot_be_wanted_is_refused() {
    let world = &mut World::new(0);
    let identity = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0, b"abc").unwrap());
    let unknown = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x9999, &[1; 32]).unwrap());
    let refused = world.client.want(world.session, [identity, unknown, cid(0)], world.now);
    assert_eq!(refused, [(identity, Refused::Identity), (unknown, Refused::UnknownHash)]);
    assert_eq!(world.events(), [Event::NoPeers]);
}

#[test]
fn sessions_take_turns_on_one_peer() {
    let mut world = World::new(1);
    let other = world.client.open();
    world.client.add_peer(other, world.peer(0), world.now);
    world.want(0..1_000);
    world.client.want(other, cids(1_000..1_100), world.now);
    let (mut next, mut theirs) = (Vec::new(), 0);
    for _ in 0..40 {
        world.now += Duration::from_millis(1);
        next.extend(world.sent(0));
        let numbers: Vec<usize> = (next.drain(..))
            .filter_map(|sent| (0..1_100).find(|number| sent == Sent::Block(cid(*number))))
            .collect();
        world.deliver(0, numbers);
        world.events();
        theirs += std::iter::from_fn(|| world.event_of(other)).count();
        if theirs == 100 {
            break;
        }
    }
    assert_eq!(theirs, 100);
    assert!(world.client.wanted(world.session) > 500, "the larger session does not go first");
}

#[test]
fn queues_of_wants_that_are_cancelled_again_stay_small() {
    let mut world = World::new(0);
    for round in 0..100 {
        world.want(0..20);
        world.client.cancel(world.session, &cids(0..20), world.now);
        let session = &world.client.sessions[&world.session];
        assert!(session.queue.len() <= 200, "{} entries after {round} rounds", session.queue.len());
    }
}

#[test]
fn the_behaviours_end_ends_sessions() {
    let mut world = World::new(1);
    world.client.shut_down();
    let polled = world.client.poll_next(world.session, futures::task::noop_waker_ref(), world.now);
    assert_eq!(polled, Poll::Ready(None));
}
