//! @helia/remote-pinning on a Helia node that listens on TCP, and another
//! Helia that reads what was pinned.

use anyhow::{Context, Result};
use pinfold_e2e::{
    car,
    kubo::Kubo,
    pinfold::Pinfold,
    process::{finish, peer},
    scenario::{count, gateway_car, held},
    script::node,
    test,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Runs the script and returns what it said, by step.
async fn pin(pinfold: &Pinfold, further: &[&str]) -> Result<Vec<Value>> {
    let fixed = [pinfold.endpoint.as_str(), &pinfold.token];
    run("pin.mjs", &[&fixed, further].concat()).await
}

/// Lets another Helia, which has nothing, read a file from a peer.
async fn fetch(delegate: &str, root: &str) -> Result<Value> {
    let said = run("fetch.mjs", &[delegate, root]).await?;
    said.into_iter().find(|line| line["step"] == "read").context("the second Helia read nothing")
}

async fn run(name: &str, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut script = node(&peer("PINFOLD_E2E_HELIA")?, name)?;
    script.args(arguments);
    let text = finish(&mut script, "Helia").await?.success("Helia")?.text()?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("Helia said {line}")))
        .collect()
}

fn step<'a>(said: &'a [Value], step: &str) -> &'a Value {
    said.iter().rfind(|line| line["step"] == step).unwrap_or(&Value::Null)
}

#[test]
fn helia_pins_what_it_has_and_a_kubo_and_another_helia_read_it_when_it_is_gone() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let said = pin(&pinfold, &[]).await?;
        let root = step(&said, "added")["cid"].as_str().context("Helia added nothing")?.to_owned();
        assert_eq!(step(&said, "pinned")["cids"][0], root.as_str());
        assert_eq!(step(&said, "isPinned")["is"], true);
        assert_eq!(step(&said, "got")["cid"], root.as_str());
        let pins = step(&said, "listed")["pins"].as_array().context("Helia listed nothing")?;
        assert_eq!((pins.len(), &pins[0]["metadata"]["changed"]), (1, &Value::from("yes")));
        let delegate = pinfold.api()?.list("limit=1").await?.results[0].delegates[0].clone();
        let read = fetch(&delegate, &root).await?;
        let added = step(&said, "added");
        assert_eq!((&read["length"], &read["sha256"]), (&added["length"], &added["sha256"]));
        let reader = Kubo::start(place, "reader").await?;
        reader.connect(&delegate).await?;
        reader.ipfs(&["pin", "add", "--progress=false", &root]).await?;
        assert_eq!(reader.dag(&root).await?.len(), held(&pinfold, &root).await?.len());
        Ok(())
    });
}

#[test]
fn blocks_of_2_mib_go_from_helia_to_pinfold_and_on_to_helia_and_kubo() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let said = pin(&pinfold, &["large"]).await?;
        let added = step(&said, "added");
        let root = added["cid"].as_str().context("Helia added nothing")?.to_owned();
        let delegate = pinfold.api()?.list("limit=1").await?.results[0].delegates[0].clone();
        let blocks = car::read(&gateway_car(&pinfold, &root).await?)?;
        let largest = blocks.values().map(Vec::len).max();
        assert_eq!(largest, Some(2 << 20), "no block of 2 MiB is held");
        let read = fetch(&delegate, &root).await?;
        assert_eq!((&read["length"], &read["sha256"]), (&added["length"], &added["sha256"]));
        let reader = Kubo::start(place, "reader").await?;
        reader.connect(&delegate).await?;
        let file = reader.try_ipfs(&["cat", "--progress=false", &root]).await?.success("ipfs cat")?.stdout;
        assert_eq!(hex(&Sha256::digest(&file)), added["sha256"].as_str().unwrap_or_default());
        Ok(())
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn helia_removes_its_pin() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let said = pin(&pinfold, &["remove"]).await?;
        assert_eq!(step(&said, "removed")["cid"], step(&said, "added")["cid"]);
        assert_eq!(step(&said, "isPinned")["is"], false);
        count(&pinfold, "status=queued,pinning,pinned,failed", 0).await
    });
}
