use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use pinfold_blockstore::{Options, RootState};
use pinfold_core::content::ContentKey;
use pinfold_node_api::{AllocationId, Event, EventKind};
use tokio::task::JoinHandle;

use super::super::testing::{Dag, Random, Script};
use super::*;
use crate::agent::Outbox;

const PLENTY: u64 = 1 << 40;

/// One store, and transfers into it.
struct World {
    store: Store,
    outbox: Outbox,
    denied: Denied,
    input: watch::Sender<Input>,
    cancel: CancellationToken,
    _dir: Option<tempfile::TempDir>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self::open(dir.path(), u64::MAX);
        world._dir = Some(dir);
        world
    }

    fn open(dir: &Path, capacity_bytes: u64) -> Self {
        let options = Options { reclaim_delay: Duration::ZERO, capacity_bytes, ..Options::default() };
        Self {
            store: Store::open(dir, options).unwrap(),
            outbox: Outbox::default(),
            denied: Denied::default(),
            input: watch::Sender::new(Input { granted: PLENTY, ..Input::default() }),
            cancel: CancellationToken::new(),
            _dir: None,
        }
    }

    fn setup(&self, root: &Cid) -> Setup {
        Setup {
            root: *root,
            limits: Limits::default(),
            store: self.store.clone(),
            workers: Workers::new(),
            denied: self.denied.clone(),
            input: self.input.subscribe(),
            report: Reporter::new(self.outbox.clone(), 1, Arc::default(), 1, Arc::default()),
            slots: Slots::new(),
            fairness: 1,
            repair: false,
            cancel: self.cancel.clone(),
        }
    }

    async fn transfer(&self, root: &Cid, exchange: &mut Script) -> Outcome {
        run(self.setup(root), exchange).await
    }

    /// Transfers beside the test.
    fn start(&self, root: &Cid, mut exchange: Script) -> JoinHandle<(Outcome, Script)> {
        let setup = self.setup(root);
        tokio::spawn(async move { (run(setup, &mut exchange).await, exchange) })
    }

    /// The events of one kind as they are reported.
    async fn wanted_grant(&self) -> u64 {
        loop {
            let now = Instant::now();
            for Event { kind, .. } in self.outbox.batch(now, now + Duration::from_secs(5)).await {
                if let EventKind::WantGrant { bytes, .. } = kind {
                    return bytes;
                }
            }
        }
    }

    /// Answers with no more than there is, until the transfer stands still.
    async fn stands_still(&self, granted: u64) -> u64 {
        loop {
            let now = Instant::now();
            for Event { kind, .. } in self.outbox.batch(now, now + Duration::from_secs(5)).await {
                match kind {
                    EventKind::WantGrant { least, .. } if least > granted => return least,
                    EventKind::WantGrant { .. } => self.grant(granted),
                    _ => {}
                }
            }
        }
    }

    fn grant(&self, bytes: u64) {
        self.input.send_modify(|input| {
            input.granted = bytes;
            input.answers += 1;
        });
    }

    /// The root is held, with exactly the reference's blocks, in its order.
    fn assert_held(&self, dag: &Dag, root: &Cid, outcome: &Outcome) {
        let (manifest, leaves) = dag.reference(root);
        assert_eq!(outcome, &Outcome::Stored(summary(&manifest)));
        let key = ContentKey::of(root);
        let info = self.store.root(key.as_bytes()).unwrap().unwrap();
        assert_eq!((info.state, info.blocks, info.bytes), (RootState::Held, manifest.blocks, manifest.bytes));
        assert_eq!(super::super::meta::decode(&info.meta), Some(summary(&manifest)));
        let list: Vec<_> =
            self.store.list(key.as_bytes()).unwrap().unwrap().map(|multihash| multihash.unwrap()).collect();
        let want: Vec<Multihash> = leaves.iter().map(|leaf| leaf.multihash.resize().unwrap()).collect();
        assert_eq!(list, want);
        for (multihash, leaf) in list.iter().zip(&leaves) {
            assert_eq!(self.store.get(multihash).unwrap().as_deref(), Some(&*dag.blocks[&leaf.multihash]));
        }
        assert_eq!(self.store.check().unwrap().differences, 0);
    }

    fn assert_nothing_kept(&self, root: &Cid) {
        assert_eq!(self.store.root(ContentKey::of(root).as_bytes()).unwrap(), None);
        self.store.reclaim(|| false).unwrap();
        assert_eq!(self.store.usage().blocks, 0);
    }
}

fn random_dag(seed: u64, size: usize) -> (Dag, Cid) {
    let mut dag = Dag::default();
    let root = dag.random(&mut Random(seed), size);
    (dag, root)
}

#[tokio::test]
async fn a_dag_is_held_whatever_the_order_of_arrival() {
    let world = World::new();
    for seed in 0..10 {
        let (dag, root) = random_dag(seed, 120);
        let mut exchange = Script::new(&dag, seed);
        let outcome = world.transfer(&root, &mut exchange).await;
        world.assert_held(&dag, &root, &outcome);
        let distinct: HashSet<_> = exchange.delivered.iter().map(|cid| *cid.hash()).collect();
        assert_eq!(distinct.len(), exchange.delivered.len(), "no block is fetched twice");
    }
}

#[tokio::test]
async fn what_was_had_before_an_end_is_not_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (dag, root) = random_dag(7, 200);
    let leaves = dag.reference(&root).1;
    let late: Vec<Cid> =
        leaves.iter().skip(20).step_by(9).map(|leaf| Cid::new_v1(leaf.codec, leaf.multihash)).collect();
    let before: HashSet<Multihash> = {
        let world = World::open(dir.path(), u64::MAX);
        let mut exchange = Script::new(&dag, 1).withhold(late);
        let outcome = world.transfer(&root, &mut exchange).await;
        assert_eq!(outcome, Outcome::Retry { reason: Reason::NoProviders, progressed: true });
        // Nothing of it is reclaimed, though nothing is complete.
        world.store.reclaim(|| false).unwrap();
        exchange.delivered.iter().map(|cid| *cid.hash()).collect()
    };
    assert!(before.len() > 50);
    let world = World::open(dir.path(), u64::MAX);
    let mut exchange = Script::new(&dag, 2);
    let outcome = world.transfer(&root, &mut exchange).await;
    world.assert_held(&dag, &root, &outcome);
    assert!(exchange.delivered.iter().all(|cid| !before.contains(cid.hash())));
}

#[tokio::test]
async fn a_replacement_fetches_only_what_its_predecessor_lacks() {
    let world = World::new();
    let mut dag = Dag::default();
    let shared: Vec<_> = (0..50).map(|n| dag.leaf(format!("shared {n}"))).collect();
    let old = dag.node(1, &shared);
    world.transfer(&old, &mut Script::new(&dag, 1)).await;
    let new = dag.leaf("new");
    let root = dag.node(2, &[&shared[..], &[new]].concat());
    let mut exchange = Script::new(&dag, 2);
    let outcome = world.transfer(&root, &mut exchange).await;
    world.assert_held(&dag, &root, &outcome);
    assert_eq!(exchange.delivered.len(), 2);
}

#[tokio::test]
async fn a_root_released_in_mid_walk_takes_nothing_from_another() {
    let world = World::new();
    let mut dag = Dag::default();
    let shared: Vec<_> = (0..100).map(|n| dag.leaf(format!("shared {n}"))).collect();
    let a = dag.node(1, &shared);
    let outcome = world.transfer(&a, &mut Script::new(&dag, 1)).await;
    world.assert_held(&dag, &a, &outcome);
    // B finds all of A's blocks held, half of them before what is late.
    let late = dag.leaf("late");
    let links: Vec<_> = shared[..50].iter().chain([&late]).chain(&shared[50..]).copied().collect();
    let b = dag.node(2, &links);
    let mut exchange = Script::new(&dag, 2).withhold([late]);
    let store = world.store.clone();
    exchange.idle = Some(Box::new(move || {
        store.release(ContentKey::of(&a).as_bytes()).unwrap();
        store.reclaim(|| false).unwrap();
        HashSet::new()
    }));
    let outcome = world.transfer(&b, &mut exchange).await;
    world.assert_held(&dag, &b, &outcome);
}

#[tokio::test]
async fn bytes_beyond_the_grant_wait_for_it() {
    let world = World::new();
    let mut dag = Dag::default();
    // After hundreds of small ones nobody expects large ones.
    let leaves: Vec<_> = (0..600)
        .map(|n: u32| {
            let length = if n < 500 { 8 } else { 10_000 };
            dag.leaf(n.to_be_bytes().repeat(length / 4))
        })
        .collect();
    let root = dag.node(1, &leaves);
    let total = dag.reference(&root).0.bytes;
    world.grant(100_000);
    let transfer = world.start(&root, Script::new(&dag, 3));
    let mut granted = 100_000;
    while granted < total {
        assert!(world.stands_still(granted).await <= total);
        assert!(world.store.usage().block_bytes <= granted, "no byte beyond the grant is kept");
        granted += 200_000;
        world.grant(granted);
    }
    let (outcome, _) = transfer.await.unwrap();
    world.assert_held(&dag, &root, &outcome);
}

#[tokio::test]
async fn a_search_reserves_nothing() {
    let world = World::new();
    let (dag, root) = random_dag(5, 100);
    world.grant(0);
    let outcome = world.transfer(&root, &mut Script::new(&Dag::default(), 3)).await;
    assert_eq!(outcome, Outcome::Retry { reason: Reason::NoProviders, progressed: false });
    let now = Instant::now();
    let events = world.outbox.batch(now, now + Duration::from_secs(5)).await;
    assert!(!events.iter().any(|event| matches!(event.kind, EventKind::WantGrant { .. })), "{events:?}");
    // The root alone may come without a grant, and waits for one.
    let transfer = world.start(&root, Script::new(&dag, 3));
    assert!(world.stands_still(0).await > 0);
    assert_eq!(world.store.usage().block_bytes, 0);
    world.grant(PLENTY);
    let (outcome, _) = transfer.await.unwrap();
    world.assert_held(&dag, &root, &outcome);
}

#[tokio::test]
async fn a_refused_grant_keeps_nothing() {
    let world = World::new();
    let (dag, root) = random_dag(5, 200);
    world.grant(30_000);
    let transfer = world.start(&root, Script::new(&dag, 3));
    world.wanted_grant().await;
    world.input.send_modify(|input| input.refused = Some(Reason::OverQuota));
    assert_eq!(transfer.await.unwrap().0, Outcome::Refused);
    world.assert_nothing_kept(&root);
}

#[tokio::test]
async fn an_answer_that_grants_no_more_is_asked_about_again() {
    let world = World::new();
    let (dag, root) = random_dag(5, 100);
    world.grant(10_000);
    let transfer = world.start(&root, Script::new(&dag, 3));
    for _ in 0..3 {
        world.wanted_grant().await;
        world.grant(10_000);
    }
    world.wanted_grant().await;
    world.grant(PLENTY);
    let (outcome, _) = transfer.await.unwrap();
    world.assert_held(&dag, &root, &outcome);
}

#[tokio::test]
async fn what_can_never_succeed_fails_with_its_reason_and_keeps_nothing() {
    let mut dag = Dag::default();
    let good = dag.leaf("good");
    let broken = dag.add(0x71, vec![0x83]);
    let large = dag.leaf(vec![0; (2 << 20) + 1]);
    let mut chain = dag.leaf("bottom");
    for level in 0..5 {
        chain = dag.node(level, &[chain]);
    }
    let check = async |links: &[Cid], limits: Limits, want| {
        let mut dag = dag.clone();
        let root = dag.node(9, links);
        let world = World::new();
        let setup = Setup { limits, ..world.setup(&root) };
        match run(setup, &mut Script::new(&dag, 1)).await {
            Outcome::Failed { reason, detail } => assert_eq!(reason, want, "{detail}"),
            other => panic!("{other:?}"),
        }
        world.assert_nothing_kept(&root);
    };
    let limits = Limits::default();
    check(&[good, broken], limits, Reason::InvalidBlock).await;
    check(&[good, large], limits, Reason::InvalidBlock).await;
    check(&[good, chain], Limits { depth: 3, ..limits }, Reason::OverLimit).await;
    check(&[good, chain], Limits { blocks: 4, ..limits }, Reason::OverLimit).await;
}

#[tokio::test]
async fn a_denied_link_fails_the_whole_root() {
    let world = World::new();
    let mut dag = Dag::default();
    let bad = dag.leaf("bad");
    let branch = dag.node(1, &[bad]);
    let root = dag.node(2, &[branch]);
    let dir = tempfile::tempdir().unwrap();
    let rules = format!("/ipfs/{bad}\n");
    world.denied.update(dir.path(), &pinfold_node_api::Denylist { version: 3, rules }).unwrap();
    let outcome = world.transfer(&root, &mut Script::new(&dag, 1)).await;
    assert!(matches!(outcome, Outcome::Failed { reason: Reason::Denied, .. }), "{outcome:?}");
    world.assert_nothing_kept(&root);
    assert_eq!(Denied::load(dir.path()).version(), 3);
}

#[tokio::test]
async fn a_full_store_is_no_failure_of_the_content() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), 300_000);
    let mut dag = Dag::default();
    let leaves: Vec<_> = (0..64).map(|n| dag.leaf(vec![n; 20_000])).collect();
    let root = dag.node(1, &leaves);
    assert_eq!(world.transfer(&root, &mut Script::new(&dag, 1)).await, Outcome::NoCapacity);
}

#[tokio::test]
async fn a_cancelled_transfer_keeps_what_it_has() {
    let world = World::new();
    let (dag, root) = random_dag(11, 200);
    let last = dag.reference(&root).1.last().copied().unwrap();
    let mut exchange = Script::new(&dag, 1).withhold([Cid::new_v1(last.codec, last.multihash)]);
    exchange.idle_after = 100;
    let cancel = world.cancel.clone();
    let withheld = exchange.withheld.clone();
    exchange.idle = Some(Box::new(move || {
        cancel.cancel();
        withheld
    }));
    assert_eq!(world.transfer(&root, &mut exchange).await, Outcome::Cancelled);
    world.store.reclaim(|| false).unwrap();
    assert!(world.store.usage().blocks > 0);
}

#[tokio::test]
async fn a_source_that_trickles_ends_the_attempt_and_so_does_its_time() {
    let world = World::new();
    let mut dag = Dag::default();
    let leaves: Vec<_> = (0..500).map(|n: u32| dag.leaf(n.to_be_bytes())).collect();
    let root = dag.node(1, &leaves);
    let check = async |limits: Limits, progressed| {
        let mut exchange = Script::new(&dag, 1);
        exchange.every = Duration::from_millis(20);
        let setup = Setup { limits, ..world.setup(&root) };
        let outcome = run(setup, &mut exchange).await;
        assert_eq!(outcome, Outcome::Retry { reason: Reason::Retrieving, progressed });
        assert!(exchange.delivered.len() < leaves.len() / 2, "{}", exchange.delivered.len());
    };
    let window = Duration::from_millis(200);
    check(Limits { pace_window: window, ..Limits::default() }, false).await;
    check(Limits { attempt_time: window, ..Limits::default() }, true).await;
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Soon, and later than anything here that is not waited for.
const SOON: Duration = Duration::from_millis(300);

/// Ten leaves and their root.
fn small_dag() -> (Dag, Vec<Cid>, Cid) {
    let mut dag = Dag::default();
    let leaves: Vec<_> = (0..10).map(|n| dag.leaf([n])).collect();
    let root = dag.node(1, &leaves);
    (dag, leaves, root)
}

#[tokio::test]
async fn an_attempt_whose_sources_are_silent_ends() {
    let world = World::new();
    let (dag, leaves, root) = small_dag();
    let check = async |late: Cid, before, reason, progressed| {
        // They promise what they never send: nobody says that it is in vain.
        let mut exchange = Script::new(&dag, 1).withhold([late]);
        let withheld = exchange.withheld.clone();
        exchange.idle = Some(Box::new(move || withheld));
        exchange.idle_after = before;
        let limits = Limits { stall: SOON, ..Limits::default() };
        let ended = run(Setup { limits, ..world.setup(&root) }, &mut exchange);
        let outcome = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
        assert_eq!(outcome, Outcome::Retry { reason, progressed });
    };
    check(root, 0, Reason::Searching, false).await;
    check(leaves[9], 10, Reason::Retrieving, true).await;
}

#[tokio::test]
async fn an_attempt_that_never_gets_the_next_block_of_its_walk_ends() {
    let world = World::new();
    let mut dag = Dag::default();
    let leaves: Vec<_> = (0..4_000).map(|n: u32| dag.leaf(n.to_be_bytes())).collect();
    let root = dag.node(1, &leaves);
    let check = async |head_stall, ends_early| {
        let mut exchange = Script::new(&dag, 1).withhold([leaves[0]]);
        exchange.every = Duration::from_millis(if ends_early { 10 } else { 0 });
        let limits = Limits { head_stall, ..Limits::default() };
        let setup = Setup { limits, ..world.setup(&root) };
        let outcome = tokio::time::timeout(PATIENCE, run(setup, &mut exchange)).await.expect("it ends");
        assert!(matches!(outcome, Outcome::Retry { progressed: true, .. }), "{outcome:?}");
        assert_eq!(exchange.delivered.len() < leaves.len() / 2, ends_early, "{}", exchange.delivered.len());
        world.store.release(ContentKey::of(&root).as_bytes()).unwrap();
        world.store.reclaim(|| false).unwrap();
    };
    check(SOON, true).await;
    // What comes in another order is not enough to end it.
    check(Limits::default().head_stall, false).await;
}

#[tokio::test]
async fn a_transfer_that_keeps_others_waiting_for_a_silent_source_ends() {
    let world = World::new();
    let (dag, leaves, root) = small_dag();
    let slots = Slots::with(1, SOON);
    let mut exchange = Script::new(&dag, 1).withhold([leaves[9]]);
    let (withheld, (moves, moving)) = (exchange.withheld.clone(), tokio::sync::oneshot::channel());
    exchange.idle = Some(Box::new(move || {
        moves.send(()).unwrap();
        withheld
    }));
    exchange.idle_after = 10;
    let setup = Setup { slots: slots.clone(), ..world.setup(&root) };
    let transfer = tokio::spawn(async move { run(setup, &mut exchange).await });
    moving.await.unwrap();
    let slot = tokio::time::timeout(PATIENCE, slots.acquire(2, false)).await.expect("its turn comes");
    drop(slot);
    let outcome = tokio::time::timeout(PATIENCE, transfer).await.expect("it ends").unwrap();
    assert_eq!(outcome, Outcome::Retry { reason: Reason::Retrieving, progressed: true });
}

#[tokio::test]
async fn hundreds_of_tiny_blocks_are_wanted_at_a_time_and_no_more() {
    let world = World::new();
    let mut dag = Dag::default();
    let leaves: Vec<_> = (0..6_000).map(|n: u32| dag.leaf(n.to_be_bytes())).collect();
    let root = dag.node(1, &leaves);
    let mut exchange = Script::new(&dag, 1);
    let outcome = world.transfer(&root, &mut exchange).await;
    world.assert_held(&dag, &root, &outcome);
    assert!((256..=1_024).contains(&exchange.most_wanted), "{}", exchange.most_wanted);
}

#[tokio::test]
async fn progress_is_told_while_blocks_arrive() {
    let world = World::new();
    let (dag, root) = random_dag(3, 50);
    world.transfer(&root, &mut Script::new(&dag, 1)).await;
    let now = Instant::now();
    let events = world.outbox.batch(now, now).await;
    let id = AllocationId { content: 1, generation: 0 };
    assert!(events.iter().all(|event| event.allocation == id));
    let last = events.last().map(|event| &event.kind);
    let total = dag.reference(&root).0;
    let (want_blocks, want_bytes) = (total.blocks, total.bytes);
    assert!(
        matches!(last, Some(EventKind::Progress { blocks, bytes, reason: Reason::Retrieving, .. })
            if (*blocks, *bytes) == (want_blocks, want_bytes)),
        "{last:?}"
    );
}
