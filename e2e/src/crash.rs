//! `kill -9` of `pinfold up`, or of its two halves, at random moments: in
//! storms of requests, in the middle of fetches, while it starts and while it
//! stops. Whatever was acknowledged is there afterwards, and nothing is
//! `pinned` with a block missing.
//!
//! The same on both databases: the tables of a PostgreSQL are copied out for
//! the recount.

use std::{
    collections::BTreeSet,
    env,
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    api::Api,
    books::{books, copy, notices},
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    postgres::Postgres,
    recount::{FILE, recount},
    scenario::FETCH,
    segments::{self, Depth, Store},
    storm::{Targets, Worker, account_for, storm},
    test_within,
    truth::{Truth, Truths, held_exactly, sizes},
    wait::eventually,
};

/// How often the product is killed, where it is not what a test says.
const ROUNDS: &str = "PINFOLD_E2E_CRASH_ROUNDS";

/// The longest that one round takes, with all that it checks.
const ROUND: Duration = Duration::from_secs(10);

/// The longest for what comes before and after the rounds.
pub const FRAME: Duration = Duration::from_secs(240);

/// Clients that storm at a time; every third is of the small account.
const CLIENTS: u64 = 6;

/// What the small account may store: a few of the files, so that its edge is
/// met all the time.
const SMALL_QUOTA: &str = "12MB";

/// Roots that are reread after each kill, of those that are `pinned`.
const REREAD: usize = 4;

/// The start of every file, so that roots share blocks.
const SHARED: usize = 600_000;

/// After this many kills the books are recounted as the kill left them, and
/// the rounds in which a second kill meets the start are so far apart.
const RECOUNT_EVERY: u32 = 10;
const START_KILL_EVERY: u32 = 4;

/// Of how many kills one has to meet a fetch between its first block and its
/// last one, about half as many as do; of fewer kills than these a single one,
/// since chance has its part.
const MIDWAY: u32 = 5;
const MANY: u32 = 40;

/// How long the node keeps blocks that nothing refers to.
const RECLAIM_AFTER: Duration = Duration::from_secs(1);

/// Every so many rounds the product lives long enough to reclaim; in so many
/// more than one root dies, and blocks are moved together.
const RECLAIM_EVERY: u32 = 5;
const RECLAIMS: u32 = 20;

/// The longest wait for a fetch to be somewhere.
const FETCHING: Duration = Duration::from_secs(2);

/// Between two looks at how far it is: less than a block takes.
const LOOK: Duration = Duration::from_millis(1);

/// Kills the product so many times, or as often as `cargo xtask faults` says,
/// and checks everything after each.
pub fn kill_at_any_moment(rounds: u32, kind: Kind) {
    let rounds = env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(rounds);
    test_within(FRAME + ROUND * rounds, async |place| {
        let mut crash = Crash::begin(place, kind).await?;
        for round in 0..rounds {
            crash.round(place, round).await.with_context(|| format!("in round {round}"))?;
        }
        crash.end(place, rounds).await
    });
}

/// What is killed, and where the service keeps its books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `pinfold up`, with SQLite.
    Sqlite,
    /// `pinfold up`, with a PostgreSQL of the test's own.
    Postgres,
    /// The service with its SQLite, its node, or both.
    Split,
}

/// How a round ends the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// So long after the storm began.
    After(Duration),
    /// When the node has written so many more bytes.
    Written(u64),
}

struct Crash {
    /// None with SQLite.
    server: Option<Postgres>,
    kind: Kind,
    pinfold: Pinfold,
    origin: Kubo,
    /// One client for each account.
    accounts: Vec<Api>,
    targets: Targets,
    truths: Truths,
    workers: Vec<Worker>,
    random: StdRng,
    /// The number of the block store's first segment at the start.
    first_segment: u32,
    /// Kills of the node, and how many met a fetch in its midst.
    node_kills: u32,
    midway: u32,
    /// Kills that met a start.
    starting: u32,
}

impl Crash {
    async fn begin(place: &Place, kind: Kind) -> Result<Self> {
        let server = match kind {
            Kind::Sqlite | Kind::Split => None,
            Kind::Postgres => Some(Postgres::start(place, "database").await?),
        };
        let pinfold = start(place, kind, server.as_ref()).await?;
        let origin = Kubo::start(place, "origin").await?;
        let targets = Targets { origins: origin.addresses().await?, ..Targets::default() };
        let seed: u64 = rand::rng().random();
        println!("the seed of this run is {seed}");
        let accounts = vec![pinfold.api()?, pinfold.account("small", SMALL_QUOTA).await?];
        let worker = |client: u64| {
            let account = usize::from(client % 3 == 2);
            Worker::new(accounts[account].clone(), account, account == 1, seed ^ client)
        };
        let workers = (0..CLIENTS).map(worker).collect();
        let random = StdRng::seed_from_u64(seed);
        let truths = Truths::new();
        let first_segment = segments::files(&segments::folder(pinfold.node_data())?)?;
        let first_segment = first_segment.keys().next().copied().unwrap_or_default();
        let (node_kills, midway, starting) = (0, 0, 0);
        Ok(Self {
            server,
            kind,
            pinfold,
            origin,
            accounts,
            targets,
            truths,
            workers,
            random,
            first_segment,
            node_kills,
            midway,
            starting,
        })
    }

    /// New content at the origin, so that every round has something to fetch;
    /// answers its CIDs that nothing before has.
    async fn grow(&mut self) -> Result<BTreeSet<Cid>> {
        let mut file = data::bytes(0, SHARED);
        let length = self.random.random_range(2_000_000..8_000_000);
        file.extend(data::bytes(self.random.random(), length));
        let root = self.origin.add(&file, &[]).await?;
        let truth = Truth::of(&self.origin, &root).await?;
        let known: BTreeSet<_> = self.truths.values().flat_map(|truth| &truth.cids).copied().collect();
        let new = truth.cids.difference(&known).copied().collect();
        self.truths.insert(root.clone(), truth);
        self.targets.roots.push(root);
        Ok(new)
    }

    async fn round(&mut self, place: &Place, round: u32) -> Result<()> {
        let new = self.grow().await?;
        let is_counted = round % RECOUNT_EVERY == RECOUNT_EVERY - 1;
        self.storm(round, is_counted).await?;
        if self.pinfold.parts.last().is_none_or(|node| node.process().is_none()) {
            self.node_kills += 1;
            self.midway += u32::from(self.is_midway(&new)?);
        }
        if is_counted {
            self.recount(place, round).await?;
        }
        if round.is_multiple_of(START_KILL_EVERY) {
            self.kill_at_start().await?;
        }
        self.pinfold.start_missing().await?;
        self.account_for().await?;
        self.reread(REREAD).await
    }

    /// All clients at once, until the product is killed under them.
    async fn storm(&mut self, round: u32, is_whole: bool) -> Result<()> {
        let moment = self.moment(round)?;
        // Now and then it is about to stop by itself when it is killed.
        let is_stopping = self.kind != Kind::Split && round % START_KILL_EVERY == 2;
        let victims = self.victims(round, is_whole);
        let blocks = segments::folder(self.pinfold.node_data())?;
        let linger = Duration::from_millis(self.random.random_range(0..100));
        self.targets.stops = is_stopping;
        self.targets.over.store(false, Ordering::Relaxed);
        let (pinfold, over) = (&mut self.pinfold, self.targets.over.clone());
        let storm = storm(&mut self.workers, &self.targets);
        let kill = async {
            reach(moment, &blocks).await?;
            if is_stopping {
                pinfold.ask_to_stop().await?;
                // At any moment of the stop: nothing is waited for.
                tokio::time::sleep(linger).await;
            }
            for part in victims {
                pinfold.parts[part].kill().await?;
            }
            over.store(true, Ordering::Relaxed);
            Ok(())
        };
        let (stormed, killed) = tokio::join!(storm, kill);
        stormed.and(killed)
    }

    /// At any time, more often while blocks are written, and now and then late.
    fn moment(&mut self, round: u32) -> Result<Moment> {
        if round % RECLAIM_EVERY == RECLAIM_EVERY - 1 {
            return Ok(Moment::After(RECLAIM_AFTER * 3));
        }
        if round.is_multiple_of(3) {
            // The moment itself is what is random here.
            return Ok(Moment::After(Duration::from_millis(self.random.random_range(5..700))));
        }
        let newest = self.targets.roots.last().and_then(|root| self.truths.get(root));
        let bytes = newest.context("there is content")?.bytes;
        let written = segments::size(&segments::folder(self.pinfold.node_data())?)?;
        Ok(Moment::Written(written + self.random.random_range(1..bytes)))
    }

    /// Which parts are killed: one in turn, or all where the books are to lie
    /// still.
    fn victims(&self, round: u32, is_whole: bool) -> Vec<usize> {
        let parts = self.pinfold.parts.len();
        if is_whole { (0..parts).collect() } else { vec![round as usize % parts] }
    }

    /// Whether some, and not all, of these blocks are on disk.
    fn is_midway(&self, new: &BTreeSet<Cid>) -> Result<bool> {
        let store = Store::read(&segments::folder(self.pinfold.node_data())?, Depth::Heads)?;
        let there = store.count(new);
        Ok(there > 0 && there < new.len())
    }

    /// Starts what was killed, and kills it before it is ready.
    async fn kill_at_start(&mut self) -> Result<()> {
        let pause = Duration::from_millis(self.random.random_range(0..300));
        for part in self.pinfold.parts.iter_mut().filter(|part| part.process().is_none()) {
            part.spawn()?;
            // At any moment of the start: nothing is waited for.
            tokio::time::sleep(pause).await;
            part.kill().await?;
            self.starting += 1;
        }
        Ok(())
    }

    /// Recounts a copy of the books as the kill left them.
    async fn recount(&self, place: &Place, round: u32) -> Result<()> {
        let folder = place.folder(&format!("books-{round}"))?;
        match &self.server {
            Some(server) => server.copy_out(&folder.join(FILE)).await?,
            None => copy(self.pinfold.data(), &folder)?,
        }
        recount(&folder, &sizes(&self.truths))?;
        Ok(std::fs::remove_dir_all(folder)?)
    }

    async fn account_for(&mut self) -> Result<()> {
        for (account, api) in self.accounts.iter().enumerate() {
            let of = self.workers.iter_mut().filter(|worker| worker.account == account);
            account_for(api, &mut of.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Rereads some of the roots that are `pinned`, block by block.
    async fn reread(&mut self, most: usize) -> Result<()> {
        let mut roots = BTreeSet::new();
        for api in &self.accounts {
            roots.extend(pinned(api).await?);
        }
        let mut roots: Vec<_> = roots.into_iter().filter(|root| self.truths.contains_key(root)).collect();
        while roots.len() > most {
            roots.swap_remove(self.random.random_range(0..roots.len()));
        }
        for root in roots {
            held_exactly(&self.pinfold, &root, &self.truths[&root]).await?;
        }
        Ok(())
    }

    /// What can be fetched is pinned in the end, and every count is right.
    async fn end(mut self, place: &Place, rounds: u32) -> Result<()> {
        self.settled().await?;
        self.reread(usize::MAX).await?;
        self.account_for().await?;
        self.pinfold.stop().await?;
        let books = books(place, &self.pinfold, self.server.as_ref()).await?;
        recount(&books, &sizes(&self.truths))?;
        notices(place, &books, &sizes(&self.truths))?;
        let folder = segments::folder(self.pinfold.node_data())?;
        let store = self.blocks(&folder, &books)?;
        self.notices_blocks(place, &folder, &books)?;
        match self.kind {
            Kind::Split => self.pinfold.run(&["check"]).await?.success("pinfold check")?,
            _ => self.pinfold.run(&["check", "--blocks"]).await?.success("pinfold check")?,
        };
        self.reached(&store, rounds)
    }

    /// Waits until nothing that can be had waits, and looks at what failed.
    async fn settled(&self) -> Result<()> {
        let truths = &self.truths;
        for api in &self.accounts {
            eventually("everything that can be had to be settled", FETCH * 2, async || {
                let waiting = api.all("status=queued,pinning", 1_000).await?;
                let waiting: Vec<_> =
                    waiting.iter().filter(|pin| truths.contains_key(&pin.pin.cid)).collect();
                ensure!(waiting.is_empty(), "{} wait, such as {:?}", waiting.len(), waiting[0]);
                Ok(Some(()))
            })
            .await?;
        }
        let failed = self.accounts[0].list("status=failed").await?;
        ensure!(failed.count == 0, "{} pins failed, such as {:?}", failed.count, failed.results[0]);
        for pin in self.accounts[1].all("status=failed", 1_000).await? {
            let reason = pin.info.get("reason").map(String::as_str);
            ensure!(reason == Some("over_quota"), "{} failed with {:?}", pin.requestid, pin.info);
        }
        Ok(())
    }

    /// Checks the block store's files by themselves and against the books.
    fn blocks(&self, folder: &Path, books: &Path) -> Result<Store> {
        let store = Store::read(folder, Depth::Everything)?;
        store.whole()?;
        for root in crate::recount::held(books)? {
            match self.truths.get(&root) {
                Some(truth) => store.holds(&root, truth)?,
                // Of the others, only those can be held that are their own block.
                None => ensure!(root.parse::<Cid>()?.hash().code() == 0, "{root} is held"),
            }
        }
        Ok(store)
    }

    /// The check of the files notices a flipped bit, a block cut off, and a
    /// root of which the store knows nothing.
    fn notices_blocks(&self, place: &Place, folder: &Path, books: &Path) -> Result<()> {
        let mistakes: [fn(&mut Vec<u8>); 3] =
            [|bytes| bytes[100] ^= 1, |bytes| bytes.truncate(bytes.len() - 1), |bytes| bytes.clear()];
        for (number, mistake) in mistakes.iter().enumerate() {
            let copy = place.folder(&format!("damage-{number}"))?;
            std::fs::copy(folder.join("VERSION"), copy.join("VERSION"))?;
            std::fs::create_dir(copy.join("segments"))?;
            for (segment, path) in segments::files(folder)? {
                let mut bytes = std::fs::read(path)?;
                mistake(&mut bytes);
                std::fs::write(segments::file(&copy, segment), bytes)?;
            }
            ensure!(self.blocks(&copy, books).is_err(), "damage {number} of a segment is not noticed");
            std::fs::remove_dir_all(copy)?;
        }
        Ok(())
    }

    /// The rounds met what they are there for.
    fn reached(&self, store: &Store, rounds: u32) -> Result<()> {
        let refused: u64 = self.workers.iter().map(|worker| worker.refused).sum();
        println!(
            "of {rounds} kills {} met the node, {} of these a fetch in its midst, {} more a start; {refused} \
             requests were refused for the quota; the first segment is {}",
            self.node_kills, self.midway, self.starting, store.first
        );
        let wanted = if self.node_kills < MANY { 1 } else { self.node_kills / MIDWAY };
        ensure!(
            self.midway >= wanted,
            "of {} kills of the node only {} met a fetch in its midst",
            self.node_kills,
            self.midway
        );
        ensure!(
            rounds < RECLAIMS || store.first > self.first_segment,
            "no segment was reclaimed in {rounds} rounds"
        );
        Ok(())
    }
}

/// The product, with blocks reclaimed as soon as nothing refers to them.
async fn start(place: &Place, kind: Kind, server: Option<&Postgres>) -> Result<Pinfold> {
    let reclaim_after = format!("{}s", RECLAIM_AFTER.as_secs());
    let reclaim = ["--reclaim-after", reclaim_after.as_str()];
    if kind == Kind::Split {
        return Pinfold::split_with(place, "pinfold", &[], &reclaim).await;
    }
    let url = server.map(Postgres::url);
    let mut further: Vec<&str> = url.iter().flat_map(|url| ["--database", url]).collect();
    further.extend(reclaim);
    Pinfold::up(place, "pinfold", &further).await
}

/// Waits for the moment of a kill.
async fn reach(moment: Moment, blocks: &Path) -> Result<()> {
    match moment {
        Moment::After(pause) => tokio::time::sleep(pause).await,
        Moment::Written(bytes) => {
            let end = Instant::now() + FETCHING;
            // The size of files has no event. Reclaim may make the store
            // smaller meanwhile.
            while segments::size(blocks)? < bytes && Instant::now() < end {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
    Ok(())
}

async fn pinned(api: &Api) -> Result<Vec<String>> {
    let pins = api.all("status=pinned", 1_000).await?;
    Ok(pins.into_iter().map(|pin| pin.pin.cid).collect::<BTreeSet<_>>().into_iter().collect())
}
