//! A host behind a router that translates addresses, as in most homes: it
//! reaches every host of [`crate::net`], and none reaches it.

use std::process::Command;

use anyhow::{Context, Result};

use crate::net::{Hosts, run};

/// The address of the hidden host, which means nothing outside.
pub const HIDDEN: &str = "192.168.7.2";

/// The router's address inside.
const INSIDE: &str = "192.168.7.1";

/// What the router does: connections from inside leave under its own address,
/// and those to IPFS's usual port are counted. The chain sees the first packet
/// of each connection alone.
const TRANSLATION: &str = "table ip nat { counter peers { }; \
    chain out { type nat hook postrouting priority srcnat; \
    oifname eth0 tcp dport 4001 counter name peers; oifname eth0 masquerade; }; }";

impl Hosts {
    /// Makes a host behind the host `router`; its namespace.
    pub fn hide_behind(&mut self, router: u8) -> Result<String> {
        let hidden = self.add("hidden")?;
        let router = self.name(router).to_owned();
        self.ip(&router, &format!("link add inside type veth peer name eth0 netns {hidden}"))?;
        self.ip(&router, &format!("address add {INSIDE}/24 dev inside"))?;
        self.ip(&router, "link set inside up")?;
        self.ip(&hidden, &format!("address add {HIDDEN}/24 dev eth0"))?;
        self.ip(&hidden, "link set eth0 up")?;
        self.ip(&hidden, "link set lo up")?;
        self.ip(&hidden, &format!("route add default via {INSIDE}"))?;
        on(&router, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        on(&router, &["nft", TRANSLATION])?;
        Ok(hidden)
    }

    /// How many connections were opened from behind a router to port 4001.
    pub fn opened_from_behind(&self, router: u8) -> Result<u64> {
        let text = on(self.name(router), &["nft", "list", "counter", "ip", "nat", "peers"])?;
        let count = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        count.and_then(|count| count.parse().ok()).with_context(|| format!("nft printed {text}"))
    }
}

fn on(namespace: &str, command: &[&str]) -> Result<String> {
    run(Command::new("ip").args(["netns", "exec", namespace]).args(command))
}
