//! The peers and tools of the tests: what each is, in which version, and how
//! it comes into the cache. Only package registries are needed: Go's module
//! proxy, npm, PyPI, crates.io and Debian's archive.

mod faketime;
pub(crate) mod go;
mod js;
mod namespaces;
mod postgres;
mod python;
mod rust;

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{cache::Cache, process::is_root};

pub(crate) use rust::cargo_deny;

/// Where each peer of the tests is.
#[derive(Debug)]
pub(crate) struct Peers {
    /// The `ipfs` of Kubo.
    pub(crate) kubo: PathBuf,
    /// Folder of gateway-conformance's tests, where its module could be had.
    pub(crate) conformance: Option<PathBuf>,
    /// Pebble, an ACME server.
    pub(crate) pebble: PathBuf,
    /// A Node.js that Helia runs on.
    pub(crate) node: PathBuf,
    /// Folder with Helia and its script.
    pub(crate) helia: PathBuf,
    /// Folder with the official compliance suite.
    pub(crate) compliance: PathBuf,
    /// The `schemathesis` command.
    pub(crate) schemathesis: PathBuf,
    /// Folder of PostgreSQL's programs, where it could be had.
    pub(crate) postgres: Option<PathBuf>,
    /// libfaketime, where it could be had.
    pub(crate) faketime: Option<PathBuf>,
    /// Whether network namespaces can be made.
    pub(crate) namespaces: bool,
}

impl Peers {
    /// Installs what is missing.
    pub(crate) fn install(cache: &Cache) -> Result<Self> {
        Ok(Self {
            kubo: go::kubo(cache)?,
            conformance: go::conformance(cache)?,
            pebble: go::pebble(cache)?,
            node: js::node(cache)?,
            helia: js::packages(cache, "helia")?,
            compliance: js::packages(cache, "compliance")?,
            schemathesis: python::schemathesis(cache)?,
            postgres: postgres::install()?,
            faketime: faketime::install()?,
            namespaces: namespaces::install()?,
        })
    }

    /// Tells a test command where the peers are.
    pub(crate) fn announce(&self, command: &mut Command) {
        for (name, path) in self.list() {
            command.env(name, path);
        }
    }

    /// What of the tests cannot run here: the word in their names, and what
    /// it takes.
    pub(crate) fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let mut missing = Vec::new();
        if self.postgres.is_none() {
            missing.push(("postgres", "PostgreSQL 15 or newer, or root on Debian"));
        }
        if self.faketime.is_none() {
            missing.push(("faketime", "libfaketime, or root on Debian"));
        }
        if self.conformance.is_none() {
            missing.push(("gateway_conforms", "the Go module github.com/ipfs/gateway-conformance"));
        }
        if !self.namespaces {
            missing.push(("namespaces", "Linux, root and iproute2"));
        }
        if !(cfg!(target_os = "linux") && is_root()) {
            missing.push(("as_root", "Linux and root"));
        }
        missing
    }

    /// Names of the environment's variables, and the paths.
    pub(crate) fn list(&self) -> Vec<(&'static str, &PathBuf)> {
        let mut list = vec![
            ("PINFOLD_E2E_KUBO", &self.kubo),
            ("PINFOLD_E2E_PEBBLE", &self.pebble),
            ("PINFOLD_E2E_NODEJS", &self.node),
            ("PINFOLD_E2E_HELIA", &self.helia),
            ("PINFOLD_E2E_COMPLIANCE", &self.compliance),
            ("PINFOLD_E2E_SCHEMATHESIS", &self.schemathesis),
        ];
        list.extend(self.conformance.as_ref().map(|path| ("PINFOLD_E2E_CONFORMANCE", path)));
        list.extend(self.postgres.as_ref().map(|path| ("PINFOLD_E2E_POSTGRES", path)));
        list.extend(self.faketime.as_ref().map(|path| ("PINFOLD_E2E_FAKETIME", path)));
        list
    }
}
