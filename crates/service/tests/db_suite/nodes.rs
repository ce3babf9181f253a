//! The node's side: sessions, work, reports, inventories.

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::{AllocationId, Answer, Event, EventKind, Inventory, Pull, Report};
use pinfold_service::db::{Channel, Error, NewPin, NodeRefusal, NodeRequest};

use crate::world::*;

crate::on_both!(
    requests_are_accepted_once,
    a_hello_cannot_be_replayed,
    work_comes_until_it_is_acknowledged,
    reports_about_other_generations_are_stale,
    a_lost_copy_is_fetched_again,
    two_copies_make_it_pinned_and_one_keeps_it,
    a_node_without_room_is_passed_over,
    a_node_without_room_lets_go_what_it_fetched,
    what_is_lost_and_denied_is_told_so_and_comes_back,
    another_manifest_is_refused,
    an_inventory_finds_what_differs,
    providers_are_those_that_hold_it,
    a_released_content_can_be_wanted_again,
);

fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> NodeRefusal {
    match outcome {
        Err(Error::Node(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn requests_are_accepted_once(world: World) {
    let (db, mut node, _) = world.with_node(1 << 30).await;
    let request = node.request();
    db.report(request, Report::default()).await.unwrap();
    assert_eq!(refused(db.report(request, Report::default()).await), NodeRefusal::Replayed);
    // Each channel has a sequence of its own.
    db.pull(request, Pull::default()).await.unwrap();
    assert_eq!(refused(db.pull(request, Pull::default()).await), NodeRefusal::Replayed);
    db.accept(request, Channel::Denylist).await.unwrap();
    let unknown = NodeRequest { key: [9; 32], ..request };
    assert_eq!(refused(db.accept(unknown, Channel::Denylist).await), NodeRefusal::Unknown);
    let before = node.request();
    world.pass(SECOND);
    let after = FakeNode::join(&db, 1, world.now()).await;
    assert!(after.session > before.session);
    assert_eq!(refused(db.report(before, Report::default()).await), NodeRefusal::OldSession);
    assert_eq!(refused(db.pull_again(before).await), NodeRefusal::OldSession);
}

async fn a_hello_cannot_be_replayed(world: World) {
    let db = world.open().await;
    let first = db.hello(hello(1, 5)).await.unwrap();
    assert_eq!(refused(db.hello(hello(1, 5)).await), NodeRefusal::Replayed);
    assert_eq!(refused(db.hello(hello(1, 4)).await), NodeRefusal::Replayed);
    let second = db.hello(hello(1, 6)).await.unwrap();
    assert_eq!((second.id, second.session), (first.id, first.session + 1));
    assert_eq!(db.nodes().await.unwrap(), [second]);
}

async fn work_comes_until_it_is_acknowledged(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let request = node.request();
    let first = db.pull(request, Pull::default()).await.unwrap();
    assert_eq!(first.assignments.len(), 1);
    assert_eq!(first.assignments[0].fairness, ann.id);
    assert_eq!(db.pull_again(request).await.unwrap(), first, "not acknowledged, it comes again");
    let acknowledged = vec![first.assignments[0].allocation];
    let pull = Pull { acknowledged, ..Pull::default() };
    let request = node.request();
    assert!(db.pull(request, pull).await.unwrap().assignments.is_empty());
    assert!(db.pull_again(request).await.unwrap().assignments.is_empty());
    let mut changes = db.subscribe();
    let mut again = pin(ann.id, 1);
    again.origins = vec!["/ip4/1.2.3.4/tcp/1/p2p/a".into()];
    db.add_pin(again).await.unwrap();
    while !changes.recv().await.unwrap().work {}
    assert_eq!(db.pull_again(request).await.unwrap().assignments[0].origins.len(), 1);
    let _ = made;
}

async fn reports_about_other_generations_are_stale(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    let mut event = node.event(made.content, stored(100));
    event.allocation.generation += 1;
    let unknown =
        Event { allocation: AllocationId { content: 1, generation: 1 }, kind: EventKind::NoCapacity };
    assert_eq!(node.report(&db, vec![event, unknown]).await, [Answer::Stale, Answer::Stale]);
    let mut other = FakeNode::join(&db, 2, world.now()).await;
    let event = node.event(made.content, stored(100));
    assert_eq!(other.report(&db, vec![event]).await, [Answer::Stale]);
    assert_eq!(status(&db, &made).await.0, Status::Queued);
    assert_sound(&db).await;
}

async fn a_lost_copy_is_fetched_again(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &made, 10_000).await;
    node.say(&db, made.content, EventKind::Lost { blocks: 2 }).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinning);
    node.pull(&db).await;
    assert!(node.assignments[&made.content].repair);
    assert_eq!(node.assignments[&made.content].granted_bytes, 64 << 20);
    // Whoever has it now says so with another pin.
    let origins = vec!["/ip4/1.2.3.4/tcp/4001/p2p/origin".to_owned()];
    let other = db.add_pin(NewPin { origins: origins.clone(), ..pin(ann.id, 1) }).await.unwrap();
    node.pull(&db).await;
    assert_eq!(node.assignments[&made.content].origins, origins);
    db.delete_pin(ann.id, other.requestid).await.unwrap();
    world.pass(1_000 * HOUR);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinning, "what was pinned never expires");
    node.store(&db, &made, 10_000).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinned);
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    assert_sound(&db).await;
}

async fn two_copies_make_it_pinned_and_one_keeps_it(mut world: World) {
    (world.settings.replicas_min, world.settings.replicas_target) = (2, 3);
    let (db, mut one, ann) = world.with_node(1 << 30).await;
    let mut two = FakeNode::join(&db, 2, world.now()).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!(made.delegates.len(), 2);
    one.store(&db, &made, 10_000).await;
    let seen = get(&db, &made).await;
    assert_eq!((seen.status, seen.info.reason), (Status::Pinning, Some(Reason::Replicating)));
    assert_eq!((seen.info.replicas, seen.info.replicas_wanted), (1, 3));
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    two.pull(&db).await;
    assert_eq!(two.assignments[&made.content].peers.len(), 1);
    two.store(&db, &made, 10_000).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinned);
    assert_eq!(usage(&db, &ann).await, (10_000, 0), "copies are charged once");
    // A third node comes, and gets what has too few copies.
    let mut three = FakeNode::join(&db, 3, world.now()).await;
    run_jobs(&db).await;
    three.store(&db, &made, 10_000).await;
    assert_eq!(get(&db, &made).await.info.replicas, 3);
    one.say(&db, made.content, EventKind::Lost { blocks: 1 }).await;
    two.say(&db, made.content, EventKind::Lost { blocks: 1 }).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinned, "one copy keeps it pinned");
    three.say(&db, made.content, EventKind::Lost { blocks: 1 }).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinning);
    assert_sound(&db).await;
}

async fn a_node_without_room_is_passed_over(world: World) {
    let (db, mut one, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    one.pull(&db).await;
    one.say(&db, made.content, EventKind::NoCapacity).await;
    assert_eq!(status(&db, &made).await, (Status::Queued, Some(Reason::NoCapacity)));
    let mut two = FakeNode::join(&db, 2, world.now()).await;
    world.pass(61 * SECOND);
    two.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    two.store(&db, &made, 100).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinned);
    assert_sound(&db).await;
}

async fn a_node_without_room_lets_go_what_it_fetched(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    node.say(&db, made.content, EventKind::NoCapacity).await;
    db.delete_pin(ann.id, made.requestid).await.unwrap();
    node.pull(&db).await;
    assert_eq!(node.releases.len(), 1);
    node.release(&db).await;
    // Nothing is left of it.
    let again = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_ne!(again.content, made.content);
    assert_sound(&db).await;
}

async fn what_is_lost_and_denied_is_told_so_and_comes_back(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &made, 10_000).await;
    node.say(&db, made.content, EventKind::Lost { blocks: 2 }).await;
    node.pull(&db).await;
    let denied = || EventKind::Failed { reason: Reason::Denied, detail: "a block is denied".into() };
    node.say(&db, made.content, denied()).await;
    assert_eq!(status(&db, &made).await, (Status::Failed, Some(Reason::Denied)));
    assert_sound(&db).await;
    // Not soon again.
    node.assignments.clear();
    world.pass(12 * HOUR);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    node.pull(&db).await;
    assert!(node.assignments.is_empty());
    assert_eq!(db.retry(&[made.content]).await.unwrap(), 1);
    node.store(&db, &made, 10_000).await;
    node.say(&db, made.content, EventKind::Compared { denylist: 2, denied: false }).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinned);
    assert_sound(&db).await;
}

async fn another_manifest_is_refused(mut world: World) {
    (world.settings.replicas_min, world.settings.replicas_target) = (2, 2);
    let (db, mut one, ann) = world.with_node(1 << 30).await;
    let mut two = FakeNode::join(&db, 2, world.now()).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    one.store(&db, &made, 10_000).await;
    two.pull(&db).await;
    let answer = two.say(&db, made.content, stored(9_999)).await;
    assert_eq!(answer, Answer::Refused { reason: Reason::InvalidBlock });
    assert_eq!(status(&db, &made).await.0, Status::Pinning);
    assert_sound(&db).await;
}

async fn an_inventory_finds_what_differs(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let held = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let gone = db.add_pin(pin(ann.id, 2)).await.unwrap();
    for pin in [&held, &gone] {
        node.store(&db, pin, 100).await;
    }
    let known = node.assignments[&held.content].allocation;
    let missing = node.assignments[&gone.content].allocation;
    let unknown = AllocationId { content: 77, generation: 3 };
    let inventory = Inventory { after: 0, held: vec![unknown, known] };
    let request = node.request();
    let found = db.inventory(request, inventory).await.unwrap();
    assert_eq!((found.unknown, found.missing), (vec![unknown], vec![missing]));
    assert_eq!(status(&db, &gone).await.0, Status::Pinning);
    assert_eq!(status(&db, &held).await.0, Status::Pinned);
    node.pull(&db).await;
    assert!(node.assignments[&gone.content].repair);
    assert!(node.releases.is_empty(), "what is unknown is deleted on the operator's word alone");
    assert_eq!(db.release_strays().await.unwrap(), 1);
    node.pull(&db).await;
    assert_eq!(node.releases, [unknown]);
    node.release(&db).await;
    assert!(node.releases.is_empty());
    assert_sound(&db).await;
}

async fn providers_are_those_that_hold_it(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert!(db.providers(&key(1)).await.unwrap().is_empty());
    node.store(&db, &made, 100).await;
    let found = db.providers(&key(1)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].key, found[0].addresses.len()), ([1; 32], 1));
    assert_eq!(db.deny(&[made.content]).await.unwrap(), 1);
    assert!(db.providers(&key(1)).await.unwrap().is_empty());
}

async fn a_released_content_can_be_wanted_again(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &made, 100).await;
    db.delete_pin(ann.id, made.requestid).await.unwrap();
    node.pull(&db).await;
    let old = node.releases[0];
    let again = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!((again.status, again.content), (Status::Queued, made.content));
    // The old release was carried out in between.
    node.report(&db, vec![Event { allocation: old, kind: EventKind::Released }]).await;
    node.pull(&db).await;
    assert!(node.assignments[&again.content].allocation.generation > old.generation);
    node.store(&db, &again, 100).await;
    assert_eq!(status(&db, &again).await.0, Status::Pinned);
    assert_sound(&db).await;
}
