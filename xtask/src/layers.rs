//! Keeps the crates' layers apart: what a crate must not depend on, directly
//! or through others. Dependencies of tests do not count.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::process::{cargo, output};

/// Crates that stand for a kind of work.
const ASYNC: &[&str] = &["tokio", "async-std", "smol"];
const SQL: &[&str] = &["rusqlite", "libsqlite3-sys", "tokio-postgres", "deadpool-postgres", "sqlx"];
const HTTP: &[&str] = &["axum", "hyper", "reqwest", "tower-http"];
const PEER: &[&str] = &["libp2p", "libp2p-swarm", "libp2p-tcp", "libp2p-quic", "libp2p-kad"];
const RANDOM: &[&str] = &["rand", "getrandom", "fastrand"];

/// Our crates that nothing below them may know.
const ALL_OURS: &[&str] = &[
    "pinfold-core",
    "pinfold-bitswap",
    "pinfold-blockstore",
    "pinfold-node-api",
    "pinfold-node",
    "pinfold-service",
    "pinfold",
];

/// A crate and what may never be in its dependencies.
struct Layer {
    package: &'static str,
    forbidden: &'static [&'static [&'static str]],
}

const LAYERS: &[Layer] = &[
    // Decisions are pure functions over plain data.
    Layer { package: "pinfold-core", forbidden: &[ASYNC, SQL, HTTP, PEER, RANDOM, ALL_OURS] },
    // Bitswap is usable by others.
    Layer { package: "pinfold-bitswap", forbidden: &[SQL, HTTP, ALL_OURS] },
    Layer { package: "pinfold-blockstore", forbidden: &[SQL, HTTP, PEER, ALL_OURS] },
    // The node API is messages, not their transport.
    Layer {
        package: "pinfold-node-api",
        forbidden: &[
            ASYNC,
            SQL,
            HTTP,
            PEER,
            &["pinfold-bitswap", "pinfold-blockstore", "pinfold-node", "pinfold-service", "pinfold"],
        ],
    },
    // The service and the node meet in the node API alone.
    Layer { package: "pinfold-node", forbidden: &[SQL, &["pinfold-service", "pinfold"]] },
    Layer {
        package: "pinfold-service",
        forbidden: &[PEER, &["pinfold-bitswap", "pinfold-blockstore", "pinfold-node", "pinfold"]],
    },
];

/// Checks every layer; the error names each dependency that must go.
pub(crate) fn check() -> Result<()> {
    let mut wrong = Vec::new();
    for layer in LAYERS {
        let found = dependencies(layer.package)?;
        wrong.extend(violations(layer, &found).map(|name| {
            format!(
                "{} depends on {name}: see `cargo tree -p {} -i {name} -e normal`",
                layer.package, layer.package
            )
        }));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n  "));
    }
    println!("  {} crates keep their layers", LAYERS.len());
    Ok(())
}

fn violations<'a>(layer: &'a Layer, found: &'a BTreeSet<String>) -> impl Iterator<Item = &'static str> + 'a {
    let names = layer.forbidden.iter().copied().flatten().copied();
    names.filter(|name| *name != layer.package && found.contains(*name))
}

/// Names of all crates that `package` needs at run time.
fn dependencies(package: &str) -> Result<BTreeSet<String>> {
    let tree =
        output(cargo().args([
            "tree", "--locked", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}",
        ]))?;
    Ok(tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_dependencies_are_named_and_the_crate_itself_is_not() {
        let found = ["pinfold-core", "serde", "tokio", "rusqlite"].map(str::to_owned).into();
        let named: Vec<_> = violations(&LAYERS[0], &found).collect();
        assert_eq!(named, ["tokio", "rusqlite"]);
    }
}
