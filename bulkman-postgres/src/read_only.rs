//! Servers that can only be read.

use sqlx::Row;
use sqlx::postgres::PgRow;

/// Why a server rejects changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOnly {
    /// It follows a primary, and does not listen either.
    Standby,
    /// A setting applies to new transactions.
    Setting,
}

impl ReadOnly {
    /// Decodes the column of `fragment_access.sql`.
    pub(crate) fn of(row: &PgRow) -> sqlx::Result<Option<Self>> {
        let found: Option<&str> = row.try_get("read_only")?;
        Ok(found.map(|found| match found {
            "standby" => Self::Standby,
            _ => Self::Setting,
        }))
    }

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Standby => "the server is a standby",
            Self::Setting => "default_transaction_read_only is on",
        }
    }
}

/// The error code of a change in a read-only transaction.
pub(crate) const REJECTED_CHANGE: &str = "25006";
