//! What a transaction about several contents reads ahead: in a few statements
//! for all of them instead of a few for each, and with every account locked
//! before the first is changed.
//!
//! A holding is changed only by a transaction that has locked its content. So
//! the holdings of locked contents can be read at once, and are then known
//! from memory: [`super::effects`] asks the database no more for them.

use std::collections::BTreeSet;

use super::{
    effects::PART,
    error::Result,
    holding::{self, Holding},
    sql::values,
    tx::Tx,
    types::AccountId,
    unit,
};

/// Loads the holdings of some locked contents, and loads and locks the accounts
/// that have them, so that a transaction that goes through the contents one by
/// one does not lock accounts in the contents' order. Of a content that more
/// than [`PART`] have, the first are locked; the others follow in parts of
/// their own.
pub(crate) async fn load(tx: &mut Tx, contents: &[i64]) -> Result<()> {
    let contents: BTreeSet<i64> =
        contents.iter().copied().filter(|content| !tx.unit.is_whole(*content)).collect();
    let lists: Vec<_> = contents.iter().map(|&content| values![content, PART].to_vec()).collect();
    let found = tx.query_many(holding::OF_CONTENT, &lists).await?;
    let mut accounts = BTreeSet::<AccountId>::new();
    for (&content, rows) in contents.iter().zip(&found) {
        let holdings = rows.iter().map(Holding::read).collect::<Result<Vec<_>>>()?;
        accounts.extend(holdings.iter().map(|holding| holding.account));
        if (holdings.len() as i64) < PART {
            tx.unit.loaded_holdings(content, holdings);
        }
    }
    unit::load_accounts(tx, accounts).await?;
    load_replacing(tx, &contents).await
}

/// Notes which contents replace none.
async fn load_replacing(tx: &mut Tx, contents: &BTreeSet<i64>) -> Result<()> {
    let sql = "SELECT 1 FROM hold WHERE successor = $1 LIMIT 1";
    let lists: Vec<_> = contents.iter().map(|&content| values![content].to_vec()).collect();
    for (&content, rows) in contents.iter().zip(tx.query_many(sql, &lists).await?) {
        if rows.is_empty() {
            tx.unit.replaces_none(content);
        }
    }
    Ok(())
}
