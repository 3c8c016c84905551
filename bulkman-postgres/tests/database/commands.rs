//! Commands of operators.

use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{CircuitStore, Epoch, FleetState, StoreSettings};
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Executor};

use crate::common::{Database, on_smol, on_tokio};

#[test]
fn admin_applies_commands() {
    on_smol(async {
        let database = Database::new().await;
        let store = database.store("shop");
        let admin = store.admin();
        let error = admin.close("payments", "ada", "").await.unwrap_err();
        assert!(
            error.to_string().contains(r#"no circuit "payments""#),
            "{error}"
        );
        let payments = BulkheadName::new("payments").unwrap();
        CircuitStore::open_session(&store, &[payments])
            .await
            .unwrap();
        let view = admin
            .force_open("payments", "ada", "maintenance")
            .await
            .unwrap();
        assert_eq!((view.state, &*view.author), (FleetState::ForcedOpen, "ada"));
        assert_eq!(
            admin.disable("payments", "ada", "").await.unwrap().state,
            FleetState::Disabled
        );
        assert_eq!(
            admin.reset("payments", "ada", "").await.unwrap().state,
            FleetState::Closed
        );
        assert_eq!(
            admin.close("payments", "bob", "").await.unwrap().epoch,
            Epoch(4)
        );
        assert_eq!(admin.status().await.unwrap().len(), 1);
        let history = admin.history(Some("payments"), 2).await.unwrap();
        assert_eq!((history.len(), &*history[0].author), (2, "bob"));
        assert_eq!(admin.history(None, 10).await.unwrap().len(), 4);
        assert_eq!(
            admin
                .prune_history(Duration::from_secs(3600))
                .await
                .unwrap(),
            0
        );
        assert_eq!(admin.prune_history(Duration::ZERO).await.unwrap(), 4);
        assert!(admin.history(None, 10).await.unwrap().is_empty());
    });
}

/// Fault C10.
#[test]
fn failed_commands_are_not_applied_later() {
    on_tokio(async {
        let database = Database::new().await;
        let settings = StoreSettings::new()
            .connect_timeout(Duration::from_secs(20))
            .operation_timeout(Duration::from_millis(200));
        let build = |protocol| {
            let builder = database
                .builder()
                .namespace("shop")
                .settings(settings.clone());
            builder.simple_protocol(protocol).build().unwrap()
        };
        let circuit = BulkheadName::new("payments").unwrap();
        CircuitStore::open_session(&database.store("shop"), &[circuit])
            .await
            .unwrap();
        for simple in [false, true] {
            let admin = build(simple).admin();
            let mut blocker = database.connection().await;
            let block = format!(
                "BEGIN; SELECT {}.force_open('shop', 'payments', 'blocks')",
                database.schema.name()
            );
            blocker
                .execute(sqlx::raw_sql(AssertSqlSafe(block)))
                .await
                .unwrap();
            let mut failed = vec![
                admin.close("payments", "late", "").await,
                admin.reset("payments", "late", "").await,
                admin.disable("payments", "late", "").await,
                admin.force_open("payments", "late", "").await,
            ];
            let error = failed.remove(0).unwrap_err();
            assert!(
                error.is_transient() && error.to_string().contains("history"),
                "{error}"
            );
            assert!(failed.iter().all(Result::is_err));
            blocker.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
            // The row can be locked again, so that no abandoned command waits for it.
            let view = database
                .store("shop")
                .admin()
                .close("payments", "ada", "")
                .await;
            assert_eq!(&*view.unwrap().author, "ada");
            let history = database.store("shop").admin().history(None, 100).await;
            let history = history.unwrap();
            assert!(
                history.iter().all(|entry| &*entry.author != "late"),
                "{history:?}"
            );
        }
        // Without the server's limits, as behind a pooler, the command's own limit applies.
        let late = format!(
            "SELECT * FROM {}.apply_command('shop', 'payments', 4::smallint, false, 'late', '', 7, \
                                            now() - interval '1 second')",
            database.schema.name()
        );
        let mut connection = database.connection().await;
        let error = connection
            .execute(sqlx::raw_sql(AssertSqlSafe(late)))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("is not applied"), "{error}");
    });
}
