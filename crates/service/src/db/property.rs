//! Single facts by name: a number and a text each.

use super::{error::Result, sql::values, tx::Tx};

/// The number of a property; 0 where it was never set.
pub(crate) async fn number(tx: &mut Tx, name: &str) -> Result<i64> {
    Ok(get(tx, name).await?.map_or(0, |(number, _)| number))
}

/// A property, if it was ever set.
pub(crate) async fn get(tx: &mut Tx, name: &str) -> Result<Option<(i64, String)>> {
    let row = tx.first("SELECT number, text FROM property WHERE name = $1", &values![name]).await?;
    row.map(|row| Ok((row.int(0)?, row.text(1)?.to_owned()))).transpose()
}

/// Sets a property.
pub(crate) async fn set(tx: &mut Tx, name: &str, number: i64, text: &str) -> Result<()> {
    let sql = "INSERT INTO property (name, number, text) VALUES ($1, $2, $3)
        ON CONFLICT (name) DO UPDATE SET number = excluded.number, text = excluded.text";
    tx.execute(sql, &values![name, number, text]).await?;
    Ok(())
}

/// Sets a property unless it is set; answers the one that is there.
pub(crate) async fn set_once(tx: &mut Tx, name: &str, text: &str) -> Result<String> {
    let sql = "INSERT INTO property (name, text) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    tx.execute(sql, &values![name, text]).await?;
    Ok(get(tx, name).await?.map_or_else(|| text.to_owned(), |(_, text)| text))
}
