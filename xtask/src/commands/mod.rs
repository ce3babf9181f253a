//! One file a command.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod deny;
pub(crate) mod e2e;
pub(crate) mod faults;
pub(crate) mod peers;
pub(crate) mod release_check;
pub(crate) mod test;

use anyhow::Result;

use crate::report::{Count, Report};

/// Runs a single check as a command.
pub(crate) fn one(name: &str, check: impl FnOnce() -> Result<()>) -> Result<bool> {
    let mut report = Report::new();
    report.stage(name, |count| {
        check()?;
        *count = Count::ONE;
        Ok(())
    });
    Ok(report.close())
}
