//! Pebble, Let's Encrypt's own test server of ACME, on loopback.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use reqwest::Certificate;
use serde_json::json;

use crate::{
    api::client_trusting,
    place::Place,
    process::{Daemon, command, free_port, peer},
    wait::eventually,
};

const READY: Duration = Duration::from_secs(30);

/// The name that its own certificate has, and that it may issue one for.
pub const NAME: &str = "localhost";

/// A running Pebble.
#[derive(Debug)]
pub struct Pebble {
    port: u16,
    management: u16,
    /// The certificates that a client of its directory has to trust, in PEM.
    pub roots: PathBuf,
    daemon: Daemon,
}

impl Pebble {
    /// Starts it; it looks for challenges at this port of what it is asked to
    /// certify.
    pub async fn start(place: &Place, challenges: u16) -> Result<Self> {
        let folder = place.folder("pebble")?;
        let (port, management) = (free_port()?, free_port()?);
        let [roots, own, key] = ["roots.pem", "own.pem", "key.pem"].map(|name| folder.join(name));
        let authority = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&authority)?;
        let pair = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&pair, &root, &authority)?;
        fs::write(&roots, root.pem())?;
        fs::write(&own, leaf.pem())?;
        fs::write(&key, pair.serialize_pem())?;
        let settings = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": own,
            "privateKey": key,
            "httpPort": 1,
            "tlsPort": challenges,
            "keyAlgorithm": "ecdsa",
            "profiles": { "default": { "description": "ten days", "validityPeriod": 864_000 } },
        } });
        let file = folder.join("pebble.json");
        fs::write(&file, settings.to_string())?;
        let mut command = command(peer("PINFOLD_E2E_PEBBLE")?);
        command.arg("-config").arg(&file);
        // By default it sleeps before it looks, and refuses some good nonces.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let daemon = Daemon::start("pebble", &mut command, &place.log("pebble"))?;
        let pebble = Self { port, management, roots, daemon };
        eventually("Pebble to answer", READY, async || pebble.issuer().await.map(Some)).await?;
        Ok(pebble)
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{NAME}:{}/dir", self.port)
    }

    /// The root of what it issues; another one at each start.
    pub async fn issuer(&self) -> Result<Certificate> {
        let own = Certificate::from_pem(&fs::read(&self.roots)?)?;
        let answer =
            client_trusting(own)?.get(format!("https://{NAME}:{}/roots/0", self.management)).send().await?;
        Ok(Certificate::from_pem(&answer.error_for_status()?.bytes().await?)?)
    }

    /// Ends it.
    pub async fn kill(mut self) -> Result<()> {
        self.daemon.kill().await.context("Pebble does not end")
    }
}
