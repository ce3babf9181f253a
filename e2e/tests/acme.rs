//! `--tls-acme` against a real ACME server.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    api::client_trusting,
    pebble::{NAME, Pebble},
    place::Place,
    process::{Daemon, command, free_port, peer},
    test,
    wait::eventually,
};
use reqwest::StatusCode;
use serde_json::json;

const READY: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);

/// What starts `up` with a certificate from Pebble.
struct Up<'a> {
    data: &'a Path,
    api: u16,
    directory: &'a str,
    roots: &'a Path,
}

impl Up<'_> {
    async fn start(&self, place: &Place, until: &str) -> Result<(Daemon, Vec<String>)> {
        let mut command = command(peer("PINFOLD_BIN")?);
        command.arg("up").arg("--data").arg(self.data).args(["--network", "none"]);
        command.args(["--api", &format!("127.0.0.1:{}", self.api), "--gateway", "127.0.0.1:0"]);
        command.args(["--swarm", "/ip4/127.0.0.1/tcp/0", "--tls-acme", NAME]);
        command.args(["--tls-acme-contact", "operator@example.org", "--tls-acme-directory", self.directory]);
        command.env("SSL_CERT_FILE", self.roots);
        let mut daemon = Daemon::start("up", &mut command, &place.log("up"))?;
        let lines = daemon.read_until(READY, |line| line.trim_start().starts_with(until)).await?;
        Ok((daemon, lines))
    }

    fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.api)
    }
}

#[test]
fn a_certificate_is_issued_used_and_kept() {
    test(async |place| {
        let data = place.folder("data")?;
        let api = free_port()?;
        let pebble = Pebble::start(place, api).await?;
        let (directory, roots) = (pebble.directory(), pebble.roots.clone());
        let up = Up { data: &data, api, directory: &directory, roots: &roots };
        let (mut daemon, lines) = up.start(place, "ipfs pin remote service add").await?;
        let line = lines.last().context("it prints how to add the service")?;
        let token = line.strip_prefix(&format!("ipfs pin remote service add pinfold https://{NAME} "));
        let token = token.with_context(|| format!("the endpoint is the certificate's: {line}"))?;
        let client = client_trusting(pebble.issuer().await?)?;
        eventually("a certificate that Pebble issued", READY, async || {
            let answer = client.get(up.url("/healthz")).send().await?.error_for_status()?;
            Ok(Some(answer.text().await?).filter(|text| text == "ok\n"))
        })
        .await?;
        // The node reached its service, whose listener speaks TLS alone.
        let pin =
            client.post(up.url("/pins")).bearer_auth(token).body(json!({ "cid": "bafkqaaa" }).to_string());
        ensure!(pin.send().await?.status() == StatusCode::ACCEPTED, "a pin over HTTPS");
        ensure!(daemon.terminate(STOP).await?.success(), "a clean stop");

        // The next start needs no ACME server.
        pebble.kill().await?;
        let (mut daemon, _) = up.start(place, "gateway").await?;
        let answer = client.get(up.url("/readyz")).send().await?;
        ensure!(answer.status() == StatusCode::OK, "the certificate was kept");
        ensure!(daemon.terminate(STOP).await?.success(), "a clean stop");
        Ok(())
    });
}

#[test]
fn an_acme_server_that_is_away_keeps_nothing_else_from_working() {
    test(async |place| {
        let data = place.folder("data")?;
        let (api, nobody) = (free_port()?, free_port()?);
        let pebble = Pebble::start(place, api).await?;
        let roots = pebble.roots.clone();
        let up = Up { data: &data, api, directory: &format!("https://{NAME}:{nobody}/dir"), roots: &roots };
        let (mut daemon, _) = up.start(place, "gateway").await?;
        let client = client_trusting(pebble.issuer().await?)?;
        ensure!(client.get(up.url("/healthz")).send().await.is_err(), "there is no certificate");
        ensure!(daemon.terminate(STOP).await?.success(), "a clean stop");
        Ok(())
    });
}
