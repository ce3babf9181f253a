//! CIDs that nobody has, by the thousand: they cost whoever asks for them, and
//! nobody else.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use pinfold_e2e::{
    data, http::Connection, kubo::Kubo, pinfold::Pinfold, process::memory_kib, scenario::FETCH, test,
};
use serde_json::json;

/// So many are pinned; the variable asks for more, up to what one account may
/// have queued.
const PINS: u64 = 10_000;
const MORE: &str = "PINFOLD_E2E_UNFETCHABLE";

/// Connections by which they are asked for.
const CONNECTIONS: u64 = 16;

/// The most memory of the whole process beside them, in KiB.
const MEMORY: u64 = 300 << 10;

async fn flood(endpoint: &str, token: &str, pins: u64) -> Result<()> {
    let clients = (0..CONNECTIONS).map(|client| async move {
        let mut connection = Connection::open(endpoint, token).await?;
        for number in (client..pins).step_by(CONNECTIONS as usize) {
            let pin = json!({ "cid": data::nowhere(number) }).to_string();
            let answer = connection.send("POST", "/pins", Some(&pin)).await?;
            ensure!(answer.status == 202, "pin {number} is answered {}", answer.status);
        }
        Ok(())
    });
    try_join_all(clients).await.map(drop)
}

#[test]
fn thousands_of_unfetchable_cids_hold_up_nobody_else() {
    test(async |place| {
        let pins = match std::env::var(MORE) {
            Ok(number) => number.parse()?,
            Err(_) => PINS,
        };
        let pinfold = Pinfold::up(place, "pinfold", &["--max-queued", &pins.to_string()]).await?;
        let origin = Kubo::start(place, "origin").await?;
        let root = origin.add(&data::bytes(1, 3_000_000), &[]).await?;
        flood(&pinfold.endpoint, &pinfold.token, pins).await?;
        let other = pinfold.account("other", "1GB").await?;
        let pin = other.add(json!({ "cid": root, "origins": origin.addresses().await? })).await?;
        other.until(&pin.requestid, "pinned", FETCH).await?;
        let waiting = pinfold.api()?.list("status=queued,pinning&limit=1").await?.count;
        ensure!(waiting == pins, "{waiting} wait of {pins}");
        let peak = memory_kib(pinfold.parts[0].process().context("it runs")?, "VmHWM")?;
        println!("{peak} KiB beside {pins} CIDs that nobody has");
        ensure!(peak < MEMORY, "{peak} KiB");
        Ok(())
    });
}
