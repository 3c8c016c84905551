//! The series of bulkheads and fleets, in a Prometheus recorder.

mod calls;
mod labels;
mod lifetimes;
mod publishing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bulkman::metrics::MetricsPublisher;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

const SECOND: Duration = Duration::from_secs(1);

/// Returns the names in the comments of an exposition, each of which must be unique.
fn lines_of(text: &str, comment: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(comment));
    let names: Vec<_> = lines.filter_map(|line| line.split(' ').next()).collect();
    let unique: BTreeSet<_> = names.iter().map(ToString::to_string).collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    unique
}

/// A recorder for one test.
struct Recorded(PrometheusRecorder);

impl Recorded {
    fn new() -> Self {
        Self(PrometheusBuilder::new().build_recorder())
    }

    fn publish(&self, publisher: &MetricsPublisher) {
        self.within(|| publisher.publish());
    }

    fn within<R>(&self, code: impl FnOnce() -> R) -> R {
        metrics::with_local_recorder(&self.0, code)
    }

    fn text(&self) -> String {
        self.0.handle().render()
    }

    /// Returns the value of the series of the bulkhead `api` with the given other labels.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of("api", name, labels)
            .unwrap_or_else(|| panic!("no {name} {labels:?} in\n{}", self.text()))
    }

    fn of(&self, bulkhead: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.with(("bulkhead", bulkhead), name, labels)
    }

    fn with(&self, owner: (&str, &str), name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<_, _> = labels.iter().copied().chain([owner]).collect();
        let text = self.text();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, labels) = series.strip_suffix('}')?.split_once('{')?;
                let labels = labels.split(',').filter_map(|label| label.split_once('='));
                let labels: BTreeMap<_, _> = labels
                    .map(|(key, value)| (key, value.trim_matches('"')))
                    .collect();
                (found == name && labels == wanted).then(|| value.parse().unwrap())
            })
    }
}
