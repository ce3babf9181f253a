//! The denylist: its rules, its version, what it denies.

use crate::db::{
    Database, HeldContent, MAX_ROWS, denylist, error::Result, operator, property, rows, tx::with, validate,
};

impl Database {
    /// Grows with each change of the rules that commands add.
    pub async fn denylist_changes(&self) -> Result<i64> {
        self.engine.look_up(|tx| Box::pin(denylist::changes(tx))).await
    }

    /// The rules that commands added, with ids above `after`, in the order in
    /// which they apply, at most 1,000.
    pub async fn denylist_rules(&self, after: i64, limit: u32) -> Result<Vec<(i64, String)>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(denylist::rules(tx, after, limit))).await
    }

    /// Adds rules, at most 1,000 of at most 2,000 bytes each; answers how many
    /// were not there before. Every service applies them within seconds.
    pub async fn add_denylist_rules(&self, rules: Vec<String>) -> Result<u64> {
        validate::denylist_rules(&rules)?;
        self.engine.write(with(rules, |tx, rules| Box::pin(denylist::add(tx, rules)))).await
    }

    /// Removes a rule; answers whether it was there.
    pub async fn remove_denylist_rule(&self, rule: &str) -> Result<bool> {
        self.engine.write(with(rule.to_owned(), |tx, rule| Box::pin(denylist::remove(tx, rule)))).await
    }

    /// The version that was given last, by whichever service.
    pub async fn newest_denylist(&self) -> Result<i64> {
        self.engine.look_up(|tx| Box::pin(property::number(tx, "denylist"))).await
    }

    /// The version of the denylist whose rules have this digest: the stored one,
    /// or the next where the digest is new; 0 where there never were any rules.
    pub async fn denylist_version(&self, digest: [u8; 32], is_empty: bool) -> Result<i64> {
        let digest = data_encoding::HEXLOWER.encode(&digest);
        let version = with(digest, move |tx, digest| Box::pin(denylist::version(tx, digest, is_empty)));
        self.engine.write(version).await
    }

    /// Contents that are pinned or kept, with numbers above `after`, ascending,
    /// at most 1,000.
    pub async fn held_contents(&self, after: i64, limit: u32) -> Result<Vec<HeldContent>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(operator::held_contents(tx, after, limit))).await
    }

    /// Denies contents (at most 1,000): their pins fail with `denied` and are
    /// kept for 30 days. Answers how many were not denied before.
    pub async fn deny(&self, contents: &[i64]) -> Result<u64> {
        self.mark(contents, true).await
    }

    /// Lifts the denial of contents (at most 1,000): their pins are as they were.
    /// Answers how many were denied.
    pub async fn lift(&self, contents: &[i64]) -> Result<u64> {
        self.mark(contents, false).await
    }

    async fn mark(&self, contents: &[i64], denied: bool) -> Result<u64> {
        let contents: Vec<i64> = contents.iter().copied().take(MAX_ROWS as usize).collect();
        self.engine
            .write(with(contents, move |tx, contents| Box::pin(operator::deny(tx, contents, denied))))
            .await
    }
}
