//! The Grafana dashboard asks for nothing that is not emitted, and the documented table lists
//! everything that is.

use std::collections::{BTreeMap, BTreeSet};

use bulkman::metrics::MetricsPublisher;
use bulkman::store::MemoryStore;
use bulkman::testing::ManualRuntime;
use bulkman::{BulkheadConfig, BulkheadManager};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

/// What a bulkhead and its fleet emit: the labels of each metric, with the values of the bounded ones.
type Emitted = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

#[test]
fn every_query_of_the_dashboard_finds_its_metric_and_its_labels() {
    let emitted = emitted();
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../examples/grafana/bulkman.json")).unwrap();
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 15, "{expressions:?}");
    let mut asked_for = BTreeSet::new();
    for expression in &expressions {
        let selectors = selectors(expression);
        assert!(
            !selectors.is_empty(),
            "asks for nothing of ours: {expression}"
        );
        for (metric, matchers) in selectors {
            let labels = emitted
                .get(&metric)
                .unwrap_or_else(|| panic!("no {metric}: {expression}"));
            for (label, values) in matchers {
                // Prometheus adds the job.
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
            asked_for.insert(metric);
        }
        for label in grouped_by(expression) {
            let known = ["instance", "job", "le"].contains(&&*label)
                || asked_for
                    .iter()
                    .any(|metric| emitted[metric].contains_key(&label));
            assert!(known, "grouped by {label}, which nothing has: {expression}");
        }
    }
    let forgotten: Vec<_> = emitted
        .keys()
        .filter(|metric| !asked_for.contains(*metric))
        .collect();
    // Derived from the others by the exporter, or shown as their parts.
    let expected = [
        "bulkman_queue_duration_seconds_count",
        "bulkman_queue_duration_seconds_sum",
    ];
    assert_eq!(forgotten, expected, "on no panel");
}

#[test]
fn every_panel_can_be_told_from_the_others() {
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
        let place = &panel["gridPos"];
        assert!(
            place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24,
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
fn the_table_in_the_documentation_lists_what_is_emitted() {
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

/// Publishes a bulkhead and its fleet through a Prometheus recorder and reads what comes out.
fn emitted() -> Emitted {
    let buckets = Matcher::Suffix("duration_seconds".into());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(buckets, &[0.1])
        .unwrap()
        .build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let runtime = ManualRuntime::new();
        let store = MemoryStore::new(runtime.clone());
        let manager = BulkheadManager::new(runtime).with_store(store).unwrap();
        let bulkhead = manager.create_bulkhead(BulkheadConfig::new("api")).unwrap();
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

/// All queries: of panels and of variables.
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

/// The metrics that a query names, each with its matchers.
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

/// `a="b",c=~"d|e"`
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

fn grouped_by(expression: &str) -> Vec<String> {
    let lists = expression
        .split("by (")
        .skip(1)
        .map(|rest| rest.split_once(')').unwrap().0);
    lists
        .flat_map(|list| list.split(',').map(|label| label.trim().to_string()))
        .collect()
}
