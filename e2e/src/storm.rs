//! Requests by the hundred that end when the service dies under them, and a
//! book of what was acknowledged.
//!
//! Every pin that is asked for has a number of its own in its metadata, so
//! that of a request that got no answer one can tell what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use cid::{Cid, multihash::Multihash};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Answer, Api, EVERY_STATUS, PinStatus};

/// Code of raw blocks.
const RAW: u64 = 0x55;

/// Above this many pins of its own a worker removes more than it adds: few
/// enough that old roots lose all their pins, and are reclaimed.
const ENOUGH: usize = 12;

/// Roots that are asked for, of all: the newest.
const RECENT: usize = 4;

/// What is known of a request that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged: it exists.
    Held,
    /// Its removal was acknowledged: it exists no more.
    Gone,
    /// Its removal was sent, and the service died before it answered.
    Unknown,
    /// The same of its replacement, which has this number: one of the two
    /// exists.
    Replaced(String),
}

/// Requests by id: the CID asked for, and what became of it.
pub type Book = BTreeMap<String, (String, Fate)>;

/// What a storm may ask for.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Roots that the origin has, the newest last.
    pub roots: Vec<String>,
    /// Multiaddrs of the origin.
    pub origins: Vec<String>,
    /// Whether the service is asked to stop meanwhile, and may answer 503.
    pub stops: bool,
    /// Ends the storm although the service lives.
    pub over: Arc<AtomicBool>,
}

/// One client: sends one request after another until one gets no answer.
#[derive(Debug)]
pub struct Worker {
    api: Api,
    random: StdRng,
    /// What its requests are numbered with.
    name: String,
    sent: u64,
    /// Which account it is of.
    pub account: usize,
    /// Whether that account's quota is small enough to be met.
    may_be_refused: bool,
    /// What it was told so far.
    pub book: Book,
    /// Numbers of requests that got no answer in this storm.
    unanswered: BTreeSet<String>,
    /// Requests refused for the quota.
    pub refused: u64,
}

impl Worker {
    /// A client whose choices follow from `seed`.
    pub fn new(api: Api, account: usize, may_be_refused: bool, seed: u64) -> Self {
        Self {
            api,
            random: StdRng::seed_from_u64(seed),
            name: format!("{seed:016x}"),
            sent: 0,
            account,
            may_be_refused,
            book: Book::new(),
            unanswered: BTreeSet::new(),
            refused: 0,
        }
    }

    /// Storms until the service dies, or the storm is over.
    ///
    /// # Errors
    /// When the service answers what it should not.
    pub async fn run(&mut self, targets: &Targets) -> Result<()> {
        while !targets.over.load(Ordering::Relaxed) {
            let alive = match self.random.random_range(0..100) {
                0..20 => self.remove(targets).await?,
                20..35 => self.replace(targets).await?,
                _ if self.held().len() > ENOUGH => self.remove(targets).await?,
                _ => self.add(targets).await?,
            };
            if !alive {
                break;
            }
        }
        Ok(())
    }

    /// A pin to ask for, mostly of something that can be had, and its number.
    fn pin(&mut self, targets: &Targets) -> (String, Value) {
        self.sent += 1;
        let number = format!("{}-{}", self.name, self.sent);
        let meta = json!({ "number": number });
        let pin = match self.random.random_range(0..10) {
            0 => json!({ "cid": self.raw(0x00), "name": "inline", "meta": meta }),
            1 => {
                json!({ "cid": self.raw(0x12), "name": "nowhere", "origins": targets.origins, "meta": meta })
            }
            _ => {
                let root = self.root(targets);
                json!({ "cid": root, "name": "root", "origins": targets.origins, "meta": meta })
            }
        };
        (number, pin)
    }

    /// One of the newest roots, and the newest more often than the others.
    fn root(&mut self, targets: &Targets) -> String {
        let back = self.random.random_range(0..2 * RECENT).saturating_sub(RECENT);
        targets.roots[targets.roots.len().saturating_sub(back + 1)].clone()
    }

    /// A raw CID with a random digest.
    fn raw(&mut self, hash: u64) -> String {
        let digest: [u8; 32] = self.random.random();
        let hash = Multihash::wrap(hash, &digest).expect("32 bytes fit into a multihash");
        Cid::new_v1(RAW, hash).to_string()
    }

    async fn add(&mut self, targets: &Targets) -> Result<bool> {
        let (number, pin) = self.pin(targets);
        let Some(answer) = self.send(targets, Method::POST, "/pins", Some(pin.clone())).await else {
            self.unanswered.insert(number);
            return Ok(false);
        };
        self.note(&pin, &answer)?;
        Ok(true)
    }

    async fn replace(&mut self, targets: &Targets) -> Result<bool> {
        let Some(old) = self.pick() else { return self.add(targets).await };
        let (number, pin) = self.pin(targets);
        let path = format!("/pins/{old}");
        let Some(answer) = self.send(targets, Method::POST, &path, Some(pin.clone())).await else {
            self.set(&old, Fate::Replaced(number.clone()));
            self.unanswered.insert(number);
            return Ok(false);
        };
        if self.note(&pin, &answer)? {
            self.set(&old, Fate::Gone);
        }
        Ok(true)
    }

    async fn remove(&mut self, targets: &Targets) -> Result<bool> {
        let Some(id) = self.pick() else { return Ok(true) };
        self.set(&id, Fate::Unknown);
        let Some(answer) = self.send(targets, Method::DELETE, &format!("/pins/{id}"), None).await else {
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

    /// The answer; none where the service died, or says that it is about to.
    async fn send(
        &self,
        targets: &Targets,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<Answer> {
        let answer = self.api.send(method, path, body).await.ok()?;
        (!targets.stops || answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    }

    /// Whether the pin was accepted, rather than refused for the quota.
    fn note(&mut self, pin: &Value, answer: &Answer) -> Result<bool> {
        if self.may_be_refused && answer.status == StatusCode::CONFLICT {
            self.refused += 1;
            return Ok(false);
        }
        ensure!(answer.status == StatusCode::ACCEPTED, "POST answered {}: {}", answer.status, answer.body);
        let id = answer.body["requestid"].as_str().unwrap_or_default().to_owned();
        let cid = pin["cid"].as_str().unwrap_or_default().to_owned();
        ensure!(self.book.insert(id.clone(), (cid, Fate::Held)).is_none(), "{id} was given twice");
        Ok(true)
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

    /// Takes what is listed for what became of the requests without an answer.
    fn settle(&mut self, listed: &BTreeMap<String, PinStatus>) {
        for (id, (_, fate)) in &mut self.book {
            if matches!(fate, Fate::Unknown | Fate::Replaced(_)) {
                *fate = if listed.contains_key(id) { Fate::Held } else { Fate::Gone };
            }
        }
        for (id, pin) in listed {
            if number(pin).is_some_and(|number| self.unanswered.contains(number)) {
                self.book.insert(id.clone(), (pin.pin.cid.clone(), Fate::Held));
            }
        }
        self.unanswered.clear();
    }
}

fn number(pin: &PinStatus) -> Option<&String> {
    pin.pin.meta.as_ref().and_then(|meta| meta.get("number"))
}

/// Checks every entry of a book against what the service lists, and answers
/// that.
///
/// # Errors
/// Names the first request that is lost, that came back, or that is there
/// together with its replacement.
pub async fn compare(api: &Api, book: &Book) -> Result<BTreeMap<String, PinStatus>> {
    let pins = api.all(EVERY_STATUS, 1_000).await?;
    let numbers: BTreeSet<String> = pins.iter().filter_map(|pin| number(pin).cloned()).collect();
    let listed: BTreeMap<_, _> = pins.into_iter().map(|pin| (pin.requestid.clone(), pin)).collect();
    for (id, (cid, fate)) in book {
        let found = listed.get(id);
        match (fate, found) {
            (Fate::Held, None) => bail!("the acknowledged pin {id} of {cid} is lost"),
            (Fate::Gone, Some(_)) => {
                bail!("the pin {id} of {cid} is back after its removal was acknowledged")
            }
            (Fate::Replaced(number), found) if numbers.contains(number) == found.is_some() => {
                bail!("of {id} and the pin that replaces it, {number}, both or none exist")
            }
            _ => {}
        }
        let right = found.is_none_or(|found| found.pin.cid == *cid);
        ensure!(right, "{id} is of {found:?} instead of {cid}");
    }
    Ok(listed)
}

/// Checks the books of all clients of one account, lets them take what became
/// of the requests without an answer, and checks that nothing else is listed.
///
/// # Errors
/// As [`compare`]; or names a pin that nobody asked for.
pub async fn account_for(api: &Api, workers: &mut [&mut Worker]) -> Result<()> {
    let book: Book = workers.iter().flat_map(|worker| worker.book.clone()).collect();
    let listed = compare(api, &book).await?;
    for worker in workers.iter_mut() {
        worker.settle(&listed);
    }
    let stray = listed.iter().find(|(id, _)| !workers.iter().any(|worker| worker.book.contains_key(*id)));
    ensure!(stray.is_none(), "nobody asked for {stray:?}");
    Ok(())
}

/// All clients at once, until the service is dead for each or the storm over.
pub async fn storm(workers: &mut Vec<Worker>, targets: &Targets) -> Result<()> {
    let mut tasks = JoinSet::new();
    for mut worker in workers.drain(..) {
        let targets = targets.clone();
        tasks.spawn(async move { worker.run(&targets).await.map(|()| worker) });
    }
    while let Some(worker) = tasks.join_next().await {
        workers.push(worker.context("a client panicked")??);
    }
    Ok(())
}
