//! Rereads everything that a node holds, while it does not run.

use std::{cell::Cell, path::Path};

use pinfold_blockstore::{self as blockstore, Difference, Options, Store};

/// What was reread, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blocks whose checksum and multihash were recomputed.
    pub blocks: u64,
    /// A sentence for each thing that is wrong; empty when all is well.
    pub differences: Vec<String>,
}

/// Rereads every block in a node's data folder, recomputes its multihash, and
/// recounts references. What is damaged is noted as lost, and fetched again
/// when the node runs. `told` how many blocks are reread, and of how many.
///
/// # Errors
/// When the store cannot be opened, as while the node runs.
pub fn check(data: &Path, told: impl Fn(u64, u64)) -> Result<Checked, blockstore::Error> {
    let store = Store::open(data.join("blocks"), Options::default())?;
    let (total, reread) = (store.usage().blocks, Cell::new(0));
    // It is asked before each block, and each part of a list.
    let scrubbed = store.scrub(u64::MAX, || {
        told(reread.replace(reread.get() + 1).min(total), total);
        false
    })?;
    told(total, total);
    let mut differences: Vec<String> = store.check()?.examples.iter().map(sentence).collect();
    if scrubbed.lost > 0 {
        differences
            .push(format!("{} blocks are damaged; they are fetched again when the node runs", scrubbed.lost));
    }
    Ok(Checked { blocks: scrubbed.blocks, differences })
}

fn sentence(difference: &Difference) -> String {
    match difference {
        Difference::References { multihash, stored, counted } => {
            format!("the block {multihash:?} has {stored} references noted, {counted} counted")
        }
        Difference::Missing { multihash } => {
            format!(
                "the block {multihash:?} of a held root is missing; it is fetched again when the node runs"
            )
        }
        Difference::Sum { what, stored, counted } => format!("{what}: {stored} noted, {counted} counted"),
    }
}
