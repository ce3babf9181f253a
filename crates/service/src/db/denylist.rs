//! The denylist's rules that commands add, and the denylist's version.
//!
//! Services see a change by the number of the property `denylist_rules`.

use super::{
    error::Result,
    operator, property,
    sql::{Value, values},
    tx::Tx,
};

/// The property that counts changes.
const CHANGES: &str = "denylist_rules";

/// How often the rules were changed.
pub(crate) async fn changes(tx: &mut Tx) -> Result<i64> {
    property::number(tx, CHANGES).await
}

/// Rules with ids above `after`, in order, with their ids.
pub(crate) async fn rules(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<(i64, String)>> {
    let sql = "SELECT id, rule FROM denylist_rule WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = tx.query(sql, &values![after, limit]).await?;
    rows.iter().map(|row| Ok((row.int(0)?, row.text(1)?.to_owned()))).collect()
}

/// Adds the rules that are not there; answers how many.
pub(crate) async fn add(tx: &mut Tx, rules: &[String]) -> Result<u64> {
    one_at_a_time(tx).await?;
    let sql = "INSERT INTO denylist_rule (rule) VALUES ($1) ON CONFLICT (rule) DO NOTHING";
    let rows: Vec<Vec<Value>> = rules.iter().map(|rule| values![rule].to_vec()).collect();
    let mut added = 0;
    for row in &rows {
        added += tx.execute(sql, row).await?;
    }
    if added > 0 {
        changed(tx).await?;
        let subject = if let [rule] = rules { rule.clone() } else { format!("{} rules", rules.len()) };
        operator::note_deed(tx, "denylist.add", subject, &format!("{added} of them new")).await?;
    }
    Ok(added)
}

/// Removes a rule; answers whether it was there.
pub(crate) async fn remove(tx: &mut Tx, rule: &str) -> Result<bool> {
    one_at_a_time(tx).await?;
    let removed = tx.execute("DELETE FROM denylist_rule WHERE rule = $1", &values![rule]).await? > 0;
    if removed {
        changed(tx).await?;
        operator::note_deed(tx, "denylist.rm", rule, "").await?;
    }
    Ok(removed)
}

/// Rules are locked in no order of theirs, so that nobody else may be at it.
async fn one_at_a_time(tx: &mut Tx) -> Result<()> {
    property::set_once(tx, CHANGES, "").await?;
    tx.query("SELECT 1 FROM property WHERE name = $1 FOR UPDATE", &values![CHANGES]).await?;
    Ok(())
}

async fn changed(tx: &mut Tx) -> Result<()> {
    let sql = "INSERT INTO property (name, number) VALUES ($1, 1)
        ON CONFLICT (name) DO UPDATE SET number = property.number + 1";
    tx.execute(sql, &values![CHANGES]).await?;
    Ok(())
}

/// The version of the denylist with these rules: the stored one, or the next.
/// No rules, where there never were any, are version 0.
pub(crate) async fn version(tx: &mut Tx, digest: &str, is_empty: bool) -> Result<i64> {
    if is_empty && property::get(tx, "denylist").await?.is_none() {
        return Ok(0);
    }
    // Locks the row, so that two processes cannot give one version to two lists.
    let sql = "INSERT INTO property (name, number, text) VALUES ('denylist', 1, $1)
        ON CONFLICT (name) DO UPDATE SET
            number = CASE WHEN property.text = excluded.text THEN property.number ELSE property.number + 1 END,
            text = excluded.text
        RETURNING number";
    tx.first(sql, &values![digest]).await?.map_or(Ok(0), |row| row.int(0))
}
