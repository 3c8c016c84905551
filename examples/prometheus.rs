//! Metrics for Prometheus, with `metrics-exporter-prometheus`.
//!
//! * The recorder is installed before anything is published.
//! * `/metrics` publishes and then renders, so each scrape is current.
//! * The exporter drops idle series: those of a bulkhead that was removed.
//!
//! The program serves its metrics on loopback, runs some calls, scrapes itself, checks the result,
//! and exits. `examples/grafana/bulkman.json` is a dashboard for these metrics.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bulkman::metrics::MetricsPublisher;
use bulkman::{BulkheadConfig, BulkheadManager, TokioRuntime};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use metrics_util::MetricKindMask;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let idle = Duration::from_millis(500);
    let recorder = PrometheusBuilder::new()
        // Without buckets, the exporter uses summaries, which cannot be aggregated over a fleet.
        .set_buckets_for_metric(Matcher::Suffix("duration_seconds".into()), BUCKETS)?
        // In production several scrape intervals. Short here, because the program waits for it.
        .idle_timeout(MetricKindMask::COUNTER | MetricKindMask::GAUGE, Some(idle))
        .install_recorder()?;

    let manager = BulkheadManager::new(TokioRuntime::new());
    let publisher = Arc::new(MetricsPublisher::new(&manager).record_durations(true));
    let metrics = get(move || {
        publisher.publish();
        // Moves histogram samples into buckets. Once per scrape is sufficient.
        recorder.run_upkeep();
        std::future::ready(recorder.render())
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/metrics", listener.local_addr()?);
    let routes = Router::new().route("/metrics", metrics);
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let search = BulkheadConfig::new("search")
        .max_concurrent_calls(2)
        .max_queue_size(1);
    let search = manager.create_bulkhead(search)?;
    let stock = manager.create_bulkhead(BulkheadConfig::new("stock").failure_threshold(3))?;
    // The first publication starts the recording of durations.
    scrape(&url).await?;

    for _ in 0..10 {
        search
            .execute(async {
                tokio::task::yield_now().await;
                std::io::Result::Ok(())
            })
            .await?;
    }
    let running = (search.acquire().await?, search.acquire().await?);
    let waiting = tokio::spawn(search.acquire());
    while search.stats().waiting == 0 {
        tokio::task::yield_now().await;
    }
    assert!(
        search.execute(async { Ok::<_, &str>(()) }).await.is_err(),
        "it is full"
    );
    for _ in 0..5 {
        let _ = stock.execute(async { Err::<(), _>("out of stock") }).await;
    }

    let text = scrape(&url).await?;
    for line in text
        .lines()
        .filter(|line| line.contains("search") && !line.contains("_bucket"))
    {
        println!("{line}");
    }
    for (series, value) in [
        (
            r#"bulkman_calls_total{bulkhead="search",outcome="success"}"#,
            "10",
        ),
        (
            r#"bulkman_rejections_total{bulkhead="search",reason="full"}"#,
            "1",
        ),
        (r#"bulkman_calls_running{bulkhead="search"}"#, "2"),
        (r#"bulkman_calls_waiting{bulkhead="search"}"#, "1"),
        (r#"bulkman_permits_limit{bulkhead="search"}"#, "2"),
        (
            r#"bulkman_run_duration_seconds_count{bulkhead="search"}"#,
            "10",
        ),
        (
            r#"bulkman_queue_duration_seconds_bucket{bulkhead="search",le="+Inf"}"#,
            "10",
        ),
        (
            r#"bulkman_calls_total{bulkhead="stock",outcome="failure"}"#,
            "3",
        ),
        (
            r#"bulkman_rejections_total{bulkhead="stock",reason="circuit_open"}"#,
            "2",
        ),
        (
            r#"bulkman_circuit_state{bulkhead="stock",state="open"}"#,
            "1",
        ),
        (
            r#"bulkman_circuit_state{bulkhead="stock",state="closed"}"#,
            "0",
        ),
        (
            r#"bulkman_circuit_transitions_total{bulkhead="stock",to="open"}"#,
            "1",
        ),
    ] {
        assert_eq!(value_of(&text, series), Some(value), "{series}");
    }
    drop(running);
    waiting.await??.succeed();

    manager.remove_bulkhead("stock");
    let text = scrape(&url).await?;
    assert_eq!(
        value_of(&text, r#"bulkman_permits_limit{bulkhead="stock"}"#),
        Some("0")
    );
    while scrape(&url)
        .await?
        .contains(r#"bulkman_permits_limit{bulkhead="stock"}"#)
    {
        // As a scraping server does.
        tokio::time::sleep(idle / 5).await;
    }
    assert!(scrape(&url).await?.contains("search"));
    println!("the series of a removed bulkhead disappear after a while");
    Ok(())
}

/// Bucket bounds from a millisecond to ten seconds.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

async fn scrape(url: &str) -> reqwest::Result<String> {
    reqwest::get(url).await?.error_for_status()?.text().await
}

fn value_of<'a>(text: &'a str, series: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}
