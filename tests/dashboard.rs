//! The Grafana dashboard and the documented tables agree with the emitted metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bulkman::adaptive::AdaptiveLimit;
use bulkman::bulkhead::Fairness;
use bulkman::metrics::MetricsPublisher;
use bulkman::store::MemoryStore;
use bulkman::testing::ManualRuntime;
use bulkman::{BulkheadConfig, BulkheadManager, CircuitBreakerConfig};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

/// The labels of each emitted metric, with their values.
type Emitted = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

#[test]
fn guide_for_operators_names_emitted_metrics() {
    let emitted = emitted();
    let guide = include_str!("../src/guide/operating_a_fleet.md");
    let named: Vec<_> = guide
        .split('`')
        .filter(|word| word.starts_with("bulkman_fleet_"))
        .collect();
    assert!(named.len() >= 3, "{named:?}");
    for metric in named {
        assert!(emitted.contains_key(metric), "{metric} is never emitted");
    }
}

#[test]
fn every_dashboard_query_uses_emitted_metrics_and_labels() {
    let emitted = emitted();
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../examples/grafana/bulkman.json")).unwrap();
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 15, "{expressions:?}");
    let mut queried = BTreeSet::new();
    for expression in &expressions {
        let selectors = selectors(expression);
        assert!(!selectors.is_empty(), "no metric of bulkman: {expression}");
        for (metric, matchers) in selectors {
            let labels = emitted
                .get(&metric)
                .unwrap_or_else(|| panic!("no {metric}: {expression}"));
            for (label, values) in matchers {
                // Prometheus adds the label `job`.
                if label == "job" {
                    continue;
                }
                let known = labels
                    .get(&label)
                    .unwrap_or_else(|| panic!("{metric} has no {label}: {expression}"));
                for value in values.split('|').filter(|value| !value.starts_with('$')) {
                    assert!(
                        known.contains(value),
                        "{label} of {metric} is never {value:?}: {expression}"
                    );
                }
            }
            queried.insert(metric);
        }
        for label in grouped_by(expression) {
            let known = ["instance", "job", "le"].contains(&&*label)
                || queried
                    .iter()
                    .any(|metric| emitted[metric].contains_key(&label));
            assert!(
                known,
                "grouped by {label}, which no metric has: {expression}"
            );
        }
    }
    let unused: Vec<_> = emitted
        .keys()
        .filter(|metric| !queried.contains(*metric))
        .collect();
    // The dashboard shows quantiles of this histogram, from its buckets.
    let expected = [
        "bulkman_queue_duration_seconds_count",
        "bulkman_queue_duration_seconds_sum",
    ];
    assert_eq!(unused, expected, "on no panel");
}

#[test]
fn every_panel_has_a_unique_id_and_complete_texts() {
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../examples/grafana/bulkman.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(
            !panel["description"].as_str().unwrap().is_empty(),
            "{title}"
        );
        let position = &panel["gridPos"];
        assert!(
            position["x"].as_u64().unwrap() + position["w"].as_u64().unwrap() <= 24,
            "{title}"
        );
        for target in panel["targets"].as_array().unwrap() {
            assert!(
                !target["legendFormat"].as_str().unwrap().is_empty(),
                "{title}"
            );
            let expression = target["expr"].as_str().unwrap();
            let count = |c| expression.matches(c).count();
            assert_eq!(
                (count('('), count('{')),
                (count(')'), count('}')),
                "{title}"
            );
        }
    }
}

#[test]
fn documented_tables_list_the_emitted_metrics() {
    let documentation = include_str!("../bulkman-core/src/metrics/mod.rs");
    let mut emitted = emitted();
    for suffix in ["_bucket", "_count", "_sum"] {
        for histogram in [
            "bulkman_queue_duration_seconds",
            "bulkman_run_duration_seconds",
        ] {
            let labels = emitted.remove(&format!("{histogram}{suffix}")).unwrap();
            emitted.insert(histogram.into(), labels);
        }
    }
    let mut listed = BTreeSet::new();
    for row in documentation
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `bulkman_"))
    {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let metric = format!("bulkman_{}", cells[0].trim_end_matches('`'));
        let labels = emitted
            .get(&metric)
            .unwrap_or_else(|| panic!("{metric} is never emitted"));
        let texts: Vec<_> = cells[2].split('`').skip(1).step_by(2).collect();
        let own: Vec<_> = labels
            .iter()
            .filter(|(label, _)| !["bulkhead", "namespace", "le"].contains(&label.as_str()))
            .collect();
        match (&own[..], &texts[..]) {
            ([], []) => {}
            ([(label, values)], [documented, rest @ ..]) => {
                assert_eq!(label, documented, "{metric}");
                let rest: BTreeSet<_> = rest.iter().map(ToString::to_string).collect();
                assert!(
                    rest.is_empty() || rest == **values,
                    "{metric}: {rest:?} are not {values:?}"
                );
            }
            _ => panic!("{metric} has {own:?}, documented are {texts:?}"),
        }
        let kind = if metric.ends_with("_total") {
            "counter"
        } else if metric.ends_with("_duration_seconds") {
            "histogram"
        } else {
            "gauge"
        };
        assert_eq!(cells[1], kind, "{metric}");
        listed.insert(metric);
    }
    assert_eq!(listed, emitted.keys().cloned().collect());
}

/// Publishes a bulkhead and its fleet to a Prometheus recorder, and parses its output.
fn emitted() -> Emitted {
    let buckets = Matcher::Suffix("duration_seconds".into());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(buckets, &[0.1])
        .unwrap()
        .build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let runtime = ManualRuntime::new();
        let store = MemoryStore::new(runtime.clone());
        let manager = BulkheadManager::new(runtime.clone());
        manager.share_through(store).unwrap();
        // The gauges of a limit follow its first window, which ten calls of 50 ms complete.
        let rules = CircuitBreakerConfig::new()
            .slow_call_duration_threshold(Duration::from_secs(1))
            .hanging_call_threshold(10);
        let config = BulkheadConfig::new("api")
            .adaptive_limit(AdaptiveLimit::new())
            .fairness(Fairness::new())
            .track_running_calls(true)
            .circuit_breaker(rules);
        let bulkhead = manager.create_bulkhead(config).unwrap();
        for _ in 0..10 {
            let permit = bulkhead.try_acquire().unwrap();
            runtime.advance(Duration::from_millis(50));
            permit.succeed();
        }
        let publisher = MetricsPublisher::new(&manager).record_durations(true);
        publisher.publish();
        bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
        publisher.publish();
    });
    let mut emitted = Emitted::new();
    for line in recorder
        .handle()
        .render()
        .lines()
        .filter(|line| line.starts_with("bulkman_"))
    {
        let (metric, labels) = line.split_once('{').unwrap();
        let known = emitted.entry(metric.into()).or_default();
        for (label, value) in matchers(labels.split_once('}').unwrap().0) {
            known.entry(label).or_default().insert(value);
        }
    }
    emitted
}

/// Returns the queries of all panels and variables.
fn expressions(dashboard: &serde_json::Value) -> Vec<String> {
    let targets = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let panels = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter_map(|variable| variable["definition"].as_str());
    panels.chain(variables).map(String::from).collect()
}

/// Returns the metrics in a query, each with its matchers.
fn selectors(expression: &str) -> Vec<(String, Vec<(String, String)>)> {
    expression
        .match_indices("bulkman_")
        .map(|(start, _)| {
            let rest = &expression[start..];
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            let (metric, rest) = rest.split_at(end);
            let inside = rest
                .strip_prefix('{')
                .map_or("", |rest| rest.split_once('}').unwrap().0);
            (metric.into(), matchers(inside))
        })
        .collect()
}

/// Parses matchers such as `a="b",c=~"d|e"`.
fn matchers(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
        let (label, value) = pair.split_once('=').unwrap();
        (
            label.to_string(),
            value.trim_start_matches('~').trim_matches('"').to_string(),
        )
    });
    pairs.collect()
}

/// Returns the labels of all `by` clauses.
fn grouped_by(expression: &str) -> Vec<String> {
    let lists = expression
        .split("by (")
        .skip(1)
        .map(|rest| rest.split_once(')').unwrap().0);
    lists
        .flat_map(|list| list.split(',').map(|label| label.trim().to_string()))
        .collect()
}
