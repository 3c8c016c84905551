//! Names that the database can't store.

use bulkman_core::store::StoreError;
use sqlx::Connection;

use super::Diagnostic;
use crate::connector::{Connector, StatementLimits};
use crate::statement::Statement;

/// Returns a diagnostic for the namespace and each circuit whose name the database can't store.
pub(crate) async fn check_circuits(
    connector: &Connector,
    circuits: &[&str],
) -> Result<Vec<Diagnostic>, StoreError> {
    let limits = StatementLimits::maintenance(connector.maintenance_timeout());
    let mut connection = connector.connect(limits).await?;
    let mut diagnostics = Vec::new();
    let circuits = circuits.iter().map(|name| ("circuit", *name));
    for (kind, name) in std::iter::once(("namespace", &*connector.namespace)).chain(circuits) {
        let stored = Statement::new("SELECT $1 AS name").bind(name);
        let outcome = stored.fetch_all(connector.protocol, &mut connection).await;
        match outcome {
            Ok(_) => {}
            Err(sqlx::Error::Database(error))
                if matches!(error.code().as_deref(), Some("22P05" | "22021")) =>
            {
                diagnostics.push(Diagnostic::new(
                    format!(
                        "the database can't store the {kind} {name:?}: {}",
                        error.message()
                    ),
                    "rename it, or use a database with the encoding UTF8",
                ));
            }
            Err(error) => return Err(connector.failed(error)),
        }
    }
    // The diagnostics are complete, so an error while closing is irrelevant.
    let _ = connection.close().await;
    Ok(diagnostics)
}
