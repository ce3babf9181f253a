//! `kill -9` of `pinfold up` at random moments, in storms of requests and in
//! the middle of fetches. Whatever was acknowledged is there afterwards, and
//! nothing is `pinned` with a block missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use pinfold_e2e::{
    api::{Api, EVERY_STATUS},
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    process::peer,
    recount::recount,
    scenario::{FETCH, held},
    storm::{Book, Targets, Worker, compare},
    test_within,
    wait::eventually,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// How often `pinfold up` is killed, unless `PINFOLD_E2E_CRASH_ROUNDS` says
/// otherwise.
const ROUNDS: u32 = 50;

/// The longest that one round takes, with all that it checks.
const ROUND: Duration = Duration::from_secs(10);

/// The longest for what comes before and after the rounds.
const FRAME: Duration = Duration::from_secs(240);

/// Clients that storm at a time.
const CLIENTS: u64 = 6;

/// Roots that are reread after each kill, of those that are `pinned`.
const REREAD: usize = 4;

/// The start of every file, so that roots share blocks.
const SHARED: usize = 600_000;

fn rounds() -> u32 {
    env::var("PINFOLD_E2E_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

/// What a root's blocks are, by the origin's word.
#[derive(Debug)]
struct Truth {
    cids: BTreeSet<Cid>,
    bytes: u64,
}

struct Crash {
    pinfold: Pinfold,
    origin: Kubo,
    targets: Targets,
    truths: BTreeMap<String, Truth>,
    workers: Vec<Worker>,
    random: StdRng,
}

impl Crash {
    async fn begin(place: &Place) -> Result<Self> {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let targets = Targets { roots: Vec::new(), origins: origin.addresses().await? };
        let seed: u64 = rand::rng().random();
        println!("the seed of this run is {seed}");
        let api = pinfold.api()?;
        let workers = (0..CLIENTS).map(|client| Worker::new(api.clone(), seed ^ client)).collect();
        let random = StdRng::seed_from_u64(seed);
        Ok(Self { pinfold, origin, targets, truths: BTreeMap::new(), workers, random })
    }

    /// New content at the origin, so that every round has something to fetch.
    async fn grow(&mut self) -> Result<()> {
        let mut file = data::bytes(0, SHARED);
        let length = self.random.random_range(100_000..3_000_000);
        file.extend(data::bytes(self.random.random(), length));
        let root = self.origin.add(&file, &[]).await?;
        let car = pinfold_e2e::scenario::served(&self.origin.gateway, &format!("{root}?format=car")).await?;
        let blocks = pinfold_e2e::car::read(&car)?;
        let bytes = blocks.values().map(|block| block.len() as u64).sum();
        self.truths.insert(root.clone(), Truth { cids: blocks.into_keys().collect(), bytes });
        self.targets.roots.push(root);
        Ok(())
    }

    async fn round(&mut self) -> Result<()> {
        self.grow().await?;
        let pause = Duration::from_millis(self.random.random_range(5..700));
        let pinfold = &mut self.pinfold;
        let storm = storm(&mut self.workers, &self.targets);
        let kill = async {
            // The moment itself is what is random here.
            tokio::time::sleep(pause).await;
            pinfold.kill().await
        };
        let (stormed, killed) = tokio::join!(storm, kill);
        stormed.and(killed)?;
        self.pinfold.start().await?;
        compare(&self.pinfold.api()?, &self.book()).await?;
        self.reread(REREAD).await
    }

    fn book(&self) -> Book {
        self.workers.iter().flat_map(|worker| worker.book.clone()).collect()
    }

    /// Rereads some of the roots that are `pinned`, block by block.
    async fn reread(&mut self, most: usize) -> Result<()> {
        let mut roots = pinned(&self.pinfold.api()?).await?;
        roots.retain(|root| self.truths.contains_key(root));
        while roots.len() > most {
            roots.swap_remove(self.random.random_range(0..roots.len()));
        }
        for root in roots {
            let found = held(&self.pinfold, &root).await?;
            ensure!(found == self.truths[&root].cids, "{root} is pinned with {} blocks", found.len());
        }
        Ok(())
    }

    /// What can be fetched is pinned in the end, and every count is right.
    async fn end(mut self, place: &Place) -> Result<()> {
        let api = self.pinfold.api()?;
        let truths = &self.truths;
        eventually("everything that can be had to be pinned", FETCH * 2, async || {
            let waiting = api.all("status=queued,pinning", 1_000).await?;
            let waiting: Vec<_> = waiting.iter().filter(|pin| truths.contains_key(&pin.pin.cid)).collect();
            ensure!(waiting.is_empty(), "{} wait, such as {:?}", waiting.len(), waiting[0]);
            Ok(Some(()))
        })
        .await?;
        let failed = api.list("status=failed").await?;
        ensure!(failed.count == 0, "{} pins failed, such as {:?}", failed.count, failed.results[0]);
        self.reread(usize::MAX).await?;
        compare(&api, &self.book()).await?;
        self.pinfold.stop().await?;
        let sizes = self.truths.iter().map(|(root, truth)| (root.clone(), truth.bytes)).collect();
        recount(self.pinfold.data(), &sizes)?;
        notices(place, self.pinfold.data(), &sizes)?;
        self.pinfold.run(&["check", "--blocks"]).await?.success("pinfold check")?;
        Ok(())
    }
}

/// All clients at once, until the service is dead for each.
async fn storm(workers: &mut Vec<Worker>, targets: &Targets) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for mut worker in workers.drain(..) {
        let targets = targets.clone();
        tasks.spawn(async move { worker.run(&targets).await.map(|()| worker) });
    }
    while let Some(worker) = tasks.join_next().await {
        workers.push(worker.context("a client panicked")??);
    }
    Ok(())
}

/// Makes one mistake after another in a copy of the books: the recount has to
/// notice each, or its silence above says nothing.
fn notices(place: &Place, data: &Path, sizes: &BTreeMap<String, u64>) -> Result<()> {
    let mistakes = [
        "UPDATE tally SET pinned = pinned + 1 WHERE level = 1",
        "DELETE FROM pin WHERE requestid IN (SELECT requestid FROM pin WHERE status = 2 LIMIT 1)",
        "UPDATE account SET used = used + 1",
        "UPDATE account SET reserved = reserved + 1",
        "UPDATE content SET bytes = bytes + 1 WHERE state = 2",
        "UPDATE content SET state = 1 WHERE state = 2",
        "UPDATE holding SET pins = pins + 1",
    ];
    for (number, mistake) in mistakes.iter().enumerate() {
        let copy = place.folder(&format!("mistake-{number}"))?;
        std::fs::copy(data.join("pinfold.db"), copy.join("pinfold.db"))?;
        let books = rusqlite::Connection::open(copy.join("pinfold.db"))?;
        books.execute_batch("PRAGMA foreign_keys = OFF")?;
        ensure!(books.execute(mistake, [])? > 0, "`{mistake}` changed nothing");
        drop(books);
        ensure!(recount(&copy, sizes).is_err(), "the recount does not notice `{mistake}`");
    }
    Ok(())
}

async fn pinned(api: &Api) -> Result<Vec<String>> {
    let pins = api.all("status=pinned", 1_000).await?;
    Ok(pins.into_iter().map(|pin| pin.pin.cid).collect::<BTreeSet<_>>().into_iter().collect())
}

#[test]
fn nothing_acknowledged_is_lost_when_it_is_killed_at_any_moment() {
    test_within(FRAME + ROUND * rounds(), async |place| {
        peer("PINFOLD_BIN")?;
        let mut crash = Crash::begin(place).await?;
        for round in 0..rounds() {
            crash.round().await.with_context(|| format!("in round {round}"))?;
        }
        crash.end(place).await
    });
}

#[test]
fn a_large_fetch_goes_on_where_it_was_killed() {
    test_within(FRAME, async |place| {
        let mut pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let root = origin.add(&data::bytes(9, 120_000_000), &[]).await?;
        let api = pinfold.api()?;
        let pin = api.add(serde_json::json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        let mut last = 0;
        for _ in 0..3 {
            eventually("the fetch to move on", FETCH, async || {
                let pin = api.get(&pin.requestid).await?;
                let bytes: u64 = pin.info.get("bytes").map_or(Ok(0), |bytes| bytes.parse())?;
                ensure!(bytes > last || pin.status == "pinned", "it stands at {bytes}");
                last = bytes;
                Ok(Some(()))
            })
            .await?;
            pinfold.kill().await?;
            pinfold.start().await?;
        }
        api.until(&pin.requestid, "pinned", FETCH).await?;
        ensure!(api.list(EVERY_STATUS).await?.count == 1);
        let blocks = held(&pinfold, &root).await?.len();
        ensure!(blocks == origin.dag(&root).await?.len(), "{blocks} blocks are held");
        Ok(())
    });
}
