//! The peers and tools of the tests: what each is, in which version, and how
//! it comes into the cache. Only package registries are needed: Go's module
//! proxy, npm, PyPI, crates.io and Debian's archive.
//!
//! A peer that cannot be had here is noted with the reason; the tests that
//! need it are left out, and all others run.

mod debian;
mod faketime;
pub(crate) mod go;
mod js;
mod machine;
mod missing;
mod postgres;
mod python;
mod rust;

use std::{path::PathBuf, process::Command};

use anyhow::{Result, anyhow};

use self::{go::Go, js::Node};
use crate::cache::Cache;

pub(crate) use self::{
    missing::{Missing, TestFile},
    rust::cargo_deny,
};

/// The peers that are kept in the cache, for whole files of tests.
const CACHED: &[&str] = &[
    "PINFOLD_E2E_KUBO",
    "PINFOLD_E2E_PEBBLE",
    "PINFOLD_E2E_HELIA",
    "PINFOLD_E2E_COMPLIANCE",
    "PINFOLD_E2E_NODEJS",
    "PINFOLD_E2E_SCHEMATHESIS",
];

/// Where each peer of the tests is, and which cannot be had.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// Names of the environment's variables, and the paths.
    found: Vec<(&'static str, PathBuf)>,
    missing: Vec<Missing>,
}

impl Peers {
    /// Installs what is missing, as far as that is possible.
    pub(crate) fn install(cache: &Cache) -> Self {
        let mut peers = Self::default();
        peers.go(cache);
        peers.node(cache);
        peers.offer("PINFOLD_E2E_SCHEMATHESIS", python::schemathesis(cache));
        peers.machine();
        for missing in &peers.missing {
            println!("  MISSING: {missing}");
        }
        peers
    }

    /// What the machine has, where the cache cannot be used.
    pub(crate) fn none(reason: &str) -> Self {
        let mut peers = Self::default();
        for variable in CACHED {
            peers.offer(variable, Err(anyhow!("{reason}")));
        }
        peers.offer_named("PINFOLD_E2E_CONFORMANCE", "gateway_conforms", Err(anyhow!("{reason}")));
        peers.machine();
        peers
    }

    fn go(&mut self, cache: &Cache) {
        let go = Go::provide(cache);
        let with = |install: fn(&Cache, &Go) -> Result<PathBuf>| match &go {
            Ok(go) => install(cache, go),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        self.offer("PINFOLD_E2E_KUBO", with(go::kubo));
        self.offer("PINFOLD_E2E_PEBBLE", with(go::pebble));
        self.offer_named("PINFOLD_E2E_CONFORMANCE", "gateway_conforms", with(go::conformance));
    }

    fn node(&mut self, cache: &Cache) {
        let node = Node::provide(cache);
        let packages = |name: &str| match &node {
            Ok(node) => js::packages(cache, node, name),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        self.offer("PINFOLD_E2E_HELIA", packages("helia"));
        self.offer("PINFOLD_E2E_COMPLIANCE", packages("compliance"));
        self.offer("PINFOLD_E2E_NODEJS", node.map(|node| node.program));
    }

    /// What is the machine's: packages of its distribution, and its rights.
    fn machine(&mut self) {
        let postgres = postgres::install()
            .and_then(|found| found.ok_or_else(|| anyhow!("PostgreSQL 15 or newer, or root on Debian")));
        self.offer_named("PINFOLD_E2E_POSTGRES", "postgres", postgres);
        let faketime = faketime::install().ok_or_else(|| anyhow!("libfaketime, or root on Debian"));
        self.offer_named("PINFOLD_E2E_FAKETIME", "faketime", faketime);
        if !machine::namespaces() {
            self.missing.push(Missing::named("namespaces", "Linux, root, iproute2 and nftables"));
        }
        if !machine::curl() {
            self.missing.push(Missing::named("curls_lines", "curl"));
        }
        if !machine::compiler() {
            self.missing.push(Missing::named("with_a_witness", "Linux and a C compiler `cc`"));
        }
        if !machine::root() {
            self.missing.push(Missing::named("as_root", "Linux, root and mount"));
        }
    }

    /// Notes a peer that whole files of tests need.
    fn offer(&mut self, variable: &'static str, peer: Result<PathBuf>) {
        match peer {
            Ok(path) => self.found.push((variable, path)),
            Err(error) => self.missing.push(Missing::using(variable, &format!("{error:#}"))),
        }
    }

    /// Notes a peer that the tests need which have `word` in their names.
    fn offer_named(&mut self, variable: &'static str, word: &'static str, peer: Result<PathBuf>) {
        match peer {
            Ok(path) => self.found.push((variable, path)),
            Err(error) => self.missing.push(Missing::named(word, &format!("{error:#}"))),
        }
    }

    /// Tells a test command where the peers are.
    pub(crate) fn announce(&self, command: &mut Command) {
        for (name, path) in &self.found {
            command.env(name, path);
        }
    }

    /// What cannot be had, and so which tests cannot run here.
    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Names of the environment's variables, and the paths.
    pub(crate) fn list(&self) -> &[(&'static str, PathBuf)] {
        &self.found
    }
}
