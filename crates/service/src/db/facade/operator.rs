//! What the operator keeps, sees and decides.

use uuid::Uuid;

use crate::db::{
    Database, Deed, JobsDone, QueueEntry, SealedKey, error::Result, instances, jobs, operator, property,
    rows, tx::with, validate,
};

impl Database {
    /// The sealed token-signing keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<SealedKey>> {
        self.engine.read(move |tx| Box::pin(operator::keys(tx))).await
    }

    /// Stores a key where there is none; answers whether it was stored.
    pub async fn add_first_key(&self, key: SealedKey) -> Result<bool> {
        validate::name(&key.kid, "the key's id")?;
        self.engine.write(with(key, |tx, key| Box::pin(operator::add_first_key(tx, key)))).await
    }

    /// Has another key sign, in one step. The others only verify what they
    /// signed; with `forget` they are gone, and their tokens end.
    pub async fn rotate_keys(&self, key: SealedKey, forget: bool) -> Result<()> {
        validate::name(&key.kid, "the key's id")?;
        self.engine.write(with(key, move |tx, key| Box::pin(operator::rotate_keys(tx, key, forget)))).await
    }

    /// The service's own id, made from `proposal` the first time.
    pub async fn service_id(&self, proposal: &str) -> Result<String> {
        let proposal = validate::name(proposal, "the service id")?;
        let set = with(proposal, |tx, proposal| Box::pin(property::set_once(tx, "service", proposal)));
        self.engine.write(set).await
    }

    /// Deeds with numbers below `before` (`i64::MAX` for the newest), newest
    /// first, at most 1,000.
    pub async fn deeds(&self, before: i64, limit: u32) -> Result<Vec<Deed>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(operator::deeds(tx, before, limit))).await
    }
}

impl Database {
    /// Says that a service lives; answers how many do, this one included. To be
    /// called every few seconds: one that is silent for 20 s does not count.
    pub async fn heartbeat(&self, instance: Uuid) -> Result<u32> {
        let instance = instance.simple().to_string();
        self.engine.write(with(instance, |tx, instance| Box::pin(instances::beat(tx, instance)))).await
    }

    /// Says that a service ends, so that it counts no more at once.
    pub async fn leave(&self, instance: Uuid) -> Result<()> {
        let instance = instance.simple().to_string();
        self.engine.write(with(instance, |tx, instance| Box::pin(instances::leave(tx, instance)))).await
    }

    /// Runs the service's own jobs that are due and that no other process has a
    /// lease on: deadlines, turns, placement and repair, denied contents past
    /// their time, retention, large contents. To be called about once a second,
    /// and at once while [`JobsDone::more`].
    pub async fn run_jobs(&self) -> Result<JobsDone> {
        jobs::run(&self.engine).await
    }

    /// Allocations that are not stored yet, and contents that wait for one, with
    /// content numbers above `after`, at most 1,000.
    pub async fn queue(&self, after: i64, limit: u32) -> Result<Vec<QueueEntry>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(operator::queue(tx, after, limit))).await
    }

    /// Sends those of these contents that are unfinished to their nodes anew, or
    /// places them; answers how many there are.
    pub async fn retry(&self, contents: &[i64]) -> Result<u64> {
        let mut retried = 0;
        for part in contents.chunks(jobs::ROWS as usize) {
            retried +=
                self.engine.write(with(part.to_vec(), |tx, part| Box::pin(jobs::retry(tx, part)))).await?;
        }
        Ok(retried)
    }
}
