//! Access tokens: what is known of them, never the tokens themselves.

use uuid::Uuid;

use super::{
    error::{AccountRefusal, Result},
    operator,
    sql::{Row, values},
    tx::Tx,
    types::{Access, AccountId, Deed, Millis, Scope, Token},
};

/// How often the last use of a token is written, in ms.
pub(crate) const USE_MS: i64 = 60_000;

/// The most tokens of a list.
const MAX_LISTED: i64 = 10_000;

const COLUMNS: &str =
    "t.id, t.account, t.name, t.scopes, t.hash, t.created, t.expires, t.last_used, t.revoked";

fn read(row: &Row) -> Result<Token> {
    Ok(Token {
        id: row.uuid(0)?,
        account: row.int(1)?,
        name: row.text(2)?.to_owned(),
        // A newer version's scope means nothing here, and grants nothing.
        scopes: row.text(3)?.split_whitespace().filter_map(Scope::parse).collect(),
        hash: row.bytes32(4)?,
        created: row.int(5)?,
        expires: row.opt_int(6)?,
        last_used: row.opt_int(7)?,
        revoked: row.opt_int(8)?,
    })
}

/// Stores a token, and who made it.
pub(crate) async fn create(tx: &mut Tx, token: &Token, actor: &str) -> Result<Token> {
    let exists = "SELECT name FROM account WHERE id = $1 AND removing = 0 FOR UPDATE";
    let account = tx.first(exists, &values![token.account]).await?.ok_or(AccountRefusal::NotFound)?;
    operator::record_deed(tx, &Deed::now(actor, "token.create", token.id, account.text(0)?)).await?;
    let scopes: Vec<&str> = token.scopes.iter().copied().map(Scope::as_str).collect();
    let created = tx.now();
    let sql = "INSERT INTO token (id, account, name, scopes, hash, created, expires)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let parameters =
        values![token.id, token.account, &token.name, scopes.join(" "), &token.hash, created, token.expires];
    tx.execute(sql, &parameters).await?;
    Ok(Token { created, last_used: None, revoked: None, ..token.clone() })
}

/// Tokens, newest first.
pub(crate) async fn some(tx: &mut Tx, account: Option<AccountId>) -> Result<Vec<Token>> {
    let rows = match account {
        Some(account) => {
            let sql = format!(
                "SELECT {COLUMNS} FROM token t WHERE t.account = $1 ORDER BY t.created DESC, t.id LIMIT $2"
            );
            tx.query(&sql, &values![account, MAX_LISTED]).await?
        }
        None => {
            let sql = format!("SELECT {COLUMNS} FROM token t ORDER BY t.created DESC, t.id LIMIT $1");
            tx.query(&sql, &values![MAX_LISTED]).await?
        }
    };
    rows.iter().map(read).collect()
}

/// Revokes a token, of one account where that is given, and notes who did.
pub(crate) async fn revoke(tx: &mut Tx, id: Uuid, account: Option<AccountId>, actor: &str) -> Result<()> {
    let sql = "UPDATE token SET revoked = $2
        WHERE id = $1 AND account = COALESCE($3, account) AND revoked IS NULL";
    let parameters = values![id, tx.now(), account];
    if tx.execute(sql, &parameters).await? > 0 {
        return operator::record_deed(tx, &Deed::now(actor, "token.revoke", id, "")).await;
    }
    let exists = "SELECT 1 FROM token WHERE id = $1 AND account = COALESCE($2, account)";
    tx.first(exists, &values![id, account]).await?.ok_or(AccountRefusal::NoSuchToken)?;
    Ok(())
}

/// What a `jti` resolves to.
async fn access(tx: &mut Tx, id: Uuid) -> Result<Option<Access>> {
    let sql = format!(
        "SELECT {COLUMNS}, a.disabled, a.removing FROM token t JOIN account a ON a.id = t.account WHERE t.id = $1"
    );
    let Some(row) = tx.first(&sql, &values![id]).await? else { return Ok(None) };
    let account_disabled = row.flag(9)? || row.flag(10)?;
    Ok(Some(Access { token: read(&row)?, account_disabled }))
}

/// What a `jti` resolves to, and the time by this machine's clock, which is
/// good enough for a minute's precision and costs no question.
pub(crate) async fn access_at(tx: &mut Tx, id: Uuid) -> Result<(Option<Access>, Millis)> {
    Ok((access(tx, id).await?, super::sqlite::now()))
}

/// Notes that a token was used.
pub(crate) async fn touch(tx: &mut Tx, id: Uuid) -> Result<()> {
    let sql = "UPDATE token SET last_used = $2 WHERE id = $1 AND COALESCE(last_used, 0) < $3";
    let now = tx.now();
    tx.execute(sql, &values![id, now, now - USE_MS]).await?;
    Ok(())
}
