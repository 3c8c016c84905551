//! `PostgresStore` does what every store must do, on Tokio and on smol, and in the simple protocol.

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
    use super::{Case, Database, InTheSimpleProtocol, common};

    fn run(case: Case) {
        common::on_tokio(async { case(&InTheSimpleProtocol(Database::new().await)).await });
    }

    bulkman_core::store_conformance!(run);
}

struct InTheSimpleProtocol(Database);

impl Harness for InTheSimpleProtocol {
    fn store(&self, namespace: &str) -> Arc<dyn CircuitStore> {
        let builder = self.0.builder().namespace(namespace).simple_protocol(true);
        Arc::new(builder.build().expect("valid settings"))
    }

    fn advance(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.0.advance(time)
    }
}
