//! `pinfold token`: access tokens of accounts.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use pinfold_service::{
    db::{Scope, Token},
    tokens::{self, Keyring, Secret, TokenRequest},
};
use serde_json::{Value, json};

use super::{
    data::{self, ACTOR},
    print_table, time,
};
use crate::{
    cli::{DataArgs, TokenCommand},
    output::{print, say},
};

pub(crate) async fn run(command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create { data, name, account, scope, expires } => {
            create(&data, name, &account, scope, expires).await
        }
        TokenCommand::Ls { data, account, json } => list(&data, account.as_deref(), json).await,
        TokenCommand::Revoke { data, id } => {
            let database = data.open().await?;
            let revoked = database.revoke_token(id, None, ACTOR).await;
            revoked.with_context(|| format!("cannot revoke the token {id}"))?;
            database.close().await;
            say(&format!("The token {id} is revoked: its next request is refused."));
            Ok(())
        }
        TokenCommand::Rotate { data, lost_secret } => rotate(&data, lost_secret).await,
    }
}

async fn create(
    data: &DataArgs,
    name: String,
    account: &str,
    scopes: Vec<Scope>,
    expires: Option<Duration>,
) -> Result<()> {
    let database = data.open().await?;
    let keyring = data.keyring(&database).await?;
    let account = data::account(&database, account).await?;
    let expires = expires.map(|time| Timestamp::now() + time).map(Timestamp::as_millisecond);
    let request = TokenRequest { account: account.id, name, scopes, expires };
    let issued = tokens::issue(&database, &keyring, request, ACTOR).await.context("cannot make the token")?;
    database.close().await;
    say(&format!(
        "A token of the account {:?}, shown this once. Its id, to revoke it: {}",
        account.name, issued.token.id
    ));
    print(&issued.text)
}

async fn rotate(data: &DataArgs, lost_secret: bool) -> Result<()> {
    let database = data.open().await?;
    if lost_secret {
        let secret = Secret::read_or_make(&data.secret_path())?;
        Keyring::begin_anew(database.clone(), secret).await?;
        say("Every token has ended. Start the services again, and make new tokens.");
    } else {
        data.keyring(&database).await?.rotate().await?;
        say("New tokens are signed with a new key; those of the older ones stay valid until revoked.");
    }
    database.close().await;
    Ok(())
}

async fn list(data: &DataArgs, account: Option<&str>, as_json: bool) -> Result<()> {
    let database = data.open().await?;
    let account = match account {
        Some(name) => Some(data::account(&database, name).await?.id),
        None => None,
    };
    let rows: Vec<Value> = database.tokens(account).await?.iter().map(row).collect();
    database.close().await;
    print_table(
        &["id", "account", "name", "scopes", "created", "expires", "last_used", "revoked"],
        &rows,
        as_json,
    )
}

fn row(token: &Token) -> Value {
    let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    json!({
        "id": token.id,
        "account": token.account,
        "name": token.name,
        "scopes": scopes.join(","),
        "created": time(Some(token.created)),
        "expires": time(token.expires),
        "last_used": time(token.last_used),
        "revoked": time(token.revoked),
    })
}
