//! Peers that are silent, wrong or too generous.

use super::*;
use crate::client::session::MAX_SESSION_PEERS;

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

/// However many silent origins are named before it.
#[test]
fn a_full_session_has_a_place_for_a_peer_that_brings_something() {
    let mut world = World::new(MAX_SESSION_PEERS);
    world.want(0..200);
    let good = world.connect();
    assert!(!world.client.add_peer(world.session, world.peer(good), world.now), "it waits");
    let begun = world.now;
    while world.client.wanted(world.session) > 0 {
        for sent in world.sent(good) {
            let number = |cid: Cid| (0..200).find(|number| super::cid(*number) == cid).unwrap();
            match sent {
                Sent::Block(cid) => world.deliver(good, [number(cid)]),
                Sent::Have(cid) => world.tell(good, number(cid), true),
                Sent::Cancel(_) => {}
            }
        }
        world.pass(Duration::from_millis(50));
        world.events();
        assert!(world.now - begun < 2 * places::PATIENCE, "{} are left", world.client.wanted(world.session));
    }
    assert_eq!(world.client.sessions[&world.session].peers.len(), MAX_SESSION_PEERS);
}

/// While others wait, those that bring something stay.
#[test]
fn peers_that_bring_something_keep_their_places() {
    let mut world = World::new(MAX_SESSION_PEERS);
    let peers: Vec<PeerId> = (0..MAX_SESSION_PEERS).map(|peer| world.peer(peer)).collect();
    world.want(0..1_000);
    for _ in 0..10 {
        let other = world.connect();
        world.client.add_peer(world.session, world.peer(other), world.now);
    }
    for round in 0..31 {
        for peer in 0..MAX_SESSION_PEERS {
            world.deliver(peer, [round * MAX_SESSION_PEERS + peer]);
        }
        world.pass(Duration::from_secs(1));
        world.events();
    }
    let kept = world.client.sessions[&world.session].peers.iter().map(|standing| standing.peer);
    assert_eq!(kept.collect::<HashSet<_>>(), peers.into_iter().collect());
}

/// However many peers that lack everything are named before it.
#[test]
fn a_peer_that_waits_is_asked_before_it_is_said_that_nobody_delivers() {
    let mut world = World::new(MAX_SESSION_PEERS);
    let good = world.connect();
    assert!(!world.client.add_peer(world.session, world.peer(good), world.now), "it waits");
    world.want(0..1);
    let begun = world.now;
    let mut asked = false;
    while !asked {
        for peer in 0..MAX_SESSION_PEERS {
            for sent in world.sent(peer) {
                if sent != Sent::Cancel(cid(0)) {
                    world.tell(peer, 0, false);
                }
            }
        }
        asked = world.sent(good).iter().any(|sent| *sent != Sent::Cancel(cid(0)));
        world.pass(Duration::from_millis(50));
        let events = world.events();
        assert!(!events.iter().any(|event| matches!(event, Event::Stalled { .. })), "{events:?}");
        assert!(world.now - begun < places::PATIENCE, "it is not asked");
    }
    world.deliver(good, [0]);
    assert_eq!(world.blocks(), [cid(0)]);
}

/// More of them than a session has places.
#[test]
fn all_who_wait_are_asked_when_all_lack_everything() {
    const LATE: usize = 3;
    let mut world = World::new(MAX_SESSION_PEERS);
    world.want(0..1);
    let (mut asked, mut stalled) = (HashSet::new(), 0);
    let begun = world.now;
    for round in 0..100 {
        if round < MAX_SESSION_PEERS + LATE {
            let other = world.connect();
            world.client.add_peer(world.session, world.peer(other), world.now);
        }
        for peer in 0..world.links.len() {
            for sent in world.sent(peer) {
                if sent != Sent::Cancel(cid(0)) {
                    asked.insert(peer);
                    world.tell(peer, 0, false);
                }
            }
        }
        world.pass(Duration::from_millis(10));
        stalled += world.events().iter().filter(|event| matches!(event, Event::Stalled { .. })).count();
    }
    assert!(world.now - begun < places::PATIENCE);
    assert_eq!(asked.len(), 2 * MAX_SESSION_PEERS + LATE);
    assert_eq!(stalled, 1, "it is said once");
    let session = &world.client.sessions[&world.session];
    assert_eq!((session.peers.len(), session.newcomers.len()), (MAX_SESSION_PEERS, 0));
}
