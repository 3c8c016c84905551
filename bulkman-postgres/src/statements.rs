//! The statements, with the schema's name filled in.

use std::sync::Arc;

use crate::schema::Schema;

/// Makes the struct of all statements, each read from the file of its name.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug)]
        pub(crate) struct Statements {
            $($(#[$doc])* pub(crate) $name: Arc<str>,)*
        }

        impl Statements {
            pub(crate) fn new(schema: &Schema) -> Self {
                Self {
                    $($name: fill(schema, include_str!(concat!("statements/", stringify!($name), ".sql"))),)*
                }
            }
        }
    };
}

statements! {
    register, session, key, snapshot, transitions, vote, command, acquire, renew, release, verdict, counts,
    history, prune,
}

fn fill(schema: &Schema, statement: &str) -> Arc<str> {
    let statement = statement
        .replace(
            "@view",
            include_str!("statements/fragment_view.sql").trim_end(),
        )
        .replace(
            "@judge",
            include_str!("statements/fragment_judge.sql").trim_end(),
        )
        .replace(
            "@announce",
            include_str!("statements/fragment_announce.sql").trim_end(),
        )
        .replace(
            "@log",
            include_str!("statements/fragment_log.sql").trim_end(),
        );
    schema.fill(&statement).into()
}
