//! Pins from their beginning to their end.

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::{EventKind, MAX_ORIGINS};
use pinfold_service::db::{Error, NewPin, PinRefusal};
use uuid::Uuid;

use crate::world::*;

crate::on_both!(
    a_pin_goes_from_queued_to_pinned,
    a_pin_is_given_back_as_it_was_submitted,
    created_is_unique_and_grows_though_the_clock_jumps,
    pins_that_come_too_fast_are_refused,
    the_1001st_pin_of_a_root_is_refused,
    an_inline_pin_is_pinned_at_once,
    without_a_node_nothing_is_accepted,
    a_silent_node_keeps_its_delegates,
    foreign_pins_look_like_missing_ones,
    duplicates_share_the_fetch_and_the_charge,
    a_content_that_is_held_is_pinned_at_once,
    a_failed_pin_is_not_revived,
    new_origins_reach_a_running_fetch,
    origins_of_another_accounts_newer_pins_displace_none,
    what_nobody_wants_is_released_and_forgotten,
    a_full_queue_refuses,
    text_that_no_database_can_hold_is_refused,
    a_pin_that_cannot_be_stored_fails_no_other,
);

async fn a_pin_goes_from_queued_to_pinned(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!(made.status, Status::Queued);
    assert_eq!(made.created, START);
    assert_eq!(made.delegates, ["/ip4/127.0.0.1/tcp/4001/p2p/node1"]);
    assert_eq!(get(&db, &made).await, made);
    node.pull(&db).await;
    assert_eq!(node.assignments[&made.content].root, "bafycontent1");
    assert_eq!(status(&db, &made).await, (Status::Queued, None));
    node.say(&db, made.content, progress(0, Reason::Searching, None)).await;
    assert_eq!(status(&db, &made).await, (Status::Pinning, Some(Reason::Searching)));
    node.say(&db, made.content, progress(500, Reason::Retrieving, None)).await;
    let seen = get(&db, &made).await;
    assert_eq!((seen.info.bytes, seen.info.blocks, seen.info.attempts), (500, 50, 1));
    node.store(&db, &made, 5_000).await;
    let seen = get(&db, &made).await;
    assert_eq!((seen.status, seen.info.reason, seen.info.total_bytes), (Status::Pinned, None, Some(5_000)));
    assert_eq!((seen.info.replicas, seen.info.replicas_wanted), (1, 1));
    assert_eq!(usage(&db, &ann).await, (5_000, 0));
    assert_eq!(db.account(ann.id).await.unwrap().unwrap().pins, [0, 0, 1, 0]);
    assert_sound(&db).await;
}

async fn a_pin_is_given_back_as_it_was_submitted(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    let mut new = pin(ann.id, 1);
    new.name = Some("Ünïcode % _ \\ / \u{1F600}".into());
    new.meta = [("app id".to_owned(), "x\"y".to_owned()), (String::new(), String::new())].into();
    new.origins = vec!["/ip4/10.0.0.1/tcp/1/p2p/a".into(), "not a multiaddr".into()];
    let made = db.add_pin(new.clone()).await.unwrap();
    let seen = get(&db, &made).await;
    assert_eq!(seen, made);
    assert_eq!((seen.cid, seen.name, seen.meta, seen.origins), (new.cid, new.name, new.meta, new.origins));
    assert_eq!(db.pins(&[made.requestid, Uuid::now_v7()]).await.unwrap(), [made]);
}

async fn created_is_unique_and_grows_though_the_clock_jumps(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap().created;
    let second = db.add_pin(pin(ann.id, 2)).await.unwrap().created;
    world.pass(-HOUR / 2);
    let third = db.add_pin(pin(ann.id, 3)).await.unwrap().created;
    world.pass(HOUR);
    let fourth = db.add_pin(pin(ann.id, 4)).await.unwrap().created;
    assert_eq!([first, second, third, fourth], [START, START + 1, START + 2, START + HOUR / 2]);
    assert_sound(&db).await;
}

async fn pins_that_come_too_fast_are_refused(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    db.add_pin(pin(ann.id, 1)).await.unwrap();
    world.pass(-2 * HOUR);
    assert_eq!(refusal(db.add_pin(pin(ann.id, 2)).await), PinRefusal::TooFast);
    assert_sound(&db).await;
}

async fn the_1001st_pin_of_a_root_is_refused(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let more = (1..1_000).map(|_| db.add_pin(pin(ann.id, 1)));
    assert!(futures::future::join_all(more).await.iter().all(Result::is_ok));
    assert_eq!(refusal(db.add_pin(pin(ann.id, 1)).await), PinRefusal::TooManyOfRoot);
    node.store(&db, &first, 100).await;
    assert_eq!(list(&db, &ann, query(&[Status::Pinned])).await.count, 1_000);
    assert_eq!(usage(&db, &ann).await, (4_096, 0));
    db.delete_pin(ann.id, first.requestid).await.unwrap();
    db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_sound(&db).await;
}

async fn an_inline_pin_is_pinned_at_once(world: World) {
    let (db, _node, ann) = world.with_node(0).await;
    let mut new = pin(ann.id, 1);
    new.inline = true;
    let made = db.add_pin(new).await.unwrap();
    assert_eq!((made.status, made.delegates.len()), (Status::Pinned, 0));
    assert_eq!(get(&db, &made).await, made);
    assert_sound(&db).await;
    db.delete_pin(ann.id, made.requestid).await.unwrap();
    assert_eq!(usage(&db, &ann).await, (0, 0));
    assert_sound(&db).await;
}

async fn without_a_node_nothing_is_accepted(world: World) {
    let db = world.open().await;
    let ann = db.create_account("ann", None).await.unwrap();
    for inline in [false, true] {
        let new = NewPin { inline, ..pin(ann.id, 1) };
        assert_eq!(refusal(db.add_pin(new).await), PinRefusal::NoNode);
    }
    assert_eq!(list(&db, &ann, query(&Status::ALL)).await.count, 0);
    assert!(db.held_contents(0, 10).await.unwrap().is_empty());
}

async fn a_silent_node_keeps_its_delegates(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    world.pass(HOUR);
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!((made.status, made.delegates.len()), (Status::Queued, 1));
    node.pull(&db).await;
    assert!(node.assignments.contains_key(&made.content));
}

async fn foreign_pins_look_like_missing_ones(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    let bob = db.create_account("bob", None).await.unwrap();
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!(db.pin(bob.id, made.requestid).await.unwrap(), None);
    assert_eq!(refusal(db.delete_pin(bob.id, made.requestid).await), PinRefusal::NotFound);
    assert_eq!(refusal(db.replace_pin(made.requestid, pin(bob.id, 2)).await), PinRefusal::NotFound);
    assert_eq!(refusal(db.delete_pin(ann.id, Uuid::now_v7()).await), PinRefusal::NotFound);
    db.delete_pin(ann.id, made.requestid).await.unwrap();
    assert_eq!(refusal(db.delete_pin(ann.id, made.requestid).await), PinRefusal::NotFound);
    assert_sound(&db).await;
}

async fn duplicates_share_the_fetch_and_the_charge(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let second = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!(first.content, second.content);
    node.store(&db, &first, 10_000).await;
    assert_eq!(status(&db, &second).await.0, Status::Pinned);
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    db.delete_pin(ann.id, first.requestid).await.unwrap();
    assert_eq!(usage(&db, &ann).await, (10_000, 0));
    db.delete_pin(ann.id, second.requestid).await.unwrap();
    assert_eq!(usage(&db, &ann).await, (0, 0));
    assert_sound(&db).await;
}

async fn a_content_that_is_held_is_pinned_at_once(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &first, 10_000).await;
    let bob = db.create_account("bob", Some(10_000)).await.unwrap();
    let second = db.add_pin(pin(bob.id, 1)).await.unwrap();
    assert_eq!((second.status, second.info.total_bytes), (Status::Pinned, Some(10_000)));
    assert_eq!(usage(&db, &bob).await, (10_000, 0));
    let eve = db.create_account("eve", Some(9_999)).await.unwrap();
    let refused = refusal(db.add_pin(pin(eve.id, 1)).await);
    assert_eq!(refused, PinRefusal::OverQuota { used: 0, quota: 9_999 });
    assert_sound(&db).await;
}

async fn a_failed_pin_is_not_revived(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    let detail = "bafybad\u{0} is not\u{1b}[31m dag-pb".to_owned();
    node.say(&db, first.content, EventKind::Failed { reason: Reason::InvalidBlock, detail }).await;
    let seen = get(&db, &first).await;
    assert_eq!((seen.status, seen.info.reason), (Status::Failed, Some(Reason::InvalidBlock)));
    assert_eq!(seen.info.detail.as_deref(), Some("bafybad is not[31m dag-pb"));
    node.release(&db).await;
    let second = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!(second.status, Status::Queued);
    node.store(&db, &second, 10_000).await;
    assert_eq!(status(&db, &second).await.0, Status::Pinned);
    assert_eq!(status(&db, &first).await.0, Status::Failed);
    assert_sound(&db).await;
    db.delete_pin(ann.id, second.requestid).await.unwrap();
    assert_eq!(usage(&db, &ann).await, (0, 0), "a failed pin keeps no content");
    assert_sound(&db).await;
}

async fn new_origins_reach_a_running_fetch(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    let before = node.assignments[&first.content].clone();
    assert!(before.origins.is_empty());
    let mut again = pin(ann.id, 1);
    again.origins = vec!["/ip4/1.2.3.4/tcp/4001/p2p/origin".into()];
    let second = db.add_pin(again.clone()).await.unwrap();
    node.pull(&db).await;
    let after = node.assignments[&first.content].clone();
    assert_eq!(after.origins, again.origins);
    assert_eq!(after.allocation, before.allocation, "the fetch goes on");
    node.store(&db, &second, 10).await;
    assert_eq!([status(&db, &first).await.0, status(&db, &second).await.0], [Status::Pinned; 2]);
}

async fn origins_of_another_accounts_newer_pins_displace_none(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let mallory = db.create_account("mallory", None).await.unwrap();
    let named = |account, of: String| {
        let origins = (0..20).map(|n| format!("/ip4/1.2.3.4/tcp/1/p2p/{of}{n}")).collect();
        NewPin { origins, ..pin(account, 1) }
    };
    let anns = NewPin { origins: vec!["/ip4/1.2.3.4/tcp/1/p2p/ann".into()], ..pin(ann.id, 1) };
    let first = db.add_pin(anns.clone()).await.unwrap();
    for n in 0..30 {
        world.pass(SECOND);
        db.add_pin(named(mallory.id, format!("mallory{n}x"))).await.unwrap();
    }
    node.pull(&db).await;
    let origins = node.assignments[&first.content].origins.clone();
    assert_eq!((origins.len(), &origins[..1]), (MAX_ORIGINS, &anns.origins[..]));
    // The newest pin of each account comes first, and neither has all of it.
    assert_eq!(origins[1], "/ip4/1.2.3.4/tcp/1/p2p/mallory29x0");
    for n in 0..3 {
        world.pass(SECOND);
        db.add_pin(named(ann.id, format!("ann{n}x"))).await.unwrap();
    }
    node.pull(&db).await;
    let origins = &node.assignments[&first.content].origins;
    let anns = origins.iter().filter(|origin| origin.contains("/ann")).count();
    assert_eq!((origins.len(), anns), (MAX_ORIGINS, MAX_ORIGINS / 2));
}

async fn what_nobody_wants_is_released_and_forgotten(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &made, 10_000).await;
    db.delete_pin(ann.id, made.requestid).await.unwrap();
    node.pull(&db).await;
    assert_eq!(node.releases.len(), 1);
    node.release(&db).await;
    let again = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert!(again.content > made.content, "a forgotten content comes back under another number");
    assert_sound(&db).await;
}

async fn a_full_queue_refuses(mut world: World) {
    world.settings.max_queued = 3;
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let mut made = Vec::new();
    for content in 1..=3 {
        made.push(db.add_pin(pin(ann.id, content)).await.unwrap());
    }
    assert_eq!(refusal(db.add_pin(pin(ann.id, 4)).await), PinRefusal::QueueFull { queued: 3 });
    node.store(&db, &made[0], 10).await;
    db.add_pin(pin(ann.id, 4)).await.unwrap();
    // In one batch, too, only what has room is accepted.
    let bob = db.create_account("bob", None).await.unwrap();
    let tried = futures::future::join_all((10..20).map(|content| db.add_pin(pin(bob.id, content)))).await;
    assert_eq!(tried.iter().filter(|outcome| outcome.is_ok()).count(), 3);
    assert_sound(&db).await;
}

async fn text_that_no_database_can_hold_is_refused(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    let mut new = pin(ann.id, 1);
    new.name = Some("a\0b".into());
    assert!(matches!(db.add_pin(new).await, Err(Error::Invalid(_))));
    let mut new = pin(ann.id, 1);
    new.meta = [("a\0b".to_owned(), "c\0d".to_owned())].into();
    new.origins = vec!["\0".into()];
    let made = db.add_pin(new.clone()).await.unwrap();
    assert_eq!(get(&db, &made).await.meta, new.meta);
}

async fn a_pin_that_cannot_be_stored_fails_no_other(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    let mut pins: Vec<_> = (0..50).map(|content| pin(ann.id, content)).collect();
    pins[25].requestid = pins[5].requestid;
    let outcomes = futures::future::join_all(pins.into_iter().map(|pin| db.add_pin(pin))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 49);
    assert_eq!(list(&db, &ann, query(&Status::ALL)).await.count, 49);
    assert_sound(&db).await;
}
