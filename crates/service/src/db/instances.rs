//! Which services live: each has a row that it renews, and one that is not
//! renewed in time stands for a process that ended.

use super::{error::Result, sql::values, tx::Tx};

/// How long a heartbeat counts, in ms: four of the pauses between two, so that
/// a slow commit or a restart of the database makes nobody seem dead.
const LIVE_MS: i64 = 20_000;

/// The rows of services among the leases.
const ALL: &str = "name LIKE 'service/%'";

fn name(instance: &str) -> String {
    format!("service/{instance}")
}

/// Renews the row of a service, forgets those of dead ones, and answers how
/// many live.
pub(crate) async fn beat(tx: &mut Tx, instance: &str) -> Result<u32> {
    let now = tx.now();
    // What ends far in the future was written by a clock that jumped.
    let dead = format!("DELETE FROM lease WHERE {ALL} AND (until < $1 OR until > $2)");
    tx.execute(&dead, &values![now, now + 2 * LIVE_MS]).await?;
    let sql = "INSERT INTO lease (name, owner, until) VALUES ($1, $2, $3)
        ON CONFLICT (name) DO UPDATE SET until = excluded.until";
    tx.execute(sql, &values![name(instance), instance, now + LIVE_MS]).await?;
    let live = tx.first(&format!("SELECT COUNT(*) FROM lease WHERE {ALL}"), &[]).await?;
    let live = live.map_or(Ok(1), |row| row.int(0))?;
    Ok(u32::try_from(live.max(1)).unwrap_or(u32::MAX))
}

/// Removes the row of a service that ends.
pub(crate) async fn leave(tx: &mut Tx, instance: &str) -> Result<()> {
    tx.execute("DELETE FROM lease WHERE name = $1", &values![name(instance)]).await?;
    Ok(())
}
