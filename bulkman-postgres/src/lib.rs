#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admin;
mod builder;
mod check;
mod connect_target;
mod connector;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod inbox;
mod link;
mod migrate;
mod migration_mode;
mod notification;
mod probe_policy;
mod rows;
mod schema;
mod session;
mod statement;
mod statements;
mod store;
mod timeout;

pub use admin::Admin;
pub use builder::PostgresStoreBuilder;
pub use check::Diagnostic;
pub use connect_target::ConnectTarget;
pub use migration_mode::MigrationMode;
/// The version of sqlx that this crate uses.
///
/// [`ConnectTarget`] accepts [`sqlx::postgres::PgConnectOptions`], so the major version of sqlx is
/// part of this crate's API: a new one is a breaking change.
pub use sqlx;
pub use store::PostgresStore;
