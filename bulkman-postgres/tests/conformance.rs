//! `PostgresStore` does what every store must do, on Tokio and on smol.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use bulkman_core::store::conformance::Case;

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
