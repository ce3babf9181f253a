use std::path::Path;

use pinfold_blockstore::Options;
use pinfold_core::content::Cid;
use pinfold_core::status::Reason;
use pinfold_node_api::{Answer, Assignment, EventKind};

use super::*;
use crate::compare::{self, Compare};
use crate::fetch::testing::{Fake, Random};
use crate::fetch::{Context, Limits, Pauses, Slots};

#[path = "../../tests/support/service.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the integration tests")]
mod service;

use service::{FakeService, Fault};

/// An agent with a store, a manager and a network that has everything.
struct World {
    tasks: TaskTracker,
    cancel: CancellationToken,
    assignments: Assignments,
    denied: Denied,
    store: Store,
}

struct Nobody;

impl About for Nobody {
    fn addresses(&self) -> Vec<String> {
        vec!["/ip4/127.0.0.1/tcp/4001".into()]
    }

    fn gateway(&self) -> Option<String> {
        None
    }

    fn allow_private_addresses(&self, _: bool) {}
}

impl World {
    fn start(dir: &Path, service: &FakeService, network: Fake) -> Self {
        Self::start_comparing(dir, service, network, Duration::MAX)
    }

    fn start_comparing(dir: &Path, service: &FakeService, network: Fake, inventory_every: Duration) -> Self {
        let options = Options { reclaim_delay: Duration::ZERO, ..Options::default() };
        let store = Store::open(dir.join("blocks"), options).unwrap();
        let assignments = Assignments::open(&dir.join("assignments")).unwrap();
        let (denied, workers, outbox) = (Denied::load(dir), Workers::new(), Outbox::default());
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let (compare, comparing) = Compare::new(compare::Setup {
            store: store.clone(),
            assignments: assignments.clone(),
            denied: denied.clone(),
            outbox: outbox.clone(),
            workers: workers.clone(),
        });
        let stopping = cancel.clone();
        tasks.spawn(async move {
            stopping.run_until_cancelled_owned(comparing).await;
        });
        let context = Context {
            store: store.clone(),
            assignments: assignments.clone(),
            outbox: outbox.clone(),
            denied: denied.clone(),
            compare,
            workers: workers.clone(),
            slots: Slots::new(),
            limits: Limits::default(),
            pauses: Pauses::default(),
        };
        let (manager, life) = Manager::new(context, network, cancel.clone());
        tasks.spawn(life);
        let agent = Agent::new(Setup {
            service: service.url.parse().unwrap(),
            identity: Identity::from_secret([7; 32]),
            agent: "test/1".into(),
            data: dir.into(),
            about: Arc::new(Nobody),
            store: store.clone(),
            assignments: assignments.clone(),
            denied: denied.clone(),
            workers,
            outbox,
            manager,
            inventory_every,
        });
        agent.unwrap().start(&tasks, &cancel);
        Self { tasks, cancel, assignments, denied, store }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn id(content: i64) -> AllocationId {
    AllocationId { content, generation: 1 }
}

fn assignment(content: i64, root: &Cid) -> Assignment {
    Assignment {
        allocation: id(content),
        root: root.to_string(),
        origins: Vec::new(),
        peers: Vec::new(),
        predecessor: None,
        fairness: 1,
        granted_bytes: 20_000,
        repair: false,
    }
}

fn network(count: u64) -> (Fake, Vec<Cid>) {
    let fake = Fake::default();
    let roots = (0..count).map(|seed| fake.shared.dag.lock().random(&mut Random(seed), 60)).collect();
    (fake, roots)
}

#[tokio::test]
async fn work_is_noted_acknowledged_done_and_reported() {
    let (dir, service) = (tempfile::tempdir().unwrap(), FakeService::start().await);
    let (fake, roots) = network(3);
    let world = World::start(dir.path(), &service, fake.clone());
    for (content, root) in (1..).zip(&roots) {
        service.assign(assignment(content, root));
    }
    for (content, root) in (1..).zip(&roots) {
        let manifest = service.stored(id(content)).await;
        let want = fake.shared.dag.lock().reference(root).0;
        assert_eq!((manifest.root, manifest.bytes, manifest.blocks), (want.root, want.bytes, want.blocks));
    }
    service.wait("acknowledgements", |service| service.is_acknowledged().then_some(())).await;
    service.release(id(2), &roots[1].to_string());
    service.event("released", id(2), |kind| (*kind == EventKind::Released).then_some(())).await;
    let hellos = service.hellos();
    assert_eq!(hellos.len(), 1, "one session, in which no number is used twice");
    assert_eq!((hellos[0].version, &*hellos[0].agent), (VERSION, "test/1"));
    world.stop().await;
}

#[tokio::test]
async fn lost_answers_and_old_sessions_lose_nothing() {
    let (dir, service) = (tempfile::tempdir().unwrap(), FakeService::start().await);
    let (fake, roots) = network(4);
    service.fail(path::HELLO, &[Fault::LoseAnswer]);
    service.fail(path::PULL, &[Fault::LoseAnswer, Fault::OldSession, Fault::LoseAnswer]);
    service.fail(path::REPORT, &[Fault::OldSession, Fault::LoseAnswer, Fault::Refuse("unavailable")]);
    for (content, root) in (1..).zip(&roots) {
        service.assign(assignment(content, root));
    }
    let world = World::start(dir.path(), &service, fake);
    for content in 1..=4 {
        service.stored(id(content)).await;
    }
    service.wait("acknowledgements", |service| service.is_acknowledged().then_some(())).await;
    assert!(service.hellos().len() >= 3);
    service.wait("heartbeats", |service| (service.requests(path::REPORT) > 8).then_some(())).await;
    world.stop().await;
}

#[tokio::test]
async fn work_that_is_acknowledged_survives_the_node() {
    let (dir, service) = (tempfile::tempdir().unwrap(), FakeService::start().await);
    let (fake, roots) = network(1);
    // Noted and acknowledged, while nothing can be fetched.
    let world = World::start(dir.path(), &service, Fake::default());
    service.assign(assignment(1, &roots[0]));
    service.wait("acknowledgement", |service| service.is_acknowledged().then_some(())).await;
    world.stop().await;
    let world = World::start(dir.path(), &service, fake);
    service.stored(id(1)).await;
    // The answer to it may be lost with the node; then it is told again.
    let settled = world.assignments.clone();
    let is_settled = move |_: &FakeService| settled.open_after(None, 1).unwrap().is_empty().then_some(());
    service.wait("settled", is_settled).await;
    world.stop().await;
    let world = World::start(dir.path(), &service, Fake::default());
    service.wait("the inventory", |service| (service.held() == [id(1)]).then_some(())).await;
    assert!(world.store.usage().blocks > 10);
    world.stop().await;
}

#[tokio::test]
async fn what_is_held_is_compared_again_and_again() {
    let (dir, service) = (tempfile::tempdir().unwrap(), FakeService::start().await);
    let (fake, roots) = network(1);
    let world = World::start_comparing(dir.path(), &service, fake, Duration::from_millis(50));
    service.wait("the first", |service| (service.requests(path::INVENTORY) > 0).then_some(())).await;
    assert_eq!(service.held(), []);
    service.assign(assignment(1, &roots[0]));
    service.wait("a later one", |service| (service.held() == [id(1)]).then_some(())).await;
    world.stop().await;
}

#[tokio::test]
async fn a_hello_that_is_taken_for_a_replay_is_dated_later() {
    let (dir, service) = (tempfile::tempdir().unwrap(), FakeService::start().await);
    service.fail(path::HELLO, &[Fault::Refuse("replayed"), Fault::Refuse("replayed")]);
    let before = jiff::Timestamp::now().as_millisecond();
    let world = World::start(dir.path(), &service, Fake::default());
    let hello = service.wait("a hello", |service| service.hellos().pop()).await;
    assert!(hello.sent_at_ms >= before + 3 * 1_000, "a second later, then two more");
    world.stop().await;
}

#[tokio::test]
async fn a_new_denylist_is_fetched_saved_and_obeyed() {
    let (dir, service) = (tempfile::tempdir().unwrap(), FakeService::start().await);
    let (fake, roots) = network(1);
    let leaf = fake.shared.dag.lock().reference(&roots[0]).1[5];
    let bad = Cid::new_v1(leaf.codec, leaf.multihash);
    let world = World::start(dir.path(), &service, fake);
    service.deny(format!("/ipfs/{bad}\n"));
    let denied = world.denied.clone();
    service.wait("the denylist", |_| (denied.version() == 1).then_some(())).await;
    service.assign(assignment(1, &roots[0]));
    let failed = |kind: &EventKind| match kind {
        EventKind::Failed { reason, .. } => Some(*reason),
        _ => None,
    };
    assert_eq!(service.event("failed", id(1), failed).await, Reason::Denied);
    world.stop().await;
    assert!(Denied::load(dir.path()).is_denied(&bad));
}

#[tokio::test]
async fn a_refused_grant_ends_the_fetch_without_a_trace() {
    let (dir, service) = (tempfile::tempdir().unwrap(), FakeService::start().await);
    let (fake, roots) = network(1);
    service.answer_grants(1, Answer::Refused { reason: Reason::OverQuota });
    let world = World::start(dir.path(), &service, fake);
    service.assign(assignment(1, &roots[0]));
    let (assignments, store) = (world.assignments.clone(), world.store.clone());
    let gone = move |_: &FakeService| {
        let key = pinfold_core::content::ContentKey::of(&roots[0]);
        let kept = store.root(key.as_bytes()).unwrap().is_some();
        (assignments.get(1).unwrap().is_none() && !kept).then_some(())
    };
    service.event("a grant", id(1), |kind| matches!(kind, EventKind::WantGrant { .. }).then_some(())).await;
    service.wait("nothing kept", gone).await;
    world.stop().await;
}
