//! ipfs-cluster as a peer: one `ipfs-cluster-service` with a Kubo of its own,
//! its Pinning Service API on loopback, and no other peer to talk to.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    api::client,
    kubo::Kubo,
    place::Place,
    process::{Daemon, command, finish, free_port, peer},
    wait::eventually,
};

/// The longest from the start until a pin is accepted: its first metrics,
/// which allocations follow, are seconds old by then.
const READY: Duration = Duration::from_secs(60);

/// Name and password of its one user; on loopback, for the time of a row.
const USER: (&str, &str) = ("pinfold", "pinfold");

/// An identity CID, which no peer has to be asked for.
const INLINE: &str = "bafkqaaa";

/// A running ipfs-cluster of one peer.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    daemon: Daemon,
    kubo: Kubo,
    /// Base URL of its Pinning Service API.
    pub endpoint: String,
    /// Its user's access token.
    pub token: String,
}

impl Cluster {
    /// Starts a Kubo, makes a configuration and starts the service on both.
    ///
    /// # Errors
    /// When it accepts no pin within [`READY`].
    pub async fn start(place: &Place, name: &str) -> Result<Self> {
        let kubo = Kubo::start(place, &format!("{name}-kubo")).await?;
        let folder = place.folder(name)?;
        let mut init = service(&folder)?;
        init.args(["init", "--consensus", "crdt"]);
        finish(&mut init, "ipfs-cluster-service init").await?.success("ipfs-cluster-service init")?;
        let port = free_port()?;
        let path = folder.join("service.json");
        let config = configure(serde_json::from_slice(&fs::read(&path)?)?, &kubo.rpc()?, port)?;
        fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        let mut run = service(&folder)?;
        run.args(["--loglevel", "error", "daemon"]).stdin(Stdio::null());
        let daemon = Daemon::start(name, &mut run, &place.log(name))?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut cluster = Self { folder, daemon, kubo, endpoint, token: String::new() };
        cluster.token = eventually("ipfs-cluster to give a token", READY, async || {
            cluster.ask_for_token().await.map(Some)
        })
        .await?;
        eventually("ipfs-cluster to accept a pin", READY, async || cluster.try_pin().await.map(Some)).await?;
        Ok(cluster)
    }

    async fn ask_for_token(&self) -> Result<String> {
        let request = client()?.post(format!("{}/token", self.endpoint)).basic_auth(USER.0, Some(USER.1));
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(answer["token"].as_str().context("an answer has a token")?.to_owned())
    }

    async fn try_pin(&self) -> Result<()> {
        let request = client()?.post(format!("{}/pins", self.endpoint)).bearer_auth(&self.token);
        let answer = request.json(&json!({ "cid": INLINE })).send().await?;
        ensure!(answer.status().is_success(), "it answered {}", answer.status());
        Ok(())
    }

    /// The process ids of the service and of its Kubo.
    pub fn processes(&self) -> (Option<u32>, Option<u32>) {
        (self.daemon.id(), self.kubo.process())
    }

    /// Where it keeps its configuration and its state.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}

fn service(folder: &std::path::Path) -> Result<Command> {
    let mut command = command(peer("PINFOLD_E2E_CLUSTER")?);
    command.env("IPFS_CLUSTER_PATH", folder);
    Ok(command)
}

/// Every listener on loopback, nobody to discover, everything else as it
/// comes: what is measured is what its users get.
fn configure(mut config: Value, kubo: &str, port: u16) -> Result<Value> {
    let listen = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}");
    config["cluster"]["listen_multiaddress"] = json!([listen(free_port()?)]);
    config["cluster"]["mdns_interval"] = json!("0s");
    config["cluster"]["enable_relay_hop"] = json!(false);
    config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = json!(kubo);
    let api = config["api"].as_object_mut().context("the configuration has APIs")?;
    api.remove("ipfsproxy");
    api["restapi"]["http_listen_multiaddress"] = json!(listen(free_port()?));
    api["pinsvcapi"]["http_listen_multiaddress"] = json!(listen(port));
    api["pinsvcapi"]["basic_auth_credentials"] = json!({ USER.0: USER.1 });
    Ok(config)
}
