//! `pinfold check`: nothing is wrong with what is well, and what is wrong is
//! named with what to do.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{pinfold::Pinfold, process::free_port, test};
use serde_json::Value;

/// What `check` finds: its exit status, and every finding's level and text by
/// section.
async fn check(pinfold: &Pinfold, further: &[&str]) -> Result<(Option<i32>, Vec<(String, String, String)>)> {
    let said = pinfold.run(&[&["check", "--json"], further].concat()).await?;
    let summary: Value = serde_json::from_slice(&said.stdout).context(said.stderr)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = summary["findings"].as_array().context("check has findings")?;
    let row = |finding: &Value| (text(&finding["section"]), text(&finding["level"]), text(&finding["what"]));
    Ok((said.status.code(), findings.iter().map(row).collect()))
}

/// Demands that one thing is wrong, in this section, and is told with these words.
async fn one_wrong(pinfold: &Pinfold, further: &[&str], section: &str, words: &[&str]) -> Result<()> {
    let (code, found) = check(pinfold, further).await?;
    let wrong: Vec<_> = found.iter().filter(|(_, level, _)| level == "wrong").collect();
    ensure!(code == Some(1) && wrong.len() == 1, "{further:?}: it ended with {code:?}: {found:?}");
    ensure!(wrong[0].0 == section && words.iter().all(|word| wrong[0].2.contains(word)), "{wrong:?}");
    Ok(())
}

#[test]
fn what_runs_well_is_found_well() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let (code, found) = check(&pinfold, &["--public-url", &pinfold.endpoint]).await?;
        ensure!(code == Some(0) && !found.iter().any(|(_, level, _)| level == "wrong"), "{found:?}");
        let ok: Vec<_> =
            found.iter().filter(|(_, level, _)| level == "ok").map(|(section, ..)| section).collect();
        assert_eq!(ok, ["database", "database", "reachability", "reachability", "reachability"]);
        let nobody = format!("http://127.0.0.1:{}", free_port()?);
        one_wrong(&pinfold, &["--public-url", &nobody], "reachability", &[&nobody, "proxy"]).await?;
        let silent = format!("/ip4/127.0.0.1/tcp/{}", free_port()?);
        one_wrong(&pinfold, &["--announce", &silent], "reachability", &["--announce", "firewall"]).await
    });
}

#[test]
fn what_is_wrong_while_it_is_stopped_is_told_with_what_to_do() {
    test(async |place| {
        let mut pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        pinfold.api()?.add_cid("bafkqaaa").await?;
        pinfold.stop().await?;
        ensure!(check(&pinfold, &["--blocks"]).await?.0 == Some(0));
        let secret = pinfold.data().join("secret");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644))?;
        one_wrong(&pinfold, &[], "configuration", &["chmod 600"]).await?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let kept = fs::read(&secret)?;
        fs::write(&secret, [b'x'; 40])?;
        one_wrong(&pinfold, &[], "database", &["another secret"]).await?;
        fs::write(&secret, kept)?;
        let rules = place.path().join("rules.deny");
        fs::write(&rules, "/ipfs/nonsense\n")?;
        let denylist = ["--denylist", pinfold_e2e::place::text(&rules)?];
        one_wrong(&pinfold, &denylist, "configuration", &["rules.deny"]).await?;
        let database = rusqlite::Connection::open(pinfold.data().join("pinfold.db"))?;
        database.execute_batch("UPDATE account SET used = used + 1")?;
        one_wrong(&pinfold, &[], "database", &["usage of an account", "backup"]).await
    });
}
