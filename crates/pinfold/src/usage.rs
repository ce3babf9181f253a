//! Wrong usage: what the caller can mend by calling differently, told apart
//! from what failed. It ends the process with status 2, as clap's own errors do.

use std::fmt;

/// The exit status of wrong usage.
pub(crate) const STATUS: u8 = 2;

/// What is wrong with how the program was called, and how to call it.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Returns a [`Usage`] error.
macro_rules! wrong_usage {
    ($($text:tt)*) => {
        return Err(anyhow::Error::new($crate::usage::Usage(format!($($text)*))))
    };
}
pub(crate) use wrong_usage;
