//! The database: a private server, or an external one.

use std::env;
use std::time::Duration;

use bulkman::postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman::store::StoreSettings;
use bulkman_test_support::{Postgres, StopMode, TestSchema};

/// The database server, and the schema of the fleet in it.
pub(crate) struct Server {
    /// Declared before the server, which must outlive it.
    pub(crate) schema: TestSchema,
    private: Option<Postgres>,
    pub(crate) url: String,
}

impl Server {
    /// Starts a private server that ends with this process, unless `BULKMAN_TEST_DATABASE_URL`
    /// names one.
    pub(crate) fn start() -> Self {
        if env::var("BULKMAN_TEST_DATABASE_URL").is_ok_and(|url| !url.is_empty()) {
            let external = Postgres::shared();
            return Self {
                schema: external.schema(),
                private: None,
                url: external.url(),
            };
        }
        // As in production: a crash loses nothing that was committed.
        let private = Postgres::start(&[("fsync", "on")]);
        Self {
            schema: private.schema(),
            url: private.url(),
            private: Some(private),
        }
    }

    /// Returns `true` if the server is private, so that it may be killed.
    pub(crate) const fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// Kills all processes of the server at once, like a crash.
    pub(crate) fn kill(&self) {
        self.private_server().stop(StopMode::Immediate);
    }

    /// Starts the server again after [`kill`](Self::kill).
    pub(crate) fn restart(&self) {
        self.private_server().restart();
    }

    fn private_server(&self) -> &Postgres {
        self.private
            .as_ref()
            .expect("only a private server is killed")
    }
}

/// Returns the store of the fleet, as each process builds it.
pub(crate) fn store(url: &str, schema: &str) -> PostgresStoreBuilder {
    PostgresStore::builder(url)
        .schema(schema)
        .namespace("shop")
        // So long that a quick change can only have arrived by a notification.
        .settings(StoreSettings::new().resync_interval(Duration::from_secs(60)))
}
