//! The statements, with the name of the schema inserted.

use std::sync::Arc;

use crate::schema::Schema;

/// A statement's name, for errors, and its text.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) name: &'static str,
    pub(crate) text: Arc<str>,
}

impl From<Query> for Arc<str> {
    fn from(query: Query) -> Self {
        query.text
    }
}

/// Generates the struct of all statements, each read from the file of its name.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug)]
        pub(crate) struct Statements {
            $($(#[$doc])* pub(crate) $name: Query,)*
        }

        impl Statements {
            pub(crate) fn new(schema: &Schema) -> Self {
                Self {
                    $($name: Query {
                        name: stringify!($name),
                        text: fill(schema, include_str!(concat!("statements/", stringify!($name), ".sql"))),
                    },)*
                }
            }
        }
    };
}

statements! {
    register, handshake, notification_key, snapshot, transitions, vote, command, acquire_probes,
    renew_probes, release_probes, report_probes, add_counts, history, prune_history, lift_read_only,
    namespaces, leases, processes, forget, resync, withdraw, process_reports,
}

fn fill(schema: &Schema, statement: &str) -> Arc<str> {
    let statement = statement
        .replace(
            "@changes",
            include_str!("statements/fragment_changes.sql").trim(),
        )
        .replace(
            "@view",
            include_str!("statements/fragment_view.sql").trim_end(),
        )
        .replace(
            "@access",
            include_str!("statements/fragment_access.sql").trim_end(),
        )
        .replace(
            "@evaluate",
            include_str!("statements/fragment_evaluate.sql").trim_end(),
        )
        .replace(
            "@notify",
            include_str!("statements/fragment_notify.sql").trim_end(),
        )
        .replace(
            "@history",
            include_str!("statements/fragment_history.sql").trim_end(),
        );
    schema.fill(&statement).into()
}
