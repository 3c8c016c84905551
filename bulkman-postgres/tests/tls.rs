//! TLS with a real server: with the features `tls-rustls` and `tls-native`, and without both.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use bulkman_core::store::CircuitStore;
use bulkman_core::store::StoreError;
use bulkman_postgres::sqlx::postgres::{PgConnectOptions, PgSslMode};
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
use bulkman_postgres::sqlx::{self, Connection, PgConnection};
use bulkman_postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman_test_support::{CertificateAuthority, Postgres};

use common::{on_smol, on_tokio};

#[test]
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
fn certificate_is_verified_on_both_runtimes() {
    let authority = CertificateAuthority::new();
    let server = Postgres::start_with_tls(&authority, "127.0.0.1");
    on_tokio(trusts_only_its_authority(&server, &authority));
    on_smol(trusts_only_its_authority(&server, &authority));
}

#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
async fn trusts_only_its_authority(server: &Postgres, authority: &CertificateAuthority) {
    let schema = server.schema();
    let trusting = |authority: &CertificateAuthority, mode| {
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
    assert!(
        encrypted(server).await > 0,
        "the server reports an encrypted session"
    );
    drop(session);
    // Without an explicit mode, the strictest one is used.
    let strict = trusting(authority, PgSslMode::Prefer).require_tls(true);
    assert_eq!(strict.build().unwrap().check().await.unwrap(), []);

    let untrusted = CertificateAuthority::new();
    for builder in [
        trusting(&untrusted, PgSslMode::VerifyFull),
        trusting(&untrusted, PgSslMode::VerifyCa),
        trusting(&untrusted, PgSslMode::Prefer).require_tls(true),
    ] {
        rejects(server, builder, "certificate").await;
    }
}

#[test]
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
fn certificate_of_another_server_is_rejected() {
    let authority = CertificateAuthority::new();
    let server = Postgres::start_with_tls(&authority, "db.example");
    on_tokio(async {
        let trusted = |mode| {
            let options = options(&server)
                .ssl_mode(mode)
                .ssl_root_cert_from_pem(authority.pem().into());
            PostgresStore::builder(options)
        };
        rejects(&server, trusted(PgSslMode::VerifyFull), "certificate").await;
        // `verify-ca` and `require` don't verify the host name.
        for mode in [PgSslMode::VerifyCa, PgSslMode::Require] {
            trusted(mode).build().unwrap().check().await.unwrap();
        }
    });
}

#[test]
#[cfg(any(feature = "tls-rustls", feature = "tls-native"))]
fn server_without_tls_is_rejected_if_required() {
    let server = Postgres::start(&[]);
    on_tokio(async {
        for mode in [PgSslMode::Prefer, PgSslMode::Require, PgSslMode::VerifyFull] {
            let builder = PostgresStore::builder(options(&server).ssl_mode(mode)).require_tls(true);
            rejects(&server, builder, "does not support TLS").await;
        }
        // Otherwise the connection silently falls back to plain text.
        let builder = PostgresStore::builder(options(&server).ssl_mode(PgSslMode::Prefer));
        builder.build().unwrap().check().await.unwrap();
    });
}

#[test]
#[cfg(not(any(feature = "tls-rustls", feature = "tls-native")))]
fn missing_tls_feature_is_reported() {
    let server = Postgres::start_with_tls(&CertificateAuthority::new(), "127.0.0.1");
    let required =
        || PostgresStore::builder(options(&server).ssl_mode(PgSslMode::Prefer)).require_tls(true);
    let error = required().build().unwrap_err();
    assert!(error.to_string().contains("tls-rustls"), "{error}");
    let without = || PostgresStore::builder(options(&server).ssl_mode(PgSslMode::VerifyFull));
    on_tokio(rejects(&server, without(), "TLS support"));
    on_smol(rejects(&server, without(), "TLS support"));
}

/// Checks that connecting fails with the reason, and without printing the password.
async fn rejects(server: &Postgres, builder: PostgresStoreBuilder, reason: &str) {
    let store = builder.build().unwrap();
    let connected = CircuitStore::open_session(&store, &[]).await.err();
    for error in [
        store.check().await.err(),
        store.migrate().await.err(),
        connected,
    ] {
        let error = error.expect("the connection is rejected");
        let message = format!("{error} {error:?}");
        assert!(
            matches!(error, StoreError::Incompatible { .. }),
            "{message}"
        );
        assert!(
            message.to_lowercase().contains(&reason.to_lowercase()),
            "{message}"
        );
        assert!(
            error.to_string().contains("TLS could not be established"),
            "{message}"
        );
        assert!(!message.contains(&password(server)), "{message}");
    }
}

/// Returns the number of encrypted sessions that the server reports.
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

/// Returns the password of the server's URL.
fn password(server: &Postgres) -> String {
    let url = server.url();
    let account = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .unwrap()
        .0;
    account.split_once(':').unwrap().1.to_owned()
}
