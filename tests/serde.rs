//! Configurations in TOML, YAML and JSON.

use std::fmt::Debug;
use std::future::ready;
use std::time::Duration;

use bulkman::adaptive::{AdaptiveLimit, Enforcement};
use bulkman::bulkhead::BulkheadName;
use bulkman::circuit_breaker::{
    CircuitState, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};
use bulkman::manager::{ManagerConfig, ManagerError};
use bulkman::runtime::ClockOnly;
use bulkman::store::{
    BucketedWindow, FleetCountPolicy, OnOutage, Push, SharingMode, StoreSettings,
};
use bulkman::testing::ManualRuntime;
use bulkman::{BulkheadConfig, BulkheadManager, CircuitBreakerConfig, Priority, QueueOrder};
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
        .queue_order(QueueOrder::Lifo)
        .timeout(Duration::from_micros(1_500_001))
        .max_wait(Duration::ZERO)
        .run_timeout(Duration::MAX)
        .circuit_breaker_enabled(false);
    round_trips(&full);
    let every_setting = AdaptiveLimit::new()
        .min(2)
        .initial(3)
        .tolerance(2.5)
        .max_latency(Duration::from_millis(250))
        .window(SECOND)
        .samples(20)
        .baseline_interval(None)
        .shrink_on_failure(true)
        .enforcement(Enforcement::Observe);
    for adaptive in [AdaptiveLimit::new(), every_setting] {
        round_trips(&adaptive);
        round_trips(&full.clone().adaptive_limit(adaptive));
    }
    round_trips(&full.clone().enforcement(Enforcement::Observe));
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
    let rule = FleetCountPolicy::new(10 * SECOND, 10);
    for settings in [
        StoreSettings::new(),
        StoreSettings::new()
            .push(Push::Off)
            .backoff(Duration::from_millis(1), Duration::from_millis(250))
            .share(SharingMode::quorum(3, 10 * SECOND))
            .on_outage(OnOutage::HoldOpen)
            .instance("blue-7"),
        StoreSettings::new()
            .share(SharingMode::Counts(
                rule.failure_count_threshold(500)
                    .failure_rate_threshold(0.5)
                    .minimum_number_of_calls(200),
            ))
            .on_outage(OnOutage::ProbeLocally { probes: 4 }),
        StoreSettings::new().share(SharingMode::Counts(rule.failure_rate_threshold(0.25))),
    ] {
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

#[test]
fn toml_errors_name_the_line() {
    let cases = [
        // Errors of one field have its line.
        (
            "max_concurrent_calls = 20",
            "max_concurrent_calls = 0",
            3,
            "`max_concurrent_calls` is 0, must be 1 to",
        ),
        (
            "max_concurrent_calls = 20",
            "max_concurrent_calls = -1",
            3,
            "-1",
        ),
        (
            "max_concurrent_calls = 20",
            "max_concurent_calls = 20",
            3,
            "unknown field `max_concurent_calls`",
        ),
        (
            "timeout = \"2s 500ms\"",
            "timeout = 2.5",
            6,
            "a duration as a string, such as \"250ms\"",
        ),
        (
            "timeout = \"2s 500ms\"",
            "timeout = \"soon\"",
            6,
            "string \"soon\", expected a duration as a string",
        ),
        (
            "timeout = \"2s 500ms\"",
            "timeout = \"0s\"",
            6,
            "`timeout` is 0ns, must be more than zero",
        ),
        (
            "queue_order = \"lifo\"",
            "queue_order = \"random\"",
            5,
            "unknown variant `random`",
        ),
        (
            "failure_threshold = \"off\"",
            "failure_threshold = 0",
            9,
            "`failure_threshold` is 0",
        ),
        (
            "failure_threshold = \"off\"",
            "failure_threshold = \"of\"",
            9,
            "a number of failures, or \"off\"",
        ),
        (
            "failure_rate_threshold = 0.5",
            "failure_rate_threshold = 50.0",
            10,
            "a fraction within (0, 1]",
        ),
        (
            "buckets = 60 }",
            "buckets = 0 }",
            12,
            "`sliding_window.buckets` is 0",
        ),
        (
            "buckets = 60 }",
            "count = 60 }",
            12,
            "either `count`, or `length` and `buckets`",
        ),
        (
            "isolation_duration = \"10s\"",
            "isolation_duration = \"0ms\"",
            13,
            "`isolation_duration` is 0ns",
        ),
        ("factor = 2,", "faktor = 2,", 14, "unknown field `faktor`"),
        // Errors about several fields have the line of their table.
        (
            "max = \"5m\"",
            "max = \"5s\"",
            8,
            "`isolation_backoff.max` is 5s, must be at least `isolation_duration`",
        ),
        (
            "[bulkheads.reports]",
            "[bulkheads.reports]\nname = \"report\"",
            16,
            "omit it, the key is the name",
        ),
        (
            "[bulkheads.reports]",
            "[bulkheads.\"\"]",
            16,
            "`name` is 0 bytes, must be 1 to 255 bytes",
        ),
        (
            "[bulkheads.reports]",
            "[bulkheads.\"a\\nb\"]",
            16,
            "text without control characters",
        ),
        (
            "[bulkheads.reports]",
            "[bulkheads.payments]",
            16,
            "duplicate key",
        ),
        (
            "[bulkheads.reports]",
            "[bulkhead.reports]",
            16,
            "unknown field `bulkhead`",
        ),
    ];
    for (right, wrong, line, message) in cases {
        let text = TOML.replace(right, wrong);
        assert_ne!(text, TOML, "{right}");
        let (actual, error) = toml_error::<ManagerConfig>(&text);
        assert_eq!(actual, line, "{wrong}: {error}");
        assert!(error.contains(message), "{wrong}: {error}");
    }
}

#[test]
fn yaml_and_json_errors_name_the_line() {
    let yaml = YAML.replace("max_concurrent_calls: 20", "max_concurrent_calls: 0");
    let error = serde_yaml_ng::from_str::<ManagerConfig>(&yaml).unwrap_err();
    assert!(
        error.to_string().contains("`max_concurrent_calls` is 0"),
        "{error}"
    );
    assert_eq!(error.location().map(|at| at.line()), Some(4), "{error}");
    let yaml = YAML.replace("timeout: 2s 500ms", "timeoot: 2s");
    let error = serde_yaml_ng::from_str::<ManagerConfig>(&yaml).unwrap_err();
    assert!(
        error.to_string().contains("unknown field `timeoot`"),
        "{error}"
    );
    assert_eq!(error.location().map(|at| at.line()), Some(7), "{error}");

    for (right, wrong, line, message) in [
        (
            "\"max_concurrent_calls\": 20",
            "\"max_concurrent_calls\": 0",
            4,
            "`max_concurrent_calls` is 0",
        ),
        (
            "\"timeout\": \"2500ms\"",
            "\"timeout\": \"soon\"",
            7,
            "expected a duration as a string",
        ),
        ("\"queue_order\"", "\"order\"", 6, "unknown field `order`"),
        (
            "\"reports\": {",
            "\"payments\": {",
            18,
            "duplicate bulkhead \"payments\"",
        ),
    ] {
        let text = JSON.replace(right, wrong);
        let error = serde_json::from_str::<ManagerConfig>(&text).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.line(), line, "{error}");
    }
}

#[test]
fn adaptive_limit_is_a_switch_or_a_table() {
    let read = |text: &str| {
        let read = toml::from_str::<BulkheadConfig>(&format!("name = 'a'\n{text}"));
        read.map(|config| config.resolve().adaptive_limit)
            .map_err(|error| error.to_string())
    };
    assert_eq!(read("adaptive_limit = false"), Ok(None));
    assert_eq!(
        read("adaptive_limit = true"),
        Ok(Some(AdaptiveLimit::new()))
    );
    let table = "adaptive_limit = { min = 2, max_latency = '500ms', baseline_interval = 'none' }";
    let expected = AdaptiveLimit::new()
        .min(2)
        .max_latency(Duration::from_millis(500))
        .baseline_interval(None);
    assert_eq!(read(table), Ok(Some(expected)));
    for (text, message) in [
        ("adaptive_limit = 7", "true, false, or a table"),
        (
            "adaptive_limit = { tolerance = 0.5 }",
            "`adaptive_limit.tolerance` is 0.5, must be 1.05 to 10",
        ),
        (
            "adaptive_limit = { min = 50 }",
            "`adaptive_limit.min` is 50, must be 1 to the maximum",
        ),
        ("enforcement = 'maybe'", "unknown variant `maybe`"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    let yaml = "name: a\nadaptive_limit: true\nenforcement: observe";
    let config: BulkheadConfig = serde_yaml_ng::from_str(yaml).unwrap();
    let resolved = config.resolve();
    assert_eq!(resolved.adaptive_limit, Some(AdaptiveLimit::new()));
    assert_eq!(resolved.enforcement, Enforcement::Observe);
}

#[test]
fn every_type_rejects_unknown_fields() {
    fn rejects_unknown<T: DeserializeOwned + Debug>(right: &str, unknown: &str) {
        toml::from_str::<T>(right).unwrap_or_else(|error| panic!("{error}\n{right}"));
        let error = toml::from_str::<T>(unknown).expect_err(unknown).to_string();
        assert!(error.contains("unkown"), "{unknown}: {error}");
    }
    rejects_unknown::<ManagerConfig>("[bulkheads]", "unkown = 1\n[bulkheads]");
    rejects_unknown::<ManagerConfig>("[bulkheads.a]", "[bulkheads.a]\nunkown = 1");
    rejects_unknown::<BulkheadConfig>("name = 'a'", "name = 'a'\nunkown = 1");
    rejects_unknown::<BulkheadConfig>(
        "name = 'a'\n[circuit_breaker]",
        "name = 'a'\n[circuit_breaker]\nunkown = 1",
    );
    rejects_unknown::<BulkheadConfig>(
        "name = 'a'\n[adaptive_limit]",
        "name = 'a'\n[adaptive_limit]\nunkown = 1",
    );
    rejects_unknown::<AdaptiveLimit>("", "unkown = 1");
    rejects_unknown::<CircuitBreakerConfig>("", "unkown = 1");
    for (setting, fields) in [
        ("sliding_window", "count = 10"),
        ("sliding_window", "length = '10s', buckets = 10"),
        ("isolation_backoff", "factor = 2, max = '5m'"),
        ("max_half_open_duration", "duration = '1m', then = 'open'"),
    ] {
        let text = |fields: &str| format!("{setting} = {{ {fields} }}");
        rejects_unknown::<CircuitBreakerConfig>(
            &text(fields),
            &text(&format!("{fields}, unkown = 1")),
        );
    }
    rejects_unknown::<StoreSettings>("", "unkown = 1");
    for (setting, fields) in [
        ("share", "quorum = 2, window = '10s'"),
        // Within the sharing mode and, below, within its window.
        (
            "share",
            "counts = { sliding_window = { length = '10s', buckets = 10 }, failure_count_threshold = 5 }",
        ),
        ("on_outage", "probe_locally = 2"),
    ] {
        let text = |fields: &str| format!("{setting} = {{ {fields} }}");
        rejects_unknown::<StoreSettings>(&text(fields), &text(&format!("{fields}, unkown = 1")));
    }
    let inside = |more: &str| {
        format!(
            "share = {{ counts = {{ sliding_window = {{ length = '10s', buckets = 10{more} }}, failure_count_threshold = 5 }} }}"
        )
    };
    rejects_unknown::<StoreSettings>(&inside(""), &inside(", unkown = 1"));
    rejects_unknown::<BucketedWindow>(
        "length = '10s'\nbuckets = 10",
        "length = '10s'\nbuckets = 10\nunkown = 1",
    );
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
fn reload_changes_a_manager_in_place() {
    let runtime = ManualRuntime::new();
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let manager = BulkheadManager::from_config(&read(TOML), runtime.clone()).unwrap();
    let payments = manager.get_bulkhead("payments").unwrap();
    assert!(
        manager
            .get_bulkhead("reports")
            .unwrap()
            .circuit_breaker()
            .is_none()
    );
    // The window is not empty.
    for _ in 0..19 {
        let _ = payments.execute_sync(|| Err::<(), _>(()));
    }

    let text = TOML
        .replace("max_concurrent_calls = 20", "max_concurrent_calls = 1")
        .replace("[bulkheads.reports]", "[bulkheads.mail]")
        .replace(
            "isolation_duration = \"10s\"",
            "isolation_duration = \"20s\"",
        );
    let applied = manager.apply_config(&read(&text)).unwrap();
    let names = |names: &[BulkheadName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&applied.created), ["mail"]);
    assert_eq!(names(&applied.changed), ["payments"]);
    assert_eq!(
        names(&applied.not_in_config),
        ["reports"],
        "unchanged, and listed"
    );
    assert_eq!(payments.stats().max_concurrent_calls, 1);
    let circuit = payments.circuit_breaker().unwrap();
    assert_eq!(circuit.snapshot().counts.failures, 19, "the window is kept");
    let _ = payments.execute_sync(|| Err::<(), _>(()));
    assert_eq!(circuit.state(), CircuitState::Open, "20 of 20 calls failed");
    assert_eq!(
        circuit.snapshot().retry_after,
        Some(20 * SECOND),
        "the new isolation"
    );

    let again = manager
        .apply_config(&read(&text.replace("\"20s\"", "\"5s\"")))
        .unwrap();
    assert_eq!(names(&again.changed), ["payments"]);
    assert_eq!(names(&again.unchanged), ["mail"]);
    assert_eq!(circuit.state(), CircuitState::Open);
    assert_eq!(
        circuit.snapshot().retry_after,
        Some(20 * SECOND),
        "a running isolation is kept"
    );
}

#[test]
fn failed_reload_changes_nothing() {
    let manager =
        BulkheadManager::from_config(&toml::from_str(TOML).unwrap(), ManualRuntime::new()).unwrap();
    let before: Vec<_> = manager
        .bulkheads()
        .iter()
        .map(bulkman::Bulkhead::config)
        .collect();
    let new = BulkheadConfig::new;
    let changed = || {
        ManagerConfig::new()
            .bulkhead(new("mail"))
            .bulkhead(new("payments").max_concurrent_calls(1))
    };
    for (bad, message) in [
        (
            changed().bulkhead(new("reports")),
            "`circuit_breaker_enabled` can't change from \"false\" to \"true\"",
        ),
        (
            changed().bulkhead(new("more").max_concurrent_calls(0)),
            "bulkhead \"more\": `max_concurrent_calls` is 0",
        ),
        (
            changed().bulkhead(new("mail")),
            "bulkhead \"mail\": `name` conflicts with another bulkhead of the configuration",
        ),
        (
            changed().bulkhead(new("\n")),
            "text without control characters",
        ),
    ] {
        let error = manager.apply_config(&bad).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(matches!(error, ManagerError::Invalid { .. }));
        assert_eq!(
            manager
                .bulkheads()
                .iter()
                .map(bulkman::Bulkhead::config)
                .collect::<Vec<_>>(),
            before
        );
    }
    // A setting that the runtime does not support changes nothing, either.
    let manager = BulkheadManager::new(ClockOnly);
    let config = ManagerConfig::new()
        .bulkhead(new("a"))
        .bulkhead(new("b").timeout(SECOND));
    let error = manager.apply_config(&config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bulkhead \"b\": `timeout` needs timers, which the runtime does not have"
    );
    assert!(manager.is_empty());
}

#[test]
fn reload_keeps_waiting_calls() {
    let runtime = ManualRuntime::new();
    let config = ManagerConfig::new().bulkhead(BulkheadConfig::new("api").max_concurrent_calls(1));
    let manager = BulkheadManager::from_config(&config, runtime.clone()).unwrap();
    let bulkhead = manager.get_bulkhead("api").unwrap();
    runtime.block_on(async {
        let _permit = bulkhead.acquire().await.unwrap();
        let mut waiting = Box::pin(bulkhead.execute(ready(Ok::<_, ()>(7))));
        assert!(
            futures_lite::future::poll_once(&mut waiting)
                .await
                .is_none()
        );
        let wider =
            ManagerConfig::new().bulkhead(BulkheadConfig::new("api").max_concurrent_calls(2));
        manager.apply_config(&wider).unwrap();
        assert_eq!(waiting.await, Ok(7));
    });
}

#[test]
fn all_names_follow_the_same_rule() {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let long = "n".repeat(256);
    for bad in ["", "a\nb", "a\0b", "\u{7f}", "\u{85}", &long] {
        let rule = BulkheadName::new(bad).unwrap_err();
        let same = |error: bulkman::ConfigError| assert_eq!(error, rule, "{bad:?}");
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
