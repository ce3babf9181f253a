use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use pinfold_blockstore::Options;
use pinfold_core::content;
use pinfold_core::status::Reason;
use pinfold_node_api::{AllocationId, Assignment, EventKind, MAX_ORIGINS, Release};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::compare;

use super::super::testing::{Dag, Fake, Random};
use super::*;

/// A manager over a data folder, which can be stopped and started again.
struct World {
    dir: PathBuf,
    network: Fake,
    store: Store,
    assignments: Assignments,
    outbox: Outbox,
    manager: Manager,
    cancel: CancellationToken,
    life: JoinHandle<()>,
    /// Reported, and not asked for by the test yet.
    seen: Mutex<Vec<Event>>,
}

/// What a test waits for comes within it, or never.
const DEADLINE: Duration = Duration::from_secs(20);

impl World {
    /// Waits between attempts are too long for any test.
    fn start(dir: &Path, network: Fake) -> Self {
        let long = Duration::from_secs(3_600);
        Self::start_with(dir, network, Pauses { first: long, longest: long, full: long })
    }

    fn start_with(dir: &Path, network: Fake, pauses: Pauses) -> Self {
        let options = Options { reclaim_delay: Duration::ZERO, ..Options::default() };
        let store = Store::open(dir.join("blocks"), options).unwrap();
        let assignments = Assignments::open(&dir.join("assignments")).unwrap();
        let (outbox, cancel) = (Outbox::default(), CancellationToken::new());
        let setup = compare::Setup {
            store: store.clone(),
            assignments: assignments.clone(),
            denied: Denied::default(),
            outbox: outbox.clone(),
            workers: Workers::new(),
        };
        let (compare, _) = Compare::new(setup);
        let context = Context {
            store: store.clone(),
            assignments: assignments.clone(),
            outbox: outbox.clone(),
            denied: Denied::default(),
            compare,
            workers: Workers::new(),
            slots: Slots::new(),
            limits: Limits::default(),
            pauses,
        };
        let (manager, life) = Manager::new(context, network.clone(), cancel.clone());
        let life = tokio::spawn(life);
        Self {
            dir: dir.into(),
            network,
            store,
            assignments,
            outbox,
            manager,
            cancel,
            life,
            seen: Mutex::default(),
        }
    }

    async fn stop(self) -> (PathBuf, Fake) {
        self.cancel.cancel();
        self.life.await.unwrap();
        (self.dir, self.network)
    }

    /// The same data folder and network, after an end.
    async fn restart(self) -> Self {
        let (dir, network) = self.stop().await;
        Self::start(&dir, network)
    }

    /// Notes and delivers work as the agent does.
    async fn work(&self, assignments: Vec<Assignment>, releases: Vec<Release>) {
        self.manager.loaded().await;
        let records = self.assignments.note(assignments, &releases).unwrap();
        assert!(self.manager.noted(records).await);
    }

    async fn answer(&self, event: Event, answer: Answer) {
        assert!(self.manager.send(Command::Answered(vec![(event, answer)])).await);
    }

    /// The next event that is not progress.
    async fn fact(&self) -> Event {
        let mut facts = self.facts(1).await;
        facts.pop().unwrap()
    }

    /// The next facts, which may come in any order.
    async fn facts(&self, count: usize) -> Vec<Event> {
        self.events(count, |kind| !matches!(kind, EventKind::Progress { .. })).await
    }

    async fn events(&self, count: usize, keep: impl Fn(&EventKind) -> bool) -> Vec<Event> {
        let mut found: Vec<Event> = self.seen.lock().extract_if(.., |event| keep(&event.kind)).collect();
        while found.len() < count {
            let now = Instant::now();
            let batch = self.outbox.batch(now, now + DEADLINE).await;
            assert!(now.elapsed() < DEADLINE, "{count} were expected, {found:?} came");
            let (kept, other): (Vec<_>, Vec<_>) = batch.into_iter().partition(|event| keep(&event.kind));
            found.extend(kept);
            self.seen.lock().extend(other);
        }
        found
    }

    fn holds(&self, root: &Cid) -> bool {
        let info = self.store.root(ContentKey::of(root).as_bytes()).unwrap();
        info.is_some_and(|info| info.state == RootState::Held)
    }
}

fn id(content: i64, generation: i64) -> AllocationId {
    AllocationId { content, generation }
}

fn assignment(content: i64, generation: i64, root: &Cid) -> Assignment {
    Assignment {
        allocation: id(content, generation),
        root: root.to_string(),
        origins: Vec::new(),
        peers: Vec::new(),
        predecessor: None,
        fairness: 1,
        granted_bytes: 1 << 40,
        repair: false,
    }
}

fn release(content: i64, generation: i64, root: &Cid) -> Release {
    Release { allocation: id(content, generation), root: root.to_string() }
}

fn network(size: usize) -> (Fake, Cid) {
    let fake = Fake::default();
    let root = fake.shared.dag.lock().random(&mut Random(size as u64), size);
    (fake, root)
}

fn is_stored(event: &Event) -> bool {
    matches!(event.kind, EventKind::Stored { .. })
}

#[tokio::test]
async fn an_assignment_is_stored_and_a_release_lets_it_go() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(60);
    let world = World::start(dir.path(), fake);
    world.work(vec![assignment(1, 1, &root)], vec![]).await;
    let stored = world.fact().await;
    assert!(is_stored(&stored) && world.holds(&root));
    assert_eq!(world.network.shared.provided.lock().as_slice(), [content::block_cid(&root).unwrap()]);
    world.answer(stored, Answer::Noted).await;
    // The same again is answered from what is held.
    world.work(vec![assignment(1, 2, &root)], vec![]).await;
    let again = world.fact().await;
    assert!(is_stored(&again) && again.allocation == id(1, 2));
    // A late release of the old generation changes nothing.
    world.work(vec![], vec![release(1, 1, &root)]).await;
    world.work(vec![], vec![release(1, 2, &root)]).await;
    let released = world.fact().await;
    assert_eq!(released, Event { allocation: id(1, 2), kind: EventKind::Released });
    assert!(!world.holds(&root));
    world.answer(released, Answer::Noted).await;
    let world = world.restart().await;
    assert_eq!(world.assignments.get(1).unwrap(), None);
    world.stop().await;
}

/// After a restore the service knows what is pinned again by another number,
/// and then lets the old one go.
#[tokio::test]
async fn a_root_that_another_content_has_too_is_kept_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(60);
    let world = World::start(dir.path(), fake);
    for content in [1, 2] {
        world.work(vec![assignment(content, 1, &root)], vec![]).await;
        let stored = world.fact().await;
        assert!(is_stored(&stored) && stored.allocation == id(content, 1));
        world.answer(stored, Answer::Noted).await;
    }
    // What it said of the old one came late.
    world.answer(Event { allocation: id(1, 1), kind: EventKind::NoCapacity }, Answer::Stale).await;
    world.work(vec![], vec![release(1, 1, &root)]).await;
    let released = world.fact().await;
    assert_eq!(released, Event { allocation: id(1, 1), kind: EventKind::Released });
    assert!(world.holds(&root), "what is pinned is gone");
    world.answer(released, Answer::Noted).await;
    let world = world.restart().await;
    assert_eq!(world.assignments.get(1).unwrap(), None);
    let key = ContentKey::of(&root);
    assert_eq!(world.assignments.by_root(key.as_bytes()).unwrap().map(|record| record.content), Some(2));
    world.work(vec![], vec![release(2, 1, &root)]).await;
    assert_eq!(world.fact().await.allocation, id(2, 1));
    assert!(!world.holds(&root), "the last one lets it go");
    world.stop().await;
}

#[tokio::test]
async fn what_was_not_settled_is_told_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(60);
    let bad = fake.shared.dag.lock().add(0x71, vec![0x83]);
    let foreign = fake.shared.dag.lock().add(0x78, vec![1]);
    let world = World::start(dir.path(), fake);
    let work = vec![assignment(1, 1, &root), assignment(2, 1, &bad), assignment(3, 1, &foreign)];
    world.work(work, vec![release(9, 4, &bad)]).await;
    let reasons = |facts: Vec<Event>| {
        let mut facts: Vec<_> = facts
            .into_iter()
            .map(|event| {
                let reason = match event.kind {
                    EventKind::Failed { reason, .. } => Some(reason),
                    _ => None,
                };
                (event.allocation.content, reason)
            })
            .collect();
        facts.sort_by_key(|(content, _)| *content);
        facts
    };
    let want = [(1, None), (2, Some(Reason::InvalidBlock)), (3, Some(Reason::UnsupportedCodec)), (9, None)];
    let first = reasons(world.facts(4).await);
    assert_eq!(first, want);
    let world = world.restart().await;
    let facts = world.facts(4).await;
    assert_eq!(reasons(facts.clone()), want);
    for event in facts {
        world.answer(event, Answer::Noted).await;
    }
    let world = world.restart().await;
    assert!(world.assignments.open_after(None, 10).unwrap().is_empty());
    assert!(world.holds(&root));
    assert_eq!(world.assignments.held_after(0, 10).unwrap(), [id(1, 1)]);
    world.stop().await;
}

#[tokio::test]
async fn what_nobody_has_is_tried_again_and_delays_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(60);
    let first = Duration::from_millis(300);
    let pauses = Pauses { first, longest: first, full: first };
    let world = World::start_with(dir.path(), fake.clone(), pauses);
    let mut nowhere = Dag::default();
    let lost: Vec<_> = (0..60).map(|n: u32| nowhere.leaf(n.to_be_bytes())).collect();
    let work: Vec<_> = (2..).zip(&lost).map(|(content, root)| assignment(content, 1, root)).collect();
    world.work(work, vec![]).await;
    let waits = |kind: &EventKind| matches!(kind, EventKind::Progress { next_attempt_ms: Some(_), .. });
    let waiting = world.events(60, waits).await;
    let no_providers =
        |kind: &EventKind| matches!(kind, EventKind::Progress { reason: Reason::NoProviders, .. });
    assert!(waiting.iter().all(|event| no_providers(&event.kind)));
    world.work(vec![assignment(1, 1, &root)], vec![]).await;
    assert_eq!(world.fact().await.allocation, id(1, 1));
    // Later one of them turns up.
    fake.shared.dag.lock().blocks.extend(nowhere.blocks.iter().map(|(hash, block)| (*hash, block.clone())));
    assert_eq!(world.facts(60).await.iter().filter(|event| is_stored(event)).count(), 60);
    world.stop().await;
}

#[tokio::test]
async fn a_peer_that_connects_starts_what_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(30);
    let (other, stranger) = (PeerId::random(), PeerId::random());
    let known = std::mem::take(&mut *fake.shared.dag.lock());
    let world = World::start(dir.path(), fake.clone());
    let mut late = Dag::default();
    let second = late.leaf("second");
    let named = Assignment { origins: vec![other.to_string()], ..assignment(1, 1, &root) };
    world.work(vec![named, assignment(2, 1, &second)], vec![]).await;
    let waits = |kind: &EventKind| matches!(kind, EventKind::Progress { next_attempt_ms: Some(_), .. });
    world.events(2, waits).await;
    assert_eq!(Arc::strong_count(&fake.shared.expected), 2, "the origin is expected");
    let start = Instant::now();
    *fake.shared.dag.lock() = known.clone();
    world.manager.send(Command::Arrived(other)).await;
    assert_eq!(world.fact().await.allocation, id(1, 1));
    assert_eq!(Arc::strong_count(&fake.shared.expected), 1, "and no longer");
    // One that nobody named is asked, and has the other.
    fake.shared.dag.lock().blocks.extend(late.blocks);
    fake.shared.has.lock().extend(content::block_cid(&second));
    world.manager.send(Command::Arrived(stranger)).await;
    assert_eq!(world.fact().await.allocation, id(2, 1));
    assert!(start.elapsed() < Duration::from_secs(3), "sooner than by their own time");
    world.stop().await;
}

#[tokio::test]
async fn every_origin_that_a_service_names_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let root = Dag::default().leaf("root");
    let world = World::start(dir.path(), fake.clone());
    let waits = |kind: &EventKind| matches!(kind, EventKind::Progress { next_attempt_ms: Some(_), .. });
    for generation in [1, 2] {
        let origins = (0..MAX_ORIGINS + 5).map(|_| PeerId::random().to_string()).collect();
        world.work(vec![Assignment { origins, ..assignment(1, generation, &root) }], vec![]).await;
        world.events(1, waits).await;
        let expected = Arc::strong_count(&fake.shared.expected) - 1;
        assert_eq!(
            (expected, fake.shared.opened.lock().last().unwrap().origins.len()),
            (MAX_ORIGINS, MAX_ORIGINS)
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn new_origins_and_generations_reach_a_waiting_content() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let root = Dag::default().leaf("root");
    let world = World::start(dir.path(), fake.clone());
    world.work(vec![assignment(1, 1, &root)], vec![]).await;
    let waits = |kind: &EventKind| matches!(kind, EventKind::Progress { next_attempt_ms: Some(_), .. });
    world.events(1, waits).await;
    let origin = PeerId::random().to_string();
    let again = Assignment { origins: vec![origin.clone()], ..assignment(1, 2, &root) };
    world.work(vec![again], vec![]).await;
    let event = world.events(1, waits).await.remove(0);
    assert_eq!(event.allocation, id(1, 2));
    assert_eq!(fake.shared.opened.lock().last().unwrap().origins, [origin]);
    world.stop().await;
}

#[tokio::test]
async fn grants_and_refusals_reach_the_fetch() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(200);
    let other = fake.shared.dag.lock().random(&mut Random(77), 200);
    let world = World::start(dir.path(), fake);
    let small = |content, root| Assignment { granted_bytes: 20_000, ..assignment(content, 1, root) };
    world.work(vec![small(1, &root), small(2, &other)], vec![]).await;
    for event in world.facts(2).await {
        let EventKind::WantGrant { bytes, .. } = event.kind else { panic!("{event:?}") };
        match event.allocation.content {
            1 => world.answer(event, Answer::Granted { bytes }).await,
            _ => world.answer(event, Answer::Refused { reason: Reason::OverQuota }).await,
        }
    }
    assert!(is_stored(&world.fact().await));
    let (dir, _) = world.stop().await;
    let world = World::start(&dir, Fake::default());
    assert!(world.holds(&root) && world.store.root(ContentKey::of(&other).as_bytes()).unwrap().is_none());
    assert_eq!(world.assignments.get(2).unwrap(), None);
    world.stop().await;
}

#[tokio::test]
async fn a_stale_allocation_is_stopped_and_nothing_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(30);
    let nowhere = Dag::default().leaf("nowhere");
    let world = World::start(dir.path(), fake);
    world.work(vec![assignment(1, 1, &root), assignment(2, 1, &nowhere)], vec![]).await;
    let stored = world.fact().await;
    world.answer(stored, Answer::Stale).await;
    let waits = |kind: &EventKind| matches!(kind, EventKind::Progress { next_attempt_ms: Some(_), .. });
    let waiting = world.events(1, waits).await.remove(0);
    world.answer(waiting, Answer::Stale).await;
    let world = world.restart().await;
    assert!(world.holds(&root));
    assert!(world.assignments.open_after(None, 10).unwrap().is_empty());
    assert_eq!(world.assignments.held_after(0, 10).unwrap(), [id(1, 1), id(2, 1)]);
    // A release, or a new assignment, ends that.
    world.work(vec![assignment(1, 2, &root)], vec![release(2, 1, &nowhere)]).await;
    let mut facts = world.facts(2).await;
    facts.sort_by_key(|event| event.allocation);
    assert!(is_stored(&facts[0]) && facts[1].kind == EventKind::Released);
    world.stop().await;
}

#[tokio::test]
async fn a_release_of_a_running_fetch_and_a_new_assignment_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(200);
    let world = World::start(dir.path(), fake);
    let waits = Assignment { granted_bytes: 10_000, ..assignment(1, 1, &root) };
    world.work(vec![waits], vec![]).await;
    assert!(matches!(world.fact().await.kind, EventKind::WantGrant { .. }));
    world.work(vec![], vec![release(1, 1, &root)]).await;
    world.work(vec![assignment(1, 2, &root)], vec![]).await;
    let mut facts = world.facts(2).await;
    facts.sort_by_key(|event| event.allocation);
    assert_eq!(facts[0], Event { allocation: id(1, 1), kind: EventKind::Released });
    assert!(is_stored(&facts[1]) && facts[1].allocation == id(1, 2) && world.holds(&root));
    world.stop().await;
}

#[tokio::test]
async fn lost_blocks_are_told_and_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, root) = network(60);
    let world = World::start(dir.path(), fake.clone());
    world.work(vec![assignment(1, 1, &root)], vec![]).await;
    let stored = world.fact().await;
    world.answer(stored.clone(), Answer::Noted).await;
    let (dir, fake) = world.stop().await;
    damage(&dir.join("blocks"), &fake.shared.dag.lock().get(&root).unwrap());
    let before = fake.shared.deliveries.load(Ordering::Relaxed);
    let world = World::start(&dir, fake.clone());
    let key = ContentKey::of(&root);
    let block = content::block_cid(&root).unwrap();
    assert_eq!(world.store.get(block.hash()).unwrap(), None, "a damaged block is not served");
    assert!(world.manager.send(Command::Lost(key, 1)).await);
    let lost = world.fact().await;
    assert_eq!(lost, Event { allocation: id(1, 1), kind: EventKind::Lost { blocks: 1 } });
    assert_eq!(world.fact().await, stored);
    assert_eq!(fake.shared.deliveries.load(Ordering::Relaxed), before + 1, "one block is fetched");
    assert!(world.store.get(block.hash()).unwrap().is_some());
    world.stop().await;
}

/// Flips a byte of a block in the segment that has it.
fn damage(blocks: &Path, bytes: &[u8]) {
    for entry in std::fs::read_dir(blocks.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let mut segment = std::fs::read(&path).unwrap();
        if let Some(at) = segment.windows(bytes.len()).position(|window| window == bytes) {
            segment[at + bytes.len() / 2] ^= 1;
            std::fs::write(&path, segment).unwrap();
            return;
        }
    }
    panic!("the block is in no segment");
}
