//! Requests by the hundred that end when the service dies under them, and a
//! book of what was acknowledged.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use cid::{Cid, multihash::Multihash};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{Answer, Api};

/// Code of raw blocks.
const RAW: u64 = 0x55;

/// Above this many pins of its own a worker removes more than it adds: at
/// most 1,000 pins of one root are allowed in an account.
const ENOUGH: usize = 120;

/// What is known of a request that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged: it exists.
    Held,
    /// Its removal was acknowledged: it exists no more.
    Gone,
    /// Its removal was sent, and the service died before it answered.
    Unknown,
}

/// Requests by id: the CID asked for, and what became of it.
pub type Book = BTreeMap<String, (String, Fate)>;

/// What a storm may ask for.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Roots that the origin has.
    pub roots: Vec<String>,
    /// Multiaddrs of the origin.
    pub origins: Vec<String>,
}

/// One client: sends one request after another until one gets no answer.
#[derive(Debug)]
pub struct Worker {
    api: Api,
    random: StdRng,
    /// What it was told so far.
    pub book: Book,
}

impl Worker {
    /// A client whose choices follow from `seed`.
    pub fn new(api: Api, seed: u64) -> Self {
        Self { api, random: StdRng::seed_from_u64(seed), book: Book::new() }
    }

    /// Storms until the service dies.
    ///
    /// # Errors
    /// When the service answers what it should not.
    pub async fn run(&mut self, targets: &Targets) -> Result<()> {
        loop {
            let alive = match self.random.random_range(0..100) {
                0..20 => self.remove().await?,
                20..35 => self.replace(targets).await?,
                _ if self.held().len() > ENOUGH => self.remove().await?,
                _ => self.add(targets).await?,
            };
            if !alive {
                return Ok(());
            }
        }
    }

    /// A pin to ask for: mostly of something that can be had.
    fn pin(&mut self, targets: &Targets) -> Value {
        match self.random.random_range(0..10) {
            0 => json!({ "cid": self.raw(0x00), "name": "inline" }),
            1 => json!({ "cid": self.raw(0x12), "name": "nowhere", "origins": targets.origins }),
            _ => {
                let root = &targets.roots[self.random.random_range(0..targets.roots.len())];
                json!({ "cid": root, "name": "root", "origins": targets.origins })
            }
        }
    }

    /// A raw CID with a random digest.
    fn raw(&mut self, hash: u64) -> String {
        let digest: [u8; 32] = self.random.random();
        let hash = Multihash::wrap(hash, &digest).expect("32 bytes fit into a multihash");
        Cid::new_v1(RAW, hash).to_string()
    }

    async fn add(&mut self, targets: &Targets) -> Result<bool> {
        let pin = self.pin(targets);
        let Ok(answer) = self.api.send(Method::POST, "/pins", Some(pin.clone())).await else {
            return Ok(false);
        };
        self.note(&pin, &answer)?;
        Ok(true)
    }

    async fn replace(&mut self, targets: &Targets) -> Result<bool> {
        let Some(old) = self.pick() else { return self.add(targets).await };
        let pin = self.pin(targets);
        self.set(&old, Fate::Unknown);
        let path = format!("/pins/{old}");
        let Ok(answer) = self.api.send(Method::POST, &path, Some(pin.clone())).await else {
            return Ok(false);
        };
        self.note(&pin, &answer)?;
        self.set(&old, Fate::Gone);
        Ok(true)
    }

    async fn remove(&mut self) -> Result<bool> {
        let Some(id) = self.pick() else { return Ok(true) };
        self.set(&id, Fate::Unknown);
        let Ok(answer) = self.api.send(Method::DELETE, &format!("/pins/{id}"), None).await else {
            return Ok(false);
        };
        ensure!(
            answer.status == StatusCode::ACCEPTED,
            "DELETE of {id} answered {}: {}",
            answer.status,
            answer.body
        );
        self.set(&id, Fate::Gone);
        Ok(true)
    }

    fn note(&mut self, pin: &Value, answer: &Answer) -> Result<()> {
        ensure!(answer.status == StatusCode::ACCEPTED, "POST answered {}: {}", answer.status, answer.body);
        let id = answer.body["requestid"].as_str().unwrap_or_default().to_owned();
        let cid = pin["cid"].as_str().unwrap_or_default().to_owned();
        ensure!(self.book.insert(id.clone(), (cid, Fate::Held)).is_none(), "{id} was given twice");
        Ok(())
    }

    fn set(&mut self, id: &str, fate: Fate) {
        if let Some(entry) = self.book.get_mut(id) {
            entry.1 = fate;
        }
    }

    fn held(&self) -> Vec<&String> {
        self.book.iter().filter(|(_, (_, fate))| *fate == Fate::Held).map(|(id, _)| id).collect()
    }

    fn pick(&mut self) -> Option<String> {
        let at: usize = self.random.random_range(0..usize::MAX);
        let held = self.held();
        (!held.is_empty()).then(|| held[at % held.len()].clone())
    }
}

/// Checks every entry of a book against what the service lists.
///
/// # Errors
/// Names the first request that is lost, or that came back.
pub async fn compare(api: &Api, book: &Book) -> Result<()> {
    let pins = api.all(crate::api::EVERY_STATUS, 1_000).await?;
    let listed: BTreeMap<_, _> = pins.into_iter().map(|pin| (pin.requestid, pin.pin.cid)).collect();
    for (id, (cid, fate)) in book {
        match (fate, listed.get(id)) {
            (Fate::Held, None) => anyhow::bail!("the acknowledged pin {id} of {cid} is lost"),
            (Fate::Gone, Some(_)) => {
                anyhow::bail!("the pin {id} of {cid} is back after its removal was acknowledged")
            }
            (_, Some(found)) => ensure!(found == cid, "{id} is of {found} instead of {cid}"),
            (_, None) => {}
        }
    }
    Ok(())
}
