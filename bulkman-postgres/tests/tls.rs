//! TLS with a real server: by the library that the features `tls-rustls` and `tls-native` bring in,
//! and what is said without either.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use bulkman_core::store::CircuitStore;
use bulkman_core::store::StoreError;
use bulkman_postgres::sqlx::postgres::{PgConnectOptions, PgSslMode};
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
use bulkman_postgres::sqlx::{self, Connection, PgConnection};
use bulkman_postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman_test_support::{Authority, Postgres};

use common::{on_smol, on_tokio};

#[test]
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
fn a_certificate_is_checked_on_both_runtimes() {
    let authority = Authority::new();
    let server = Postgres::start_with_tls(&authority, "127.0.0.1");
    on_tokio(trusts_its_authority_and_no_other(&server, &authority));
    on_smol(trusts_its_authority_and_no_other(&server, &authority));
}

#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
async fn trusts_its_authority_and_no_other(server: &Postgres, authority: &Authority) {
    let schema = server.schema();
    let trusting = |authority: &Authority, mode| {
        let options = options(server)
            .ssl_mode(mode)
            .ssl_root_cert_from_pem(authority.pem().into());
        PostgresStore::builder(options).schema(schema.name())
    };
    let store = trusting(authority, PgSslMode::VerifyFull).build().unwrap();
    store.migrate().await.unwrap();
    assert_eq!(store.check().await.unwrap(), []);
    let mut session = CircuitStore::open_session(&store, &[]).await.unwrap();
    session.snapshot(None).await.unwrap();
    assert!(encrypted(server).await > 0, "says the server");
    drop(session);
    // Without saying how, it means the strictest.
    let strict = trusting(authority, PgSslMode::Prefer).require_tls(true);
    assert_eq!(strict.build().unwrap().check().await.unwrap(), []);

    let stranger = Authority::new();
    for builder in [
        trusting(&stranger, PgSslMode::VerifyFull),
        trusting(&stranger, PgSslMode::VerifyCa),
        trusting(&stranger, PgSslMode::Prefer).require_tls(true),
    ] {
        refused(server, builder, "certificate").await;
    }
}

#[test]
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
fn another_servers_certificate_is_refused() {
    let authority = Authority::new();
    let server = Postgres::start_with_tls(&authority, "db.example");
    on_tokio(async {
        let trusted = |mode| {
            let options = options(&server)
                .ssl_mode(mode)
                .ssl_root_cert_from_pem(authority.pem().into());
            PostgresStore::builder(options)
        };
        refused(&server, trusted(PgSslMode::VerifyFull), "certificate").await;
        // `verify-ca` and `require` don't ask who it is.
        for mode in [PgSslMode::VerifyCa, PgSslMode::Require] {
            trusted(mode).build().unwrap().check().await.unwrap();
        }
    });
}

#[test]
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
fn a_server_without_tls_is_refused_where_it_is_required() {
    let server = Postgres::start(&[]);
    on_tokio(async {
        for mode in [PgSslMode::Prefer, PgSslMode::Require, PgSslMode::VerifyFull] {
            let builder = PostgresStore::builder(options(&server).ssl_mode(mode)).require_tls(true);
            refused(&server, builder, "does not support TLS").await;
        }
        // What happens otherwise, silently.
        let builder = PostgresStore::builder(options(&server).ssl_mode(PgSslMode::Prefer));
        builder.build().unwrap().check().await.unwrap();
    });
}

#[test]
#[cfg(not(any(feature = "tls-rustls", feature = "tls-native")))]
fn without_a_feature_it_is_said_which_is_missing() {
    let server = Postgres::start_with_tls(&Authority::new(), "127.0.0.1");
    let required =
        || PostgresStore::builder(options(&server).ssl_mode(PgSslMode::Prefer)).require_tls(true);
    let error = required().build().unwrap_err();
    assert!(error.to_string().contains("tls-rustls"), "{error}");
    let without = || PostgresStore::builder(options(&server).ssl_mode(PgSslMode::VerifyFull));
    on_tokio(refused(&server, without(), "TLS support"));
    on_smol(refused(&server, without(), "TLS support"));
}

/// For somebody to mend, with the reason, and without the password.
async fn refused(server: &Postgres, builder: PostgresStoreBuilder, reason: &str) {
    let store = builder.build().unwrap();
    let connected = CircuitStore::open_session(&store, &[]).await.err();
    for error in [
        store.check().await.err(),
        store.migrate().await.err(),
        connected,
    ] {
        let error = error.expect("it is refused");
        let shown = format!("{error} {error:?}");
        assert!(matches!(error, StoreError::Incompatible { .. }), "{shown}");
        assert!(
            shown.to_lowercase().contains(&reason.to_lowercase()),
            "{shown}"
        );
        assert!(
            error.to_string().contains("TLS could not be established"),
            "{shown}"
        );
        assert!(!shown.contains(&password(server)), "{shown}");
    }
}

/// Sessions that the server knows to be encrypted.
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
async fn encrypted(server: &Postgres) -> i64 {
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let count = "SELECT count(*) FROM pg_stat_ssl WHERE ssl AND pid <> pg_backend_pid()";
    sqlx::query_scalar(count)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

fn options(server: &Postgres) -> PgConnectOptions {
    server.url().parse().unwrap()
}

/// That of the server's URL.
fn password(server: &Postgres) -> String {
    let url = server.url();
    let account = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .unwrap()
        .0;
    account.split_once(':').unwrap().1.to_owned()
}
