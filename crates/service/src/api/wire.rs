//! What the Pinning Service API answers: the specification's objects, apart
//! from the records they are made of.
//!
//! One value that is not a string in `info` or `meta`, a null list or a count
//! beyond 31 bits, and real clients drop the whole answer.

use std::collections::BTreeMap;

use pinfold_core::status::{self, Progress, Reason, Status};
use serde::Serialize;
use utoipa::ToSchema;

use super::{peers, time};
use crate::db::{Page, PinInfo, PinRecord};

/// A page of pins.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PinResults {
    /// How many pins match, those of later pages included.
    #[schema(value_type = i32, format = Int32, minimum = 0)]
    pub(crate) count: i32,
    /// The newest of them, newest first.
    #[schema(max_items = 1000)]
    pub(crate) results: Vec<PinStatus>,
}

/// A pin and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct PinStatus {
    /// Names this request to pin.
    pub(crate) requestid: String,
    /// Where it stands.
    #[schema(value_type = PinState)]
    pub(crate) status: Status,
    /// When it was accepted; unique within the account.
    #[schema(format = DateTime, example = "2026-01-02T03:04:05.678Z")]
    pub(crate) created: String,
    /// What was asked for.
    pub(crate) pin: Pin,
    /// Multiaddrs of the nodes that receive the data.
    #[schema(min_items = 1, max_items = 20)]
    pub(crate) delegates: Vec<String>,
    /// More about the status, all of it text.
    #[schema(required = false)]
    pub(crate) info: BTreeMap<&'static str, String>,
}

/// The states of a pin.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", as = Status)]
#[expect(dead_code, reason = "describes the domain's enum to OpenAPI")]
pub(crate) enum PinState {
    /// No node has begun.
    Queued,
    /// A node fetches or replicates.
    Pinning,
    /// Held durably.
    Pinned,
    /// Final, for the reason that `info` gives.
    Failed,
}

/// What was asked for, as it was submitted.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Pin {
    /// The CID in the version and base in which it was submitted.
    pub(crate) cid: String,
    /// The name, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255, nullable = false)]
    pub(crate) name: Option<String>,
    /// The origins that were given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 20, required = false)]
    pub(crate) origins: Vec<String>,
    /// The metadata that was given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub(crate) meta: BTreeMap<String, String>,
}

/// What the owner of a pin can do whose origins are in the owner's network.
const NOT_DIALLED: &str = "The origins it names are private addresses, which this service does not dial: pin it \
    again with public ones, or connect the node that has it to one of the delegates.";

/// The most delegates of a pin: each one that cannot be reached costs the
/// user of a client the time of a failed dial.
const MAX_DELEGATES: usize = 3;

impl PinStatus {
    /// A record as clients see it. `known_delegates` stands in where the
    /// record names none; `private` says whether private addresses are dialled.
    pub(crate) fn new(mut record: PinRecord, known_delegates: &[String], private: bool) -> Self {
        if !private
            && record.info.reason == Some(Reason::OriginUnreachable)
            && peers::are_private(&record.origins)
        {
            record.info.detail.get_or_insert_with(|| NOT_DIALLED.to_owned());
        }
        let info = info(record.status, &record.info);
        let mut delegates = record.delegates;
        if delegates.is_empty() {
            delegates = known_delegates.to_vec();
        }
        delegates.truncate(MAX_DELEGATES);
        Self {
            requestid: record.requestid.to_string(),
            status: record.status,
            created: time::format(record.created),
            pin: Pin { cid: record.cid, name: record.name, origins: record.origins, meta: record.meta },
            delegates,
            info,
        }
    }

    /// Whether nothing can change any more except by repair.
    pub(crate) fn is_final(&self) -> bool {
        match self.status {
            Status::Pinned | Status::Failed => true,
            Status::Queued | Status::Pinning => false,
        }
    }
}

impl PinResults {
    /// A page as clients see it.
    pub(crate) fn new(page: Page, known_delegates: &[String], private: bool) -> Self {
        let count = i32::try_from(page.count).unwrap_or(i32::MAX);
        let results = page.pins.into_iter().map(|pin| PinStatus::new(pin, known_delegates, private));
        let results = results.collect();
        Self { count, results }
    }
}

fn info(status: Status, facts: &PinInfo) -> BTreeMap<&'static str, String> {
    let next_attempt = facts.next_attempt.map(time::format);
    let mut info = BTreeMap::new();
    info.insert("status_details", details(status, facts, next_attempt.as_deref()));
    if let Some(reason) = facts.reason {
        info.insert("reason", reason.as_str().to_owned());
    }
    if facts.blocks > 0 {
        info.insert("blocks", facts.blocks.to_string());
        info.insert("bytes", facts.bytes.to_string());
    }
    if let Some(total) = facts.total_bytes {
        info.insert("total_bytes", total.to_string());
    }
    if facts.replicas_wanted > 0 {
        info.insert("replicas", format!("{}/{}", facts.replicas, facts.replicas_wanted));
    }
    if facts.attempts > 0 {
        info.insert("attempts", facts.attempts.to_string());
    }
    if let Some(next) = next_attempt {
        info.insert("next_attempt", next);
    }
    info
}

fn details(status: Status, facts: &PinInfo, next_attempt: Option<&str>) -> String {
    let progress = Progress {
        blocks: facts.blocks,
        bytes: facts.bytes,
        total_bytes: facts.total_bytes,
        replicas: facts.replicas,
        replicas_wanted: facts.replicas_wanted,
        attempts: facts.attempts,
        next_attempt,
        queued_ahead: facts.queued_ahead,
        quota: facts.quota,
        detail: facts.detail.as_deref(),
    };
    let sentence = status::sentence(status, facts.reason, &progress);
    match &facts.replaces {
        Some(old) => format!("{sentence} Until this is pinned, {old}, which it replaces, is kept."),
        None => sentence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: Status, info: PinInfo) -> PinRecord {
        PinRecord {
            requestid: uuid::Uuid::nil(),
            account: 1,
            content: 1,
            created: 0,
            cid: "bafkqaaa".to_owned(),
            name: None,
            meta: BTreeMap::new(),
            origins: Vec::new(),
            status,
            info,
            delegates: Vec::new(),
        }
    }

    #[test]
    fn what_is_empty_is_left_out_except_delegates() {
        let status = PinStatus::new(record(Status::Queued, PinInfo::default()), &[], true);
        let json = serde_json::to_value(status).unwrap();
        assert_eq!(json["pin"], serde_json::json!({ "cid": "bafkqaaa" }));
        assert_eq!(json["delegates"], serde_json::json!([]));
        assert_eq!(json["created"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn every_value_of_info_is_text() {
        let facts = PinInfo {
            reason: Some(Reason::NoProviders),
            detail: Some("A detail.".to_owned()),
            blocks: 2,
            bytes: 300,
            total_bytes: Some(400),
            replicas: 1,
            replicas_wanted: 2,
            attempts: 3,
            next_attempt: Some(1),
            replaces: Some("bafyold".to_owned()),
            queued_ahead: Some(4),
            quota: None,
        };
        let status = PinStatus::new(record(Status::Pinning, facts), &[], true);
        let json = serde_json::to_value(&status.info).unwrap();
        let pairs = json.as_object().unwrap();
        assert!(pairs.values().all(serde_json::Value::is_string), "{json}");
        assert_eq!(json["replicas"], "1/2");
        assert_eq!(json["next_attempt"], "1970-01-01T00:00:00.001Z");
        assert_eq!(json["reason"], "no_providers");
        assert!(json["status_details"].as_str().unwrap().contains("bafyold"));
    }

    #[test]
    fn three_delegates_and_those_known_where_there_are_none() {
        let known: Vec<String> = (0..5).map(|n| format!("/ip4/203.0.113.{n}/tcp/1/p2p/x")).collect();
        let mut pin = record(Status::Pinned, PinInfo::default());
        assert_eq!(PinStatus::new(pin.clone(), &known, true).delegates, known[..3]);
        pin.delegates = vec!["/own".to_owned()];
        assert_eq!(PinStatus::new(pin, &known, true).delegates, ["/own"]);
    }

    #[test]
    fn origins_that_are_not_dialled_are_told() {
        let told = |origins: &[&str], private| {
            let facts = PinInfo { reason: Some(Reason::OriginUnreachable), ..PinInfo::default() };
            let mut pin = record(Status::Pinning, facts);
            pin.origins = origins.iter().map(|&origin| origin.to_owned()).collect();
            PinStatus::new(pin, &[], private).info["status_details"].contains("private addresses")
        };
        let (home, world) = ("/ip4/192.168.1.2/tcp/4001", "/ip4/11.0.0.1/udp/4001/quic-v1");
        assert!(told(&[home, "/ip6/::1/tcp/1"], false));
        assert!(!told(&[home], true), "they are dialled");
        assert!(!told(&[home, world], false) && !told(&[], false));
        assert!(!told(&[home, "/dns4/a.example/tcp/1"], false), "nobody knows yet");
    }

    #[test]
    fn a_count_stays_within_31_bits() {
        let page = Page { count: u64::MAX, pins: Vec::new() };
        let json = serde_json::to_value(PinResults::new(page, &[], true)).unwrap();
        assert_eq!(json, serde_json::json!({ "count": i32::MAX, "results": [] }));
    }
}
