//! The database: a server of the story's own, or one that is given.

use std::env;
use std::time::Duration;

use bulkman::postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman::store::StoreSettings;
use bulkman_test_support::{Postgres, StopMode, TestSchema};

pub(crate) struct Server {
    /// Before the server: a given one must still be there when it is dropped.
    pub(crate) schema: TestSchema,
    own: Option<Postgres>,
    pub(crate) url: String,
}

impl Server {
    /// The one that `BULKMAN_TEST_DATABASE_URL` names, or else a private one, which ends with this
    /// process however that ends.
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

    /// Ends all its processes at once, as a crash does.
    pub(crate) fn kill(&self) {
        self.private().stop(StopMode::Immediate);
    }

    pub(crate) fn start_again(&self) {
        self.private().restart();
    }

    fn private(&self) -> &Postgres {
        self.own
            .as_ref()
            .expect("only the story's own server is killed")
    }
}

/// The fleet's store, as each process builds it.
pub(crate) fn store(url: &str, schema: &str) -> PostgresStoreBuilder {
    PostgresStore::builder(url)
        .schema(schema)
        .namespace("shop")
        // So rarely that whatever is learned at once has come by a notification.
        .settings(StoreSettings::new().resync_interval(Duration::from_secs(60)))
}
