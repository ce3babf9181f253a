//! A service for tests: it speaks the node API over HTTP, checks every
//! signature, session and sequence, and misbehaves when it is told to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use pinfold_node_api::signature::{self, Context};
use pinfold_node_api::{
    AllocationId, Answer, Assignment, Denylist, ErrorBody, Event, EventKind, Hello, HelloAck, Inventory,
    InventoryAck, ManifestSummary, Pull, Pulled, Release, Report, ReportAck, path,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const SERVICE: &str = "test-service";

/// What is done with the answer to the next request of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is carried out, and the answer lost.
    LoseAnswer,
    /// The session is void from here on.
    OldSession,
    /// The request is refused, and not carried out.
    Refuse(&'static str),
}

#[derive(Default)]
struct Facts {
    session: i64,
    last_hello: i64,
    sequences: HashMap<(i64, &'static str), i64>,
    assignments: BTreeMap<AllocationId, Assignment>,
    releases: BTreeMap<AllocationId, Release>,
    denylist: Denylist,
    faults: HashMap<&'static str, VecDeque<Fault>>,
    requests: HashMap<&'static str, usize>,
    hellos: Vec<Hello>,
    events: Vec<Event>,
    held: Vec<AllocationId>,
    grants: HashMap<i64, Answer>,
}

/// See the module's description. Clones share it.
#[derive(Clone)]
pub struct FakeService {
    facts: Arc<Mutex<Facts>>,
    changed: Arc<Notify>,
    pub url: String,
    server: Arc<JoinHandle<()>>,
}

impl FakeService {
    /// Listens on a free port of the loopback interface.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (facts, changed) = (Arc::<Mutex<Facts>>::default(), Arc::<Notify>::default());
        let shared = (facts.clone(), changed.clone());
        let router = Router::new()
            .route(path::SERVICE, get(|| async { axum::Json(SERVICE) }))
            .route(path::HELLO, post(hello))
            .route(path::PULL, post(pull))
            .route(path::REPORT, post(report))
            .route(path::INVENTORY, post(inventory))
            .route(path::DENYLIST, post(denylist))
            .with_state(shared);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { facts, changed, url, server: Arc::new(server) }
    }

    pub fn stop(&self) {
        self.server.abort();
    }

    pub fn assign(&self, assignment: Assignment) {
        self.facts.lock().assignments.insert(assignment.allocation, assignment);
        self.changed.notify_waiters();
    }

    pub fn release(&self, allocation: AllocationId, root: &str) {
        self.facts.lock().releases.insert(allocation, Release { allocation, root: root.into() });
        self.changed.notify_waiters();
    }

    pub fn deny(&self, rules: String) {
        let mut facts = self.facts.lock();
        facts.denylist = Denylist { version: facts.denylist.version + 1, rules };
        drop(facts);
        self.changed.notify_waiters();
    }

    /// The answer to every grant that a content wants; without one, what it
    /// wants.
    pub fn answer_grants(&self, content: i64, answer: Answer) {
        self.facts.lock().grants.insert(content, answer);
    }

    pub fn fail(&self, path: &'static str, faults: &[Fault]) {
        self.facts.lock().faults.entry(path).or_default().extend(faults);
    }

    pub fn requests(&self, path: &'static str) -> usize {
        self.facts.lock().requests.get(path).copied().unwrap_or_default()
    }

    pub fn hellos(&self) -> Vec<Hello> {
        self.facts.lock().hellos.clone()
    }

    pub fn held(&self) -> Vec<AllocationId> {
        self.facts.lock().held.clone()
    }

    pub fn events(&self) -> Vec<Event> {
        self.facts.lock().events.clone()
    }

    /// Whether everything that was given out was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        let facts = self.facts.lock();
        facts.assignments.is_empty() && facts.releases.is_empty()
    }

    /// Waits until `found` finds something.
    pub async fn wait<T>(&self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        let look = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                match found(self) {
                    Some(found) => return found,
                    None => changed.await,
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), look).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not come; events: {:#?}", self.events()),
        }
    }

    /// Waits for an event of an allocation.
    pub async fn event<T>(
        &self,
        what: &str,
        allocation: AllocationId,
        found: impl Fn(&EventKind) -> Option<T>,
    ) -> T {
        let of = |service: &Self| {
            let events = service.events();
            events.iter().filter(|event| event.allocation == allocation).find_map(|event| found(&event.kind))
        };
        self.wait(what, of).await
    }

    pub async fn stored(&self, allocation: AllocationId) -> ManifestSummary {
        let stored = |kind: &EventKind| match kind {
            EventKind::Stored { manifest } => Some(*manifest),
            _ => None,
        };
        self.event("stored", allocation, stored).await
    }
}

type Shared = (Arc<Mutex<Facts>>, Arc<Notify>);

fn refuse(status: StatusCode, word: &str) -> Response {
    let body = ErrorBody { error: word.into(), details: "as the test wants it".into() };
    (status, axum::Json(body)).into_response()
}

impl Facts {
    /// Checks a request as a service must, and reads its body.
    fn check<T: DeserializeOwned>(
        &mut self,
        path: &'static str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<T, Response> {
        *self.requests.entry(path).or_default() += 1;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let number = |name: &str| header(name).parse().unwrap_or(-1);
        let (session, sequence) = (number(signature::SESSION_HEADER), number(signature::SEQUENCE_HEADER));
        let context = Context { service: SERVICE, path, session, sequence };
        let (node, sign) = (header(signature::NODE_HEADER), header(signature::SIGNATURE_HEADER));
        if signature::verify(node, sign, context, body).is_err() {
            return Err(refuse(StatusCode::UNAUTHORIZED, "bad_signature"));
        }
        if path == path::HELLO {
            if sequence <= self.last_hello || session != 0 {
                return Err(refuse(StatusCode::CONFLICT, "replayed"));
            }
        } else if session != self.session {
            return Err(refuse(StatusCode::CONFLICT, "old_session"));
        } else {
            let last = self.sequences.entry((session, path)).or_default();
            if sequence <= *last {
                return Err(refuse(StatusCode::CONFLICT, "replayed"));
            }
            *last = sequence;
        }
        match self.faults.get(path).and_then(|faults| faults.front().copied()) {
            Some(Fault::Refuse(word)) => {
                self.fault(path);
                return Err(refuse(StatusCode::CONFLICT, word));
            }
            Some(Fault::OldSession) => {
                self.fault(path);
                self.session += 1;
                return Err(refuse(StatusCode::CONFLICT, "old_session"));
            }
            Some(Fault::LoseAnswer) | None => {}
        }
        let empty: &[u8] = if body.is_empty() { b"null" } else { body };
        serde_json::from_slice(empty).map_err(|_| refuse(StatusCode::BAD_REQUEST, "malformed"))
    }

    fn fault(&mut self, path: &'static str) -> Option<Fault> {
        self.faults.get_mut(path).and_then(VecDeque::pop_front)
    }

    fn answer(&mut self, path: &'static str, answer: &impl Serialize) -> Response {
        match self.fault(path) {
            Some(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            None => axum::Json(answer).into_response(),
        }
    }
}

async fn hello(State((facts, changed)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut facts = facts.lock();
    let hello: Hello = match facts.check(path::HELLO, &headers, &body) {
        Ok(hello) => hello,
        Err(refused) => return refused,
    };
    facts.last_hello = hello.sent_at_ms;
    facts.hellos.push(hello);
    facts.session += 1;
    let ack = HelloAck {
        session: facts.session,
        database_generation: 1,
        heartbeat_ms: 1_000,
        allow_private_addresses: true,
    };
    changed.notify_waiters();
    facts.answer(path::HELLO, &ack)
}

async fn pull(State((facts, changed)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let pull: Pull = {
        let mut facts = facts.lock();
        let pull: Pull = match facts.check(path::PULL, &headers, &body) {
            Ok(pull) => pull,
            Err(refused) => return refused,
        };
        for id in &pull.acknowledged {
            facts.assignments.remove(id);
            facts.releases.remove(id);
        }
        changed.notify_waiters();
        pull
    };
    let deadline = tokio::time::Instant::now() + Duration::from_millis(pull.wait_ms.min(2_000));
    loop {
        let new = changed.notified();
        tokio::pin!(new);
        new.as_mut().enable();
        let pulled = {
            let facts = facts.lock();
            let is_new = facts.denylist.version != pull.denylist_version;
            let pulled = Pulled {
                assignments: facts.assignments.values().cloned().collect(),
                releases: facts.releases.values().cloned().collect(),
                denylist_version: facts.denylist.version,
            };
            (is_new || !pulled.assignments.is_empty() || !pulled.releases.is_empty()).then_some(pulled)
        };
        if let Some(pulled) = pulled {
            return facts.lock().answer(path::PULL, &pulled);
        }
        if tokio::time::timeout_at(deadline, new).await.is_err() {
            let mut facts = facts.lock();
            let pulled = Pulled { denylist_version: facts.denylist.version, ..Pulled::default() };
            return facts.answer(path::PULL, &pulled);
        }
    }
}

async fn report(State((facts, changed)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut facts = facts.lock();
    let report: Report = match facts.check(path::REPORT, &headers, &body) {
        Ok(report) => report,
        Err(refused) => return refused,
    };
    let answers = report.events.iter().map(|event| match event.kind {
        EventKind::WantGrant { bytes, .. } => {
            let fixed = facts.grants.get(&event.allocation.content).copied();
            fixed.unwrap_or(Answer::Granted { bytes })
        }
        _ => Answer::Noted,
    });
    let ack = ReportAck { answers: answers.collect() };
    facts.events.extend(report.events);
    changed.notify_waiters();
    facts.answer(path::REPORT, &ack)
}

async fn inventory(State((facts, changed)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut facts = facts.lock();
    let inventory: Inventory = match facts.check(path::INVENTORY, &headers, &body) {
        Ok(inventory) => inventory,
        Err(refused) => return refused,
    };
    facts.held = inventory.held;
    changed.notify_waiters();
    facts.answer(path::INVENTORY, &InventoryAck::default())
}

async fn denylist(State((facts, _)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut facts = facts.lock();
    if let Err(refused) = facts.check::<()>(path::DENYLIST, &headers, &body) {
        return refused;
    }
    let list = facts.denylist.clone();
    facts.answer(path::DENYLIST, &list)
}
