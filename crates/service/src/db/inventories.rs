//! What nodes hold that this database does not know, after a restore: found
//! by their inventories, and let go when the operator says so.
//!
//! An inventory comes in parts. It is noted how far each node's is in, within
//! the generation of the database, so that nothing is confirmed that was only
//! half looked at.

use pinfold_node_api::Inventory;

use super::{
    error::{Error, Result},
    nodes, operator, property,
    schema::FIRST_GENERATION,
    sql::values,
    tx::Tx,
    types::{Changed, Strays},
};

/// An inventory that begins here is one from its beginning: no content has a
/// number as low.
const BEGINNING: i64 = 0;

/// Where it is noted how far a node's inventory is in: the generation in which
/// it was whole, and `GENERATION:CONTENT` while it is not.
fn name(node: i64) -> String {
    format!("inventory {node}")
}

/// Notes a part that reaches up to content `last`, `i64::MAX` at the end.
pub(crate) async fn note(tx: &mut Tx, node: i64, part: &Inventory, last: i64) -> Result<()> {
    let generation = property::number(tx, "generation").await?;
    let (whole, reached) = property::get(tx, &name(node)).await?.unwrap_or_default();
    let follows = part.after <= BEGINNING || reached == format!("{generation}:{}", part.after);
    if whole == generation || !follows {
        return Ok(());
    }
    if last == i64::MAX {
        property::set(tx, &name(node), generation, "").await
    } else {
        property::set(tx, &name(node), whole, &format!("{generation}:{last}")).await
    }
}

/// What is unknown here, and which live nodes have not said all of theirs.
pub(crate) async fn strays(tx: &mut Tx) -> Result<Strays> {
    let generation = property::number(tx, "generation").await?;
    let mut outstanding = Vec::new();
    for node in nodes::all(tx).await?.iter().filter(|node| node.live) {
        if property::number(tx, &name(node.id)).await? < generation {
            outstanding.push(node.id);
        }
    }
    let row = tx.first("SELECT COUNT(*) FROM stray WHERE confirmed = 0", &[]).await?;
    Ok(Strays { contents: row.map_or(Ok(0), |row| row.count(0))?, outstanding })
}

/// Whether a node may be told to let anything go: not while a restored database
/// does not know all that it holds, or the operator has not decided about what
/// is unknown here. Any root may be one that was pinned, and forgotten, before.
pub(crate) async fn is_settled(tx: &mut Tx, node: i64) -> Result<bool> {
    let generation = property::number(tx, "generation").await?;
    if generation == FIRST_GENERATION {
        return Ok(true);
    }
    if property::number(tx, &name(node)).await? < generation {
        return Ok(false);
    }
    let sql = "SELECT 1 FROM stray WHERE node = $1 AND confirmed = 0 LIMIT 1";
    Ok(tx.first(sql, &values![node]).await?.is_none())
}

/// Has what nodes hold beyond this database let go, as the operator decided.
pub(crate) async fn release(tx: &mut Tx) -> Result<u64> {
    let Strays { outstanding, .. } = strays(tx).await?;
    if !outstanding.is_empty() {
        return Err(Error::Invalid(format!(
            "the inventories of {} live nodes are not in yet (numbers {outstanding:?}); they come within a minute \
             of the service's start: try again then",
            outstanding.len()
        )));
    }
    let sql = "UPDATE stray SET confirmed = 1 WHERE (node, content) IN
        (SELECT node, content FROM stray WHERE confirmed = 0 ORDER BY node, content FOR UPDATE)";
    let changed = tx.execute(sql, &[]).await?;
    if changed > 0 {
        tx.effects.changed.insert(Changed::ANY.content, true);
        operator::note_deed(tx, "restore.confirm", "", &format!("{changed} contents")).await?;
    }
    Ok(changed)
}
