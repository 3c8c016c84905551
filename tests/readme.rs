//! Checks that the documented settings and defaults are those of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use bulkman::adaptive::Enforcement;
use bulkman::circuit_breaker::{HalfOpenPolicy, IsolationDuration, ResolvedCircuitBreakerConfig};
use bulkman::{BulkheadConfig, CircuitBreakerConfig, QueueOrder};

const README: &str = include_str!("../README.md");
const MANIFEST: &str = include_str!("../Cargo.toml");
const BULKHEAD_CONFIG: &str = include_str!("../bulkman-core/src/bulkhead/config/mod.rs");
const CIRCUIT_CONFIG: &str = include_str!("../bulkman-core/src/circuit_breaker/config.rs");

/// Hazard H61.
#[test]
fn a_bulkheads_defaults_are_the_documented_ones() {
    let new = || BulkheadConfig::new("api");
    let documented = defaults(BULKHEAD_CONFIG);
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
            "max_queue_weight" => {
                assert_eq!(default, "none");
                new().max_queue_weight(None)
            }
            "queue_order" => new().queue_order(match &*default {
                "first in, first out" => QueueOrder::Fifo,
                "last in, first out" => QueueOrder::Lifo,
                other => panic!("{other}"),
            }),
            "timeout" => new().timeout(limit(&default)),
            "max_wait" => new().max_wait(limit(&default)),
            "run_timeout" => new().run_timeout(limit(&default)),
            "adaptive_limit" => {
                assert_eq!(default, "none");
                new().adaptive_limit(None)
            }
            "enforcement" => {
                assert_eq!(default, "enforce");
                new().enforcement(Enforcement::Enforce)
            }
            "fairness" => {
                assert_eq!(default, "none");
                new().fairness(None)
            }
            "circuit_breaker_enabled" => new().circuit_breaker_enabled(default.parse().unwrap()),
            "circuit_breaker" => {
                assert_eq!(default, "[`CircuitBreakerConfig::new`]");
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
    let documented = defaults(CIRCUIT_CONFIG);
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

/// Returns the defaults in the table of settings of a type's documentation.
fn defaults(source: &str) -> BTreeMap<String, String> {
    let (_, table) = source
        .split_once("/// | setting | default | range |\n/// | --- | --- | --- |\n")
        .expect("a table of settings");
    let mut defaults = BTreeMap::new();
    for line in table.lines().take_while(|line| line.starts_with("/// |")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, setting, default, _, _] = cells[..] else {
            panic!("{line}")
        };
        let name = setting.split('`').nth(1).expect("a name in backticks");
        let twice = defaults.insert(name.to_owned(), default.to_owned());
        assert_eq!(twice, None, "{name} is listed twice");
    }
    defaults
}

#[test]
fn features_of_the_readme_are_those_of_the_manifest() {
    let (_, table) = README
        .split_once("| feature | adds |\n| --- | --- |\n")
        .unwrap();
    let listed: BTreeSet<_> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| {
            line.split('|')
                .nth(1)
                .unwrap()
                .split('`')
                .skip(1)
                .step_by(2)
        })
        .collect();
    let (_, features) = MANIFEST.split_once("[features]\n").unwrap();
    let declared: BTreeSet<_> = features
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = ["))
        .map(|(name, _)| name)
        .filter(|name| *name != "default")
        .collect();
    assert_eq!(listed, declared);
}

#[test]
fn minimum_rust_version_of_the_readme_is_that_of_the_manifest() {
    let (_, version) = MANIFEST.split_once("rust-version = \"").unwrap();
    let version = version.split('"').next().unwrap();
    assert!(README.contains(&format!("Rust {version};")), "{version}");
    assert!(
        README.contains(&format!("rust-{version}-blue")),
        "{version}"
    );
}

/// Names in `docs/MIGRATING.md` and `docs/COMPARISON.md` that look like ours must be ours.
#[test]
fn methods_in_the_migration_guide_exist() {
    let guide = include_str!("../docs/MIGRATING.md");
    let mut unknown = Vec::new();
    for line in guide.lines().filter(|line| line.starts_with("| ")) {
        let ours = line.split('|').nth(2).unwrap_or_default();
        for code in ours.split('`').skip(1).step_by(2) {
            let name = code
                .trim_start_matches('.')
                .split(['(', '<', ' '])
                .next()
                .unwrap_or(code);
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let defined = |form: String| sources().contains(&form);
            let exists = defined(format!("fn {name}")) || defined(format!("pub {name}:"));
            if plain && !name.is_empty() && !exists {
                unknown.push(name);
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "no such methods or settings: {unknown:?}"
    );
}

/// The sources that define the methods and settings of the guide.
fn sources() -> &'static str {
    concat!(
        include_str!("../bulkman-core/src/bulkhead/config/mod.rs"),
        include_str!("../bulkman-core/src/circuit_breaker/config.rs"),
        include_str!("../bulkman-core/src/circuit_breaker/controls.rs"),
        include_str!("../bulkman-core/src/bulkhead/calls.rs"),
        include_str!("../bulkman-core/src/bulkhead/mod.rs"),
        include_str!("../bulkman-core/src/bulkhead/state.rs"),
        include_str!("../bulkman-core/src/bulkhead/stats.rs"),
        include_str!("../bulkman-core/src/bulkhead/drained.rs"),
        include_str!("../bulkman-core/src/manager/mod.rs"),
        include_str!("../bulkman-core/src/error/mod.rs"),
        include_str!("../bulkman-core/src/tower/layer.rs"),
        include_str!("../bulkman-core/src/call/report.rs"),
    )
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
