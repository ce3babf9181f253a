//! Accounts, tokens, keys, deeds.

use pinfold_core::status::Status;
use pinfold_service::db::{AccountRefusal, Database, Error, PinRefusal, Scope, SealedKey, Token};
use uuid::Uuid;

use crate::world::*;

crate::on_both!(
    accounts_are_made_changed_and_removed,
    a_removed_account_leaves_nothing,
    tokens_are_revoked_at_once,
    keys_are_kept_and_retired,
    deeds_are_listed_newest_first,
    deeds_are_noted_in_their_own_transactions,
    the_last_use_of_a_token_is_noted,
    services_count_while_they_live,
    single_facts_are_made_once,
);

fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> AccountRefusal {
    match outcome {
        Err(Error::Account(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn accounts_are_made_changed_and_removed(world: World) {
    let db = world.open().await;
    let ann = db.create_account("ann", None).await.unwrap();
    assert_eq!((ann.quota, ann.created), (20_000_000_000, START));
    assert_eq!(refused(db.create_account("ann", None).await), AccountRefusal::NameTaken);
    assert!(matches!(db.create_account("a\nb", None).await, Err(Error::Invalid(_))));
    assert_eq!(db.account_by_name("ann").await.unwrap(), Some(ann.clone()));
    let bob = db.create_account("bob", Some(5)).await.unwrap();
    assert_eq!(db.accounts(0, 10).await.unwrap(), [ann.clone(), bob.clone()]);
    assert_eq!(db.accounts(ann.id, 10).await.unwrap(), std::slice::from_ref(&bob));
    db.set_quota(bob.id, 7).await.unwrap();
    db.set_account_disabled(bob.id, true).await.unwrap();
    let seen = db.account(bob.id).await.unwrap().unwrap();
    assert_eq!((seen.quota, seen.disabled), (7, true));
    assert_eq!(refusal(db.add_pin(pin(bob.id, 1)).await), PinRefusal::AccountDisabled);
    assert_eq!(refusal(db.add_pin(pin(999, 1)).await), PinRefusal::AccountDisabled);
    db.remove_account(bob.id).await.unwrap();
    assert_eq!(db.account(bob.id).await.unwrap(), None);
    for outcome in [db.set_quota(bob.id, 1).await, db.remove_account(bob.id).await] {
        assert_eq!(refused(outcome), AccountRefusal::NotFound);
    }
    db.create_account("bob", None).await.unwrap();
}

async fn a_removed_account_leaves_nothing(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let bob = db.create_account("bob", None).await.unwrap();
    let adding = (0..600).map(|content| db.add_pin(pin(bob.id, content)));
    let made: Vec<_> = futures::future::join_all(adding).await.into_iter().map(Result::unwrap).collect();
    let shared = db.add_pin(pin(ann.id, 5)).await.unwrap();
    node.store(&db, &made[5], 100).await;
    db.replace_pin(made[5].requestid, pin(bob.id, 1_000)).await.unwrap();
    db.remove_account(bob.id).await.unwrap();
    assert_eq!(db.totals().await.unwrap().pins, [0, 0, 1, 0]);
    assert_eq!(status(&db, &shared).await.0, Status::Pinned);
    assert_eq!(db.held_contents(0, 10).await.unwrap().len(), 1);
    assert_sound(&db).await;
}

fn token(account: i64) -> Token {
    Token {
        id: Uuid::now_v7(),
        account,
        name: "laptop".into(),
        scopes: vec![Scope::PinsRead, Scope::PinsWrite],
        hash: [3; 32],
        created: 0,
        expires: Some(START + HOUR),
        last_used: None,
        revoked: None,
    }
}

async fn tokens_are_revoked_at_once(world: World) {
    let db = world.open().await;
    let other = world.open().await;
    let ann = db.create_account("ann", None).await.unwrap();
    let made = db.create_token(token(ann.id), "test").await.unwrap();
    assert_eq!(made.created, START);
    assert_eq!(refused(db.create_token(token(77), "test").await), AccountRefusal::NotFound);
    let access = other.access(made.id).await.unwrap().unwrap();
    assert_eq!((access.token.scopes.clone(), access.token.hash), (made.scopes.clone(), made.hash));
    assert!(!access.account_disabled);
    db.set_account_disabled(ann.id, true).await.unwrap();
    assert!(other.access(made.id).await.unwrap().unwrap().account_disabled);
    assert_eq!(db.access(Uuid::now_v7()).await.unwrap(), None);
    let foreign = db.revoke_token(made.id, Some(ann.id + 1), "mallory").await;
    assert_eq!(refused(foreign), AccountRefusal::NoSuchToken);
    db.revoke_token(made.id, Some(ann.id), "ann").await.unwrap();
    assert_eq!(other.access(made.id).await.unwrap().unwrap().token.revoked, Some(START));
    world.pass(HOUR);
    db.revoke_token(made.id, None, "late").await.unwrap();
    let listed = db.tokens(Some(ann.id)).await.unwrap();
    assert_eq!((listed.len(), listed[0].revoked), (1, Some(START)));
    // Its use may be noted at any time.
    let of_all = db.tokens(None).await.unwrap();
    assert_eq!((of_all.len(), of_all[0].id), (1, made.id));
    let id = made.id.to_string();
    let deeds = db.deeds(i64::MAX, 3).await.unwrap();
    let told = |at: usize| [&deeds[at].actor, &deeds[at].action, &deeds[at].subject, &deeds[at].detail];
    assert_eq!(told(0), ["ann", "token.revoke", &id, ""], "what changed nothing is no deed");
    assert_eq!(told(1), ["service", "account.disable", "ann", ""]);
    assert_eq!(told(2), ["test", "token.create", &id, "ann"]);
    world.pass(100 * 24 * HOUR);
    run_jobs(&db).await;
    assert!(db.tokens(None).await.unwrap().is_empty(), "kept for a named time");
}

async fn keys_are_kept_and_retired(world: World) {
    let db = world.open().await;
    let key = |kid: &str| SealedKey { kid: kid.into(), sealed: vec![1, 2, 3], created: 0, retired: None };
    let racing = ["a", "b", "c"].map(|kid| db.add_first_key(key(kid)));
    let stored = futures::future::join_all(racing).await;
    assert_eq!(stored.into_iter().filter(|outcome| *outcome.as_ref().unwrap()).count(), 1);
    world.pass(1);
    let racing = ["next", "last"].map(|kid| db.rotate_keys(key(kid), false));
    assert!(futures::future::join_all(racing).await.iter().all(Result::is_ok));
    let kept = db.keys().await.unwrap();
    assert_eq!((kept.len(), kept[0].retired, &kept[0].sealed), (3, Some(START + 1), &vec![1, 2, 3]));
    assert_eq!(kept.iter().filter(|key| key.retired.is_none()).count(), 1, "one key signs");
    db.rotate_keys(key("anew"), true).await.unwrap();
    let kept = db.keys().await.unwrap();
    assert_eq!((kept.len(), kept[0].kid.as_str(), kept[0].retired), (1, "anew", None));
}

async fn deeds_are_listed_newest_first(world: World) {
    let db = world.open().await;
    for name in ["ann", "bob"] {
        db.create_account(name, None).await.unwrap();
    }
    db.add_denylist_rules(vec!["/ipfs/bafy\u{7}".into()]).await.unwrap();
    let deeds = db.deeds(i64::MAX, 10).await.unwrap();
    let subjects: Vec<_> = deeds.iter().map(|deed| deed.subject.as_str()).collect();
    assert_eq!(subjects, ["/ipfs/bafy", "bob", "ann", "schema 1"], "and nothing that a terminal acts on");
    assert_eq!((deeds[3].actor.as_str(), deeds[3].action.as_str()), ("service", "migrate"));
    assert_eq!(db.deeds(deeds[0].id, 10).await.unwrap().len(), 3);
    world.pass(399 * 24 * HOUR);
    run_jobs(&db).await;
    assert_eq!(db.deeds(i64::MAX, 10).await.unwrap().len(), 4);
    world.pass(2 * 24 * HOUR);
    run_jobs(&db).await;
    assert!(db.deeds(i64::MAX, 10).await.unwrap().is_empty(), "kept for a named time");
}

/// What an operator can do, one thing after the other.
async fn do_all(db: &Database, ann: i64, waiting: i64) -> Vec<Result<(), Error>> {
    let key = SealedKey { kid: Uuid::now_v7().to_string(), sealed: vec![1], created: 0, retired: None };
    vec![
        db.create_account("bob", Some(5)).await.map(drop),
        db.set_quota(ann, 7_000).await,
        db.set_account_disabled(ann, true).await,
        db.set_account_disabled(ann, false).await,
        db.retry(&[waiting]).await.map(drop),
        db.add_denylist_rules(vec!["/ipfs/a".into(), "/ipfs/b".into()]).await.map(drop),
        db.remove_denylist_rule("/ipfs/a").await.map(drop),
        db.rotate_keys(key, false).await,
        db.create_token(token(ann), "test").await.map(drop),
        db.remove_account(ann).await,
    ]
}

/// What of it can be seen afterwards.
async fn state(db: &Database) -> impl PartialEq + std::fmt::Debug {
    let accounts: Vec<_> = db.accounts(0, 10).await.unwrap();
    let accounts: Vec<_> =
        accounts.into_iter().map(|account| (account.name, account.quota, account.disabled)).collect();
    let tokens = db.tokens(None).await.unwrap().len();
    (accounts, db.keys().await.unwrap(), db.denylist_rules(0, 10).await.unwrap(), tokens)
}

/// A deed that cannot be noted is not done, and each is noted with its actor.
async fn deeds_are_noted_in_their_own_transactions(mut world: World) {
    world.settings.actor = "test".into();
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let waiting = db.add_pin(pin(ann.id, 1)).await.unwrap();
    node.pull(&db).await;
    let before = state(&db).await;
    world.execute("ALTER TABLE deed RENAME TO mislaid").await;
    for (number, outcome) in do_all(&db, ann.id, waiting.content).await.into_iter().enumerate() {
        // The second rule has no first one to remove.
        assert_eq!(outcome.is_ok(), number == 6, "deed {number}: {outcome:?}");
    }
    assert_eq!(state(&db).await, before);
    world.execute("ALTER TABLE mislaid RENAME TO deed").await;
    for outcome in do_all(&db, ann.id, waiting.content).await {
        outcome.unwrap();
    }
    let deeds = db.deeds(i64::MAX, 10).await.unwrap();
    assert!(deeds.iter().all(|deed| deed.actor == "test"), "{deeds:?}");
    let mut told: Vec<_> = deeds.iter().map(|deed| (deed.action.as_str(), deed.subject.as_str())).collect();
    told.reverse();
    let token = told[8].1;
    assert_eq!(
        told,
        [
            ("account.create", "bob"),
            ("account.quota", "ann"),
            ("account.disable", "ann"),
            ("account.enable", "ann"),
            ("queue.retry", "bafycontent1"),
            ("denylist.add", "2 rules"),
            ("denylist.rm", "/ipfs/a"),
            ("token.rotate", ""),
            ("token.create", token),
            ("account.rm", "ann"),
        ]
    );
}

async fn the_last_use_of_a_token_is_noted(world: World) {
    let db = world.open().await;
    let ann = db.create_account("ann", None).await.unwrap();
    let made = db.create_token(token(ann.id), "test").await.unwrap();
    world.pass(SECOND);
    assert_eq!(db.tokens(None).await.unwrap()[0].last_used, None);
    // It is noted beside the request, at the latest when the database closes.
    db.access(made.id).await.unwrap();
    db.close().await;
    let db = world.open().await;
    assert_eq!(db.tokens(None).await.unwrap()[0].last_used, Some(START + SECOND));
}

async fn services_count_while_they_live(world: World) {
    let db = world.open().await;
    let [one, two] = [Uuid::from_u128(1), Uuid::from_u128(2)];
    assert_eq!((db.heartbeat(one).await.unwrap(), db.heartbeat(two).await.unwrap()), (1, 2));
    world.pass(19 * SECOND);
    assert_eq!(db.heartbeat(one).await.unwrap(), 2);
    world.pass(2 * SECOND);
    assert_eq!(db.heartbeat(one).await.unwrap(), 1, "the other was silent for 21 s");
    assert_eq!(db.heartbeat(two).await.unwrap(), 2);
    db.leave(one).await.unwrap();
    assert_eq!(db.heartbeat(two).await.unwrap(), 1);
    world.pass(-HOUR);
    assert_eq!(db.heartbeat(one).await.unwrap(), 1, "what a clock wrote that ran ahead counts no more");
}

async fn single_facts_are_made_once(world: World) {
    let db = world.open().await;
    assert_eq!(db.service_id("first").await.unwrap(), "first");
    assert_eq!(db.service_id("second").await.unwrap(), "first");
    assert_eq!(db.denylist_version([0; 32], true).await.unwrap(), 0, "there never were any rules");
    assert_eq!(db.denylist_version([1; 32], false).await.unwrap(), 1);
    assert_eq!(db.denylist_version([1; 32], false).await.unwrap(), 1);
    assert_eq!(db.denylist_version([2; 32], false).await.unwrap(), 2);
    assert_eq!(db.database_generation().await.unwrap(), 1);
    let health = db.health().await.unwrap();
    assert!(health.ready);
    let _node = FakeNode::join(&db, 1, START).await;
    world.pass(-2 * HOUR);
    let health = db.health().await.unwrap();
    assert_eq!((health.ready, health.clock_behind_ms), (false, 2 * HOUR));
}
