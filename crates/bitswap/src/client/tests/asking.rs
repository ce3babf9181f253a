//! What is asked of whom, and how sessions share it.

use super::*;

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
