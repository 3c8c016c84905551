#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admin;
mod announcement;
mod bounded;
mod builder;
mod check;
mod error;
mod migrate;
mod plan;
mod rows;
mod schema;
mod session;
mod statement;
mod statements;
mod store;

pub use admin::Admin;
pub use builder::{ConnectTarget, PostgresStoreBuilder};
pub use check::Diagnostic;
pub use sqlx;
pub use store::{MigrationMode, PostgresStore};
