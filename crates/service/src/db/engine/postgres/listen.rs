//! Telling other processes what changed, and hearing it from them.
//!
//! NOTIFY serialises commits, so it is never part of a transaction that
//! changes something: a task gathers what was committed and tells it in a
//! statement of its own, at most [`PER_SECOND`] times a second. Notices are
//! hints: a subscriber that hears [`Changed::ANY`] reads again.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use deadpool_postgres::Pool;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Signal;
use crate::db::{error::Result, postgres::Target, tx::Effects, types::Changed};

/// The channel of all notices.
const CHANNEL: &str = "pinfold_changed";

/// Notices a second and process.
const PER_SECOND: u32 = 20;

/// Contents named in a notice; with more it says that anything may have
/// changed. PostgreSQL takes 8,000 bytes.
const NAMED: usize = 300;

/// How often subscribers are told to read again while nothing can be heard.
const POLL: Duration = Duration::from_secs(1);

/// Tells this process's notices from those of others.
static PROCESS: LazyLock<String> = LazyLock::new(|| Uuid::now_v7().simple().to_string());

/// Tells subscribers of this process at once, and other processes soon.
pub(super) async fn tell(
    pool: Pool,
    mut effects: mpsc::Receiver<Effects>,
    signal: Signal,
    stop: CancellationToken,
) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut gathered = BTreeMap::new();
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = effects.recv() => heard,
            _ = pace.tick(), if !gathered.is_empty() => {
                notify(&pool, std::mem::take(&mut gathered)).await;
                continue;
            }
        };
        let Some(effects) = heard else { return };
        signal.send(&effects);
        for change in effects.changes() {
            *gathered.entry(change.content).or_default() |= change.work;
        }
    }
}

async fn notify(pool: &Pool, changes: BTreeMap<i64, bool>) {
    let text = encode(&changes);
    let told = async {
        let client = pool.get().await?;
        let statement = client.prepare_cached("SELECT pg_notify($1, $2) IS NULL").await?;
        client.execute(&statement, &[&CHANNEL, &text]).await?;
        Result::Ok(())
    };
    if let Err(error) = told.await {
        tracing::warn!(%error, "other processes were not told of changes; they poll");
    }
}

fn encode(changes: &BTreeMap<i64, bool>) -> String {
    if changes.len() > NAMED {
        return format!("{} *", *PROCESS);
    }
    let contents: Vec<String> =
        changes.iter().map(|(content, work)| format!("{content}{}", if *work { "w" } else { "" })).collect();
    format!("{} {}", *PROCESS, contents.join(","))
}

fn decode(text: &str) -> Vec<Changed> {
    let Some((process, contents)) = text.split_once(' ') else { return vec![Changed::ANY] };
    if process == *PROCESS {
        return Vec::new();
    }
    let one = |text: &str| {
        let number = text.trim_end_matches('w');
        let content = number.parse().ok()?;
        Some(Changed { content, work: number.len() < text.len() })
    };
    contents.split(',').map(|text| one(text).unwrap_or(Changed::ANY)).collect()
}

/// Hears what other processes tell; while that fails, has everything read
/// again once a second.
pub(super) async fn listen(target: Target, signal: Signal, stop: CancellationToken) {
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = hear(&target, &signal) => heard,
        };
        if let Err(error) = heard {
            tracing::warn!(%error, "changes of other processes cannot be heard; polling");
        }
        let _ = signal.changes.send(Changed::ANY);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Listens until the connection ends.
async fn hear(target: &Target, signal: &Signal) -> Result<()> {
    let (client, mut connection) = target.connect().await?;
    let mut messages = Box::pin(stream::poll_fn(move |context| connection.poll_message(context)));
    let listening = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        // Something may have changed before the first notice can be heard.
        let _ = signal.changes.send(Changed::ANY);
        std::future::pending::<Result<()>>().await
    };
    let hearing = async {
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(notice) = message? {
                for change in decode(notice.payload()) {
                    let _ = signal.changes.send(change);
                }
            }
        }
        Result::Ok(())
    };
    tokio::select! {
        ended = hearing => ended,
        failed = listening => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_of_another_process_is_understood() {
        let changes = BTreeMap::from([(7, false), (9, true)]);
        let own = encode(&changes);
        assert_eq!(decode(&own), []);
        let other = own.replace(&*PROCESS, "other");
        let expected = [Changed { content: 7, work: false }, Changed { content: 9, work: true }];
        assert_eq!(decode(&other), expected);
    }

    #[test]
    fn a_notice_of_too_many_changes_names_none() {
        let changes: BTreeMap<i64, bool> = (0..1_000).map(|content| (content, false)).collect();
        let other = encode(&changes).replace(&*PROCESS, "other");
        assert_eq!(decode(&other), [Changed::ANY]);
        assert_eq!(decode("nonsense"), [Changed::ANY]);
    }
}
