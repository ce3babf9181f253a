//! Replacing pins: what is kept, what is charged, what is let go.

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::EventKind;
use pinfold_service::db::{NewPin, PinRefusal};

use crate::world::*;

crate::on_both!(
    the_old_content_is_kept_until_the_new_one_is_held,
    twelve_of_twenty_can_be_replaced_for_ever,
    of_two_simultaneous_replacements_one_is_refused,
    a_held_content_replaces_at_once,
    the_same_content_deletes_nothing,
    holds_do_not_chain,
    a_failed_replacement_keeps_until_it_is_removed,
    a_failed_replacement_hands_over_what_it_keeps,
    a_failed_replacement_pays_for_nothing,
    when_a_replacement_expires_other_pins_of_its_content_pay_alone,
    going_back_to_what_is_kept,
    what_is_kept_and_pinned_again_is_paid_again,
    a_refused_replacement_changes_nothing,
);

const GIB: u64 = 1 << 30;

async fn the_old_content_is_kept_until_the_new_one_is_held(world: World) {
    let (db, mut node, ann) = world.with_node(20 * GIB).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &old, 1_000_000).await;
    let new = db.replace_pin(old.requestid, pin(ann.id, 2)).await.unwrap();
    assert_eq!(db.pin(ann.id, old.requestid).await.unwrap(), None);
    assert_eq!((new.status, new.info.replaces.as_deref()), (Status::Queued, Some("bafycontent1")));
    assert_eq!(get(&db, &new).await, new);
    node.pull(&db).await;
    assert_eq!(node.releases.len(), 0, "the old DAG is kept");
    assert_eq!(node.assignments[&new.content].predecessor.as_deref(), Some("bafycontent1"));
    assert_eq!(usage(&db, &ann).await, (1_000_000, 0));
    assert_sound(&db).await;
    node.store(&db, &new, 3_000_000).await;
    assert_eq!(usage(&db, &ann).await, (3_000_000, 0));
    node.pull(&db).await;
    assert_eq!(node.releases.len(), 1);
    let seen = get(&db, &new).await;
    assert_eq!((seen.status, seen.info.replaces), (Status::Pinned, None));
    assert_sound(&db).await;
}

/// The policy of Kubo's MFS: a root of 12 GB under a quota of 20.
async fn twelve_of_twenty_can_be_replaced_for_ever(world: World) {
    let (db, mut node, ann) = world.with_node(20 * GIB).await;
    let mut current = db.add_pin(pin(ann.id, 0)).await.unwrap();
    node.store(&db, &current, 12 * GIB).await;
    for round in 1..5 {
        current = db.replace_pin(current.requestid, pin(ann.id, round)).await.unwrap();
        node.pull(&db).await;
        node.want(&db, &current, 12 * GIB).await;
        assert_sound(&db).await;
        let (used, reserved) = usage(&db, &ann).await;
        assert!(used + reserved <= 13 * GIB, "the larger of the two is charged, not both: {used} {reserved}");
        node.store(&db, &current, 12 * GIB + round).await;
        assert_eq!(status(&db, &current).await.0, Status::Pinned);
        assert_eq!(usage(&db, &ann).await, (12 * GIB + round, 0));
        node.release(&db).await;
    }
    assert_sound(&db).await;
}

async fn of_two_simultaneous_replacements_one_is_refused(world: World) {
    let (db, mut node, ann) = world.with_node(20 * GIB).await;
    for round in 0..5 {
        let old = db.add_pin(pin(ann.id, 100 * round)).await.unwrap();
        node.store(&db, &old, 10_000).await;
        let racing = (1..5).map(|n| db.replace_pin(old.requestid, pin(ann.id, 100 * round + n)));
        let outcomes = futures::future::join_all(racing).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            assert_eq!(refusal(outcome), PinRefusal::NotFound);
        }
    }
    assert_eq!(list(&db, &ann, query(&Status::ALL)).await.count, 5);
    assert_sound(&db).await;
}

async fn a_held_content_replaces_at_once(world: World) {
    let (db, mut node, ann) = world.with_node(15_000).await;
    let bob = db.create_account("bob", None).await.unwrap();
    let his = db.add_pin(pin(bob.id, 2)).await.unwrap();
    node.store(&db, &his, 10_000).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &old, 9_000).await;
    let new = db.replace_pin(old.requestid, pin(ann.id, 2)).await.unwrap();
    assert_eq!((new.status, &new.info.replaces), (Status::Pinned, &None));
    assert_eq!(usage(&db, &ann).await, (10_000, 0), "the old one's quota counts for the new one");
    node.pull(&db).await;
    assert_eq!(node.releases.len(), 1);
    assert_sound(&db).await;
}

async fn the_same_content_deletes_nothing(world: World) {
    let (db, mut node, ann) = world.with_node(10_000).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let queued = db.replace_pin(old.requestid, pin(ann.id, 1)).await.unwrap();
    assert_eq!(queued.status, Status::Queued);
    node.store(&db, &queued, 10_000).await;
    let named = NewPin { name: Some("renamed".into()), ..pin(ann.id, 1) };
    let new = db.replace_pin(queued.requestid, named).await.unwrap();
    assert_eq!((new.status, new.name.as_deref()), (Status::Pinned, Some("renamed")));
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    node.pull(&db).await;
    assert!(node.releases.is_empty());
    assert_sound(&db).await;
}

async fn holds_do_not_chain(world: World) {
    let (db, mut node, ann) = world.with_node(20 * GIB).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &first, 10_000).await;
    let second = db.replace_pin(first.requestid, pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    node.want(&db, &second, 5_000).await;
    let third = db.replace_pin(second.requestid, pin(ann.id, 3)).await.unwrap();
    assert_eq!(third.info.replaces.as_deref(), Some("bafycontent1"), "the last pinned content is kept");
    node.pull(&db).await;
    assert_eq!(node.releases.iter().map(|id| id.content).collect::<Vec<_>>(), [second.content]);
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    assert_sound(&db).await;
    node.store(&db, &third, 4_096).await;
    assert_eq!(usage(&db, &ann).await, (4_096, 0));
    node.release(&db).await;
    assert_sound(&db).await;
}

async fn a_failed_replacement_keeps_until_it_is_removed(world: World) {
    let (db, mut node, ann) = world.with_node(20 * GIB).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &old, 10_000).await;
    let new = db.replace_pin(old.requestid, pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    let failed = EventKind::Failed { reason: Reason::InvalidBlock, detail: String::new() };
    node.say(&db, new.content, failed).await;
    assert_eq!(status(&db, &new).await.0, Status::Failed);
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    node.pull(&db).await;
    assert!(!node.releases.iter().any(|id| id.content == old.content), "the old DAG is kept");
    assert_sound(&db).await;
    db.delete_pin(ann.id, new.requestid).await.unwrap();
    assert_eq!(usage(&db, &ann).await, (0, 0));
    node.pull(&db).await;
    assert!(node.releases.iter().any(|id| id.content == old.content));
    assert_sound(&db).await;
}

async fn a_failed_replacement_hands_over_what_it_keeps(world: World) {
    let (db, mut node, ann) = world.with_node(20 * GIB).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &old, 10_000).await;
    let new = db.replace_pin(old.requestid, pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    let failed = EventKind::Failed { reason: Reason::InvalidBlock, detail: String::new() };
    node.say(&db, new.content, failed).await;
    // The same content again, and then another one.
    for content in [2, 3] {
        let pins = list(&db, &ann, query(&Status::ALL)).await.pins;
        let next = db.replace_pin(pins[0].requestid, pin(ann.id, content)).await.unwrap();
        assert_eq!((next.status, next.info.replaces.as_deref()), (Status::Queued, Some("bafycontent1")));
        assert_sound(&db).await;
    }
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
}

/// It fails for one account alone, and the content is held for another.
async fn a_failed_replacement_pays_for_nothing(world: World) {
    let (db, mut node, ann) = world.with_node(50_000).await;
    let bob = db.create_account("bob", None).await.unwrap();
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &old, 10_000).await;
    let new = db.replace_pin(old.requestid, pin(ann.id, 2)).await.unwrap();
    db.add_pin(pin(bob.id, 2)).await.unwrap();
    node.pull(&db).await;
    node.want(&db, &new, 100_000).await;
    assert_eq!(status(&db, &new).await, (Status::Failed, Some(Reason::OverQuota)));
    node.say(&db, new.content, stored(30_000)).await;
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    let other = db.add_pin(pin(ann.id, 3)).await.unwrap();
    let again = db.replace_pin(other.requestid, pin(ann.id, 2)).await.unwrap();
    assert_eq!(again.status, Status::Pinned);
    assert_eq!(usage(&db, &ann).await, (40_000, 0), "both are held");
    assert_sound(&db).await;
    db.delete_pin(ann.id, again.requestid).await.unwrap();
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    assert_sound(&db).await;
}

async fn when_a_replacement_expires_other_pins_of_its_content_pay_alone(world: World) {
    let (db, mut node, ann) = world.with_node(50_000).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &old, 10_000).await;
    let new = db.replace_pin(old.requestid, pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    node.want(&db, &new, 30_000).await;
    let (_, before) = usage(&db, &ann).await;
    world.pass(DAY / 2);
    let young = db.add_pin(pin(ann.id, 2)).await.unwrap();
    world.pass(DAY / 2 + SECOND);
    node.report(&db, Vec::new()).await;
    run_jobs(&db).await;
    assert_eq!(status(&db, &new).await, (Status::Failed, Some(Reason::Expired)));
    assert_eq!(status(&db, &young).await.0, Status::Queued);
    assert_eq!(usage(&db, &ann).await, (10_000, before + 10_000));
    assert_sound(&db).await;
}

async fn going_back_to_what_is_kept(world: World) {
    let (db, mut node, ann) = world.with_node(20 * GIB).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &first, 10_000).await;
    let second = db.replace_pin(first.requestid, pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    node.want(&db, &second, 30_000).await;
    let back = db.replace_pin(second.requestid, pin(ann.id, 1)).await.unwrap();
    assert_eq!(back.status, Status::Pinned);
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    node.pull(&db).await;
    assert_eq!(node.releases.iter().map(|id| id.content).collect::<Vec<_>>(), [second.content]);
    assert_sound(&db).await;
}

async fn what_is_kept_and_pinned_again_is_paid_again(world: World) {
    let (db, mut node, ann) = world.with_node(100_000).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &old, 60_000).await;
    let new = db.replace_pin(old.requestid, pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    node.want(&db, &new, 50_000).await;
    let (used, reserved) = usage(&db, &ann).await;
    assert!(used == 60_000 && used + reserved <= 100_000);
    let refused = refusal(db.add_pin(pin(ann.id, 1)).await);
    assert!(matches!(refused, PinRefusal::OverQuota { .. }), "both would not fit");
    assert_sound(&db).await;
    db.set_quota(ann.id, 1_000_000).await.unwrap();
    let again = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!(again.status, Status::Pinned);
    assert_sound(&db).await;
    node.store(&db, &new, 50_000).await;
    assert_eq!(usage(&db, &ann).await, (110_000, 0));
    assert_sound(&db).await;
}

async fn a_refused_replacement_changes_nothing(world: World) {
    let (db, mut node, ann) = world.with_node(20_000).await;
    let bob = db.create_account("bob", None).await.unwrap();
    let his = db.add_pin(pin(bob.id, 2)).await.unwrap();
    node.store(&db, &his, 50_000).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &old, 10_000).await;
    let before = get(&db, &old).await;
    let refused = refusal(db.replace_pin(old.requestid, pin(ann.id, 2)).await);
    assert_eq!(refused, PinRefusal::OverQuota { used: 0, quota: 20_000 });
    assert_eq!(get(&db, &old).await, before);
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    node.pull(&db).await;
    assert!(node.releases.is_empty());
    assert_sound(&db).await;
}
