//! What is noted of one content, and what an assignment or a release makes of
//! it.

use pinfold_core::content::{self, ContentKey};
use pinfold_core::status::Reason;
use pinfold_node_api::{AllocationId, Assignment, MAX_ORIGINS, PeerHint, Release};
use serde::{Deserialize, Serialize};

/// Addresses that are kept of another node.
const MAX_PEER_ADDRESSES: usize = 20;
/// Other nodes that are kept of one content.
const MAX_PEERS: usize = 8;
/// The longest address that is kept: a multiaddr with a relay, a certificate
/// hash and a name is shorter.
const MAX_ADDRESS: usize = 1_024;

/// Where a content stands on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    /// To be fetched.
    Open,
    /// It was held, and a block of it is gone: to be walked again.
    Lost,
    /// Held; whether the service knows is told by `open`.
    Held,
    /// It can never succeed; the service is to be told.
    Failed { reason: Reason, detail: String },
    /// To be let go.
    Releasing,
    /// The service does not know this allocation: nothing is done about it,
    /// and nothing deleted, until a release or a new assignment comes.
    Stopped,
}

/// A content assigned to this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) content: i64,
    pub(crate) generation: i64,
    pub(crate) root: String,
    pub(crate) origins: Vec<String>,
    pub(crate) peers: Vec<PeerHint>,
    pub(crate) fairness: i64,
    pub(crate) granted_bytes: u64,
    pub(crate) repair: bool,
    /// The version of the denylist that its blocks were compared under, and
    /// what was found, once the service has noted that. Forgotten with each
    /// time that it is stored.
    #[serde(default)]
    pub(crate) compared: i64,
    #[serde(default)]
    pub(crate) denied: bool,
    #[serde(flatten)]
    pub(crate) state: State,
}

impl Record {
    pub(crate) fn allocation(&self) -> AllocationId {
        AllocationId { content: self.content, generation: self.generation }
    }

    /// The root, none where the service sent a text that is not a CID.
    pub(crate) fn key(&self) -> Option<ContentKey> {
        content::parse(&self.root).ok().map(|cid| ContentKey::of(&cid))
    }

    /// Whether something is left to do or to report.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Stopped)
    }
}

/// The record that an assignment leaves, none if a newer one is known.
pub(super) fn assigned(new: Assignment, known: Option<Record>) -> Option<Record> {
    let AllocationId { content, generation } = new.allocation;
    let same = known.as_ref().filter(|known| known.generation == generation);
    let (compared, denied) = same.map_or((0, false), |known| (known.compared, known.denied));
    let state = match known {
        Some(known) if known.generation > generation => return None,
        // A root that lost blocks stays so until it is whole again; what
        // failed under this generation has failed.
        Some(Record { state: State::Lost, .. }) => State::Lost,
        Some(known) if known.generation == generation && known.state != State::Stopped => known.state,
        _ => State::Open,
    };
    let mut origins = new.origins;
    origins.retain(|origin| origin.len() <= MAX_ADDRESS);
    origins.truncate(MAX_ORIGINS);
    let mut peers = new.peers;
    peers.truncate(MAX_PEERS);
    for peer in &mut peers {
        peer.addresses.retain(|address| address.len() <= MAX_ADDRESS);
        peer.addresses.truncate(MAX_PEER_ADDRESSES);
    }
    let Assignment { root, fairness, granted_bytes, repair, .. } = new;
    Some(Record {
        content,
        generation,
        root,
        origins,
        peers,
        fairness,
        granted_bytes,
        repair,
        compared,
        denied,
        state,
    })
}

/// The record that a release leaves. One of an older generation than is known
/// leaves none: the content has been assigned anew.
pub(super) fn released(release: &Release, known: Option<Record>) -> Option<Record> {
    let AllocationId { content, generation } = release.allocation;
    match known {
        Some(known) if known.generation > generation => None,
        Some(known) => Some(Record { generation, state: State::Releasing, ..known }),
        None => Some(Record {
            content,
            generation,
            root: release.root.clone(),
            origins: Vec::new(),
            peers: Vec::new(),
            fairness: 0,
            granted_bytes: 0,
            repair: false,
            compared: 0,
            denied: false,
            state: State::Releasing,
        }),
    }
}
