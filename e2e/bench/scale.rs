//! How much each row does.

use std::env;

/// Sizes of the rows.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// Files that are moved, in MiB.
    pub(crate) mib: usize,
    /// How often each side of a row is measured.
    pub(crate) rounds: u64,
    /// Everything that is counted is divided by this: 1, or more to try a row.
    divisor: u64,
}

/// What `--small` divides by.
const SMALL: u64 = 50;

impl Scale {
    /// As `cargo xtask bench` says in the environment.
    pub(crate) fn from_environment() -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let divisor = if env::var_os("PINFOLD_BENCH_SMALL").is_some() { SMALL } else { 1 };
        let mib = number("PINFOLD_BENCH_MIB").and_then(|mib| usize::try_from(mib).ok()).unwrap_or(1_024);
        Self { mib, rounds: number("PINFOLD_BENCH_ROUNDS").unwrap_or(5), divisor }
    }

    /// A count, at this scale.
    pub(crate) fn of(&self, count: u64) -> u64 {
        (count / self.divisor).max(1)
    }
}
