//! Checks that the documented settings and defaults are those of the code.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use bulkman::circuit_breaker::{HalfOpenPolicy, IsolationDuration, ResolvedCircuitBreakerConfig};
use bulkman::{BulkheadConfig, CircuitBreakerConfig, QueueOrder};

const README: &str = include_str!("../README.md");

/// Hazard H61.
#[test]
fn a_bulkheads_defaults_are_the_documented_ones() {
    let new = || BulkheadConfig::new("api");
    let [documented, _] = defaults();
    assert_eq!(names(&documented), fields(&new()));
    for (setting, default) in documented {
        // Set to what is documented, a configuration is the same as before.
        let set = match &*setting {
            "name" => {
                assert_eq!(default, "required");
                continue;
            }
            "max_concurrent_calls" => new().max_concurrent_calls(default.parse().unwrap()),
            "max_queue_size" => new().max_queue_size(default.parse().unwrap()),
            "queue_order" => new().queue_order(match &*default {
                "`Fifo`" => QueueOrder::Fifo,
                "`Lifo`" => QueueOrder::Lifo,
                other => panic!("{other}"),
            }),
            "timeout" => new().timeout(limit(&default)),
            "max_wait" => new().max_wait(limit(&default)),
            "run_timeout" => new().run_timeout(limit(&default)),
            "circuit_breaker_enabled" => new().circuit_breaker_enabled(default.parse().unwrap()),
            "circuit_breaker" => {
                assert_eq!(default, "see below");
                new().circuit_breaker(CircuitBreakerConfig::new())
            }
            unknown => panic!("no setting is named {unknown}"),
        };
        assert_eq!(set, new(), "{setting}: {default}");
    }
}

/// Hazard H61.
#[test]
fn a_circuits_defaults_are_the_documented_ones() {
    let [_, documented] = defaults();
    let mut settable = fields(&CircuitBreakerConfig::new());
    for field in &mut settable {
        // Three-valued, so it has another name.
        if field == "consecutive" {
            "failure_threshold".clone_into(field);
        }
    }
    settable.sort_unstable();
    assert_eq!(names(&documented), settable);
    let settings = CircuitBreakerConfig::new().resolve();
    for (setting, default) in documented {
        assert_eq!(in_words(&settings, &setting), default, "{setting}");
    }
    for rule in [
        CircuitBreakerConfig::new().failure_rate_threshold(0.5),
        CircuitBreakerConfig::new().failure_count_threshold(5),
    ] {
        assert_eq!(in_words(&rule.resolve(), "failure_threshold"), "off");
    }
    let other = CircuitBreakerConfig::new().isolation_schedule([7, 9].map(Duration::from_secs));
    assert_eq!(
        in_words(&other.resolve(), "probe_timeout"),
        "the first isolation"
    );
}

/// What is in force, as the README would put it.
fn in_words(settings: &ResolvedCircuitBreakerConfig, setting: &str) -> String {
    match setting {
        "failure_threshold" => or_off(settings.failure_threshold),
        "failure_rate_threshold" => or_off(settings.failure_rate_threshold),
        "slow_call_rate_threshold" => or_off(settings.slow_call_rate_threshold),
        "slow_call_duration_threshold" => or_off(settings.slow_call_duration_threshold),
        "failure_count_threshold" => or_off(settings.failure_count_threshold),
        "minimum_number_of_calls" => settings.minimum_number_of_calls.to_string(),
        "sliding_window" => format!("`{:?}`", settings.sliding_window),
        "success_threshold" => match settings.half_open_policy {
            HalfOpenPolicy::Consecutive { successes } => successes.to_string(),
            _ => "off".to_owned(),
        },
        "permitted_calls_in_half_open" => match settings.half_open_policy {
            HalfOpenPolicy::Sample { calls } => calls.to_string(),
            _ => "off".to_owned(),
        },
        "isolation_duration" => format!("{} s", first_isolation(settings).as_secs_f64()),
        "isolation_schedule" => match &settings.isolation {
            IsolationDuration::Schedule(schedule) => format!("{schedule:?}"),
            _ => "off".to_owned(),
        },
        "isolation_backoff" => match &settings.isolation {
            IsolationDuration::Backoff { backoff, .. } => format!("{backoff:?}"),
            _ => "off".to_owned(),
        },
        "probe_timeout" if settings.probe_timeout == first_isolation(settings) => {
            "the first isolation".to_owned()
        }
        "probe_timeout" => format!("{:?}", settings.probe_timeout),
        "max_half_open_duration" => or_off(settings.max_half_open_duration),
        "automatic_half_open" => settings.automatic_half_open.to_string(),
        "initial_state" => format!("`{:?}`", settings.initial_state),
        unknown => panic!("no setting is named {unknown}"),
    }
}

fn first_isolation(settings: &ResolvedCircuitBreakerConfig) -> Duration {
    match &settings.isolation {
        IsolationDuration::Fixed(duration)
        | IsolationDuration::Backoff {
            initial: duration, ..
        } => *duration,
        IsolationDuration::Schedule(schedule) => schedule[0],
        other => panic!("{other:?}"),
    }
}

fn or_off(value: Option<impl Debug>) -> String {
    value.map_or_else(|| "off".to_owned(), |value| format!("{value:?}"))
}

fn limit(default: &str) -> Option<Duration> {
    (default != "none")
        .then(|| Duration::from_secs(default.strip_suffix(" s").unwrap().parse().unwrap()))
}

/// The defaults in the README's two tables of settings.
fn defaults() -> [BTreeMap<String, String>; 2] {
    let tables = README
        .split("| setting | default | range | meaning |\n")
        .skip(1)
        .map(|table| {
            let mut defaults = BTreeMap::new();
            for line in table
                .lines()
                .skip(1)
                .take_while(|line| line.starts_with('|'))
            {
                let cells: Vec<_> = line.split('|').map(str::trim).collect();
                let [_, setting, default, _, _, _] = cells[..] else {
                    panic!("{line}")
                };
                let twice =
                    defaults.insert(setting.trim_matches('`').to_owned(), default.to_owned());
                assert_eq!(twice, None, "{setting} is there twice");
            }
            defaults
        });
    let tables: Vec<_> = tables.collect();
    tables
        .try_into()
        .unwrap_or_else(|tables| panic!("two tables, not {tables:?}"))
}

fn names(documented: &BTreeMap<String, String>) -> Vec<String> {
    documented.keys().cloned().collect()
}

/// All there is to set: the fields, in alphabetical order.
fn fields(config: &impl Debug) -> Vec<String> {
    let text = format!("{config:#?}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let top = lines.filter(|line| !line.starts_with([' ', '}', ')', ']']));
    let mut fields: Vec<_> = top
        .map(|line| line.split(':').next().unwrap_or(line).to_owned())
        .collect();
    fields.sort_unstable();
    fields
}
