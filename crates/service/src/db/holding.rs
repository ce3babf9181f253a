//! What one account holds of one content: what it is charged for it, and
//! whose turn it is.

use super::{
    error::{Error, Result},
    sql::{Row, Value, values},
    types::{AccountId, Millis},
};

pub(crate) const SELECT: &str = "SELECT account, content, charged, reserved, pins, holds, turn, since \
    FROM holding WHERE account = $1 AND content = $2";

/// The holdings of a content, the first so many.
pub(crate) const OF_CONTENT: &str = "SELECT account, content, charged, reserved, pins, holds, turn, since \
    FROM holding WHERE content = $1 ORDER BY account LIMIT $2";

pub(crate) const UPSERT: &str = "INSERT INTO holding \
    (account, content, charged, reserved, pins, holds, turn, since) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
    ON CONFLICT (account, content) DO UPDATE SET charged = excluded.charged, reserved = excluded.reserved, \
    pins = excluded.pins, holds = excluded.holds, turn = excluded.turn, since = excluded.since";

pub(crate) const DELETE: &str = "DELETE FROM holding WHERE account = $1 AND content = $2";

/// Whether a content may be fetched on this account's behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing is fetched.
    Done = 0,
    /// Waits for others of the account.
    Waiting = 1,
    /// Is one of those that are fetched.
    Active = 2,
    /// Is fetched, but pauses between attempts or has another account to
    /// thank: takes no turn from others.
    Aside = 3,
}

/// A row of `holding`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) account: AccountId,
    pub(crate) content: i64,
    pub(crate) charged: i64,
    pub(crate) reserved: i64,
    pub(crate) pins: i64,
    pub(crate) holds: i64,
    pub(crate) turn: Turn,
    pub(crate) since: Millis,
}

impl Holding {
    /// Reads the columns of [`SELECT`].
    pub(crate) fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            account: row.int(0)?,
            content: row.int(1)?,
            charged: row.int(2)?,
            reserved: row.int(3)?,
            pins: row.int(4)?,
            holds: row.int(5)?,
            turn: turn(row.int(6)?)?,
            since: row.int(7)?,
        })
    }

    /// The parameters of [`UPSERT`].
    pub(crate) fn values(&self) -> Vec<Value> {
        values![
            self.account,
            self.content,
            self.charged,
            self.reserved,
            self.pins,
            self.holds,
            self.turn as i64,
            self.since
        ]
        .to_vec()
    }
}

fn turn(number: i64) -> Result<Turn> {
    Ok(match number {
        0 => Turn::Done,
        1 => Turn::Waiting,
        2 => Turn::Active,
        3 => Turn::Aside,
        _ => return Err(Error::Corrupt(format!("turn {number} of a holding"))),
    })
}
