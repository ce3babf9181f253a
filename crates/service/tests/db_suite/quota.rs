//! What accounts are charged, and what they cannot exceed.

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::{Answer, EventKind};
use pinfold_service::db::{Database, PinRecord, PinRefusal};

use crate::world::*;

crate::on_both!(
    a_fetch_reserves_and_settles,
    two_hundred_at_the_edge_never_exceed_it,
    of_two_that_stand_still_the_younger_gives_way,
    one_account_over_quota_does_not_fail_the_other,
    a_second_account_reserves_what_is_fetched_so_far,
    a_fetch_that_fails_frees_what_it_reserved,
    a_full_account_is_told,
    a_quota_is_used_to_its_last_byte,
    more_than_was_granted_is_charged_or_fails,
    a_lowered_quota_keeps_what_is_held,
);

const MIB: u64 = 1 << 20;

async fn a_fetch_reserves_and_settles(world: World) {
    let (db, mut node, ann) = world.with_node(20_000 * MIB).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!(usage(&db, &ann).await, (0, 0), "nothing is known, nothing is reserved");
    node.pull(&db).await;
    let first = node.say(&db, made.content, EventKind::WantGrant { bytes: 1, least: 1 }).await;
    assert_eq!(first, Answer::Granted { bytes: 64 * MIB });
    assert_eq!(usage(&db, &ann).await, (0, 64 * MIB));
    let again = node.say(&db, made.content, EventKind::WantGrant { bytes: 1, least: 1 }).await;
    assert_eq!(again, first, "asking again changes nothing");
    let more = node.say(&db, made.content, EventKind::WantGrant { bytes: 65 * MIB, least: 65 * MIB }).await;
    assert_eq!(more, Answer::Granted { bytes: 128 * MIB });
    assert_sound(&db).await;
    assert_eq!(node.say(&db, made.content, stored(100 * MIB)).await, Answer::Noted);
    assert_eq!(usage(&db, &ann).await, (100 * MIB, 0));
    assert_eq!(node.say(&db, made.content, stored(100 * MIB)).await, Answer::Noted);
    assert_eq!(usage(&db, &ann).await, (100 * MIB, 0), "a repeated report changes nothing");
    assert_sound(&db).await;
}

/// Twice as many as fit, all at once: what fits is pinned to the last byte,
/// and at no moment more is promised than there is.
async fn two_hundred_at_the_edge_never_exceed_it(mut world: World) {
    world.settings.max_pinning = 1_000;
    let quota = 100 * MIB;
    let (db, mut node, ann) = world.with_node(quota).await;
    let adding = (0..200).map(|content| db.add_pin(pin(ann.id, content)));
    let made: Vec<_> = futures::future::join_all(adding).await.into_iter().map(Result::unwrap).collect();
    node.pull(&db).await;
    let mut waiting: Vec<i64> = made.iter().map(|pin| pin.content).collect();
    let mut fitted = Vec::new();
    for _ in 0..200 {
        let want = EventKind::WantGrant { bytes: MIB, least: MIB };
        let asked = waiting.iter().map(|&content| node.event(content, want.clone())).collect();
        let answers = node.report(&db, asked).await;
        let (used, reserved) = usage(&db, &ann).await;
        assert!(used + reserved <= quota, "{used} + {reserved} of {quota}");
        let able = |answer: &Answer| matches!(answer, Answer::Granted { bytes } if *bytes >= MIB);
        let now: Vec<i64> = waiting
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| able(answer))
            .map(|(&content, _)| content)
            .collect();
        let held = now.iter().map(|&content| node.event(content, stored(MIB))).collect();
        assert!(node.report(&db, held).await.iter().all(|answer| *answer == Answer::Noted));
        let refused: Vec<bool> = answers.iter().map(|a| matches!(a, Answer::Refused { .. })).collect();
        let mut at = refused.iter();
        waiting.retain(|content| !at.next().unwrap() && !now.contains(content));
        fitted.extend(now);
    }
    assert_eq!((fitted.len(), waiting.len()), (100, 0));
    assert_eq!(usage(&db, &ann).await, (quota, 0));
    assert_eq!(db.account(ann.id).await.unwrap().unwrap().pins, [0, 0, 100, 100]);
    assert_sound(&db).await;
    known_contents_race(&db, &made, &fitted).await;
}

/// Contents whose size is known are charged in the POST itself.
async fn known_contents_race(db: &Database, made: &[PinRecord], fitted: &[i64]) {
    let fit = fitted.len() as u64 - 1;
    let bob = db.create_account("bob", Some(fit * MIB + MIB / 2)).await.unwrap();
    let numbers = (0_u64..).zip(made).filter(|(_, pin)| fitted.contains(&pin.content));
    let outcomes =
        futures::future::join_all(numbers.map(|(number, _)| db.add_pin(pin(bob.id, number)))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64, fit);
    assert_eq!(usage(db, &bob).await, (fit * MIB, 0));
    assert_sound(db).await;
}

/// Two that fit one by one, but not together: the younger gives way.
async fn of_two_that_stand_still_the_younger_gives_way(world: World) {
    let (db, mut node, ann) = world.with_node(100 * MIB).await;
    let old = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let young = db.add_pin(pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    let mut ended = Vec::new();
    for round in 1..200 {
        for pin in [&old, &young] {
            let bytes = (2 * round * MIB).min(80 * MIB);
            let want = EventKind::WantGrant { bytes, least: bytes };
            if !ended.contains(&pin.content)
                && let Answer::Refused { .. } = node.say(&db, pin.content, want).await
            {
                ended.push(pin.content);
            }
        }
    }
    assert_eq!(ended, [young.content]);
    assert_eq!(node.say(&db, old.content, stored(80 * MIB)).await, Answer::Noted);
    assert_eq!(usage(&db, &ann).await, (80 * MIB, 0));
    assert_sound(&db).await;
}

async fn one_account_over_quota_does_not_fail_the_other(world: World) {
    let (db, mut node, ann) = world.with_node(20_000 * MIB).await;
    let bob = db.create_account("bob", Some(MIB)).await.unwrap();
    let hers = db.add_pin(pin(ann.id, 1)).await.unwrap();
    let his = db.add_pin(pin(bob.id, 1)).await.unwrap();
    let answer = node.store(&db, &hers, 10 * MIB).await;
    assert_eq!(answer, Answer::Noted);
    assert_eq!(status(&db, &hers).await.0, Status::Pinned);
    assert_eq!(status(&db, &his).await, (Status::Failed, Some(Reason::OverQuota)));
    assert_eq!([usage(&db, &ann).await, usage(&db, &bob).await], [(10 * MIB, 0), (0, 0)]);
    assert_sound(&db).await;
}

async fn a_second_account_reserves_what_is_fetched_so_far(world: World) {
    let (db, mut node, ann) = world.with_node(20_000 * MIB).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    node.say(&db, first.content, EventKind::WantGrant { bytes: 100, least: 100 }).await;
    let bob = db.create_account("bob", Some(100 * MIB)).await.unwrap();
    let second = db.add_pin(pin(bob.id, 1)).await.unwrap();
    assert_eq!(usage(&db, &bob).await, (0, 64 * MIB));
    let eve = db.create_account("eve", Some(63 * MIB)).await.unwrap();
    let refused = refusal(db.add_pin(pin(eve.id, 1)).await);
    assert_eq!(refused, PinRefusal::OverQuota { used: 0, quota: 63 * MIB });
    db.delete_pin(bob.id, second.requestid).await.unwrap();
    assert_eq!(usage(&db, &bob).await, (0, 0));
    assert_sound(&db).await;
}

async fn a_fetch_that_fails_frees_what_it_reserved(world: World) {
    let (db, mut node, ann) = world.with_node(20_000 * MIB).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    node.say(&db, made.content, EventKind::WantGrant { bytes: 100, least: 100 }).await;
    let failed = EventKind::Failed { reason: Reason::OverLimit, detail: String::new() };
    node.say(&db, made.content, failed).await;
    assert_eq!(usage(&db, &ann).await, (0, 0));
    assert_eq!(status(&db, &made).await, (Status::Failed, Some(Reason::OverLimit)));
    assert_sound(&db).await;
}

async fn a_full_account_is_told(world: World) {
    let (db, mut node, ann) = world.with_node(10_000).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &made, 9_000).await;
    let refused = refusal(db.add_pin(pin(ann.id, 2)).await);
    assert_eq!(refused, PinRefusal::OverQuota { used: 9_000, quota: 10_000 });
    db.delete_pin(ann.id, made.requestid).await.unwrap();
    db.add_pin(pin(ann.id, 2)).await.unwrap();
}

async fn a_quota_is_used_to_its_last_byte(world: World) {
    let quota = 10 * MIB + 17;
    let (db, mut node, ann) = world.with_node(quota).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    assert_eq!(node.store(&db, &made, quota).await, Answer::Noted);
    assert_eq!(usage(&db, &ann).await, (quota, 0));
    db.delete_pin(ann.id, made.requestid).await.unwrap();
    let made = db.add_pin(pin(ann.id, 2)).await.unwrap();
    let refused = node.store(&db, &made, quota + 1).await;
    assert_eq!(refused, Answer::Refused { reason: Reason::OverQuota });
    assert_eq!(status(&db, &made).await, (Status::Failed, Some(Reason::OverQuota)));
    assert_eq!(usage(&db, &ann).await, (0, 0));
    node.release(&db).await;
    assert_sound(&db).await;
}

async fn more_than_was_granted_is_charged_or_fails(world: World) {
    let (db, mut node, ann) = world.with_node(MIB).await;
    let fits = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    assert_eq!(node.say(&db, fits.content, stored(MIB / 2)).await, Answer::Noted);
    assert_eq!(usage(&db, &ann).await, (MIB / 2, 0));
    let exceeds = db.add_pin(pin(ann.id, 2)).await.unwrap();
    node.pull(&db).await;
    let answer = node.say(&db, exceeds.content, stored(u64::MAX)).await;
    assert_eq!(answer, Answer::Refused { reason: Reason::OverQuota });
    assert_eq!(usage(&db, &ann).await, (MIB / 2, 0));
    assert_sound(&db).await;
}

async fn a_lowered_quota_keeps_what_is_held(world: World) {
    let (db, mut node, ann) = world.with_node(MIB).await;
    let made = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.store(&db, &made, MIB / 2).await;
    db.set_quota(ann.id, 100).await.unwrap();
    assert_eq!(status(&db, &made).await.0, Status::Pinned);
    assert_eq!(
        refusal(db.add_pin(pin(ann.id, 2)).await),
        PinRefusal::OverQuota { used: MIB / 2, quota: 100 }
    );
    assert_eq!(node.say(&db, made.content, EventKind::Lost { blocks: 1 }).await, Answer::Noted);
    assert_eq!(status(&db, &made).await.0, Status::Pinning);
    assert_eq!(node.say(&db, made.content, stored(MIB / 2)).await, Answer::Noted);
    assert_eq!(status(&db, &made).await.0, Status::Pinned);
    db.delete_pin(ann.id, made.requestid).await.unwrap();
    assert_eq!(usage(&db, &ann).await, (0, 0));
    assert_sound(&db).await;
}
