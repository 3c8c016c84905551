//! `PostgresStore` passes the conformance tests: on Tokio, on smol, and in the simple protocol.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::CircuitStore;
use bulkman_core::store::conformance::{Case, Harness};

use common::Database;

mod with_tokio {
    use super::{Case, Database, common};

    fn run(case: Case) {
        common::on_tokio(async { case(&Database::new().await).await });
    }

    bulkman_core::store_conformance!(run);
}

mod with_smol {
    use super::{Case, Database, common};

    fn run(case: Case) {
        common::on_smol(async { case(&Database::new().await).await });
    }

    bulkman_core::store_conformance!(run);
}

mod with_the_simple_protocol {
    use super::{Case, Database, SimpleProtocol, common};

    fn run(case: Case) {
        common::on_tokio(async { case(&SimpleProtocol(Database::new().await)).await });
    }

    bulkman_core::store_conformance!(run);
}

struct SimpleProtocol(Database);

impl Harness for SimpleProtocol {
    fn store(&self, namespace: &str) -> Arc<dyn CircuitStore> {
        let builder = self.0.builder().namespace(namespace).simple_protocol(true);
        Arc::new(builder.build().expect("valid settings"))
    }

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        self.0.advance(by)
    }
}
