//! Lists, their filters and their counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pinfold_core::status::Status;
use pinfold_service::db::{
    Account, Database, Error, ListQuery, Location, NameMatch, NewPin, PinRecord, Settings,
};

use crate::world::*;

crate::on_both!(
    pages_are_newest_first_and_cursors_strict,
    counts_are_exact_across_buckets,
    counts_are_exact_across_levels,
    filtered_counts_end_at_ten_thousand,
    names_match_as_core_says,
    metadata_and_contents_filter,
    exports_run_from_the_oldest,
);

async fn add_many(db: &Database, account: &Account, contents: std::ops::Range<u64>) -> Vec<PinRecord> {
    let adding = contents.map(|content| db.add_pin(pin(account.id, content)));
    let mut made: Vec<PinRecord> =
        futures::future::join_all(adding).await.into_iter().map(Result::unwrap).collect();
    made.sort_by_key(|pin| pin.created);
    made
}

async fn pages_are_newest_first_and_cursors_strict(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let bob = db.create_account("bob", None).await.unwrap();
    db.add_pin(pin(bob.id, 5)).await.unwrap();
    let made = add_many(&db, &ann, 0..30).await;
    for pin in made.iter().step_by(3) {
        node.store(&db, pin, 10).await;
    }
    let both = [Status::Queued, Status::Pinned];
    let page = list(&db, &ann, query(&both)).await;
    assert_eq!(page.count, 30);
    let want: Vec<_> = made.iter().rev().take(10).map(|pin| pin.created).collect();
    assert_eq!(page.pins.iter().map(|pin| pin.created).collect::<Vec<_>>(), want);
    let pinned = list(&db, &ann, query(&[Status::Pinned])).await;
    assert_eq!((pinned.count, pinned.pins.len()), (10, 10));
    assert!(pinned.pins.iter().all(|pin| pin.status == Status::Pinned));
    let (before, after) = (Some(made[20].created), Some(made[10].created));
    let page = list(&db, &ann, ListQuery { before, after, ..query(&both) }).await;
    assert_eq!((page.count, page.pins.len()), (9, 9));
    assert_eq!(page.pins[0].created, made[19].created);
    assert_eq!(page.pins[8].created, made[11].created);
    let page = list(&db, &ann, ListQuery { before: Some(made[0].created), ..query(&both) }).await;
    assert_eq!((page.count, page.pins.len()), (0, 0));
    let page = list(&db, &ann, ListQuery { after: Some(made[29].created), ..query(&both) }).await;
    assert_eq!((page.count, page.pins.len()), (0, 0));
    assert_eq!(list(&db, &ann, query(&[Status::Failed])).await.count, 0);
}

/// Compares the count of each cursor, by its place among the pins from the
/// oldest on, with a plain count of all pins.
async fn assert_counts(db: &Database, account: &Account, cursors: &[usize]) {
    let mut statuses = BTreeMap::new();
    loop {
        let newest = statuses.last_key_value().map_or(0, |(created, _)| *created);
        let some = db.export_pins(account.id, newest, 1_000).await.unwrap();
        if some.is_empty() {
            break;
        }
        statuses.extend(some.iter().map(|pin| (pin.created, pin.status)));
    }
    let made: Vec<i64> = statuses.keys().copied().collect();
    for wanted in [vec![Status::Queued], vec![Status::Pinned], Status::ALL.to_vec()] {
        for &at in cursors {
            let Some(&cursor) = made.get(at) else { continue };
            let among = |from: i64, to: i64| {
                let range = statuses.range(from..to);
                range.filter(|(_, status)| wanted.contains(status)).count() as u64
            };
            let before = list(db, account, ListQuery { before: Some(cursor), ..query(&wanted) }).await;
            assert_eq!(before.count, among(0, cursor), "{wanted:?} before number {at}");
            let after = list(db, account, ListQuery { after: Some(cursor), ..query(&wanted) }).await;
            assert_eq!(after.count, among(cursor + 1, i64::MAX), "{wanted:?} after number {at}");
        }
        let whole = list(db, account, query(&wanted)).await;
        assert_eq!(whole.count, statuses.values().filter(|status| wanted.contains(status)).count() as u64);
    }
}

/// An account whose pins are numbered up to and past the first bucket of the
/// tally's upper levels: 65,536 pins and 16,777,216.
async fn counts_are_exact_across_levels(mut world: World) {
    const AROUND: u64 = 300;
    const PART: u64 = 700;
    world.settings.max_pinning = 10_000;
    let (db, mut node, ann) = world.with_node(1 << 40).await;
    for (part, start) in (0..).zip([0, (1 << 16) - AROUND, (1 << 24) - AROUND]) {
        world.execute(&format!("UPDATE account SET next_seq = {start} WHERE id = {}", ann.id)).await;
        let made = add_many(&db, &ann, part * PART..(part + 1) * PART).await;
        node.pull(&db).await;
        let some = made.iter().step_by(3).map(|pin| node.event(pin.content, stored(10)));
        for events in some.collect::<Vec<_>>().chunks(64) {
            node.report(&db, events.to_vec()).await;
        }
        for pin in made.iter().skip(5).step_by(35) {
            db.delete_pin(ann.id, pin.requestid).await.unwrap();
        }
    }
    // Every 41st, which meets each place of a bucket somewhere, and all about
    // the numbers where a level begins.
    let kept = (PART - PART / 35) as usize;
    let begins = [kept, 2 * kept].map(|part| part + AROUND as usize * kept / PART as usize);
    let mut cursors: Vec<usize> = (0..3 * kept).step_by(41).collect();
    cursors.extend(begins.iter().flat_map(|begin| begin - 12..begin + 12));
    assert_counts(&db, &ann, &cursors).await;
    assert_sound(&db).await;
}

/// Filters by name count no further than this, and clients read on.
async fn filtered_counts_end_at_ten_thousand(mut world: World) {
    const EXACT: u64 = 10_000;
    const MORE: u64 = 50;
    world.settings.max_queued = 100;
    let (db, _, ann) = world.with_node(1 << 30).await;
    for part in 0..(EXACT + MORE) / 201 {
        let adding = (part * 201..(part + 1) * 201).map(|content| {
            let name = Some("one name".to_owned());
            db.add_pin(NewPin { inline: true, name, ..pin(ann.id, content) })
        });
        assert!(futures::future::join_all(adding).await.iter().all(Result::is_ok));
    }
    let named = |wanted: &str, before| ListQuery {
        name: Some((wanted.to_owned(), NameMatch::Exact)),
        before,
        limit: 1_000,
        ..query(&[Status::Pinned])
    };
    let mut counts = Vec::new();
    let (mut read, mut cursor) = (BTreeSet::new(), None);
    loop {
        let page = list(&db, &ann, named("one name", cursor)).await;
        cursor = page.pins.last().map(|pin| pin.created);
        read.extend(page.pins.iter().map(|pin| pin.requestid));
        counts.push(page.count);
        if page.count == page.pins.len() as u64 {
            break;
        }
    }
    let rest = (0..=10).map(|page| (EXACT + MORE - page * 1_000).min(EXACT));
    assert_eq!(counts, rest.collect::<Vec<_>>());
    assert_eq!(read.len() as u64, EXACT + MORE, "who reads on by the count reads everything");
    assert_eq!(list(&db, &ann, query(&Status::ALL)).await.count, EXACT + MORE, "exact without a filter");
    a_long_query_is_ended(&world, &ann, named("another", None)).await;
}

/// A filter that has to look at all of these pins, and is not given the time.
async fn a_long_query_is_ended(world: &World, ann: &Account, filter: ListQuery) {
    let wanted = Some(("E NAM".to_owned(), NameMatch::Ipartial));
    let settings = Settings { query_timeout: Duration::from_nanos(1), ..world.settings.clone() };
    let hurried = Database::open(settings).await.unwrap();
    let ended = hurried.list(ann.id, ListQuery { name: wanted, ..filter }).await;
    assert!(matches!(ended, Err(Error::QueryTooLong)), "{ended:?}");
    hurried.close().await;
}

/// As Kubo reads: pages of ten until the count is that of the results.
async fn counts_are_exact_across_buckets(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    let mut made = add_many(&db, &ann, 0..700).await;
    node.pull(&db).await;
    let some: Vec<_> =
        made.iter().filter(|pin| node.assignments.contains_key(&pin.content)).cloned().collect();
    for pin in some.iter().step_by(2) {
        node.say(&db, pin.content, stored(10)).await;
    }
    for pin in made.iter().skip(5).step_by(7) {
        db.delete_pin(ann.id, pin.requestid).await.unwrap();
    }
    let removed: Vec<_> = made.iter().skip(5).step_by(7).map(|pin| pin.created).collect();
    made.retain(|pin| !removed.contains(&pin.created));
    let cursors = [0, 1, 2, 100, 255, 256, 257, 300, 511, 512, 513, made.len() - 1];
    assert_counts(&db, &ann, &cursors).await;
    let mut read = Vec::new();
    let mut cursor = None;
    loop {
        let page = list(&db, &ann, ListQuery { before: cursor, ..query(&Status::ALL) }).await;
        read.extend(page.pins.iter().map(|pin| pin.created));
        cursor = read.last().copied();
        if page.count == page.pins.len() as u64 {
            break;
        }
    }
    read.reverse();
    assert_eq!(read, made.iter().map(|pin| pin.created).collect::<Vec<_>>());
    assert_sound(&db).await;
}

/// Names that fold, join, quote and escape in every way that filters meet.
const NAMES: &[&str] = &[
    "photos",
    "Photos",
    "My photos 2026",
    "PHOTOS",
    "x",
    "",
    "50%_\\x",
    "50abcx",
    "été",
    "E\u{301}te\u{301}",
    "Straße",
    "STRASSE",
    "strasse",
    "\u{fb03}x",
    "abce\u{301}",
    "a\"b\"c",
    "policy/12D3Koo/mfs",
    "aaaa",
    "aaa",
    "日本語のピン",
    "\u{1F600}\u{1F601}\u{1F602}!",
    "I\u{307}",
    "i\u{307}x",
    "ΑΣ",
    "ας",
    "' OR 1=1 --",
];

/// What is looked for among them.
const WANTED: &[&str] = &[
    "photos",
    "PHOTOS",
    "hot",
    "ph",
    "",
    "%",
    "_\\",
    "été",
    "ÉTÉ",
    "te",
    "ss",
    "STRASSE",
    "ffi",
    "abce",
    "e",
    "\"b\"",
    "12D3",
    "aaa",
    "日本語",
    "ピン",
    "\u{1F601}",
    "i\u{307}",
    "ΑΣ",
    "' OR",
    "AND",
    "a*",
    "\u{301}",
];

async fn names_match_as_core_says(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    for (content, name) in NAMES.iter().enumerate() {
        let mut new = pin(ann.id, content as u64);
        new.name = Some((*name).to_owned());
        db.add_pin(new).await.unwrap();
    }
    db.add_pin(pin(ann.id, 1_000)).await.unwrap();
    for wanted in WANTED {
        for way in NameMatch::ALL {
            let mut filter = query(&Status::ALL);
            filter.limit = 100;
            filter.name = Some(((*wanted).to_owned(), way));
            let page = list(&db, &ann, filter).await;
            let mut found: Vec<String> = page.pins.into_iter().map(|pin| pin.name.unwrap()).collect();
            found.reverse();
            let want: Vec<_> = NAMES.iter().filter(|name| way.matches(name, wanted)).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), want, "{wanted:?} {way:?}");
            assert_eq!(page.count, want.len() as u64);
        }
    }
    // What is gone is not found.
    let mut filter = query(&Status::ALL);
    filter.name = Some(("photos".into(), NameMatch::Ipartial));
    for pin in list(&db, &ann, filter.clone()).await.pins {
        db.delete_pin(ann.id, pin.requestid).await.unwrap();
    }
    assert_eq!(list(&db, &ann, filter).await.count, 0);
}

async fn metadata_and_contents_filter(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    let bob = db.create_account("bob", None).await.unwrap();
    let pairs = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
        list.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let metas =
        [pairs(&[("app", "x")]), pairs(&[("app", "x"), ("user", "1")]), pairs(&[("app", "y")]), pairs(&[])];
    let mut made = Vec::new();
    for (content, meta) in metas.iter().enumerate() {
        for account in [ann.id, bob.id] {
            let new = NewPin { meta: meta.clone(), ..pin(account, content as u64) };
            made.push(db.add_pin(new).await.unwrap());
        }
    }
    let check = async |meta: BTreeMap<String, String>, contents: Vec<u64>, want: &[u64]| {
        let contents = contents.into_iter().map(key).collect();
        let page = list(&db, &ann, ListQuery { meta, contents, ..query(&Status::ALL) }).await;
        let mut found: Vec<_> = page.pins.iter().map(|pin| pin.cid.clone()).collect();
        found.reverse();
        assert_eq!(found, want.iter().map(|n| format!("bafycontent{n}")).collect::<Vec<_>>());
        assert_eq!(page.count, want.len() as u64);
    };
    check(pairs(&[("app", "x")]), vec![], &[0, 1]).await;
    check(pairs(&[("app", "x"), ("user", "1")]), vec![], &[1]).await;
    check(pairs(&[("app", "z")]), vec![], &[]).await;
    check(pairs(&[("ap", "px")]), vec![], &[]).await;
    check(pairs(&[]), vec![0, 3, 77], &[0, 3]).await;
    check(pairs(&[]), vec![77], &[]).await;
    check(pairs(&[("app", "x")]), vec![1, 2], &[1]).await;
    db.delete_pin(ann.id, made[2].requestid).await.unwrap();
    check(pairs(&[("app", "x")]), vec![], &[0]).await;
    let filtered = ListQuery { meta: pairs(&[("app", "x")]), ..query(&[Status::Pinned]) };
    assert_eq!(list(&db, &ann, filtered).await.count, 0);
}

async fn exports_run_from_the_oldest(world: World) {
    let (db, _, ann) = world.with_node(1 << 30).await;
    let made = add_many(&db, &ann, 0..25).await;
    let first = db.export_pins(ann.id, 0, 20).await.unwrap();
    let rest = db.export_pins(ann.id, first[19].created, 20).await.unwrap();
    let read: Vec<_> = first.iter().chain(&rest).map(|pin| pin.requestid).collect();
    assert_eq!(read, made.iter().map(|pin| pin.requestid).collect::<Vec<_>>());
}

/// With many names a list by a part of one goes by the index of trigrams: the
/// server's own count of its uses is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_names_go_by_index_on_postgres() {
    const NAMES: i64 = 20_000;
    let world = World::postgres().await;
    let (db, _, ann) = world.with_node(1 << 30).await;
    let first = db.add_pin(NewPin { name: Some("the first".into()), ..pin(ann.id, 1) }).await.unwrap();
    world
        .execute(&format!(
            "INSERT INTO pin (requestid, account, content, created, seq, status, cid, name, folded, meta, origins)
             SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), {}, {}, n, n, 0, 'bafycontent1', 'name ' || md5(n::text),
                 'name ' || md5(n::text), '{{}}', '[]' FROM generate_series(1, {NAMES}) n",
            ann.id, first.content
        ))
        .await;
    world.execute("VACUUM ANALYZE pin").await;
    // So often that a plan would be kept that serves any name.
    for round in 0..20 {
        let way = if round % 2 == 0 { NameMatch::Partial } else { NameMatch::Ipartial };
        let filter = ListQuery { name: Some(("the firs".into(), way)), ..query(&Status::ALL) };
        assert_eq!(list(&db, &ann, filter).await.count, 1);
    }
    db.close().await;
    let Location::Postgres(url) = &world.settings.location else { unreachable!("it is PostgreSQL") };
    let scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'pin_trigrams'";
    assert!(crate::locking::counted(url, scans).await.get::<_, i64>(0) >= 40, "a page and a count each");
    let read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'pin_account_created_key'";
    let read = crate::locking::counted(url, read).await.get::<_, i64>(0);
    assert!(read < NAMES, "{read} of the account's pins were read");
}

/// A plan is kept with its statement: one made while the tables were small has
/// to serve when they are large.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_go_by_key_on_postgres_when_tables_have_grown() {
    const PINS: i64 = 20_000;
    const COUNTED: i64 = 100;
    let world = World::postgres().await;
    let (db, _, ann) = world.with_node(1 << 30).await;
    let statements = async |contents: std::ops::Range<u64>| {
        add_many(&db, &ann, contents).await;
        for _ in 0..10 {
            let page = list(&db, &ann, ListQuery { limit: 10, ..query(&Status::ALL) }).await;
            assert_eq!(page.pins.len(), 10);
        }
    };
    let grow = async |to: i64| {
        world
            .execute(&format!(
                "INSERT INTO content (key, cid, inline, state)
                 SELECT decode(lpad(to_hex(n), 64, '0'), 'hex'), 'bafy' || n, 0, 0
                 FROM generate_series((SELECT COUNT(*) FROM content) + 1, {to}) n;
                 INSERT INTO pin (requestid, account, content, created, seq, status, cid, meta, origins)
                 SELECT decode(lpad(to_hex(id), 32, '0'), 'hex'), {}, id, id, 1000 + id, 0, cid, '{{}}', '[]'
                 FROM content WHERE NOT EXISTS (SELECT 1 FROM pin WHERE content = content.id)",
                ann.id
            ))
            .await;
    };
    grow(COUNTED).await;
    world.execute("UPDATE pg_class SET relpages = 1, reltuples = 1 WHERE relname = 'pin'").await;
    statements(0..10).await;
    grow(PINS).await;
    statements(10..20).await;
    db.close().await;
    let Location::Postgres(url) = &world.settings.location else { unreachable!("it is PostgreSQL") };
    let read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'content'";
    let read = crate::locking::counted(url, read).await.get::<_, i64>(0);
    assert!(read < 3 * PINS, "{read} contents were read for ten pins and lists of ten");
    let read = "SELECT CAST(SUM(idx_tup_read) AS BIGINT) FROM pg_stat_user_indexes WHERE relname = 'pin'";
    let read = crate::locking::counted(url, read).await.get::<_, i64>(0);
    assert!(read < PINS, "{read} pins were read for ten pins and lists of ten");
}

/// PostgreSQL ends the scan of an index only where a condition on its leading
/// columns says so: blocks are counted, since what a scan passes over is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_and_a_pin_read_a_few_blocks_on_postgres_however_many_there_are() {
    const PINS: i64 = 20_000;
    // What a tree of this depth costs, with room; all of it has some 100.
    const LIST: i64 = 10;
    const POST: i64 = 30;
    let world = World::postgres().await;
    let Location::Postgres(url) = &world.settings.location else { unreachable!("it is PostgreSQL") };
    let (db, _, ann) = world.with_node(1 << 30).await;
    let first = db.add_pin(pin(ann.id, 1)).await.unwrap();
    db.close().await;
    world
        .execute(&format!(
            "INSERT INTO content (key, cid, inline, state)
             SELECT decode(lpad(to_hex(n), 64, '0'), 'hex'), 'bafy', 0, 0 FROM generate_series(1, {PINS}) n;
             INSERT INTO pin (requestid, account, content, created, seq, status, cid, meta, origins)
             SELECT decode(lpad(to_hex(id), 32, '0'), 'hex'), {ann}, id, id, id, 1, 'bafy', '{{}}', '[]'
             FROM content WHERE id <> {content};
             INSERT INTO account (name, created, quota) SELECT 'account ' || n, 0, 0 FROM generate_series(1, {PINS}) n;
             INSERT INTO pin (requestid, account, content, created, seq, status, cid, meta, origins)
             SELECT decode(lpad(to_hex(1000000 + id), 32, '0'), 'hex'), id, {content}, 1, 0, 1, 'bafy', '{{}}', '[]'
             FROM account WHERE name LIKE 'account %'",
            ann = ann.id,
            content = first.content
        ))
        .await;
    let read = async || {
        let sql = "SELECT CAST(SUM(idx_blks_read + idx_blks_hit) AS BIGINT) FROM pg_statio_user_indexes
            WHERE relname = 'pin'";
        crate::locking::counted(url, sql).await.get::<_, i64>(0)
    };
    let before = read().await;
    let db = world.open().await;
    for nothing in [Status::Pinned, Status::Failed] {
        assert!(list(&db, &ann, query(&[nothing])).await.pins.is_empty());
    }
    let newest = list(&db, &ann, query(&[Status::Pinning])).await.pins;
    let newer = ListQuery { after: Some(newest[3].created), ..query(&[Status::Pinning]) };
    assert_eq!(list(&db, &ann, newer).await.pins.len(), 3);
    db.close().await;
    let lists = read().await - before;
    assert!(lists < 4 * LIST, "{lists} blocks were read for four lists");
    let db = world.open().await;
    for _ in 0..5 {
        db.add_pin(pin(ann.id, 1)).await.unwrap();
    }
    db.close().await;
    let posts = read().await - before - lists;
    assert!(posts < 5 * POST, "{posts} blocks were read for five pins");
}
