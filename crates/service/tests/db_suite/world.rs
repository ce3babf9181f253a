//! A database, a clock that the test sets, and a node that does what it is
//! told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use pinfold_core::status::{Reason, Status};
use pinfold_node_api::{
    AllocationId, Answer, Assignment, Event, EventKind, ManifestSummary, Pull, Pulled, Report,
};
use pinfold_service::db::{
    Account, AccountId, Database, Error, ListQuery, Location, Millis, NewPin, NodeHello, NodeRequest, Page,
    PinRecord, PinRefusal, Settings,
};
use uuid::Uuid;

/// When tests begin, in milliseconds since 1970.
pub(crate) const START: Millis = 1_800_000_000_000;
pub(crate) const SECOND: i64 = 1_000;
pub(crate) const DAY: i64 = 86_400 * SECOND;
pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<AtomicI64>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("pinfold.db"));
        Self::at(location, Some(folder))
    }

    pub(crate) async fn postgres() -> Self {
        Self::at(Location::Postgres(crate::cluster::new_database().await), None)
    }

    pub(crate) fn at(location: Location, folder: Option<tempfile::TempDir>) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let read = Arc::clone(&clock);
        let settings = Settings {
            replicas_min: 1,
            replicas_target: 1,
            clock: Some(Arc::new(move || read.load(Ordering::SeqCst))),
            pool: 4,
            ..Settings::new(location)
        };
        Self { settings, clock, _folder: folder }
    }

    /// Opens the database; may be called several times.
    pub(crate) async fn open(&self) -> Database {
        Database::open(self.settings.clone()).await.unwrap()
    }

    /// Opens the database, with a node and an account that has this quota.
    pub(crate) async fn with_node(&self, quota: u64) -> (Database, FakeNode, Account) {
        let db = self.open().await;
        let node = FakeNode::join(&db, 1, self.now()).await;
        let account = db.create_account("ann", Some(quota)).await.unwrap();
        (db, node, account)
    }

    /// Changes the data behind the product's back.
    pub(crate) async fn execute(&self, sql: &str) {
        match &self.settings.location {
            Location::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
                connection.execute_batch(sql).unwrap();
            }
            Location::Postgres(url) => {
                let (client, connection) = crate::cluster::connect(url).await;
                let connection = tokio::spawn(connection);
                client.batch_execute(sql).await.unwrap();
                drop(client);
                connection.await.unwrap().unwrap();
            }
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.load(Ordering::SeqCst)
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }
}

/// A pin of content number `content`.
pub(crate) fn pin(account: AccountId, content: u64) -> NewPin {
    NewPin {
        requestid: Uuid::now_v7(),
        account,
        cid: format!("bafycontent{content}"),
        content: key(content),
        inline: false,
        name: None,
        meta: BTreeMap::new(),
        origins: Vec::new(),
    }
}

pub(crate) fn key(content: u64) -> Vec<u8> {
    [&[0x55, 0x12, 0x20][..], &content.to_be_bytes(), &[0; 24]].concat()
}

pub(crate) fn query(statuses: &[Status]) -> ListQuery {
    ListQuery { statuses: statuses.to_vec(), limit: 10, ..ListQuery::default() }
}

pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, Error>) -> PinRefusal {
    match outcome {
        Err(Error::Pin(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(crate) async fn get(db: &Database, pin: &PinRecord) -> PinRecord {
    db.pin(pin.account, pin.requestid).await.unwrap().expect("the pin exists")
}

pub(crate) async fn status(db: &Database, pin: &PinRecord) -> (Status, Option<Reason>) {
    let pin = get(db, pin).await;
    (pin.status, pin.info.reason)
}

pub(crate) async fn list(db: &Database, account: &Account, query: ListQuery) -> Page {
    db.list(account.id, query).await.unwrap()
}

pub(crate) async fn usage(db: &Database, account: &Account) -> (u64, u64) {
    let account = db.account(account.id).await.unwrap().expect("the account exists");
    (account.used, account.reserved)
}

/// The recount finds nothing wrong.
pub(crate) async fn assert_sound(db: &Database) {
    let report = db.check().await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
}

/// Runs the jobs until nothing is due.
pub(crate) async fn run_jobs(db: &Database) {
    while db.run_jobs().await.unwrap().more {}
}

pub(crate) struct FakeNode {
    pub(crate) key: [u8; 32],
    pub(crate) session: i64,
    sequence: i64,
    pub(crate) assignments: BTreeMap<i64, Assignment>,
    pub(crate) releases: Vec<AllocationId>,
    unacknowledged: Vec<AllocationId>,
}

impl FakeNode {
    pub(crate) async fn join(db: &Database, number: u8, now: Millis) -> Self {
        let node = db.hello(hello(number, now)).await.unwrap();
        Self {
            key: [number; 32],
            session: node.session,
            sequence: 0,
            assignments: BTreeMap::new(),
            releases: Vec::new(),
            unacknowledged: Vec::new(),
        }
    }

    /// Another of the node's conversations, such as its reports beside its pulls,
    /// which number their requests apart.
    pub(crate) fn channel(&self) -> Self {
        Self {
            key: self.key,
            session: self.session,
            sequence: 0,
            assignments: BTreeMap::new(),
            releases: Vec::new(),
            unacknowledged: Vec::new(),
        }
    }

    pub(crate) fn request(&mut self) -> NodeRequest {
        self.sequence += 1;
        NodeRequest { key: self.key, session: self.session, sequence: self.sequence }
    }

    /// Pulls until there is nothing new, acknowledging all of it.
    pub(crate) async fn pull(&mut self, db: &Database) {
        loop {
            let pulled = self.pull_once(db).await;
            if pulled.assignments.is_empty() && pulled.releases.is_empty() {
                return;
            }
        }
    }

    pub(crate) async fn pull_once(&mut self, db: &Database) -> Pulled {
        let acknowledged = std::mem::take(&mut self.unacknowledged);
        let request = self.request();
        let pull = Pull { acknowledged, denylist_version: 0, wait_ms: 0 };
        let pulled = db.pull(request, pull).await.unwrap();
        for assignment in &pulled.assignments {
            self.unacknowledged.push(assignment.allocation);
            self.assignments.insert(assignment.allocation.content, assignment.clone());
        }
        for release in &pulled.releases {
            self.unacknowledged.push(release.allocation);
            self.releases.push(release.allocation);
            self.assignments.remove(&release.allocation.content);
        }
        pulled
    }

    pub(crate) async fn report(&mut self, db: &Database, events: Vec<Event>) -> Vec<Answer> {
        let report = Report { events, used_bytes: 0, capacity_bytes: 1 << 40 };
        let request = self.request();
        db.report(request, report).await.unwrap().answers
    }

    /// The event of an allocation that was pulled.
    pub(crate) fn event(&self, content: i64, kind: EventKind) -> Event {
        Event { allocation: self.assignments[&content].allocation, kind }
    }

    pub(crate) async fn say(&mut self, db: &Database, content: i64, kind: EventKind) -> Answer {
        let event = self.event(content, kind);
        self.report(db, vec![event]).await.remove(0)
    }

    /// Pulls, then fetches a content of this size as far as it is granted, and
    /// reports it stored.
    pub(crate) async fn store(&mut self, db: &Database, pin: &PinRecord, bytes: u64) -> Answer {
        self.pull(db).await;
        match self.want(db, pin, bytes).await {
            Answer::Granted { .. } => self.say(db, pin.content, stored(bytes)).await,
            refused => refused,
        }
    }

    /// Asks for grants until they reach `bytes`, or there are no more.
    pub(crate) async fn want(&mut self, db: &Database, pin: &PinRecord, bytes: u64) -> Answer {
        for _ in 0..1_000 {
            match self.say(db, pin.content, EventKind::WantGrant { bytes, least: bytes }).await {
                Answer::Granted { bytes: granted } if granted < bytes => {}
                answer => return answer,
            }
        }
        panic!("neither granted nor refused: {bytes} bytes of {}", pin.cid);
    }

    /// Lets go what it was told to.
    pub(crate) async fn release(&mut self, db: &Database) {
        self.pull(db).await;
        let gone = std::mem::take(&mut self.releases);
        let events = gone.iter().map(|&allocation| Event { allocation, kind: EventKind::Released }).collect();
        self.report(db, events).await;
    }
}

pub(crate) fn hello(number: u8, now: Millis) -> NodeHello {
    NodeHello {
        key: [number; 32],
        operated: true,
        addresses: vec![format!("/ip4/127.0.0.1/tcp/{}/p2p/node{number}", 4000 + u32::from(number))],
        gateway: None,
        capacity_bytes: 1 << 40,
        used_bytes: 0,
        agent: "test/1".into(),
        sent_at: now,
    }
}

pub(crate) fn stored(bytes: u64) -> EventKind {
    EventKind::Stored { manifest: ManifestSummary { version: 1, root: [7; 32], bytes, blocks: 1 } }
}

pub(crate) fn progress(bytes: u64, reason: Reason, next_attempt_ms: Option<i64>) -> EventKind {
    EventKind::Progress { blocks: bytes / 10, bytes, reason, attempts: 1, next_attempt_ms }
}
