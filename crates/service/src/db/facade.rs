//! The methods of [`super::Database`] by concern.

mod accounts;
mod denylist;
mod nodes;
mod operator;
mod pins;
