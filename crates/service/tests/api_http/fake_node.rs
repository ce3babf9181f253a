//! A node that speaks the node API, and stores what it is told to at once.

use axum::{
    Router,
    body::Body,
    http::{Method, Request},
};
use ed25519_dalek::SigningKey;
use pinfold_core::status::Reason;
use pinfold_node_api::{
    AllocationId, Assignment, Event, EventKind, Hello, HelloAck, ManifestSummary, Pull, Pulled, Report,
    ReportAck, VERSION, path,
    signature::{self, Context, NODE_HEADER, SEQUENCE_HEADER, SESSION_HEADER, SIGNATURE_HEADER},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::server::{Answer, Server, answer};

/// The key of the operator's node in every test.
pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

/// The multiaddr of a node with this key.
pub(crate) fn address(key: &SigningKey) -> String {
    let protobuf = [&[0x08, 0x01, 0x12, 0x20][..], key.verifying_key().as_bytes()].concat();
    let hash = cid::multihash::Multihash::<64>::wrap(0, &protobuf).unwrap();
    let id = cid::multibase::Base::Base58Btc.encode(hash.to_bytes());
    format!("/ip4/127.0.0.1/tcp/4071/p2p/{id}")
}

pub(crate) struct FakeNode {
    router: Router,
    pub(crate) service: String,
    pub(crate) key: SigningKey,
    pub(crate) session: i64,
    sequence: i64,
}

pub(crate) fn hello(key: &SigningKey, sent_at_ms: i64) -> Hello {
    Hello {
        version: VERSION,
        sent_at_ms,
        addresses: vec![address(key)],
        gateway: Some("http://127.0.0.1:8071".to_owned()),
        capacity_bytes: 1 << 40,
        used_bytes: 0,
        agent: "fake/1".to_owned(),
    }
}

impl FakeNode {
    pub(crate) async fn connect(router: Router, key: SigningKey) -> Self {
        let request = Request::get(path::SERVICE).body(Body::empty()).unwrap();
        let service = answer(router.clone(), request).await;
        let service = serde_json::from_str(&service.body).unwrap();
        Self { router, service, key, session: 0, sequence: 0 }
    }

    /// Says hello, once a process: the clock tells it from earlier ones.
    pub(crate) async fn join(server: &Server) -> Self {
        let mut node = Self::connect(server.router.clone(), key()).await;
        node.hello().await;
        node
    }

    pub(crate) async fn hello(&mut self) -> HelloAck {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        self.sequence = (self.sequence + 1).max(i64::try_from(now.as_millis()).unwrap());
        let hello = hello(&self.key, self.sequence);
        self.session = 0;
        let sent = self.request(path::HELLO, self.sequence, &hello).await;
        assert_eq!(sent.status.as_u16(), 200, "{sent:?}");
        let ack: HelloAck = serde_json::from_str(&sent.body).unwrap();
        self.session = ack.session;
        ack
    }

    /// Sends a message with this sequence.
    pub(crate) async fn request<T: Serialize>(&self, path: &str, sequence: i64, message: &T) -> Answer {
        let body = serde_json::to_vec(message).unwrap();
        let context = Context { service: &self.service, path, session: self.session, sequence };
        let signature = signature::sign(&self.key, context, &body);
        self.raw(path, sequence, body, signature).await
    }

    pub(crate) async fn raw(&self, path: &str, sequence: i64, body: Vec<u8>, signature: String) -> Answer {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(NODE_HEADER, signature::encode_key(&self.key.verifying_key()))
            .header(SESSION_HEADER, self.session.to_string())
            .header(SEQUENCE_HEADER, sequence.to_string())
            .header(SIGNATURE_HEADER, signature)
            .body(Body::from(body))
            .unwrap();
        answer(self.router.clone(), request).await
    }

    pub(crate) async fn send<T: Serialize, A: DeserializeOwned>(&mut self, path: &str, message: &T) -> A {
        self.sequence += 1;
        let answer = self.request(path, self.sequence, message).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    pub(crate) async fn pull(&mut self, wait_ms: u64, acknowledged: Vec<AllocationId>) -> Pulled {
        self.send(path::PULL, &Pull { acknowledged, denylist_version: 0, wait_ms }).await
    }

    pub(crate) async fn report(&mut self, events: Vec<Event>) -> ReportAck {
        self.send(path::REPORT, &Report { events, used_bytes: 0, capacity_bytes: 1 << 40 }).await
    }

    /// Takes all work and acknowledges it.
    pub(crate) async fn take(&mut self) -> Vec<Assignment> {
        let pulled = self.pull(0, Vec::new()).await;
        let taken = pulled.assignments.iter().map(|assignment| assignment.allocation);
        let let_go = pulled.releases.iter().map(|release| release.allocation);
        let acknowledged: Vec<AllocationId> = taken.chain(let_go).collect();
        self.pull(0, acknowledged).await;
        pulled.assignments
    }

    pub(crate) async fn progress(&mut self, allocation: AllocationId, bytes: u64) {
        let kind = EventKind::Progress {
            blocks: bytes / 1_000,
            bytes,
            reason: Reason::Retrieving,
            attempts: 1,
            next_attempt_ms: None,
        };
        self.report(vec![Event { allocation, kind }]).await;
    }

    pub(crate) async fn stored(&mut self, allocation: AllocationId, bytes: u64) {
        self.report(vec![Event { allocation, kind: EventKind::WantGrant { bytes, least: bytes } }]).await;
        let manifest = ManifestSummary { version: 1, root: [1; 32], bytes, blocks: 1 };
        self.report(vec![Event { allocation, kind: EventKind::Stored { manifest } }]).await;
    }

    /// Takes all work and stores it, each content with so many bytes.
    pub(crate) async fn store_all(&mut self, bytes: u64) {
        for assignment in self.take().await {
            self.stored(assignment.allocation, bytes).await;
        }
    }
}
