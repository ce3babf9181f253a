//! Grants: the bytes that a fetch may hold, reserved from every account that
//! wants the content before they arrive.

use pinfold_core::{quota, status::Reason};
use pinfold_node_api::Answer;

use super::{
    content::{amount, excess},
    effects,
    error::Result,
    ledger::Purse,
    sql::values,
    tx::Tx,
    types::AccountId,
    unit,
};

/// Answers a node that asks to hold `wanted` bytes of a content in all, and
/// stands still below `least`. An account whose quota does not suffice for
/// more fails its pins where the node stands still; the others go on. Where no
/// account can pay, but one waits for what its other fetches have reserved and
/// may not need, the node is told to ask again.
pub(crate) async fn want(tx: &mut Tx, content: i64, wanted: i64, least: i64) -> Result<Answer> {
    let facts = tx.unit.content(content)?;
    if let Some(manifest) = facts.manifest {
        return Ok(granted(amount(manifest.bytes).max(facts.granted)));
    }
    let before = facts.granted;
    if wanted <= before {
        return Ok(granted(before));
    }
    let (able, unable) = split(tx, content, before).await?;
    if !unable.is_empty() && least <= before {
        return Ok(granted(before));
    }
    if able.is_empty() && may_wait(tx, content, &unable).await? {
        return Ok(granted(before));
    }
    for account in unable {
        effects::fail(tx, account, content, Reason::OverQuota, None).await?;
    }
    let Some(total) = able.iter().map(|(_, total)| *total).min() else {
        return Ok(Answer::Refused { reason: Reason::OverQuota });
    };
    tx.unit.content(content)?.granted = total;
    for (account, _) in able {
        if !effects::reprice(tx, account, content).await? {
            effects::fail(tx, account, content, Reason::OverQuota, None).await?;
        }
    }
    Ok(granted(total))
}

/// Whether an account should rather wait than fail: other fetches of it have
/// reservations, which they will settle or give back. So that two do not wait
/// for each other, the youngest of those that have one does not wait.
async fn may_wait(tx: &mut Tx, content: i64, accounts: &[AccountId]) -> Result<bool> {
    let sql = "SELECT MAX(content) FROM holding WHERE account = $1 AND reserved > 0 AND content <> $2";
    for &account in accounts {
        let youngest =
            tx.first(sql, &values![account, content]).await?.map_or(Ok(None), |row| row.opt_int(0))?;
        let own = tx.unit.holding(account, content).map_or(0, |holding| holding.reserved);
        if youngest.is_some_and(|youngest| own == 0 || youngest > content) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn granted(bytes: i64) -> Answer {
    Answer::Granted { bytes: bytes.max(0).unsigned_abs() }
}

/// The accounts that want the content: those that can pay for more than
/// `before` bytes, with the total that each can pay for, and the others.
async fn split(tx: &mut Tx, content: i64, before: i64) -> Result<(Vec<(AccountId, i64)>, Vec<AccountId>)> {
    unit::flush(tx).await?;
    let sql = "SELECT account FROM holding WHERE content = $1 AND pins > 0 ORDER BY account";
    let rows = tx.query(sql, &values![content]).await?;
    let accounts = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()?;
    unit::load_accounts(tx, accounts.iter().copied()).await?;
    unit::load_holdings(tx, accounts.iter().map(|&account| (account, content))).await?;
    let (mut able, mut unable) = (Vec::new(), Vec::new());
    for account in accounts {
        let credit = effects::credit(tx, account, content).await?;
        let reserved = tx.unit.holding(account, content).map_or(0, |holding| holding.reserved);
        match reach(tx.unit.purse(account)?, reserved, credit, before) {
            Some(total) => able.push((account, total)),
            None => unable.push(account),
        }
    }
    Ok((able, unable))
}

/// The total that an account can pay for next; `None` when it cannot pay for
/// more than `before`.
fn reach(purse: &Purse, reserved: i64, credit: i64, before: i64) -> Option<i64> {
    let free = purse.free().max(0);
    // What it can pay at most, and what it should be given now.
    let most = free + reserved + credit;
    let number = |value: i64| value.max(0).unsigned_abs();
    let next = amount(quota::next_grant(number(purse.quota), number(purse.used), number(purse.reserved)));
    let within_credit = credit.min(before + amount(quota::GRANT));
    let total = (before + next).max(within_credit).min(most);
    (total > before && excess(total, credit) - reserved <= free).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn purse(quota: i64, used: i64, reserved: i64) -> Purse {
        Purse {
            id: 1,
            quota,
            used,
            reserved,
            disabled: false,
            next_seq: 0,
            last_created: 0,
            turns_due: false,
        }
    }

    #[test]
    fn a_total_is_what_the_account_can_pay() {
        let check = |purse: Purse, reserved, credit, before, want| {
            assert_eq!(
                reach(&purse, reserved, credit, before),
                want,
                "{purse:?} {reserved} {credit} {before}"
            );
        };
        check(purse(20_000 * MIB, 0, 0), 0, 0, 0, Some(64 * MIB));
        check(purse(20_000 * MIB, 0, 64 * MIB), 64 * MIB, 0, 64 * MIB, Some(128 * MIB));
        check(purse(MIB, 0, 0), 0, 0, 0, Some(MIB));
        check(purse(MIB, 0, MIB), MIB, 0, MIB, None);
        check(purse(4_095, 0, 0), 0, 0, 0, None);
        check(purse(4_096, 0, 0), 0, 0, 0, Some(4_096));
        // Within the credit nothing has to be free.
        check(purse(100 * MIB, 100 * MIB, 0), 0, 100 * MIB, 0, Some(64 * MIB));
        check(purse(100 * MIB, 100 * MIB, 0), 0, 100 * MIB, 64 * MIB, Some(100 * MIB));
        check(purse(100 * MIB, 100 * MIB, 0), 0, 100 * MIB, 100 * MIB, None);
    }
}
