//! @helia/remote-pinning on a Helia node that listens on TCP.

use anyhow::{Context, Result};
use pinfold_e2e::{
    kubo::Kubo,
    pinfold::Pinfold,
    process::{finish, peer},
    scenario::{count, held},
    script::node,
    test,
};
use serde_json::Value;

/// Runs the script and returns what it said, by step.
async fn pin(pinfold: &Pinfold, further: &[&str]) -> Result<Vec<Value>> {
    let mut script = node(&peer("PINFOLD_E2E_HELIA")?, "pin.mjs")?;
    script.args([&pinfold.endpoint, &pinfold.token]).args(further);
    let text = finish(&mut script, "Helia").await?.success("Helia")?.text()?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("Helia said {line}")))
        .collect()
}

fn step<'a>(said: &'a [Value], step: &str) -> &'a Value {
    said.iter().rfind(|line| line["step"] == step).unwrap_or(&Value::Null)
}

#[test]
fn helia_pins_what_it_has_and_a_kubo_reads_it_when_helia_is_gone() {
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
        let reader = Kubo::start(place, "reader").await?;
        reader.connect(&delegate).await?;
        reader.ipfs(&["pin", "add", "--progress=false", &root]).await?;
        assert_eq!(reader.dag(&root).await?.len(), held(&pinfold, &root).await?.len());
        Ok(())
    });
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
