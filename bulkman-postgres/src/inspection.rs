//! What the database knows of a fleet: namespaces, processes, leases.

use std::collections::BTreeMap;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{Revision, StoreError};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::admin::Admin;
use crate::connector::Connector;
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

/// A process of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessSummary {
    /// The [name of the process](bulkman_core::store::StoreSettings::instance_name).
    ///
    /// It is shortened at its start if it is long and known only by its connection.
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
    /// What it has last reported; `None` if it reports nothing.
    pub report: Option<ProcessReport>,
}

/// What a process has last reported about itself, with a periodic read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessReport {
    /// The [version of the application].
    ///
    /// [version of the application]: bulkman_core::store::StoreSettings::application_version
    pub application_version: Option<String>,
    /// The version of this library.
    pub library_version: String,
    /// The time since the report.
    pub age: Duration,
    /// Whether the process could only read the store, until the report.
    pub read_only: bool,
    /// The number of circuits with a decision or a probe outcome that is not yet in the store.
    pub pending: u64,
    /// The time since the store became unavailable to the process, or rejected an operation.
    ///
    /// `None` if it was available at the report, and rejected nothing.
    pub degraded_for: Option<Duration>,
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
        let leases = self.held_leases().await?;
        Ok(leases.into_iter().map(|(lease, _)| lease).collect())
    }

    /// Returns the leases, each with the id of its process.
    async fn held_leases(&self) -> Result<Vec<(LeaseHolder, Option<i64>)>, StoreError> {
        let statement = Statement::new(self.connector().statements.leases.clone())
            .bind(&*self.connector().namespace);
        let leases = self.list(statement, lease).await?;
        Ok(leases.into_iter().flatten().collect())
    }

    /// Returns the processes of the namespace, sorted by name.
    ///
    /// These are the processes that have reported within the last hour, unless they ended
    /// regularly, and those with a connection. The connections of processes of the same name are
    /// counted for the one that reported last.
    ///
    /// A process without a report has an older version of this library, or lacks a privilege, or
    /// the server is a standby. It is recognized by the [name of its
    /// connections](crate::PostgresStoreBuilder::application_name), which a pooler in transaction
    /// mode may hide.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn processes(&self) -> Result<Vec<ProcessSummary>, StoreError> {
        let connector = self.connector();
        let failed = |error| connector.failed(error);
        let statement = Statement::new(connector.statements.processes.clone());
        let rows = self.query(statement).await?;
        let has_reports = rows.first().map(|row| row.try_get("reports")).transpose();
        let reports = if has_reports.map_err(failed)? == Some(true) {
            let statement = Statement::new(connector.statements.process_reports.clone());
            self.list(statement.bind(&*connector.namespace), report)
                .await?
        } else {
            Vec::new()
        };
        let mut connections = BTreeMap::new();
        for row in &rows {
            if let Some((name, connection)) = connection(row, connector).map_err(failed)? {
                connections.insert(name, connection);
            }
        }
        let mut by_id: BTreeMap<(String, i64), u64> = BTreeMap::new();
        let mut by_name: BTreeMap<String, u64> = BTreeMap::new();
        for (lease, id) in self.held_leases().await? {
            let reporter = |(instance, reported, _): &(String, i64, ProcessReport)| {
                *instance == lease.instance && Some(*reported) == id
            };
            match id.filter(|_| reports.iter().any(reporter)) {
                Some(id) => *by_id.entry((lease.instance, id)).or_default() += 1,
                None => {
                    let name = connector.default_name(&lease.instance);
                    *by_name.entry(name).or_default() += 1;
                }
            }
        }
        let mut processes = Vec::new();
        for (instance, id, report) in reports {
            // The first of a name is the one that reported last.
            let connection = connections.remove(&connector.default_name(&instance));
            let mut process = connection.unwrap_or_else(|| ProcessSummary::new(String::new()));
            process.leases = by_id.get(&(instance.clone(), id)).copied().unwrap_or(0);
            process.instance = instance;
            process.report = Some(report);
            processes.push(process);
        }
        for (name, mut process) in connections {
            process.leases = by_name.get(&name).copied().unwrap_or(0);
            processes.push(process);
        }
        processes.sort_by(|a, b| a.instance.cmp(&b.instance));
        Ok(processes)
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

impl ProcessSummary {
    const fn new(instance: String) -> Self {
        Self {
            instance,
            address: None,
            connections: 0,
            connected_for: None,
            leases: 0,
            report: None,
        }
    }
}

/// Decodes the connections of a process of the namespace, with their name.
fn connection(
    row: &PgRow,
    connector: &Connector,
) -> sqlx::Result<Option<(String, ProcessSummary)>> {
    let name: Option<String> = row.try_get("application_name")?;
    let Some(name) = name else {
        return Ok(None);
    };
    let Some(instance) = connector.instance_in(&name) else {
        return Ok(None);
    };
    let process = ProcessSummary {
        address: row.try_get("address")?,
        connections: rows::unsigned(row.try_get("connections")?),
        connected_for: row.try_get::<Option<i64>, _>("age_us")?.map(rows::micros),
        ..ProcessSummary::new(instance.to_owned())
    };
    Ok(Some((name, process)))
}

/// Decodes the report of a process, with its name and its id.
fn report(row: &PgRow) -> sqlx::Result<(String, i64, ProcessReport)> {
    let report = ProcessReport {
        application_version: row.try_get("application_version")?,
        library_version: row.try_get("library_version")?,
        age: rows::micros(row.try_get("read_us")?),
        read_only: row.try_get("read_only")?,
        pending: rows::unsigned(row.try_get("pending")?),
        degraded_for: row
            .try_get::<Option<i64>, _>("degraded_us")?
            .map(rows::micros),
    };
    Ok((row.try_get("instance")?, row.try_get("id")?, report))
}

/// Decodes a lease, with the id of its process; `None` for a name that this library does not
/// accept.
fn lease(row: &PgRow) -> sqlx::Result<Option<(LeaseHolder, Option<i64>)>> {
    let Ok(circuit) = BulkheadName::new(row.try_get::<&str, _>("name")?) else {
        return Ok(None);
    };
    let (instance, id) = process_of(row.try_get("holder")?);
    let lease = LeaseHolder {
        circuit,
        slot: row.try_get::<i16, _>("slot")?.unsigned_abs(),
        instance: instance.to_owned(),
        remaining: rows::micros(row.try_get("remaining_us")?),
    };
    Ok(Some((lease, id)))
}

/// Returns the name and the id of the process that is the holder of a lease.
///
/// A holder is the name of its process, its id in 16 hexadecimal digits, and the number of the
/// circuit in the process.
fn process_of(holder: &str) -> (&str, Option<i64>) {
    let parts = holder
        .rsplit_once(' ')
        .and_then(|(process, _)| process.rsplit_once(' '));
    let decoded = parts.and_then(|(instance, id)| {
        let id = u64::from_str_radix(id, 16)
            .ok()
            .filter(|_| id.len() == 16)?;
        Some((instance, Some(id.cast_signed())))
    });
    decoded.unwrap_or((holder, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_name_their_process() {
        let holder = "blue 7 / \u{6f22} ffffffffffffffff 12";
        assert_eq!(process_of(holder), ("blue 7 / \u{6f22}", Some(-1)));
        for other in ["shop", "shop 12", "shop ff 12", "shop 00000000000000ff"] {
            assert_eq!(process_of(other), (other, None));
        }
    }
}
