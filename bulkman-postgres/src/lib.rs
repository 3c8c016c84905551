#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admin;
mod application_name;
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
mod inspection;
mod link;
mod migrate;
mod migration_mode;
mod notification;
mod probe_policy;
mod read_only;
mod rows;
mod schema;
mod server_version;
mod session;
mod shipped_sql;
mod statement;
mod statements;
mod store;
mod timeout;

pub use admin::Admin;
pub use builder::PostgresStoreBuilder;
pub use check::{CheckRole, Diagnostic, WarningThresholds};
pub use connect_target::ConnectTarget;
pub use inspection::{LeaseHolder, NamespaceSummary, ProcessReport, ProcessSummary};
pub use migration_mode::MigrationMode;
pub use shipped_sql::{roles_sql, schema_sql};
/// The version of sqlx that this crate uses.
///
/// [`ConnectTarget`] accepts [`sqlx::postgres::PgConnectOptions`], so the major version of sqlx is
/// part of this crate's API: a new one is a breaking change.
pub use sqlx;
pub use store::PostgresStore;
