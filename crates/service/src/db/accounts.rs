//! Accounts.

use super::{
    content::amount,
    error::{AccountRefusal, Result},
    operator, pins,
    sql::{Row, Value, values},
    tx::Tx,
    types::{Account, AccountId},
};

const SELECT: &str = "SELECT a.id, a.name, a.created, a.quota, a.used, a.reserved, a.disabled,
    CAST(COALESCE(SUM(t.queued), 0) AS BIGINT), CAST(COALESCE(SUM(t.pinning), 0) AS BIGINT),
    CAST(COALESCE(SUM(t.pinned), 0) AS BIGINT), CAST(COALESCE(SUM(t.failed), 0) AS BIGINT)
    FROM account a LEFT JOIN tally t ON t.account = a.id AND t.level = 2 WHERE a.removing = 0";

const GROUP: &str = "GROUP BY a.id, a.name, a.created, a.quota, a.used, a.reserved, a.disabled ORDER BY a.id";

fn read(row: &Row) -> Result<Account> {
    Ok(Account {
        id: row.int(0)?,
        name: row.text(1)?.to_owned(),
        created: row.int(2)?,
        quota: row.count(3)?,
        used: row.count(4)?,
        reserved: row.count(5)?,
        disabled: row.flag(6)?,
        pins: [row.count(7)?, row.count(8)?, row.count(9)?, row.count(10)?],
    })
}

/// Makes an account.
pub(crate) async fn create(tx: &mut Tx, name: &str, quota: u64) -> Result<Account> {
    let sql = "INSERT INTO account (name, created, quota) VALUES ($1, $2, $3)
        ON CONFLICT (name) DO NOTHING RETURNING id";
    let (created, quota) = (tx.now(), amount(quota));
    let row = tx.first(sql, &values![name, created, quota]).await?.ok_or(AccountRefusal::NameTaken)?;
    let (id, quota) = (row.int(0)?, quota.unsigned_abs());
    operator::note_deed(tx, "account.create", name, &format!("{quota} bytes")).await?;
    let name = name.to_owned();
    Ok(Account { id, name, created, quota, used: 0, reserved: 0, disabled: false, pins: [0; 4] })
}

/// The account with this number.
pub(crate) async fn by_id(tx: &mut Tx, id: AccountId) -> Result<Option<Account>> {
    let row = tx.first(&format!("{SELECT} AND a.id = $1 {GROUP}"), &values![id]).await?;
    row.as_ref().map(read).transpose()
}

/// The account with this name.
pub(crate) async fn by_name(tx: &mut Tx, name: &str) -> Result<Option<Account>> {
    let row = tx.first(&format!("{SELECT} AND a.name = $1 {GROUP}"), &values![name]).await?;
    row.as_ref().map(read).transpose()
}

/// Accounts with numbers above `after`.
pub(crate) async fn some(tx: &mut Tx, after: AccountId, limit: i64) -> Result<Vec<Account>> {
    let rows = tx.query(&format!("{SELECT} AND a.id > $1 {GROUP} LIMIT $2"), &values![after, limit]).await?;
    rows.iter().map(read).collect()
}

/// Changes an account by a statement that answers its name.
async fn change(tx: &mut Tx, sql: &str, parameters: &[Value]) -> Result<String> {
    let row = tx.first(sql, parameters).await?.ok_or(AccountRefusal::NotFound)?;
    Ok(row.text(0)?.to_owned())
}

/// Sets the quota.
pub(crate) async fn set_quota(tx: &mut Tx, id: AccountId, quota: u64) -> Result<()> {
    let sql = "UPDATE account SET quota = $2 WHERE id = $1 AND removing = 0 RETURNING name";
    let name = change(tx, sql, &values![id, amount(quota)]).await?;
    operator::note_deed(tx, "account.quota", name, &format!("{quota} bytes")).await
}

/// Disables or enables the account.
pub(crate) async fn set_disabled(tx: &mut Tx, id: AccountId, disabled: bool) -> Result<()> {
    let sql = "UPDATE account SET disabled = $2 WHERE id = $1 AND removing = 0 RETURNING name";
    let name = change(tx, sql, &values![id, disabled]).await?;
    let action = if disabled { "account.disable" } else { "account.enable" };
    operator::note_deed(tx, action, name, "").await
}

/// Begins to remove the account: nobody can use it from then on, its tokens
/// are gone, and its name is free.
pub(crate) async fn begin_removal(tx: &mut Tx, id: AccountId) -> Result<()> {
    let sql = "SELECT name FROM account WHERE id = $1 AND removing = 0 FOR UPDATE";
    let name = change(tx, sql, &values![id]).await?;
    operator::note_deed(tx, "account.rm", name, "").await?;
    let gone = format!("removed account {id} {}", uuid::Uuid::now_v7().simple());
    tx.execute("UPDATE account SET removing = 1, name = $2 WHERE id = $1", &values![id, gone]).await?;
    tx.execute("DELETE FROM token WHERE account = $1", &values![id]).await?;
    Ok(())
}

/// Removes a part of an account whose removal began, of any or of the given
/// one; answers 1 unless there is none.
pub(crate) async fn remove_part(tx: &mut Tx, id: Option<AccountId>) -> Result<u64> {
    let sql = "SELECT id FROM account WHERE removing = 1 AND id = COALESCE($1, id) ORDER BY id LIMIT 1";
    let Some(row) = tx.first(sql, &values![id]).await? else { return Ok(0) };
    let id = row.int(0)?;
    if pins::remove_account_part(tx, id).await? > 0 {
        return Ok(1);
    }
    tx.execute("DELETE FROM tally WHERE account = $1", &values![id]).await?;
    tx.execute("DELETE FROM token WHERE account = $1", &values![id]).await?;
    tx.execute("DELETE FROM account WHERE id = $1", &values![id]).await?;
    Ok(1)
}
