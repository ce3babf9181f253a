//! PostgreSQL is restarted in every way while clients keep sending and the
//! node fetches: what was acknowledged is there, what is fetched is whole, and
//! the service finds its database again by itself.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    api::Api,
    books::books,
    data,
    kubo::Kubo,
    load::{Load, under_load},
    pinfold::Pinfold,
    place::Place,
    postgres::Postgres,
    recount::recount,
    scenario::FETCH,
    storm::{Book, compare},
    test_within,
    truth::{Truth, Truths, held_exactly, sizes},
    wait::eventually,
};
use serde_json::json;

/// Connections that post without a pause.
const CONNECTIONS: u64 = 16;

/// Pins that are acknowledged before each restart, and after it.
const BETWEEN: u64 = 300;

/// Times that each way of stopping is gone through.
const TURNS: u32 = 2;

/// Bytes of each file that is fetched over a restart.
const FILE: usize = 96_000_000;

/// The longest that the test takes.
const LIMIT: Duration = Duration::from_secs(300);

/// What is fetched meanwhile.
struct Fetches {
    api: Api,
    origin: Kubo,
    origins: Vec<String>,
    truths: Truths,
    /// Request ids by root.
    pins: BTreeMap<String, String>,
    /// Fetches that were seen in their midst right before a restart.
    midway: usize,
}

impl Fetches {
    async fn begin(place: &Place, pinfold: &Pinfold) -> Result<Self> {
        let origin = Kubo::start(place, "origin").await?;
        // An account of its own: in the other one thousands wait for a turn.
        let (api, origins) = (pinfold.account("fetches", "20GB").await?, origin.addresses().await?);
        Ok(Self { api, origin, origins, truths: Truths::new(), pins: BTreeMap::new(), midway: 0 })
    }

    /// Pins a new file, and waits until some of it is there.
    async fn next(&mut self) -> Result<()> {
        let root = self.origin.add(&data::bytes(self.truths.len() as u64, FILE), &[]).await?;
        let truth = Truth::of(&self.origin, &root).await?;
        let pin = self.api.add(json!({ "cid": root, "origins": self.origins })).await?;
        let seen = eventually("the fetch to begin", FETCH, async || {
            let pin = self.api.get(&pin.requestid).await?;
            let bytes = pin.info.get("bytes").map_or("0", String::as_str);
            ensure!(bytes != "0" || pin.status == "pinned", "it is {} with {:?}", pin.status, pin.info);
            Ok(Some(pin))
        });
        self.midway += usize::from(seen.await?.status == "pinning");
        self.truths.insert(root.clone(), truth);
        self.pins.insert(root, pin.requestid);
        Ok(())
    }

    async fn end(&self, pinfold: &Pinfold) -> Result<()> {
        // How many depends on the machine: a fast one is through between two looks.
        println!("{} of {} fetches were met by a restart", self.midway, self.pins.len());
        for (root, requestid) in &self.pins {
            self.api.until(requestid, "pinned", FETCH * 2).await?;
            held_exactly(pinfold, root, &self.truths[root]).await?;
        }
        Ok(())
    }
}

/// Every way of stopping, under load.
async fn restart(server: &mut Postgres, load: &Load, fetches: &mut Fetches) -> Result<()> {
    for turn in 0..TURNS {
        load.move_on(BETWEEN, "pins before a restart").await?;
        fetches.next().await?;
        server.stop().await.with_context(|| format!("fast, turn {turn}"))?;
        server.resume().await?;
        load.move_on(BETWEEN, "pins after a fast restart").await?;
        fetches.next().await?;
        server.stop_at_once().await.with_context(|| format!("immediate, turn {turn}"))?;
        server.resume().await?;
        load.move_on(BETWEEN, "pins after an immediate stop").await?;
        fetches.next().await?;
        server.kill().await?;
        server.resume().await?;
        load.move_on(BETWEEN, "pins after a kill").await?;
    }
    Ok(())
}

async fn loaded(server: &mut Postgres, pinfold: &Pinfold, fetches: &mut Fetches) -> Result<Book> {
    under_load(pinfold, CONNECTIONS, async |load| restart(server, load, fetches).await).await
}

#[test]
fn postgres_restarts_under_load_and_every_acknowledged_pin_is_there() {
    test_within(LIMIT, async |place| {
        let mut server = Postgres::start(place, "database").await?;
        let mut pinfold = Pinfold::up(place, "pinfold", &["--database", &server.url()]).await?;
        let mut fetches = Fetches::begin(place, &pinfold).await?;
        let book = loaded(&mut server, &pinfold, &mut fetches).await?;
        compare(&pinfold.api()?, &book).await?;
        fetches.end(&pinfold).await?;
        pinfold.stop().await?;
        recount(&books(place, &pinfold, Some(&server)).await?, &sizes(&fetches.truths))
    });
}
