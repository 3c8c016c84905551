//! The parts that `fuzz/` tests and that are not public.

use bulkman_core::store::StoreEvent;

use crate::notification::NotificationVerifier;
use crate::statement::Statement;

/// Returns `SELECT` with the given values as literals, as the simple protocol sends it.
#[must_use]
pub fn literal_sql(text: &str, number: i64, texts: Vec<String>) -> String {
    Statement::new("SELECT $1, $2, $3")
        .bind(text)
        .bind(number)
        .bind(texts)
        .to_literal_sql()
}

/// Parses a notification; the key is the one of the schema, `None` without permission to read it.
#[must_use]
pub fn parse_notification(key: Option<Vec<u8>>, payload: &str) -> Option<StoreEvent> {
    NotificationVerifier::new("channel".to_owned(), key, 1).parse(payload)
}
