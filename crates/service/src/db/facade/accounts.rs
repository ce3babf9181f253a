//! Accounts and their tokens.

use std::sync::Arc;

use uuid::Uuid;

use crate::db::{
    Access, Account, AccountId, Database, Millis, PinRecord, Token, accounts, error::Result, list, rows,
    tokens, tx::with, validate,
};
#[cfg(doc)]
use crate::db::{AccountRefusal, Settings};

impl Database {
    /// Makes an account; `quota` in bytes, [`Settings::free_quota`] where none is
    /// given.
    ///
    /// # Errors
    /// [`AccountRefusal::NameTaken`].
    pub async fn create_account(&self, name: &str, quota: Option<u64>) -> Result<Account> {
        let name = validate::name(name, "the account's name")?;
        let quota = quota.unwrap_or(self.settings.free_quota);
        self.engine.write(with(name, move |tx, name| Box::pin(accounts::create(tx, name, quota)))).await
    }

    /// The account with this number.
    pub async fn account(&self, id: AccountId) -> Result<Option<Account>> {
        self.engine.look_up(move |tx| Box::pin(accounts::by_id(tx, id))).await
    }

    /// The account with this name.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<Account>> {
        self.engine.look_up(with(name.to_owned(), |tx, name| Box::pin(accounts::by_name(tx, name)))).await
    }

    /// Accounts with numbers above `after`, ascending, at most 1,000.
    pub async fn accounts(&self, after: AccountId, limit: u32) -> Result<Vec<Account>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(accounts::some(tx, after, limit))).await
    }

    /// Sets the quota in bytes; what is held beyond it stays.
    ///
    /// # Errors
    /// [`AccountRefusal::NotFound`].
    pub async fn set_quota(&self, id: AccountId, quota: u64) -> Result<()> {
        self.engine.write(move |tx| Box::pin(accounts::set_quota(tx, id, quota))).await
    }

    /// Disables the account, whose tokens are then refused while its pins stay,
    /// or enables it again.
    ///
    /// # Errors
    /// [`AccountRefusal::NotFound`].
    pub async fn set_account_disabled(&self, id: AccountId, disabled: bool) -> Result<()> {
        self.engine.write(move |tx| Box::pin(accounts::set_disabled(tx, id, disabled))).await
    }

    /// Removes the account with its tokens and pins. Large ones take several
    /// transactions; a removal that was interrupted is finished by the service's
    /// own jobs.
    ///
    /// # Errors
    /// [`AccountRefusal::NotFound`].
    pub async fn remove_account(&self, id: AccountId) -> Result<()> {
        self.engine.write(move |tx| Box::pin(accounts::begin_removal(tx, id))).await?;
        while self.engine.write(move |tx| Box::pin(accounts::remove_part(tx, Some(id)))).await? > 0 {}
        Ok(())
    }

    /// The account's pins, oldest first, created after `after` (0 for the first
    /// part), at most 1,000.
    pub async fn export_pins(&self, id: AccountId, after: Millis, limit: u32) -> Result<Vec<PinRecord>> {
        self.engine.read(move |tx| Box::pin(list::export(tx, id, after, limit))).await
    }
}

impl Database {
    /// Stores a token; `created`, `last_used` and `revoked` are set by the
    /// database. The audit table says that `actor` made it.
    ///
    /// # Errors
    /// [`AccountRefusal::NotFound`] when there is no such account.
    pub async fn create_token(&self, token: Token, actor: &str) -> Result<Token> {
        validate::name(&token.name, "the token's name")?;
        let made = (token, actor.to_owned());
        self.engine.write(with(made, |tx, (token, actor)| Box::pin(tokens::create(tx, token, actor)))).await
    }

    /// Tokens of an account, or of all, newest first, at most 10,000, revoked
    /// ones included.
    pub async fn tokens(&self, account: Option<AccountId>) -> Result<Vec<Token>> {
        self.engine.read(move |tx| Box::pin(tokens::some(tx, account))).await
    }

    /// Revokes a token at once, for every process. Revoking again changes
    /// nothing. With an account, only a token of that account. The audit table
    /// says that `actor` did it.
    ///
    /// # Errors
    /// [`AccountRefusal::NoSuchToken`].
    pub async fn revoke_token(&self, id: Uuid, account: Option<AccountId>, actor: &str) -> Result<()> {
        let revoke =
            with(actor.to_owned(), move |tx, actor| Box::pin(tokens::revoke(tx, id, account, actor)));
        self.engine.write(revoke).await
    }

    /// What a token's `jti` resolves to; meant for every request. Reading it
    /// notes the use, at most once a minute, without waiting for that.
    pub async fn access(&self, id: Uuid) -> Result<Option<Access>> {
        let (access, now) = self.engine.look_up(move |tx| Box::pin(tokens::access_at(tx, id))).await?;
        if let Some(access) = &access
            && self.owner.note_use(&access.token, now)
        {
            let engine = Arc::clone(&self.engine);
            self.owner.tasks.spawn(async move {
                if let Err(error) = engine.write(move |tx| Box::pin(tokens::touch(tx, id))).await {
                    tracing::warn!(%error, "the use of a token was not noted");
                }
            });
        }
        Ok(access)
    }
}
