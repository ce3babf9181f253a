//! Hosts of a small network of their own: Linux network namespaces on one
//! bridge, with addresses that look routable and lead nowhere else.
//!
//! The Amino DHT ignores private addresses, and takes few peers of one /16:
//! so each host has an address of another /16 of 11.0.0.0/8. No host has a
//! route to anything but the others.

use std::{
    fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{kubo::Kubo, names, place::Place};

/// DHT servers of [`dht`], on the hosts from number 1 on.
pub const SERVERS: u8 = 4;

/// A bridge and the hosts on it; all are removed when it is dropped.
#[derive(Debug)]
pub struct Hosts {
    prefix: String,
    names: Vec<String>,
}

impl Hosts {
    /// Makes `count` hosts; the first is number 1.
    pub fn new(count: u8) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        // A process has several such networks at a time.
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let mut hosts = Self { prefix: format!("pf{}-{number}", std::process::id()), names: Vec::new() };
        let bridge = hosts.add("hub")?;
        hosts.ip(&bridge, "link add br0 type bridge")?;
        hosts.ip(&bridge, "link set br0 up")?;
        for number in 1..=count {
            hosts.connect(&bridge, number)?;
        }
        Ok(hosts)
    }

    /// The namespace of a host.
    pub fn name(&self, number: u8) -> &str {
        &self.names[usize::from(number)]
    }

    /// The address of a host.
    pub fn address(number: u8) -> String {
        format!("11.{number}.0.1")
    }

    fn connect(&mut self, bridge: &str, number: u8) -> Result<()> {
        let host = self.add(&number.to_string())?;
        self.ip(bridge, &format!("link add port{number} type veth peer name eth0 netns {host}"))?;
        self.ip(bridge, &format!("link set port{number} master br0 up"))?;
        self.ip(&host, &format!("address add {}/8 dev eth0", Self::address(number)))?;
        self.ip(&host, "link set eth0 up")?;
        self.ip(&host, "link set lo up")
    }

    pub(crate) fn add(&mut self, name: &str) -> Result<String> {
        let name = format!("{}-{name}", self.prefix);
        run(Command::new("ip").args(["netns", "add", &name]))?;
        self.names.push(name.clone());
        Ok(name)
    }

    pub(crate) fn ip(&self, namespace: &str, arguments: &str) -> Result<()> {
        run(Command::new("ip").args(["-n", namespace]).args(arguments.split(' '))).map(drop)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // Nothing can be done about a namespace that stays; it is empty.
            let _ = run(Command::new("ip").args(["netns", "delete", name]));
            let _ = fs::remove_dir_all(names::files_of(name));
        }
    }
}

/// Kubos that are servers of one Amino-like DHT, on a host
/// each; and the address to join it by.
pub async fn dht(place: &Place, hosts: &Hosts) -> Result<(Vec<Kubo>, String)> {
    let mut servers: Vec<Kubo> = Vec::new();
    let mut bootstrap = String::new();
    for number in 1..=SERVERS {
        let listen = format!("/ip4/{}/tcp/4001", Hosts::address(number));
        let first = bootstrap.clone();
        let name = format!("server{number}");
        let kubo = Kubo::start_in(place, &name, Some(hosts.name(number)), &[], |config| {
            config["Routing"] = json!({ "Type": "dhtserver" });
            config["Addresses"]["Swarm"] = json!([&listen]);
            config["Bootstrap"] = if first.is_empty() { json!([]) } else { json!([first]) };
        })
        .await?;
        if bootstrap.is_empty() {
            bootstrap = format!("{listen}/p2p/{}", kubo.id);
        }
        servers.push(kubo);
    }
    Ok((servers, bootstrap))
}

/// Runs a command to its end, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("cannot start `ip`")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
