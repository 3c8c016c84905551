//! Configurations in TOML, YAML and JSON.

mod defaults;
mod errors;
mod reload;
mod switches;
mod text;

use std::fmt::Debug;
use std::time::Duration;

use bulkman::adaptive::{AdaptiveLimit, Enforcement};
use bulkman::bulkhead::{BulkheadName, Fairness};
use bulkman::circuit_breaker::{
    CircuitState, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};
use bulkman::manager::{ManagerConfig, ManagerError};
use bulkman::store::{
    BucketedWindow, FleetCountPolicy, OnOutage, Push, SharingMode, StoreSettings,
};
use bulkman::testing::ManualRuntime;
use bulkman::{
    BulkheadConfig, BulkheadManager, CircuitBreakerConfig, ConfigError, Priority, QueueOrder,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const SECOND: Duration = Duration::from_secs(1);

/// Asserts that a value is unchanged after writing and reading it in each format.
#[track_caller]
fn round_trips<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    #[derive(Serialize, serde::Deserialize)]
    struct Document<T> {
        value: T,
    }
    let document = Document { value };
    let text = toml::to_string(&document).unwrap();
    let read: Document<T> = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(&read.value, value, "{text}");
    let text = serde_yaml_ng::to_string(&document).unwrap();
    assert!(
        !text.contains('!'),
        "tags are not for configuration files:\n{text}"
    );
    let read: Document<T> =
        serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(&read.value, value, "{text}");
    let text = serde_json::to_string(&document).unwrap();
    let read: Document<T> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(&read.value, value, "{text}");
}

#[test]
fn every_configuration_round_trips() {
    for circuit in circuits() {
        round_trips(&circuit);
        round_trips(&BulkheadConfig::new("api").circuit_breaker(circuit));
    }
    let full = BulkheadConfig::new("zahlung \"日本\"")
        .max_concurrent_calls(7)
        .max_queue_size(0)
        .max_queue_weight(9)
        .overtaking(2)
        .queue_order(QueueOrder::Lifo)
        .timeout(Duration::from_micros(1_500_001))
        .max_wait(Duration::ZERO)
        .run_timeout(Duration::MAX)
        .track_running_calls(true)
        .circuit_breaker_enabled(false);
    round_trips(&full);
    for adaptive in [AdaptiveLimit::new(), every_adaptive_setting()] {
        round_trips(&adaptive);
        round_trips(&full.clone().adaptive_limit(adaptive));
    }
    round_trips(&full.clone().enforcement(Enforcement::Observe));
    for fairness in [Fairness::new(), every_fairness_setting()] {
        round_trips(&fairness);
        round_trips(&full.clone().fairness(fairness));
    }
    round_trips(
        &ManagerConfig::new()
            .bulkhead(BulkheadConfig::new("a.b"))
            .bulkhead(full),
    );
    round_trips(&ManagerConfig::new());
    for name in ["a", "zahlung \"日本\"", "true", "42", "null"] {
        round_trips(&BulkheadName::new(name).unwrap());
    }
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        round_trips(&priority);
    }
    for state in [
        CircuitState::Closed,
        CircuitState::Open,
        CircuitState::HalfOpen,
        CircuitState::ForcedOpen,
        CircuitState::Disabled,
        CircuitState::MetricsOnly,
    ] {
        round_trips(&state);
        assert_eq!(
            serde_json::to_value(state).unwrap(),
            state.as_str(),
            "as in logs and metrics"
        );
    }
}

#[test]
fn every_store_setting_round_trips() {
    for settings in stores() {
        round_trips(&settings);
    }
    round_trips(&BucketedWindow::new(10 * SECOND, 10));
    assert_eq!(
        toml::from_str::<StoreSettings>("").unwrap(),
        StoreSettings::new()
    );
    let (line, message) = toml_error::<Stores>("[store]\npush = \"off\"\nprobe_limit = 0\n");
    assert!(
        line == 1 && message.contains("probe_limit"),
        "{line}: {message}"
    );
    let (line, message) = toml_error::<Stores>("[store]\npush = \"off\"\non_outage = \"hope\"\n");
    assert!(
        line == 3 && message.contains("hold_open") && message.contains("probe_locally"),
        "{message}"
    );
}

#[derive(Debug, serde::Deserialize)]
struct Stores {
    #[expect(dead_code, reason = "only the errors are used")]
    store: StoreSettings,
}

fn stores() -> Vec<StoreSettings> {
    let rule = FleetCountPolicy::new(10 * SECOND, 10);
    vec![
        StoreSettings::new(),
        StoreSettings::new()
            .push(Push::Off)
            .backoff(Duration::from_millis(1), Duration::from_millis(250))
            .share(SharingMode::quorum(3, 10 * SECOND))
            .on_outage(OnOutage::HoldOpen)
            .instance("blue-7")
            .application_version("1.4.2"),
        StoreSettings::new()
            .share(SharingMode::Counts(
                rule.failure_count_threshold(500)
                    .failure_rate_threshold(0.5)
                    .minimum_number_of_calls(200),
            ))
            .on_outage(OnOutage::ProbeLocally { probes: 4 }),
        StoreSettings::new().share(SharingMode::Counts(rule.failure_rate_threshold(0.25))),
    ]
}

fn circuits() -> Vec<CircuitBreakerConfig> {
    let new = CircuitBreakerConfig::new;
    vec![
        new(),
        new().failure_threshold(1),
        new().failure_threshold(None),
        new()
            .failure_rate_threshold(0.5)
            .minimum_number_of_calls(20)
            .success_threshold(1),
        new()
            .slow_call_rate_threshold(1.0)
            .slow_call_duration_threshold(SECOND)
            .permitted_calls_in_half_open(10),
        new()
            .slow_call_duration_threshold(SECOND)
            .hanging_call_threshold(8),
        new()
            .slow_call_duration_threshold(SECOND)
            .slow_call_rate_threshold(0.5)
            .count_calls_in_flight(true),
        new()
            .failure_count_threshold(1_000)
            .sliding_window(SlidingWindow::Count(1_000)),
        new().sliding_window(SlidingWindow::Time {
            length: 60 * SECOND,
            buckets: 60,
        }),
        new()
            .isolation_duration(SECOND)
            .isolation_backoff(IsolationBackoff::new(2.0, 90 * SECOND).jitter(0.2)),
        new().isolation_schedule([SECOND, 5 * SECOND, 3600 * SECOND]),
        new().probe_timeout(Duration::MAX).automatic_half_open(true),
        new()
            .max_half_open_duration(SECOND, HalfOpenTimeoutAction::Closed)
            .initial_state(CircuitState::ForcedOpen),
    ]
}

const TOML: &str = r#"
[bulkheads.payments]
max_concurrent_calls = 20
max_queue_size = 50
queue_order = "lifo"
timeout = "2s 500ms"

[bulkheads.payments.circuit_breaker]
failure_threshold = "off"
failure_rate_threshold = 0.5
minimum_number_of_calls = 20
sliding_window = { length = "60s", buckets = 60 }
isolation_duration = "10s"
isolation_backoff = { factor = 2, max = "5m" }

[bulkheads.reports]
circuit_breaker_enabled = false
"#;

const YAML: &str = "
bulkheads:
  payments:
    max_concurrent_calls: 20
    max_queue_size: 50
    queue_order: lifo
    timeout: 2s 500ms
    circuit_breaker:
      failure_threshold: off
      failure_rate_threshold: 0.5
      minimum_number_of_calls: 20
      sliding_window: { length: 1m, buckets: 60 }
      isolation_duration: 10s
      isolation_backoff: { factor: 2, max: 300s }
  reports:
    circuit_breaker_enabled: false
";

const JSON: &str = r#"{
  "bulkheads": {
    "payments": {
      "max_concurrent_calls": 20,
      "max_queue_size": 50,
      "queue_order": "lifo",
      "timeout": "2500ms",
      "max_wait": null,
      "circuit_breaker": {
        "failure_threshold": "off",
        "failure_rate_threshold": 0.5,
        "minimum_number_of_calls": 20,
        "sliding_window": { "length": "60s", "buckets": 60 },
        "isolation_duration": "10s",
        "isolation_backoff": { "factor": 2, "max": "5m" }
      }
    },
    "reports": { "name": "reports", "circuit_breaker_enabled": false }
  }
}"#;

#[test]
fn all_formats_have_the_same_meaning() {
    let expected = ManagerConfig::new()
        .bulkhead(
            BulkheadConfig::new("payments")
                .max_concurrent_calls(20)
                .max_queue_size(50)
                .queue_order(QueueOrder::Lifo)
                .timeout(Duration::from_millis(2500))
                .circuit_breaker(
                    CircuitBreakerConfig::new()
                        .failure_threshold(None)
                        .failure_rate_threshold(0.5)
                        .minimum_number_of_calls(20)
                        .sliding_window(SlidingWindow::Time {
                            length: 60 * SECOND,
                            buckets: 60,
                        })
                        .isolation_duration(10 * SECOND)
                        .isolation_backoff(IsolationBackoff::new(2.0, 300 * SECOND)),
                ),
        )
        .bulkhead(BulkheadConfig::new("reports").circuit_breaker_enabled(false));
    assert_eq!(toml::from_str::<ManagerConfig>(TOML).unwrap(), expected);
    assert_eq!(
        serde_yaml_ng::from_str::<ManagerConfig>(YAML).unwrap(),
        expected
    );
    assert_eq!(
        serde_json::from_str::<ManagerConfig>(JSON).unwrap(),
        expected
    );
}

#[test]
fn missing_fields_have_their_defaults() {
    let config: BulkheadConfig = toml::from_str(r#"name = "api""#).unwrap();
    assert_eq!(config, BulkheadConfig::new("api"));
    let error = toml::from_str::<BulkheadConfig>("")
        .unwrap_err()
        .to_string();
    assert!(error.contains("missing field `name`"), "{error}");
    let error = toml::from_str::<ManagerConfig>("").unwrap_err().to_string();
    assert!(
        error.contains("missing field `bulkheads`"),
        "an unrelated file: {error}"
    );
}

/// Returns the line and the message of the error in `text`.
#[track_caller]
fn toml_error<T: DeserializeOwned + Debug>(text: &str) -> (usize, String) {
    let error = toml::from_str::<T>(text).expect_err("the document is invalid");
    let line = 1 + text[..error.span().unwrap().start].matches('\n').count();
    let shown = error.to_string();
    assert!(shown.contains(&format!("line {line}")), "{shown}");
    (line, error.message().into())
}

fn every_adaptive_setting() -> AdaptiveLimit {
    AdaptiveLimit::new()
        .min(2)
        .initial(3)
        .tolerance(2.5)
        .max_latency(Duration::from_millis(250))
        .window(SECOND)
        .samples(20)
        .baseline_interval(None)
        .shrink_on_failure(true)
        .enforcement(Enforcement::Observe)
}

fn every_fairness_setting() -> Fairness {
    Fairness::new()
        .min_per_key(2)
        .max_per_key(5)
        .max_queue_per_key(0)
        .evict_longest(false)
}

/// Returns the names of all settings of `T`, from its error for an unknown one.
fn settings<T: DeserializeOwned + Debug>() -> Vec<String> {
    let error = serde_json::from_str::<T>(r#"{"unkown":1}"#).unwrap_err();
    let error = error.to_string();
    let (_, names) = error.split_once("expected one of ").expect("the names");
    let names: Vec<_> = names.split('`').skip(1).step_by(2).collect();
    assert!(names.len() > 3, "{error}");
    names.into_iter().map(str::to_owned).collect()
}

/// Reads the leaves of a JSON document from an environment, where all of them are text.
fn from_environment<T: DeserializeOwned>(
    value: &serde_json::Value,
) -> Result<T, config::ConfigError> {
    fn leaves(path: &str, value: &serde_json::Value, found: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    leaves(&format!("{path}__{}", name.to_uppercase()), value, found);
                }
            }
            serde_json::Value::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| item.as_str().unwrap()).collect();
                found.push((path.into(), items.join(",")));
            }
            serde_json::Value::String(text) => found.push((path.into(), text.clone())),
            scalar => found.push((path.into(), scalar.to_string())),
        }
    }
    let mut variables = Vec::new();
    leaves("BULKMAN", value, &mut variables);
    let source = config::Environment::with_prefix("BULKMAN")
        .prefix_separator("__")
        .separator("__")
        .source(Some(variables.into_iter().collect()));
    let read = config::Config::builder().add_source(source).build()?;
    read.try_deserialize()
}

#[test]
fn durations_are_human_readable() {
    for (text, duration) in [
        ("250ms", Duration::from_millis(250)),
        ("30s", 30 * SECOND),
        ("2s 500ms", Duration::from_millis(2_500)),
        ("5m", 300 * SECOND),
        ("1h 30m", 5_400 * SECOND),
        ("750us", Duration::from_micros(750)),
    ] {
        let config = BulkheadConfig::new("api").timeout(duration);
        let read: BulkheadConfig =
            toml::from_str(&format!("name = 'api'\ntimeout = '{text}'")).unwrap();
        assert_eq!(read, config);
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["timeout"], text, "as it was read");
    }
}

#[test]
fn invalid_configuration_is_not_serialized() {
    let error = toml::to_string(&BulkheadConfig::new(""))
        .unwrap_err()
        .to_string();
    assert!(error.contains("`name` is 0 bytes"), "{error}");
}

#[test]
fn all_names_follow_the_same_rule() {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let long = "n".repeat(256);
    for bad in ["", "a\nb", "a\0b", "\u{7f}", "\u{85}", &long] {
        let rule = BulkheadName::new(bad).unwrap_err();
        let same = |error: ConfigError| assert_eq!(error, rule, "{bad:?}");
        same(BulkheadConfig::new(bad).validate().unwrap_err());
        same(bulkman::Bulkhead::new(BulkheadConfig::new(bad), runtime.clone()).unwrap_err());
        same(
            bulkman::CircuitBreaker::new(bad, CircuitBreakerConfig::new(), runtime.clone())
                .unwrap_err(),
        );
        match manager
            .create_bulkhead(BulkheadConfig::new(bad))
            .unwrap_err()
        {
            ManagerError::Config(error) => same(error),
            other => panic!("{other}"),
        }
        match manager
            .apply_config(&ManagerConfig::new().bulkhead(BulkheadConfig::new(bad)))
            .unwrap_err()
        {
            ManagerError::Invalid { source, .. } => same(source),
            other => panic!("{other}"),
        }
        let alone = serde_json::from_value::<BulkheadConfig>(serde_json::json!({ "name": bad }))
            .unwrap_err();
        assert_eq!(alone.to_string(), rule.to_string());
        let several = serde_json::json!({ "bulkheads": { bad: {} } });
        let several = serde_json::from_value::<ManagerConfig>(several).unwrap_err();
        assert_eq!(several.to_string(), rule.to_string());
        assert!(bulkman::store::check_namespace(bad).is_err(), "{bad:?}");
    }
    // Names of bulkheads are valid namespaces, up to the maximum length.
    for good in ["a", "zahlung/日本", "it's \"quoted\"; --", &"n".repeat(200)] {
        BulkheadName::new(good).unwrap();
        bulkman::store::check_namespace(good).unwrap();
    }
    assert!(bulkman::store::check_namespace(&"n".repeat(201)).is_err());
}
