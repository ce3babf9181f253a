//! `kill -9` of `pinfold up` at random moments, in storms of requests and in
//! the middle of fetches. Whatever was acknowledged is there afterwards, and
//! nothing is `pinned` with a block missing.
//!
//! The same on both databases: the tables of a PostgreSQL are copied out for
//! the recount.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    api::Api,
    car, data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    postgres::Postgres,
    recount::{FILE, recount},
    scenario::{FETCH, held, served},
    storm::{Book, Targets, Worker, compare},
    test_within,
    wait::eventually,
};

/// How often `pinfold up` is killed, where it is not what a test says.
const ROUNDS: &str = "PINFOLD_E2E_CRASH_ROUNDS";

/// The longest that one round takes, with all that it checks.
const ROUND: Duration = Duration::from_secs(10);

/// The longest for what comes before and after the rounds.
pub const FRAME: Duration = Duration::from_secs(240);

/// Clients that storm at a time.
const CLIENTS: u64 = 6;

/// Roots that are reread after each kill, of those that are `pinned`.
const REREAD: usize = 4;

/// The start of every file, so that roots share blocks.
const SHARED: usize = 600_000;

/// Kills `pinfold up` so many times, or as often as `cargo xtask faults` says,
/// and checks everything after each.
pub fn kill_at_any_moment(rounds: u32, database: Kind) {
    let rounds = env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(rounds);
    test_within(FRAME + ROUND * rounds, async |place| {
        let mut crash = Crash::begin(place, database).await?;
        for round in 0..rounds {
            crash.round().await.with_context(|| format!("in round {round}"))?;
        }
        crash.end(place).await
    });
}

/// Where the service keeps its books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In its data folder.
    Sqlite,
    /// In a server of the test's own.
    Postgres,
}

/// What a root's blocks are, by the origin's word.
#[derive(Debug)]
struct Truth {
    cids: BTreeSet<Cid>,
    bytes: u64,
}

struct Crash {
    /// None with SQLite.
    server: Option<Postgres>,
    pinfold: Pinfold,
    origin: Kubo,
    targets: Targets,
    truths: BTreeMap<String, Truth>,
    workers: Vec<Worker>,
    random: StdRng,
}

impl Crash {
    async fn begin(place: &Place, database: Kind) -> Result<Self> {
        let server = match database {
            Kind::Sqlite => None,
            Kind::Postgres => Some(Postgres::start(place, "database").await?),
        };
        let url = server.as_ref().map(Postgres::url);
        let further: Vec<&str> = url.iter().flat_map(|url| ["--database", url]).collect();
        let pinfold = Pinfold::up(place, "pinfold", &further).await?;
        let origin = Kubo::start(place, "origin").await?;
        let targets = Targets { roots: Vec::new(), origins: origin.addresses().await? };
        let seed: u64 = rand::rng().random();
        println!("the seed of this run is {seed}");
        let api = pinfold.api()?;
        let workers = (0..CLIENTS).map(|client| Worker::new(api.clone(), seed ^ client)).collect();
        let random = StdRng::seed_from_u64(seed);
        Ok(Self { server, pinfold, origin, targets, truths: BTreeMap::new(), workers, random })
    }

    /// New content at the origin, so that every round has something to fetch.
    async fn grow(&mut self) -> Result<()> {
        let mut file = data::bytes(0, SHARED);
        let length = self.random.random_range(100_000..3_000_000);
        file.extend(data::bytes(self.random.random(), length));
        let root = self.origin.add(&file, &[]).await?;
        let car = served(&self.origin.gateway, &format!("{root}?format=car")).await?;
        let blocks = car::read(&car)?;
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
        let books = books(place, &self.pinfold, self.server.as_ref()).await?;
        recount(&books, &sizes)?;
        notices(place, &books, &sizes)?;
        self.pinfold.run(&["check", "--blocks"]).await?.success("pinfold check")?;
        Ok(())
    }
}

/// The folder of the books of a stopped product, as SQLite: its own, or a copy
/// of what its server holds.
pub async fn books(place: &Place, pinfold: &Pinfold, server: Option<&Postgres>) -> Result<PathBuf> {
    let Some(server) = server else { return Ok(pinfold.data().to_owned()) };
    let folder = place.folder("books")?;
    server.copy_out(&folder.join(FILE)).await?;
    Ok(folder)
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
        std::fs::copy(data.join(FILE), copy.join(FILE))?;
        let books = rusqlite::Connection::open(copy.join(FILE))?;
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
