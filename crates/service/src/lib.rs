//! The service: the Pinning Service API, accounts, tokens and quota, the node
//! API, and the database behind them. Any number of processes may run side by
//! side on one PostgreSQL; nothing that another one needs is kept in memory.

pub mod db;
