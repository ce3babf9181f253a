use super::*;
use crate::metrics::Metrics;
use multihash_codetable::{Code, MultihashDigest};

struct World {
    server: Server,
    links: Vec<Arc<Link>>,
}

fn cid(number: usize) -> Cid {
    Cid::new_v1(0x55, Code::Sha2_256.digest(&number.to_le_bytes()))
}

fn want(number: usize) -> Entry {
    Entry { cid: cid(number), priority: 1, cancel: false, kind: Kind::Block, send_dont_have: true }
}

impl World {
    fn new(peers: usize) -> Self {
        let mut server = Server::new(Metrics::new("test"));
        let links: Vec<_> = (0..peers)
            .map(|i| Arc::new(Link::new(PeerId::random(), ConnectionId::new_unchecked(i))))
            .collect();
        links.iter().for_each(|link| server.connected(link));
        Self { server, links }
    }

    /// A wantlist of a peer; blocks for which `size` tells a length are held.
    fn wants(
        &mut self,
        peer: usize,
        wants: impl IntoIterator<Item = Entry>,
        size: impl Fn(&Cid) -> Option<u32>,
    ) {
        let tail = Tail { wants: wants.into_iter().collect(), ..Tail::default() };
        let id = self.links[peer].peer;
        let noted = self.server.wantlist(&id, &tail);
        let sizes: Vec<_> = noted.iter().map(|entry| (*entry, size(&entry.cid))).collect();
        self.server.looked_up(&id, &sizes);
    }

    fn batch(&mut self, peer: usize) -> Option<Batch> {
        self.server.take_batch(&self.links[peer].clone(), Version::V1_2)
    }

    /// Every answer that a peer gets, message by message.
    fn drain(&mut self, peer: usize) -> Vec<Batch> {
        std::iter::from_fn(|| {
            let batch = self.batch(peer)?;
            self.server.sent(batch.bytes);
            Some(batch)
        })
        .collect()
    }
}

fn names(batches: &[Batch]) -> Vec<Cid> {
    batches.iter().flat_map(|batch| &batch.blocks).map(|(cid, _)| *cid).collect()
}

#[test]
fn wants_are_answered_by_kind_and_size() {
    let mut world = World::new(1);
    let have = |number| Entry { kind: Kind::Have, ..want(number) };
    let silent = Entry { send_dont_have: false, ..want(5) };
    let size = |of: &Cid| {
        if *of == cid(0) || *of == cid(1) {
            Some(100_000)
        } else if *of == cid(2) {
            Some(1_024)
        } else {
            None
        }
    };
    world.wants(0, [want(0), have(1), have(2), want(3), have(4), silent], size);
    let batches = world.drain(0);
    assert_eq!(batches.len(), 1);
    assert_eq!(names(&batches), [cid(0), cid(2)]);
    assert_eq!(batches[0].presences, [(cid(1), true), (cid(3), false), (cid(4), false)]);
}

#[test]
fn batches_are_bounded_and_fit_a_message() {
    let mut world = World::new(1);
    world.wants(0, (0..40).map(want), |_| Some(MAX_BLOCK as u32));
    let batches = world.drain(0);
    assert!(batches.iter().all(|batch| batch.blocks.len() == 1), "the largest go one by one");
    world.wants(0, (0..40).map(want), |_| Some(256 << 10));
    let batches = world.drain(0);
    assert!(batches.iter().all(|batch| batch.bytes <= BATCH));
    assert_eq!(names(&batches).len(), 40);
    world.wants(0, [want(0)], |_| Some(MAX_BLOCK as u32 + 1));
    assert_eq!(names(&world.drain(0)), [], "no block beyond the largest");
}

#[test]
fn higher_priorities_come_first_then_older_wants() {
    let mut world = World::new(1);
    let priority = |number, priority| Entry { priority, ..want(number) };
    world.wants(0, [priority(0, 1), priority(1, 5), priority(2, -3), priority(3, 5)], |_| Some(10));
    assert_eq!(names(&world.drain(0)), [cid(1), cid(3), cid(0), cid(2)]);
}

#[test]
fn cancels_and_full_wantlists_replace() {
    let mut world = World::new(1);
    world.wants(0, (0..4).map(want), |_| Some(10));
    world.wants(0, [Entry { cancel: true, ..want(1) }], |_| Some(10));
    assert_eq!(names(&world.drain(0)), [cid(0), cid(2), cid(3)]);
    world.wants(0, (0..4).map(want), |_| Some(10));
    let full = Tail { wants: vec![want(9)], full: true, ..Tail::default() };
    let peer = world.links[0].peer;
    assert_eq!(world.server.wantlist(&peer, &full), [want(9)]);
    world.server.looked_up(&peer, &[(want(9), Some(10))]);
    assert_eq!(names(&world.drain(0)), [cid(9)]);
    assert_eq!(world.server.wants, 0);
}

#[test]
fn a_want_for_have_does_not_take_back_one_for_the_block() {
    let mut world = World::new(1);
    world.wants(0, [want(0), Entry { kind: Kind::Have, ..want(0) }], |_| Some(5_000));
    assert_eq!(names(&world.drain(0)), [cid(0)]);
}

#[test]
fn what_comes_later_is_sent_to_those_who_wait() {
    let mut world = World::new(2);
    let silent = Entry { send_dont_have: false, ..want(0) };
    world.wants(0, [silent], |_| None);
    world.wants(1, [Entry { kind: Kind::Have, ..want(0) }], |_| None);
    assert!(world.batch(0).is_none());
    assert_eq!(world.drain(1)[0].presences, [(cid(0), false)]);
    let peers = world.server.who_awaits(&cid(0));
    assert_eq!(peers.len(), 2);
    for peer in peers {
        world.server.came(&peer, &cid(0), 5_000);
    }
    assert_eq!(names(&world.drain(0)), [cid(0)]);
    assert_eq!(world.drain(1)[0].presences, [(cid(0), true)]);
    assert_eq!(world.server.who_awaits(&cid(0)), []);
    assert_eq!(world.server.wants, 0);
}

#[test]
fn a_flood_of_wants_is_bounded_and_answered() {
    let mut world = World::new(1);
    for round in 0..20 {
        let numbers = round * 4_096..(round + 1) * 4_096;
        world.wants(0, numbers.map(want), |_| None);
        assert!(world.server.wants <= MAX_WANTS);
        assert!(world.server.waiting.len() <= MAX_WANTS);
    }
    let told: usize = world.drain(0).iter().map(|batch| batch.presences.len()).sum();
    assert!((MAX_WANTS..=2 * MAX_BATCH_PRESENCES).contains(&told), "{told} were told");
    // What is held is not pushed out by more of the same priority.
    world.wants(0, (200_000..200_000 + MAX_WANTS).map(want), |_| Some(10));
    world.wants(0, [want(1)], |_| Some(10));
    let names = names(&world.drain(0));
    assert_eq!(names.len(), MAX_WANTS);
    assert!(!names.contains(&cid(1)));
}

#[test]
fn all_wants_together_are_bounded_but_each_peer_has_some() {
    let mut world = World::new(40);
    for peer in 0..39 {
        world.wants(peer, (0..MAX_WANTS).map(want), |_| Some(10));
    }
    assert!(world.server.wants <= MAX_ALL_WANTS + 39 * GUARANTEED_WANTS);
    world.wants(39, (0..500).map(want), |_| Some(10));
    assert_eq!(names(&world.drain(39)).len(), GUARANTEED_WANTS);
}

#[test]
fn memory_for_answers_is_bounded_and_goes_round() {
    let mut world = World::new(20);
    for peer in 0..20 {
        world.wants(peer, (0..8).map(want), |_| Some(MAX_BLOCK as u32));
    }
    let mut taken: Vec<_> = (0..20).map(|peer| world.batch(peer)).collect();
    assert!(world.server.serving <= MAX_SERVING);
    let waiting = taken.iter().position(Option::is_none).expect("some must wait");
    assert_eq!(world.server.queue[0].id, world.links[waiting].id, "first come, first served");
    world.server.sent(taken[0].take().unwrap().bytes);
    assert!(world.batch(0).is_none(), "it comes after those who wait");
    assert!(world.batch(waiting).is_some());
    assert!(world.batch(waiting + 1).is_none(), "no memory again");
    for peer in 0..20 {
        let link = world.links[peer].clone();
        world.server.disconnected(&link.peer, link.id);
    }
    assert_eq!((world.server.wants, world.server.queue.len()), (0, 0), "freed with the connection");
    assert!(world.server.ledgers.is_empty() && world.server.waiting.is_empty());
}

#[test]
fn peers_of_version_1_0_get_only_what_they_can_name() {
    let mut world = World::new(1);
    let old = Cid::new_v0(*cid(0).hash()).unwrap();
    world.wants(0, [Entry { cid: old, ..want(0) }, want(1), want(2)], |of| (*of != cid(2)).then_some(10));
    let link = world.links[0].clone();
    let batch = world.server.take_batch(&link, Version::V1_0).unwrap();
    assert_eq!(batch.blocks, [(old, true)]);
    assert_eq!(batch.presences, []);
    assert!(!world.server.has_answers(&link.peer));
}

#[test]
fn what_needs_no_memory_does_not_wait() {
    let mut world = World::new(12);
    for peer in 0..12 {
        world.wants(peer, (0..8).map(want), |_| Some(MAX_BLOCK as u32));
    }
    let taken: Vec<_> = (0..12).map(|peer| world.batch(peer)).collect();
    assert!(taken[11].is_none());
    world.wants(11, [want(100)], |_| None);
    let batch = world.batch(11).unwrap();
    assert_eq!((batch.bytes, batch.presences.len()), (0, 1));
    assert!(world.batch(11).is_none());
    for batch in taken.into_iter().flatten() {
        world.server.sent(batch.bytes);
    }
    let first = world.server.queue[0].clone();
    assert!(world.server.take_batch(&first, Version::V1_2).is_some());
}
