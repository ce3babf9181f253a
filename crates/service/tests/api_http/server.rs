//! A service under test, on either database, and what it answers.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use pinfold_service::{
    Settings,
    api::service::router,
    db::{self, Account, Database, Location, Scope},
    tokens::{self, Keyring, Secret, TokenRequest},
};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) const ALL: &str = "queued,pinning,pinned,failed";

/// A CID of a raw block that nobody has, one for each number.
pub(crate) fn cid(number: u64) -> String {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    let hash = cid::multihash::Multihash::<64>::wrap(0x12, &digest).unwrap();
    cid::Cid::new_v1(0x55, hash).to_string()
}

/// The database that a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// The place of a new, empty database.
    async fn location(self, folder: &TempDir) -> Location {
        match self {
            Self::Sqlite => Location::Sqlite(folder.path().join("service.db")),
            Self::Postgres => Location::Postgres(crate::cluster::new_database().await),
        }
    }
}

pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) database: Database,
    pub(crate) keyring: Keyring,
    pub(crate) account: Account,
    pub(crate) token: String,
    pub(crate) folder: TempDir,
    pub(crate) location: Location,
}

pub(crate) fn settings() -> Settings {
    Settings {
        rate_limits: None,
        operator_nodes: vec![crate::fake_node::key().verifying_key().to_bytes()],
        ..Settings::new("127.0.0.1:0".parse().unwrap())
    }
}

/// A clock for the database that a test sets, in milliseconds since 1970;
/// it stands at the true time until then.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(jiff::Timestamp::now().as_millisecond())))
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn drive(&self, settings: &mut db::Settings) {
        let own = Arc::clone(&self.0);
        settings.clock = Some(Arc::new(move || own.load(Ordering::SeqCst)));
    }
}

impl Server {
    /// With an account, a token for it, and a node that has said hello.
    pub(crate) async fn start(on: Backend) -> Self {
        Self::with(on, settings()).await
    }

    pub(crate) async fn with(on: Backend, settings: Settings) -> Self {
        let server = Self::without_nodes(on, settings).await;
        crate::fake_node::FakeNode::join(&server).await;
        server
    }

    pub(crate) async fn without_nodes(on: Backend, settings: Settings) -> Self {
        Self::opened(on, settings, |_| ()).await
    }

    /// Without nodes, on a database whose settings the test changes.
    pub(crate) async fn opened(
        on: Backend,
        settings: Settings,
        change: impl FnOnce(&mut db::Settings),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = on.location(&folder).await;
        let mut opening = db::Settings {
            replicas_min: 1,
            replicas_target: 1,
            pool: 4,
            ..db::Settings::new(location.clone())
        };
        change(&mut opening);
        let database = Database::open(opening).await.unwrap();
        let keyring = Keyring::open(database.clone(), Secret::from_bytes(&[1; 32])).await.unwrap();
        let account = database.create_account("alice", None).await.unwrap();
        let router = router(&settings, database.clone(), keyring.clone()).await.unwrap();
        let mut server = Self { router, database, keyring, account, token: String::new(), folder, location };
        server.token = server.token_for(server.account.id, &[Scope::PinsRead, Scope::PinsWrite]).await;
        server
    }

    /// Another handle on the same data, as another process has one.
    pub(crate) async fn another_database(&self) -> Database {
        self.another_database_with(|_| ()).await
    }

    pub(crate) async fn another_database_with(&self, change: impl FnOnce(&mut db::Settings)) -> Database {
        let mut settings = db::Settings {
            replicas_min: 1,
            replicas_target: 1,
            pool: 4,
            ..db::Settings::new(self.location.clone())
        };
        change(&mut settings);
        Database::open(settings).await.unwrap()
    }

    pub(crate) async fn token_for(&self, account: i64, scopes: &[Scope]) -> String {
        let request =
            TokenRequest { account, name: "test".to_owned(), scopes: scopes.to_vec(), expires: None };
        tokens::issue(&self.database, &self.keyring, request, "test").await.unwrap().text
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        answer(self.router.clone(), request).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(body.into())
            .unwrap();
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Body::empty()).await
    }

    /// Pins, which must be accepted, and gives the `PinStatus`.
    pub(crate) async fn pin(&self, body: Value) -> Value {
        let answer = self.post("/pins", &body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer.json()
    }

    /// The pins of a list, which must be answered.
    pub(crate) async fn list(&self, query: &str) -> (i64, Vec<Value>) {
        let answer = self.get(&format!("/pins?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {answer:?}");
        let page = answer.json();
        (page["count"].as_i64().unwrap(), page["results"].as_array().unwrap().clone())
    }

    /// The CIDs of a list, newest first.
    pub(crate) async fn cids(&self, query: &str) -> Vec<String> {
        let (_, pins) = self.list(query).await;
        pins.iter().map(|pin| pin["pin"]["cid"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) async fn answer(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// Asserts that this is an error of the specification's shape, and gives
    /// its details.
    #[track_caller]
    pub(crate) fn failure(&self, status: u16, reason: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("access-control-allow-origin"), "*");
        let error = &self.json()["error"];
        assert_eq!(error["reason"], reason, "{self:?}");
        let request = format!(" (request {})", self.header("x-request-id"));
        let details = error["details"].as_str().unwrap().strip_suffix(&request);
        details.unwrap_or_else(|| panic!("no request id: {self:?}")).to_owned()
    }
}
