//! Connections and streams that come and go.

use super::*;

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
fn what_was_so_before_somebody_came_is_not_told() {
    let mut world = World::new(0);
    world.want(0..1);
    let first = world.connect();
    world.client.add_peer(world.session, world.peer(first), world.now);
    assert_eq!(world.events(), [], "there is somebody now");
    world.sent(first);
    world.tell(first, 0, false);
    let second = world.connect();
    world.client.add_peer(world.session, world.peer(second), world.now);
    let lacks = |peer| Event::DontHave { cid: cid(0), from: peer };
    assert_eq!(world.events(), [lacks(world.peer(first))], "the second may have it");
    world.sent(second);
    world.tell(second, 0, false);
    assert_eq!(world.events(), [lacks(world.peer(second)), Event::Stalled { cids: cids(0..1) }]);
}

#[test]
fn a_peer_that_is_added_after_it_has_gone_is_told_to_be_nobody() {
    let mut world = World::new(0);
    world.want(0..1);
    assert_eq!(world.events(), [Event::NoPeers]);
    world.client.add_peer(world.session, PeerId::random(), world.now);
    assert_eq!(world.events(), [Event::NoPeers]);
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
    // Before the block itself is asked of the second peer too.
    world.pass(Duration::from_millis(290));
    assert_eq!(world.sent(1), [Sent::Have(cid(0))]);
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
