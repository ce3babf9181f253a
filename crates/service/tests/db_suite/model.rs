//! Random operations against a model: what pins exist, which status each has,
//! what lists and counts say, what accounts are charged. The model keeps plain
//! lists and derives everything from them, each time anew.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::{Answer, EventKind};
use pinfold_service::db::{Account, Database, ListQuery, PinRecord, PinRefusal};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use uuid::Uuid;

use crate::world::*;

/// Contents of a case; few, so that pins share them.
const CONTENTS: u64 = 5;

#[derive(Clone, Copy, Debug)]
enum Op {
    Add { account: usize, content: u64 },
    Delete { pin: usize },
    Replace { pin: usize, content: u64 },
    Begin { content: u64 },
    Store { content: u64 },
    Fail { content: u64 },
    Lose { content: u64 },
    Deny { content: u64 },
    Lift { content: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let content = || 0..CONTENTS;
    let pin = || 0..64_usize;
    prop_oneof![
        6 => (0..2_usize, content()).prop_map(|(account, content)| Op::Add { account, content }),
        2 => pin().prop_map(|pin| Op::Delete { pin }),
        4 => (pin(), content()).prop_map(|(pin, content)| Op::Replace { pin, content }),
        2 => content().prop_map(|content| Op::Begin { content }),
        5 => content().prop_map(|content| Op::Store { content }),
        1 => content().prop_map(|content| Op::Fail { content }),
        1 => content().prop_map(|content| Op::Lose { content }),
        1 => content().prop_map(|content| Op::Deny { content }),
        1 => content().prop_map(|content| Op::Lift { content }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetch {
    Waiting,
    Fetching,
    Held,
    Lost,
}

#[derive(Clone, Debug)]
struct ModelPin {
    requestid: Uuid,
    account: usize,
    content: u64,
    failed: bool,
    keeps: Option<u64>,
}

#[derive(Debug, Default)]
struct Model {
    /// Oldest first.
    pins: Vec<ModelPin>,
    fetches: std::collections::BTreeMap<u64, Fetch>,
    denied: BTreeSet<u64>,
}

impl Model {
    fn wanted(&self, content: u64) -> bool {
        self.pins.iter().any(|pin| (!pin.failed && pin.content == content) || pin.keeps == Some(content))
    }

    fn fetch(&self, content: u64) -> Fetch {
        self.fetches.get(&content).copied().unwrap_or(Fetch::Waiting)
    }

    /// What nobody wants is forgotten, its denial too once no pin names it.
    fn settle(&mut self) {
        for content in 0..CONTENTS {
            if self.fetch(content) == Fetch::Held {
                let own = self.pins.iter_mut().filter(|pin| !pin.failed && pin.content == content);
                own.for_each(|pin| pin.keeps = None);
            }
        }
        for content in 0..CONTENTS {
            if !self.wanted(content) {
                self.fetches.remove(&content);
            }
        }
    }

    fn status(&self, pin: &ModelPin) -> Status {
        if pin.failed || self.denied.contains(&pin.content) {
            return Status::Failed;
        }
        match self.fetch(pin.content) {
            Fetch::Waiting => Status::Queued,
            Fetch::Fetching | Fetch::Lost => Status::Pinning,
            Fetch::Held => Status::Pinned,
        }
    }

    fn add(&mut self, requestid: Uuid, account: usize, content: u64, keeps: Option<u64>) {
        self.pins.push(ModelPin { requestid, account, content, failed: false, keeps });
    }

    fn replace(&mut self, old: usize, requestid: Uuid, content: u64) {
        let old = self.pins.remove(old);
        let held = !old.failed && matches!(self.fetch(old.content), Fetch::Held | Fetch::Lost);
        let kept = if held { Some(old.content) } else { old.keeps };
        let kept = kept.filter(|&kept| kept != content && self.fetch(content) != Fetch::Held);
        self.add(requestid, old.account, content, kept);
    }
}

/// Bytes of a content.
fn size(content: u64) -> u64 {
    3_000 + content * 2_000
}

/// A case: the database, the model, and how the case's contents are numbered.
struct Case<'w> {
    db: &'w Database,
    node: &'w mut FakeNode,
    accounts: Vec<Account>,
    base: u64,
    model: Model,
}

impl Case<'_> {
    fn new_pin(&self, account: usize, content: u64) -> pinfold_service::db::NewPin {
        pin(self.accounts[account].id, self.base + content)
    }

    /// A pin of the content, to find it by.
    async fn any(&self, content: u64) -> Option<PinRecord> {
        for model in self.model.pins.iter().filter(|pin| pin.content == content) {
            if let Some(pin) = self.db.pin(self.accounts[model.account].id, model.requestid).await.unwrap() {
                return Some(pin);
            }
        }
        None
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Add { account, content } => self.add(account, content).await,
            Op::Delete { pin } if !self.model.pins.is_empty() => {
                let at = pin % self.model.pins.len();
                let gone = self.model.pins.remove(at);
                self.db.delete_pin(self.accounts[gone.account].id, gone.requestid).await.unwrap();
            }
            Op::Replace { pin, content } if !self.model.pins.is_empty() => {
                self.replace(pin % self.model.pins.len(), content).await;
            }
            Op::Delete { .. } | Op::Replace { .. } => {}
            Op::Begin { content } => self.say(content, progress(1, Reason::Retrieving, None)).await,
            Op::Store { content } => self.say(content, stored(size(content))).await,
            Op::Fail { content } => {
                let failed = EventKind::Failed { reason: Reason::InvalidBlock, detail: String::new() };
                self.say(content, failed).await;
            }
            Op::Lose { content } => self.say(content, EventKind::Lost { blocks: 1 }).await,
            Op::Deny { content } => self.mark(content, true).await,
            Op::Lift { content } => self.mark(content, false).await,
        }
        self.model.settle();
    }

    async fn add(&mut self, account: usize, content: u64) {
        let new = self.new_pin(account, content);
        let requestid = new.requestid;
        match self.db.add_pin(new).await {
            Ok(_) => {
                self.accepted(content);
                self.model.add(requestid, account, content, None);
            }
            Err(error) => {
                assert_eq!(refusal(Err::<(), _>(error)), PinRefusal::Denied);
                assert!(self.model.denied.contains(&content));
            }
        }
    }

    async fn replace(&mut self, at: usize, content: u64) {
        let old = self.model.pins[at].clone();
        let new = self.new_pin(old.account, content);
        let requestid = new.requestid;
        match self.db.replace_pin(old.requestid, new).await {
            Ok(_) => {
                self.accepted(content);
                self.model.replace(at, requestid, content);
            }
            Err(error) => {
                assert_eq!(refusal(Err::<(), _>(error)), PinRefusal::Denied);
                assert!(self.model.denied.contains(&content));
            }
        }
    }

    /// The mark of a denied content goes with its row, once nothing names it:
    /// the API matches the denylist before each new pin.
    fn accepted(&mut self, content: u64) {
        if self.model.denied.remove(&content) {
            assert!(!self.model.pins.iter().any(|pin| pin.content == content), "{content} is denied");
        }
    }

    /// The node reports about a content, if it has to do with it.
    async fn say(&mut self, content: u64, kind: EventKind) {
        self.node.release(self.db).await;
        let Some(found) = self.any(content).await else { return };
        if !self.node.assignments.contains_key(&found.content) {
            return;
        }
        if self.node.say(self.db, found.content, kind.clone()).await == Answer::Stale {
            return;
        }
        let before = self.model.fetch(content);
        let after = match (&kind, before) {
            (EventKind::Progress { .. }, Fetch::Waiting) => Fetch::Fetching,
            (EventKind::Stored { .. }, _) => Fetch::Held,
            (EventKind::Lost { .. }, Fetch::Held) => Fetch::Lost,
            (EventKind::Failed { .. }, Fetch::Waiting | Fetch::Fetching) => {
                let own = self.model.pins.iter_mut().filter(|pin| pin.content == content);
                own.for_each(|pin| pin.failed = true);
                Fetch::Waiting
            }
            // A node that cannot repair is passed over for a while: retried here.
            (EventKind::Failed { .. }, _) => {
                self.db.retry(&[found.content]).await.unwrap();
                if before == Fetch::Held { Fetch::Lost } else { before }
            }
            (_, before) => before,
        };
        self.model.fetches.insert(content, after);
    }

    async fn mark(&mut self, content: u64, denied: bool) {
        let Some(found) = self.any(content).await else { return };
        if denied {
            self.db.deny(&[found.content]).await.unwrap();
            self.model.denied.insert(content);
        } else {
            self.db.lift(&[found.content]).await.unwrap();
            self.model.denied.remove(&content);
        }
    }

    async fn compare(&self) {
        for (number, account) in self.accounts.iter().enumerate() {
            let own: Vec<&ModelPin> = self.model.pins.iter().filter(|pin| pin.account == number).collect();
            for statuses in [Status::ALL.to_vec(), vec![Status::Pinned], vec![Status::Queued, Status::Failed]]
            {
                let want: Vec<(Uuid, Status)> = own
                    .iter()
                    .rev()
                    .map(|pin| (pin.requestid, self.model.status(pin)))
                    .filter(|(_, status)| statuses.contains(status))
                    .collect();
                let page = list(self.db, account, ListQuery { limit: 4, ..query(&statuses) }).await;
                let found: Vec<_> = page.pins.iter().map(|pin| (pin.requestid, pin.status)).collect();
                assert_eq!(page.count, want.len() as u64, "{:?}", self.model);
                assert_eq!(found, want[..want.len().min(4)], "{:?}", self.model);
            }
            self.compare_usage(number, account, &own).await;
        }
    }

    async fn compare_usage(&self, number: usize, account: &Account, own: &[&ModelPin]) {
        if own.iter().any(|pin| pin.keeps.is_some()) {
            return; // Overlaps are the recount's affair.
        }
        let contents: BTreeSet<u64> = own.iter().filter(|pin| !pin.failed).map(|pin| pin.content).collect();
        let settled = |content: &&u64| matches!(self.model.fetch(**content), Fetch::Held | Fetch::Lost);
        let want: u64 = contents.iter().filter(settled).map(|&content| size(content).max(4_096)).sum();
        let (used, reserved) = usage(self.db, account).await;
        assert_eq!((used, reserved), (want, 0), "account {number}: {:?}", self.model);
    }
}

static CASES: AtomicU64 = AtomicU64::new(0);

async fn run_case(db: &Database, node: &mut FakeNode, ops: &[Op]) {
    let number = CASES.fetch_add(1, Ordering::Relaxed);
    let mut accounts = Vec::new();
    for name in ["ann", "bob"] {
        accounts.push(db.create_account(&format!("{name}{number}"), None).await.unwrap());
    }
    let base = 1_000 + number * CONTENTS;
    let mut case = Case { db, node, accounts, base, model: Model::default() };
    for &op in ops {
        case.run(op).await;
        case.compare().await;
    }
    assert_sound(db).await;
}

/// Runs cases in their own runtime, so that proptest can shrink a failure.
fn check(world: &World, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (db, node) = runtime.block_on(async {
        let db = world.open().await;
        let node = FakeNode::join(&db, 1, world.now()).await;
        (db, node)
    });
    let node = std::cell::RefCell::new(node);
    let config = Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&prop::collection::vec(op(), 1..40), |ops| {
            runtime.block_on(run_case(&db, &mut node.borrow_mut(), &ops));
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_operations_on_sqlite() {
    check(&World::sqlite(), 40);
}

#[test]
fn random_operations_on_postgres() {
    let world = tokio::runtime::Runtime::new().unwrap().block_on(World::postgres());
    check(&world, 12);
}
