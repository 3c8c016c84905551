//! What each kind of role needs.

use bulkman_core::store::StoreError;
use sqlx::Row;

use crate::admin::Admin;
use crate::statement::Statement;

/// The kind of role whose privileges are checked.
///
/// `sql/roles.sql` creates a group role for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CheckRole {
    /// A process of the fleet, as with `bulkman_app`.
    #[default]
    App,
    /// A person that changes circuits, as with `bulkman_operator`.
    Operator,
    /// A dashboard, as with `bulkman_readonly`.
    ReadOnly,
}

impl CheckRole {
    /// Returns the name: `app`, `operator` or `readonly`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Operator => "operator",
            Self::ReadOnly => "readonly",
        }
    }

    /// Returns the tables and the privileges on them.
    pub(super) fn privileges(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let tables = match self {
            Self::App => APP,
            Self::Operator => OPERATOR,
            Self::ReadOnly => READ_ONLY,
        };
        tables
            .iter()
            .flat_map(|(table, privileges)| privileges.split(' ').map(|it| (*table, it)))
    }

    /// Returns the functions to execute.
    pub(super) fn functions(self) -> impl Iterator<Item = &'static str> {
        let functions = match self {
            Self::App => "clock channel xor_agg notify_change apply_command",
            Self::Operator => {
                "clock channel notify_change apply_command run_command force_open disable close \
                 reset forget state_name status changes"
            }
            Self::ReadOnly => "clock channel state_name status changes",
        };
        functions.split(' ').filter(|name| !name.is_empty())
    }
}

/// Returns the kind of the first group role that the current role is a member of.
pub(crate) async fn granted_role(admin: &Admin) -> Result<CheckRole, StoreError> {
    let rows = admin.query(Statement::new(MEMBERSHIP)).await?;
    let granted: sqlx::Result<Vec<&str>> = rows.iter().map(|row| row.try_get("role")).collect();
    let granted = granted.map_err(|error| admin.connector().failed(error))?;
    let roles = [CheckRole::App, CheckRole::Operator, CheckRole::ReadOnly];
    let found = roles.into_iter().find(|role| {
        let group = format!("bulkman_{}", role.as_str());
        granted.contains(&group.as_str())
    });
    Ok(found.unwrap_or_default())
}

const MEMBERSHIP: &str = "
SELECT rolname::text AS role FROM pg_roles
 WHERE rolname IN ('bulkman_app', 'bulkman_operator', 'bulkman_readonly')
   AND pg_has_role(oid, 'MEMBER')";

const APP: &[(&str, &str)] = &[
    ("meta", "SELECT"),
    ("namespace", "SELECT INSERT UPDATE"),
    ("circuit", "SELECT INSERT UPDATE"),
    ("probe", "SELECT INSERT UPDATE"),
    ("history", "SELECT INSERT UPDATE"),
    ("notification_key", "SELECT"),
    ("count_bucket", "SELECT INSERT UPDATE"),
    ("process", "SELECT INSERT UPDATE DELETE"),
];

const OPERATOR: &[(&str, &str)] = &[
    ("meta", "SELECT"),
    ("namespace", "SELECT INSERT UPDATE"),
    ("circuit", "SELECT INSERT UPDATE DELETE"),
    ("probe", "SELECT"),
    ("history", "SELECT INSERT UPDATE DELETE"),
    ("notification_key", "SELECT"),
    ("count_bucket", "SELECT UPDATE DELETE"),
    ("process", "SELECT"),
];

const READ_ONLY: &[(&str, &str)] = &[
    ("meta", "SELECT"),
    ("namespace", "SELECT"),
    ("circuit", "SELECT"),
    ("probe", "SELECT"),
    ("history", "SELECT"),
    ("count_bucket", "SELECT"),
    ("process", "SELECT"),
];
