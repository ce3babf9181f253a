//! The access log: what it tells of each request, and what it never does.

use std::{
    io,
    sync::{Arc, Mutex},
};

use pinfold_service::Settings;
use serde_json::{Value, json};
use tracing::{Level, subscriber::DefaultGuard};

use crate::{
    fake_node::FakeNode,
    server::{Backend, Server, cid, settings},
    socket::{exchange, running},
};

crate::on_both!(
    each_request_is_logged_with_its_account_and_id,
    neither_tokens_nor_queries_nor_bodies_are_ever_logged,
    what_nodes_ask_is_logged_at_debug,
    the_access_log_can_be_turned_off,
);

/// What this thread logs.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Logs until the guard is dropped. A test runs on one thread, with all of
    /// the service's tasks.
    pub(crate) fn start(level: Level) -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of the access log.
    fn requests(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["target"] == "pinfold::access").collect()
    }
}

/// A GET over a connection of its own; answers the whole response.
async fn get(address: std::net::SocketAddr, path: &str, token: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    exchange(address, &request).await
}

async fn each_request_is_logged_with_its_account_and_id(on: Backend) {
    let (server, service) = running(on, settings()).await;
    let (log, _guard) = Log::start(Level::INFO);
    let id = uuid::Uuid::now_v7();
    let answers = [
        (get(service.api_address(), &format!("/pins/{id}"), &server.token).await, "/pins/{requestid}", 404),
        (get(service.api_address(), "/pins?limit=1", &server.token).await, "/pins", 200),
        (get(service.api_address(), "/pins", "nonsense").await, "/pins", 401),
        (get(service.api_address(), "/nowhere/at/all", "").await, "none", 404),
    ];
    let logged = log.requests();
    assert_eq!(logged.len(), answers.len(), "{}", log.text());
    for (line, (answer, route, status)) in logged.iter().zip(&answers) {
        let head = answer.to_lowercase();
        let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        assert_eq!(line["method"], "GET");
        assert_eq!((&line["route"], &line["status"]), (&json!(route), &json!(status)));
        assert_eq!(line["request_id"], id, "as the client sees it");
        assert_eq!((&line["level"], &line["client"]), (&json!("INFO"), &json!("127.0.0.1")));
        assert!(line["ms"].as_f64().is_some_and(|ms| ms >= 0.0));
    }
    let accounts: Vec<_> = logged.iter().map(|line| line["account"].as_i64()).collect();
    assert_eq!(accounts, [Some(server.account.id), Some(server.account.id), None, None]);
    service.shutdown();
    service.join().await;
}

async fn neither_tokens_nor_queries_nor_bodies_are_ever_logged(on: Backend) {
    let (log, _guard) = Log::start(Level::TRACE);
    let server = Server::start(on).await;
    let body =
        json!({ "cid": cid(1), "name": "a-private-name", "meta": { "a-private-key": "a-private-value" } });
    let pin = server.pin(body).await;
    let requestid = pin["requestid"].as_str().unwrap();
    server.get("/pins?name=a-private-name&access_token=a-private-query").await;
    server.get(&format!("/pins/{requestid}?secret=a-private-query")).await;
    let made = server.post("/api/v1/tokens", &json!({ "name": "a-private-name" })).await.json();
    let made = made["token"].as_str().unwrap();
    let forged = format!("{}AAAAA", &server.token[..server.token.len() - 5]);
    let other = Server { token: forged.clone(), ..server };
    other.get("/pins").await.failure(401, "UNAUTHORIZED");
    let text = log.text();
    assert!(text.contains("pinfold::access") && text.contains("/pins/{requestid}"), "something is logged");
    for secret in ["a-private", requestid, made, forged.as_str()] {
        assert!(!text.contains(secret), "{secret} is in the log: {text}");
    }
    for token in [made, forged.as_str()] {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!text.contains(&signature[..20]), "a part of a token is in the log: {text}");
    }
}

async fn what_nodes_ask_is_logged_at_debug(on: Backend) {
    let server = Server::start(on).await;
    for (level, seen) in [(Level::INFO, false), (Level::DEBUG, true)] {
        let (log, _guard) = Log::start(level);
        FakeNode::join(&server).await.pull(0, Vec::new()).await;
        server.get("/healthz").await;
        let routes: Vec<_> = log.requests().iter().map(|line| line["route"].clone()).collect();
        assert!(routes.contains(&json!("/healthz")));
        assert_eq!(routes.contains(&json!("/node/v1/pull")), seen, "{level}: {routes:?}");
        assert_eq!(routes.iter().any(|route| route.as_str().unwrap().starts_with("/node/")), seen);
    }
}

async fn the_access_log_can_be_turned_off(on: Backend) {
    let server = Server::with(on, Settings { access_log: false, ..settings() }).await;
    let (log, _guard) = Log::start(Level::TRACE);
    server.get("/pins").await;
    assert_eq!(log.requests(), Vec::<Value>::new());
}
