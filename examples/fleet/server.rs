//! The database: a private server, or one that is given.

use std::env;
use std::time::Duration;

use bulkman::postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman::store::StoreSettings;
use bulkman_test_support::{Postgres, StopMode, TestSchema};

pub(crate) struct Server {
    /// Declared before the server, which must outlive it.
    pub(crate) schema: TestSchema,
    own: Option<Postgres>,
    pub(crate) url: String,
}

impl Server {
    /// Starts a private server that ends with this process, unless `BULKMAN_TEST_DATABASE_URL`
    /// names one.
    pub(crate) fn start() -> Self {
        if env::var("BULKMAN_TEST_DATABASE_URL").is_ok_and(|url| !url.is_empty()) {
            let given = Postgres::shared();
            return Self {
                schema: given.schema(),
                own: None,
                url: given.url(),
            };
        }
        // As in production: a crash loses nothing that was committed.
        let own = Postgres::start(&[("fsync", "on")]);
        Self {
            schema: own.schema(),
            url: own.url(),
            own: Some(own),
        }
    }

    pub(crate) const fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Kills all its processes at once, like a crash.
    pub(crate) fn kill(&self) {
        self.private().stop(StopMode::Immediate);
    }

    pub(crate) fn start_again(&self) {
        self.private().restart();
    }

    fn private(&self) -> &Postgres {
        self.own.as_ref().expect("only a private server is killed")
    }
}

/// Returns the store of the fleet, as each process builds it.
pub(crate) fn store(url: &str, schema: &str) -> PostgresStoreBuilder {
    PostgresStore::builder(url)
        .schema(schema)
        .namespace("shop")
        // So rarely that a fast change can only have come by a notification.
        .settings(StoreSettings::new().resync_interval(Duration::from_secs(60)))
}
