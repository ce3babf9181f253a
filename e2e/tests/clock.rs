//! The machine's clock jumps, forward by a day and back by hours, while pins
//! are made.

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    api::{Api, EVERY_STATUS, PinStatus, client},
    clock::Clock,
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    recount::recount,
    scenario::FETCH,
    test,
    truth::{Truth, Truths, held_exactly, sizes},
    wait::eventually,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Pins that are made each time.
const PINS: u8 = 12;

/// Bytes of a file that is fetched over a jump.
const LARGE: usize = 40_000_000;

struct Jumps {
    clock: Clock,
    pinfold: Pinfold,
    origin: Kubo,
    /// In the order of the answers.
    made: Vec<PinStatus>,
    truths: Truths,
}

impl Jumps {
    async fn begin(place: &Place) -> Result<Self> {
        let clock = Clock::new(place)?;
        let pinfold = Pinfold::up_by(place, "pinfold", &clock, &[]).await?;
        let origin = Kubo::start(place, "origin").await?;
        Ok(Self { clock, pinfold, origin, made: Vec::new(), truths: Truths::new() })
    }

    /// Makes some pins; each is created after all before it.
    async fn pins(&mut self) -> Result<()> {
        let api = self.pinfold.api()?;
        for _ in 0..PINS {
            // Any number of pins may have the same root.
            let pin = api.add_cid("bafkqaaa").await?;
            if let Some(last) = self.made.last() {
                ensure!(pin.created > last.created, "{} is created after {}", pin.created, last.created);
            }
            self.made.push(pin);
        }
        Ok(())
    }

    /// Something that the node has to fetch and report.
    async fn fetch(&mut self, seed: u64) -> Result<()> {
        self.fetch_over(seed, 600_000, None).await
    }

    /// The same, with a jump in the midst of it.
    async fn fetch_over(&mut self, seed: u64, length: usize, jump: Option<i64>) -> Result<()> {
        let root = self.origin.add(&data::bytes(seed, length), &[]).await?;
        let truth = Truth::of(&self.origin, &root).await?;
        let api = self.pinfold.api()?;
        let pin = api.add(json!({ "cid": root, "origins": self.origin.addresses().await? })).await?;
        if let Some(seconds) = jump {
            self.begun(&api, &pin).await?;
            self.clock.set(seconds)?;
        }
        api.until(&pin.requestid, "pinned", FETCH).await?;
        held_exactly(&self.pinfold, &root, &truth).await?;
        self.truths.insert(root, truth);
        self.made.push(pin);
        Ok(())
    }

    /// Waits until some of a pin is fetched.
    async fn begun(&self, api: &Api, pin: &PinStatus) -> Result<()> {
        eventually("the fetch to begin", FETCH, async || {
            let pin = api.get(&pin.requestid).await?;
            let bytes = pin.info.get("bytes").map_or("0", String::as_str);
            ensure!(bytes != "0" || pin.status == "pinned", "it is {} with {:?}", pin.status, pin.info);
            Ok(Some(()))
        })
        .await
    }

    /// What `/readyz` answers, in the end.
    async fn ready(&self, status: StatusCode, word: &str) -> Result<()> {
        let url = format!("{}/readyz", self.pinfold.endpoint);
        eventually(&format!("/readyz to answer {status}"), FETCH, async || {
            let answer = client()?.get(&url).send().await?;
            let (found, text) = (answer.status(), answer.text().await?);
            ensure!(found == status && text.contains(word), "it answers {found}: {text}");
            Ok(Some(()))
        })
        .await
    }

    /// A token of the same account that ends twelve hours from now.
    async fn short_token(&self) -> Result<Api> {
        let create = ["token", "create", "--name", "short", "--expires", "12h"];
        let token = self.pinfold.run(&create).await?.success("token create")?.text()?;
        Api::new(&self.pinfold.endpoint, &token)
    }

    /// Nothing is lost, twice there, or out of order.
    async fn end(mut self) -> Result<()> {
        let mut listed = self.pinfold.api()?.all(EVERY_STATUS, 7).await?;
        listed.reverse();
        let ids = |pins: &[PinStatus]| pins.iter().map(|pin| pin.requestid.clone()).collect::<Vec<_>>();
        ensure!(ids(&listed) == ids(&self.made), "{} pins are listed of {}", listed.len(), self.made.len());
        let texts = |pins: &[PinStatus]| pins.iter().map(|pin| pin.created.clone()).collect::<Vec<_>>();
        ensure!(texts(&listed) == texts(&self.made), "a pin is listed with another `created`");
        self.pinfold.stop().await?;
        recount(self.pinfold.data(), &sizes(&self.truths))
    }
}

async fn answers(api: &Api, status: StatusCode) -> Result<()> {
    let answer = api.send(Method::GET, "/pins?limit=1", None).await?;
    ensure!(answer.status == status, "{} instead of {status}: {}", answer.status, answer.body);
    Ok(())
}

/// A pin that would be created more than an hour ahead of the clock.
async fn too_fast(api: &Api) -> Result<()> {
    let answer = api.send(Method::POST, "/pins", Some(json!({ "cid": "bafkqaaa" }))).await?;
    ensure!(answer.status == StatusCode::TOO_MANY_REQUESTS, "{}: {}", answer.status, answer.body);
    Ok(())
}

#[test]
fn faketime_jumps_and_pins_stay_in_order() {
    test(async |place| {
        let mut jumps = Jumps::begin(place).await?;
        let (api, short) = (jumps.pinfold.api()?, jumps.short_token().await?);
        jumps.pins().await?;
        answers(&short, StatusCode::OK).await?;
        jumps.clock.set(DAY)?;
        jumps.pins().await?;
        jumps.fetch(1).await.context("a day ahead")?;
        answers(&short, StatusCode::UNAUTHORIZED).await?;
        jumps.ready(StatusCode::OK, "true").await?;
        // Half an hour back is run ahead of.
        jumps.clock.set(DAY - 30 * MINUTE)?;
        jumps.pins().await?;
        jumps.fetch(2).await.context("half an hour back")?;
        jumps.ready(StatusCode::OK, "true").await?;
        // Two hours are not, and whoever balances load is told.
        jumps.clock.set(DAY - 2 * HOUR)?;
        too_fast(&api).await?;
        jumps.ready(StatusCode::SERVICE_UNAVAILABLE, "clock").await?;
        answers(&api, StatusCode::OK).await?;
        answers(&short, StatusCode::UNAUTHORIZED).await?;
        jumps.clock.set(0)?;
        answers(&short, StatusCode::OK).await?;
        jumps.clock.set(DAY + MINUTE)?;
        jumps.ready(StatusCode::OK, "true").await?;
        jumps.pins().await?;
        jumps.fetch(3).await.context("forward again")?;
        jumps.fetch_over(4, LARGE, Some(2 * DAY)).await.context("a day forward in a fetch")?;
        jumps.fetch_over(5, LARGE, Some(2 * DAY - 30 * MINUTE)).await.context("back in a fetch")?;
        jumps.end().await
    });
}

#[test]
fn faketime_set_back_before_a_restart_lets_the_node_come_back() {
    test(async |place| {
        let mut jumps = Jumps::begin(place).await?;
        jumps.clock.set(DAY)?;
        jumps.pinfold.stop().await?;
        jumps.pinfold.start().await?;
        jumps.fetch(1).await?;
        jumps.pinfold.stop().await?;
        // The right time, half an hour before what the node said last.
        jumps.clock.set(DAY - 30 * MINUTE)?;
        jumps.pinfold.start().await?;
        jumps.fetch(2).await.context("after the restart")?;
        jumps.end().await
    });
}
