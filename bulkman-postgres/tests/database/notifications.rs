//! Notifications, forged ones, and sessions without them.

use std::time::Duration;

use bulkman_core::Runtime;
use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{CircuitStore, FleetState, Push, Revision, StoreEvent};
use bulkman_postgres::sqlx::postgres::PgListener;
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Executor};
use bulkman_tokio::TokioRuntime;

use crate::common::{Database, on_tokio, settings};
use crate::session_of;

#[test]
fn forged_notifications_are_only_hints() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("shop");
        let (circuit, mut session) = session_of(&store, "payments").await;
        let channel = channel_of(&database, "shop").await;
        for payload in [
            "",
            "1|1|1|open",
            "x",
            "1|18446744073709551615",
            "1|-5",
            "2|7",
            &"|".repeat(7_000),
        ] {
            database
                .execute(&format!("SELECT pg_notify('{channel}', '{payload}')"))
                .await;
        }
        // Well-formed payloads arrive as hints, and change nothing.
        let hint = |revision| StoreEvent::Changed {
            revision: Revision(revision),
        };
        assert_eq!(session.changed().await.unwrap(), hint(1));
        let snapshot = session.snapshot(None).await.unwrap();
        assert_eq!(
            (snapshot.revision, snapshot.circuits[0].state),
            (Revision(0), FleetState::Closed)
        );
        assert_eq!(session.changed().await.unwrap(), hint(u64::MAX));

        // A listener can replay a notification, or modify it.
        let mut spy = PgListener::connect(&database.url).await.unwrap();
        spy.listen(&channel).await.unwrap();
        store
            .admin()
            .force_open("payments", "ada", "maintenance")
            .await
            .unwrap();
        let applied = session.changed().await.unwrap();
        let StoreEvent::Applied(after) = &applied else {
            panic!("{applied:?}")
        };
        assert_eq!(
            (after.revision, after.circuits[0].state),
            (Revision(1), FleetState::ForcedOpen)
        );
        let payload = spy.recv().await.unwrap().payload().to_owned();
        let forged = [
            payload.replacen("1|1|", "1|2|", 1),
            payload.replace("ada", "eve"),
            payload.replacen("|3|", "|0|", 1),
            payload[..payload.len() - 1].to_owned(),
        ];
        for forged in &forged {
            assert_ne!(*forged, payload);
            database
                .execute(&format!("SELECT pg_notify('{channel}', '{forged}')"))
                .await;
        }
        database
            .execute(&format!("SELECT pg_notify('{channel}', '{payload}')"))
            .await;
        for revision in [2, 1, 1, 1] {
            assert_eq!(session.changed().await.unwrap(), hint(revision));
        }
        assert_eq!(
            session.changed().await.unwrap(),
            applied,
            "a replayed notification is authentic, but old"
        );

        // It is not authentic in another namespace.
        let other = database.store("stock");
        let mut session = CircuitStore::open_session(&other, &[circuit])
            .await
            .unwrap();
        let channel = channel_of(&database, "stock").await;
        database
            .execute(&format!("SELECT pg_notify('{channel}', '{payload}')"))
            .await;
        assert_eq!(session.changed().await.unwrap(), hint(1));
    });
}

/// Fault C02.
#[test]
fn statement_waits_for_the_end_of_forged_notifications() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("shop");
        let (_, mut session) = session_of(&store, "payments").await;
        let notify = format!(
            "SELECT pg_notify('{}', '1|7|forged')",
            channel_of(&database, "shop").await
        );
        database.execute(&notify).await;
        session.changed().await.unwrap();
        let runtime = TokioRuntime::new();
        let began = runtime.now();
        session.snapshot(None).await.unwrap();
        let waited = runtime.now().saturating_duration_since(began);
        assert!(waited >= Duration::from_millis(200), "{waited:?}");

        // If they do not end, it is executed nevertheless.
        let mut connection = database.connection().await;
        let notifying = tokio::spawn(async move {
            loop {
                let notify = sqlx::raw_sql(AssertSqlSafe(notify.clone()));
                connection.execute(notify).await.unwrap();
            }
        });
        session.changed().await.unwrap();
        session.snapshot(None).await.unwrap();
        notifying.abort();
    });
}

/// Fault C02.
#[test]
fn first_statement_with_push_again_waits_for_a_flood() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("shop");
        let circuit = BulkheadName::new("payments").unwrap();
        let open = || CircuitStore::open_session(&store, std::slice::from_ref(&circuit));
        let mut session = open().await.unwrap();
        let channel = channel_of(&database, "shop").await;
        // 10 MB, of which 8 MB are received.
        database
            .execute(&format!(
                "SELECT pg_notify('{channel}', i || repeat('x', 7000)) FROM generate_series(1, 1500) i"
            ))
            .await;
        let error = session.changed().await.unwrap_err().to_string();
        assert!(error.contains("flooded"), "{error}");
        drop(session);
        let mut session = open().await.unwrap();
        assert!(!session.is_listening());
        session.listen().await.unwrap();
        let runtime = TokioRuntime::new();
        let began = runtime.now();
        session.snapshot(None).await.unwrap();
        let waited = runtime.now().saturating_duration_since(began);
        assert!(waited >= Duration::from_millis(200), "{waited:?}");
    });
}

#[test]
fn session_without_push_does_not_listen() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database
            .builder()
            .settings(settings().push(Push::Off))
            .build()
            .unwrap();
        assert!(!store.capabilities().push);
        let _session = CircuitStore::open_session(&store, &[]).await.unwrap();
        let mut connection = database.connection().await;
        let listening: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE query = $1")
                .bind("LISTEN")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(listening, 0);
    });
}

async fn channel_of(database: &Database, namespace: &str) -> String {
    let mut connection = database.connection().await;
    let channel = format!("SELECT {}.channel('{namespace}')", database.schema.name());
    sqlx::query_scalar(AssertSqlSafe(channel))
        .fetch_one(&mut connection)
        .await
        .unwrap()
}
