//! Waiting for what has no event, with an end and a name.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks: short beside everything that is waited for.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` finds a value. After `limit` the error says what was
/// waited for and what `look` last said instead; an error of `look` counts
/// as "not yet", since a peer may be starting.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let last = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if begun.elapsed() > limit {
            bail!("waited {limit:?} for {what}: {last}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
