//! How many pins of an account are older than a moment, from the tally.
//!
//! With `e` one more than the number of the newest pin before the moment, the
//! pins `0..e` are whole buckets of level 2, then whole buckets of level 1,
//! then of level 0, then fewer than 256 single pins: at most 766 rows.

use pinfold_core::status::Status;

use crate::db::{
    error::{Error, Result},
    sql::{Row, Value, values},
    tally::{self, BITS},
    types::{AccountId, Millis},
};

/// Pins in a bucket of level 0.
const BUCKET: i64 = 1 << BITS;

/// Finds the newest pins before a moment: the parameters are [`look`]'s.
pub(super) const LOOK: &str = "SELECT seq, status FROM pin WHERE account = $1 AND created < $2
    ORDER BY created DESC LIMIT $3";

/// Adds up whole buckets: the parameters are [`Prefix::sums`].
pub(super) const SUMS: &str = "SELECT
    CAST(COALESCE(SUM(queued), 0) AS BIGINT), CAST(COALESCE(SUM(pinning), 0) AS BIGINT),
    CAST(COALESCE(SUM(pinned), 0) AS BIGINT), CAST(COALESCE(SUM(failed), 0) AS BIGINT)
    FROM tally WHERE account = $1 AND (
        (level = 2 AND bucket < $2) OR (level = 1 AND bucket >= $3 AND bucket < $4)
        OR (level = 0 AND bucket >= $5 AND bucket < $6))";

/// What has to be known of the pins created before `moment`.
pub(super) fn look(account: AccountId, moment: Millis) -> Vec<Value> {
    values![account, moment, BUCKET].to_vec()
}

/// The oldest pins of an account, up to some moment.
pub(super) struct Prefix {
    /// Where the whole buckets of level 2 end, where those of level 1 begin and
    /// end, and those of level 0.
    buckets: [i64; 5],
    /// Those that are in no whole bucket, of the statuses that are asked for.
    single: u64,
}

impl Prefix {
    /// All pins: the sum of the highest level.
    pub(super) const WHOLE: Self = Self { buckets: [i64::MAX, 0, 0, 0, 0], single: 0 };

    /// The pins up to the newest of those that [`LOOK`] found.
    pub(super) fn upto(newest: &[Row], statuses: &[Status]) -> Result<Self> {
        let end = newest.first().map_or(Ok(0), |first| first.int(0).map(|seq| seq + 1))?;
        let single = singles(newest, (end >> BITS) << BITS, statuses)?;
        let (two, one, zero) = (end >> (3 * BITS), end >> (2 * BITS), end >> BITS);
        Ok(Self { buckets: [two, two << BITS, one, one << BITS, zero], single })
    }

    pub(super) fn sums(&self, account: AccountId) -> Vec<Value> {
        std::iter::once(account).chain(self.buckets).map(Value::from).collect()
    }

    /// How many there are with these statuses, of the sums that [`SUMS`] answered.
    pub(super) fn count(&self, sums: &[Row], statuses: &[Status]) -> Result<u64> {
        let sums = sums.first().ok_or_else(|| Error::Corrupt("a sum without a row".into()))?;
        statuses.iter().try_fold(self.single, |all, &status| Ok(all + sums.count(status as usize)?))
    }
}

/// Of the newest pins those in the bucket that is not whole.
fn singles(newest: &[Row], from: i64, statuses: &[Status]) -> Result<u64> {
    let mut count = 0;
    for row in newest {
        let counts = row.int(0)? >= from && statuses.contains(&tally::status(row.int(1)?)?);
        count += u64::from(counts);
    }
    Ok(count)
}
