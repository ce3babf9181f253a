//! The methods of [`super::Database`] by concern.

mod accounts;
mod nodes;
mod operator;
mod pins;
