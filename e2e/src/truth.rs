//! What a root's blocks are, by the word of the origin that made them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use cid::Cid;

use crate::{
    car,
    kubo::Kubo,
    pinfold::Pinfold,
    scenario::{held, served},
};

/// The blocks of one root.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Their CIDs.
    pub cids: BTreeSet<Cid>,
    /// Their bytes.
    pub bytes: u64,
}

impl Truth {
    /// Asks the origin's gateway for all blocks, and checks each one's hash.
    ///
    /// # Errors
    /// When the origin does not have them.
    pub async fn of(origin: &Kubo, root: &str) -> Result<Self> {
        let blocks = car::read(&served(&origin.gateway, &format!("{root}?format=car")).await?)?;
        let bytes = blocks.values().map(|block| block.len() as u64).sum();
        Ok(Self { cids: blocks.into_keys().collect(), bytes })
    }
}

/// Truths by root.
pub type Truths = BTreeMap<String, Truth>;

/// What the recount wants to know of them.
pub fn sizes(truths: &Truths) -> BTreeMap<String, u64> {
    truths.iter().map(|(root, truth)| (root.clone(), truth.bytes)).collect()
}

/// Checks that exactly the blocks of a root are held and served, and right.
///
/// # Errors
/// When they are not.
pub async fn held_exactly(pinfold: &Pinfold, root: &str, truth: &Truth) -> Result<()> {
    let found = held(pinfold, root).await?;
    ensure!(found == truth.cids, "{root} is held with {} blocks of {}", found.len(), truth.cids.len());
    Ok(())
}
