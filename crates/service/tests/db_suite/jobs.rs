//! The service's own work, and the denylist.

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::EventKind;
use pinfold_service::db::PinRefusal;

use crate::world::*;

crate::on_both!(
    a_pin_without_progress_expires,
    a_source_that_trickles_keeps_no_pin_open,
    what_peers_say_is_too_large_fails_at_the_deadline_alone,
    what_was_pinned_has_no_deadline,
    a_nodes_absence_does_not_count,
    turns_are_given_in_order,
    a_pausing_fetch_takes_no_turn,
    a_silent_nodes_contents_go_to_another,
    a_content_with_many_pins_is_shown_in_parts,
    denied_contents_come_back_or_go_after_thirty_days,
    a_waiting_content_is_listed_and_can_be_retried,
);

async fn a_pin_without_progress_expires(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    world.pass(DAY / 2);
    node.say(&db, old.content, progress(0, Reason::NoProviders, None)).await;
    let young = db.add_pin(pin(ann.id, 1)).await.unwrap();
    world.pass(DAY / 2 + SECOND);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    assert_eq!(status(&db, &old).await, (Status::Failed, Some(Reason::Expired)));
    assert_eq!(status(&db, &young).await.0, Status::Pinning, "it has a deadline of its own");
    world.pass(DAY / 4);
    node.say(&db, young.content, progress(1 << 30, Reason::Retrieving, None)).await;
    world.pass(DAY / 2);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    assert_eq!(status(&db, &young).await.0, Status::Pinning, "progress moves the deadline");
    world.pass(DAY / 2 + SECOND);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    assert_eq!(status(&db, &young).await, (Status::Failed, Some(Reason::Expired)));
    node.release(&db).await;
    assert_eq!(usage(&db, &ann).await, (0, 0));
    assert_sound(&db).await;
}

async fn a_source_that_trickles_keeps_no_pin_open(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let slow = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let again = db.add_pin(pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    node.say(&db, again.content, progress(1 << 30, Reason::Retrieving, None)).await;
    for hour in 1..=23 {
        world.pass(HOUR);
        // A small block a minute.
        node.say(&db, slow.content, progress(60_000 * hour, Reason::Retrieving, None)).await;
        // What was fetched before, found again by a new attempt.
        node.say(&db, again.content, progress(0, Reason::Searching, None)).await;
        node.say(&db, again.content, progress(1 << 30, Reason::Retrieving, None)).await;
    }
    run_jobs(&db).await;
    assert_eq!(status(&db, &slow).await.0, Status::Pinning);
    world.pass(2 * HOUR);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    for pin in [slow, again] {
        assert_eq!(status(&db, &pin).await, (Status::Failed, Some(Reason::Expired)));
    }
    assert_sound(&db).await;
}

async fn what_peers_say_is_too_large_fails_at_the_deadline_alone(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    node.say(&db, made.content, progress(500, Reason::InvalidBlock, None)).await;
    assert_eq!(status(&db, &made).await, (Status::Pinning, Some(Reason::InvalidBlock)));
    world.pass(DAY + HOUR);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    assert_eq!(status(&db, &made).await, (Status::Failed, Some(Reason::InvalidBlock)));
    assert_sound(&db).await;
}

async fn what_was_pinned_has_no_deadline(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &made, 10_000).await;
    node.say(&db, made.content, EventKind::Lost { blocks: 1 }).await;
    node.pull(&db).await;
    for _ in 0..3 {
        node.say(&db, made.content, progress(0, Reason::NoProviders, None)).await;
        world.pass(DAY + SECOND);
        node.report(&db, Vec::new()).await;
        run_jobs(&db).await;
    }
    assert_eq!(status(&db, &made).await.0, Status::Pinning, "it is repaired, however long that takes");
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    node.store(&db, &made, 10_000).await;
    assert_eq!(status(&db, &made).await.0, Status::Pinned);
    assert_sound(&db).await;
}

async fn a_nodes_absence_does_not_count(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    world.pass(3 * DAY);
    run_jobs(&db).await;
    assert_eq!(status(&db, &made).await.0, Status::Queued, "its node is away");
    let mut node = FakeNode::join(&db, 1, world.now()).await;
    world.pass(DAY - SECOND);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    assert_eq!(status(&db, &made).await.0, Status::Queued, "its node is back for less than a day");
    world.pass(2 * SECOND);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    assert_eq!(status(&db, &made).await, (Status::Failed, Some(Reason::Expired)));
}

async fn turns_are_given_in_order(mut world: World) {
    world.settings.max_pinning = 2;
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let mut made = Vec::new();
    for content in 0..6 {
        world.pass(1);
        made.push(db.add_pin(pin(ann.id, content)).await.unwrap());
    }
    let bob = db.create_account("bob", None).await.unwrap();
    let his = db.add_pin(pin(bob.id, 100)).await.unwrap();
    node.pull(&db).await;
    let begun: Vec<i64> = node.assignments.keys().copied().collect();
    assert_eq!(begun, [made[0].content, made[1].content, his.content], "others do not wait for ann's");
    assert_eq!(get(&db, &made[4]).await.info.queued_ahead, Some(2));
    let mut changes = db.subscribe();
    node.store(&db, &made[1], 10).await;
    while !changes.recv().await.unwrap().work {}
    run_jobs(&db).await;
    node.pull(&db).await;
    assert!(node.assignments.contains_key(&made[2].content));
    assert!(!node.assignments.contains_key(&made[3].content));
    for pin in [&made[0], &made[2]] {
        node.store(&db, pin, 10).await;
        run_jobs(&db).await;
    }
    db.delete_pin(ann.id, made[3].requestid).await.unwrap();
    run_jobs(&db).await;
    node.pull(&db).await;
    assert!(node.assignments.contains_key(&made[5].content));
    assert_sound(&db).await;
}

async fn a_pausing_fetch_takes_no_turn(mut world: World) {
    world.settings.max_pinning = 1;
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let dead = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let good = db.add_pin(pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    assert!(!node.assignments.contains_key(&good.content));
    let pause = progress(0, Reason::NoProviders, Some(world.now() + HOUR));
    node.say(&db, dead.content, pause).await;
    run_jobs(&db).await;
    node.store(&db, &good, 10).await;
    assert_eq!(status(&db, &good).await.0, Status::Pinned);
    assert_eq!(get(&db, &dead).await.info.next_attempt, Some(world.now() + HOUR));
    assert_sound(&db).await;
}

async fn a_silent_nodes_contents_go_to_another(world: World) {
    let (db, mut one, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    one.store(&db, &made, 100).await;
    world.pass(HOUR);
    let mut two = FakeNode::join(&db, 2, world.now()).await;
    run_jobs(&db).await;
    two.pull(&db).await;
    assert!(two.assignments.is_empty(), "not before --repair-after");
    world.pass(4 * HOUR);
    two.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    two.pull(&db).await;
    assert!(two.assignments[&made.content].repair);
    assert_eq!(status(&db, &made).await.0, Status::Pinned);
    two.store(&db, &made, 100).await;
    run_jobs(&db).await;
    assert_eq!(get(&db, &made).await.info.replicas, 2);
    assert_sound(&db).await;
}

async fn a_content_with_many_pins_is_shown_in_parts(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let mut accounts = vec![ann];
    for name in ["bob", "cat", "dan"] {
        accounts.push(db.create_account(name, None).await.unwrap());
    }
    let adding = accounts.iter().flat_map(|account| (0..400).map(|_| db.add_pin(pin(account.id, 1))));
    let made = futures::future::join_all(adding).await;
    let first = made[0].as_ref().unwrap().clone();
    node.store(&db, &first, 10_000).await;
    let pinned = async || {
        let mut counts = Vec::new();
        for account in &accounts {
            counts.push(list(&db, account, query(&[Status::Pinned])).await.count);
        }
        counts
    };
    assert_eq!(pinned().await, [400, 400, 0, 0]);
    assert_sound(&db).await;
    run_jobs(&db).await;
    assert_eq!(pinned().await, [400; 4]);
    for account in &accounts {
        assert_eq!(usage(&db, account).await, (10_000, 0));
    }
    assert_sound(&db).await;
}

async fn denied_contents_come_back_or_go_after_thirty_days(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &made, 10_000).await;
    let held = db.held_contents(0, 10).await.unwrap();
    assert_eq!((held.len(), &held[0].key, held[0].denied), (1, &key(1), false));
    assert_eq!(db.deny(&[held[0].id, 999]).await.unwrap(), 1);
    assert_eq!(db.deny(&[held[0].id]).await.unwrap(), 0);
    assert_eq!(status(&db, &made).await, (Status::Failed, Some(Reason::Denied)));
    assert_eq!(refusal(db.add_pin(pin(ann.id, 1)).await), PinRefusal::Denied);
    assert_sound(&db).await;
    assert_eq!(db.lift(&[held[0].id]).await.unwrap(), 1);
    assert_eq!(status(&db, &made).await, (Status::Pinned, None));
    assert_sound(&db).await;
    db.deny(&[held[0].id]).await.unwrap();
    world.pass(29 * DAY);
    run_jobs(&db).await;
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    world.pass(2 * DAY);
    run_jobs(&db).await;
    assert_eq!(usage(&db, &ann).await, (0, 0));
    db.lift(&[held[0].id]).await.unwrap();
    assert_eq!(status(&db, &made).await, (Status::Failed, Some(Reason::Denied)), "it was reclaimed");
    node.pull(&db).await;
    assert_eq!(node.releases.len(), 1);
    assert_sound(&db).await;
}

async fn a_waiting_content_is_listed_and_can_be_retried(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    let queue = db.queue(0, 10).await.unwrap();
    assert_eq!((queue.len(), queue[0].cid.as_str(), queue[0].node.is_some()), (1, "bafycontent1", true));
    node.say(&db, made.content, EventKind::NoCapacity).await;
    node.assignments.clear();
    assert_eq!(db.retry(&[12_345, made.content]).await.unwrap(), 1);
    node.pull(&db).await;
    assert!(node.assignments.contains_key(&made.content));
    node.store(&db, &made, 10).await;
    assert!(db.queue(0, 10).await.unwrap().is_empty());
    assert_eq!(db.retry(&[made.content]).await.unwrap(), 0);
}
