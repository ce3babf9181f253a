//! `pinfold account`: whose pins they are, and how much they may hold.

use anyhow::{Context, Result};
use pinfold_service::db::{Account, Database, Deed};
use serde_json::{Value, json};

use super::{data, print_table, time};
use crate::{
    cli::{AccountCommand, DataArgs},
    output::{print_json, say},
    progress::Progress,
    usage::wrong_usage,
};

/// Accounts or pins read at once.
const PART: u32 = 1_000;

pub(crate) async fn run(command: AccountCommand) -> Result<()> {
    match command {
        AccountCommand::Create { data, name, quota, free_quota } => {
            let quota = quota.unwrap_or(free_quota);
            let database = data.open().await?;
            let account = database
                .create_account(&name, Some(quota.as_u64()))
                .await
                .with_context(|| format!("cannot make the account {name:?}"))?;
            database.close().await;
            say(&format!(
                "The account {:?} may store {}; `pinfold token create --account` makes its tokens.",
                account.name,
                quota.display().si()
            ));
            Ok(())
        }
        AccountCommand::Ls { data, json } => list(&data, json).await,
        AccountCommand::Quota { data, name, size } => {
            change(&data, &name, async |database, account| {
                Ok(database.set_quota(account.id, size.as_u64()).await?)
            })
            .await
        }
        AccountCommand::Disable { data, name } => disable(&data, &name, true).await,
        AccountCommand::Enable { data, name } => disable(&data, &name, false).await,
        AccountCommand::Rm { data, name, yes } => {
            if !yes {
                wrong_usage!(
                    "removing {name:?} deletes its pins; repeat with --yes, or `pinfold account disable` keeps them"
                );
            }
            change(&data, &name, async |database, account| Ok(database.remove_account(account.id).await?))
                .await
        }
        AccountCommand::Audit { data, limit, json } => audit(&data, limit, json).await,
        AccountCommand::Export { data, name } => export(&data, &name).await,
    }
}

async fn disable(data: &DataArgs, name: &str, disabled: bool) -> Result<()> {
    change(data, name, async |database, account| {
        Ok(database.set_account_disabled(account.id, disabled).await?)
    })
    .await
}

async fn change(
    data: &DataArgs,
    name: &str,
    deed: impl AsyncFnOnce(&Database, &Account) -> Result<()>,
) -> Result<()> {
    let database = data.open().await?;
    let account = data::account(&database, name).await?;
    deed(&database, &account).await?;
    database.close().await;
    Ok(())
}

async fn list(data: &DataArgs, as_json: bool) -> Result<()> {
    let database = data.open().await?;
    let mut rows = Vec::new();
    let mut after = i64::MIN;
    loop {
        let part = database.accounts(after, PART).await?;
        rows.extend(part.iter().map(row));
        match part.last() {
            Some(last) => after = last.id,
            None => break,
        }
    }
    database.close().await;
    let columns =
        ["name", "quota", "used", "reserved", "queued", "pinning", "pinned", "failed", "disabled", "created"];
    print_table(&columns, &rows, as_json)
}

async fn audit(data: &DataArgs, limit: u32, as_json: bool) -> Result<()> {
    let database = data.open().await?;
    let row = |deed: &Deed| {
        json!({
            "at": time(Some(deed.at)),
            "actor": deed.actor,
            "action": deed.action,
            "subject": deed.subject,
            "detail": deed.detail,
        })
    };
    let rows: Vec<Value> = database.deeds(i64::MAX, limit).await?.iter().map(row).collect();
    database.close().await;
    print_table(&["at", "actor", "action", "subject", "detail"], &rows, as_json)
}

fn row(account: &Account) -> Value {
    let [queued, pinning, pinned, failed] = account.pins;
    json!({
        "id": account.id,
        "name": account.name,
        "quota": account.quota,
        "used": account.used,
        "reserved": account.reserved,
        "queued": queued,
        "pinning": pinning,
        "pinned": pinned,
        "failed": failed,
        "disabled": account.disabled,
        "created": time(Some(account.created)),
    })
}

async fn export(data: &DataArgs, name: &str) -> Result<()> {
    let database = data.open().await?;
    let account = data::account(&database, name).await?;
    let (mut after, mut printed, mut progress) = (0, 0, Progress::beside_list());
    loop {
        let part = database.export_pins(account.id, after, PART).await?;
        for pin in &part {
            let line = json!({
                "requestid": pin.requestid,
                "cid": pin.cid,
                "name": pin.name,
                "meta": pin.meta,
                "origins": pin.origins,
                "status": pin.status,
                "created": time(Some(pin.created)),
            });
            print_json(&line)?;
            after = pin.created;
        }
        printed += part.len();
        progress.step(|| format!("{printed} pins printed"));
        if part.is_empty() {
            break;
        }
    }
    database.close().await;
    Ok(())
}
