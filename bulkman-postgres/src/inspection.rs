//! What the database knows of a fleet: namespaces, processes, leases.

use std::collections::BTreeMap;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{Revision, StoreError};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::admin::Admin;
use crate::application_name::{default_name, instance_in};
use crate::rows;
use crate::statement::Statement;

/// A namespace and the number of its circuits by state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceSummary {
    /// The name of the namespace.
    pub namespace: String,
    /// The revision: the number of changes.
    pub revision: Revision,
    /// The number of circuits.
    pub circuits: u64,
    /// The number of open and half-open circuits.
    pub open: u64,
    /// The number of circuits that an operator forced open or disabled.
    pub forced: u64,
    /// The time since the last change of a circuit; `None` if none has changed.
    pub last_change: Option<Duration>,
}

/// A process that is connected to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectedProcess {
    /// The [name of the process](bulkman_core::store::StoreSettings::instance_name), shortened at
    /// its start if it is long.
    pub instance: String,
    /// The network address of the process, or of its pooler; `None` for a Unix socket.
    ///
    /// The addresses of other roles are unknown without the role `pg_read_all_stats`.
    pub address: Option<String>,
    /// The number of its connections.
    pub connections: u64,
    /// The time since the oldest of them was opened; `None` as for `address`.
    pub connected_for: Option<Duration>,
    /// The number of probe leases that it holds.
    pub leases: u64,
}

/// A probe lease that a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseHolder {
    /// The half-open circuit.
    pub circuit: BulkheadName,
    /// The slot of the circuit that the lease occupies, from 0.
    pub slot: u16,
    /// The [name of the process](bulkman_core::store::StoreSettings::instance_name).
    pub instance: String,
    /// The time until the lease expires unless its holder renews it.
    pub remaining: Duration,
}

impl Admin {
    /// Returns all namespaces of the schema, sorted by name.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn namespaces(&self) -> Result<Vec<NamespaceSummary>, StoreError> {
        let statement = Statement::new(self.connector().statements.namespaces.clone());
        self.list(statement, namespace).await
    }

    /// Returns the probe leases that are held in the namespace, sorted by circuit and slot.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn leases(&self) -> Result<Vec<LeaseHolder>, StoreError> {
        let statement = Statement::new(self.connector().statements.leases.clone())
            .bind(&*self.connector().namespace);
        let leases = self.list(statement, lease).await?;
        Ok(leases.into_iter().flatten().collect())
    }

    /// Returns the processes of the namespace that are connected now, sorted by name.
    ///
    /// They are recognized by the [name of their
    /// connections](crate::PostgresStoreBuilder::application_name). Behind a pooler in transaction
    /// mode, only the processes that have used a connection last are listed.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn processes(&self) -> Result<Vec<ConnectedProcess>, StoreError> {
        let namespace = &*self.connector().namespace;
        let mut leases: BTreeMap<String, u64> = BTreeMap::new();
        for lease in self.leases().await? {
            let name = default_name(namespace, &lease.instance);
            *leases.entry(name).or_default() += 1;
        }
        let statement = Statement::new(self.connector().statements.processes.clone());
        let rows = self.query(statement).await?;
        let decode = |row: &PgRow| -> sqlx::Result<Option<ConnectedProcess>> {
            let name: &str = row.try_get("application_name")?;
            let Some(instance) = instance_in(name, namespace) else {
                return Ok(None);
            };
            Ok(Some(ConnectedProcess {
                instance: instance.to_owned(),
                address: row.try_get("address")?,
                connections: rows::unsigned(row.try_get("connections")?),
                connected_for: row.try_get::<Option<i64>, _>("age_us")?.map(rows::micros),
                leases: leases.get(name).copied().unwrap_or_default(),
            }))
        };
        let processes = rows.iter().filter_map(|row| decode(row).transpose());
        processes
            .collect::<sqlx::Result<_>>()
            .map_err(|error| self.connector().failed(error))
    }

    async fn list<T>(
        &self,
        statement: Statement,
        decode: impl Fn(&PgRow) -> sqlx::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.query(statement).await?;
        let items: sqlx::Result<_> = rows.iter().map(decode).collect();
        items.map_err(|error| self.connector().failed(error))
    }
}

fn namespace(row: &PgRow) -> sqlx::Result<NamespaceSummary> {
    let number = |column| Ok::<_, sqlx::Error>(rows::unsigned(row.try_get(column)?));
    Ok(NamespaceSummary {
        namespace: row.try_get("namespace")?,
        revision: Revision(number("rev")?),
        circuits: number("circuits")?,
        open: number("open")?,
        forced: number("forced")?,
        last_change: row.try_get::<Option<i64>, _>("age_us")?.map(rows::micros),
    })
}

/// Returns `None` for a name that this library does not accept.
fn lease(row: &PgRow) -> sqlx::Result<Option<LeaseHolder>> {
    let Ok(circuit) = BulkheadName::new(row.try_get::<&str, _>("name")?) else {
        return Ok(None);
    };
    // A holder is the name of its process and a random number.
    let holder: &str = row.try_get("holder")?;
    let instance = holder
        .rsplit_once(' ')
        .map_or(holder, |(instance, _)| instance);
    Ok(Some(LeaseHolder {
        circuit,
        slot: row.try_get::<i16, _>("slot")?.unsigned_abs(),
        instance: instance.to_owned(),
        remaining: rows::micros(row.try_get("remaining_us")?),
    }))
}
