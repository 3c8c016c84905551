//! Configurations in TOML, YAML and JSON.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::ready;
use std::time::Duration;

use bulkman::adaptive::{AdaptiveLimit, Enforcement};
use bulkman::bulkhead::{BulkheadName, Fairness};
use bulkman::circuit_breaker::{
    CircuitState, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};
use bulkman::manager::{ManagerConfig, ManagerError};
use bulkman::runtime::ClockOnly;
use bulkman::store::{
    BucketedWindow, FleetCountPolicy, OnOutage, Push, SharingMode, StoreSettings,
};
use bulkman::testing::ManualRuntime;
use bulkman::{
    BulkheadConfig, BulkheadManager, CircuitBreakerConfig, ConfigError, Priority, QueueOrder,
};
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;
use serde::{Deserialize, Serialize};

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
            "a duration as text, such as \"250ms\"",
        ),
        (
            "timeout = \"2s 500ms\"",
            "timeout = \"soon\"",
            6,
            "string \"soon\", expected a duration as text",
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
            "expected a duration as text",
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

#[test]
fn fairness_is_a_switch_or_a_table() {
    let read = |text: &str| {
        let read = toml::from_str::<BulkheadConfig>(&format!("name = 'a'\n{text}"));
        read.map(|config| config.resolve().fairness)
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(""), Ok(None));
    assert_eq!(read("fairness = false"), Ok(None));
    assert_eq!(read("fairness = true"), Ok(Some(Fairness::new())));
    assert_eq!(read("fairness = {}"), Ok(Some(Fairness::new())));
    let table = "fairness = { min_per_key = 2, max_per_key = '5', max_queue_per_key = 0, \
                 evict_longest = 'off' }";
    assert_eq!(read(table), Ok(Some(every_fairness_setting())));
    for (text, message) in [
        ("fairness = 7", "true, false, or a table"),
        (
            "fairness = { min_per_key = 10 }",
            "`fairness.min_per_key` is 10, must be 0 to less than",
        ),
        (
            "fairness = { max_per_key = 11 }",
            "`fairness.max_per_key` is 11, must be",
        ),
        (
            "fairness = { max_queue_per_key = 101 }",
            "`fairness.max_queue_per_key` is 101, must be",
        ),
        (
            "fairness = { max_per_tenant = 1 }",
            "unknown field `max_per_tenant`",
        ),
        (
            "max_queue_weight = 0",
            "`max_queue_weight` is 0, must be 1 to 2,147,483,647",
        ),
        (
            "overtaking = 1001",
            "`overtaking` is 1001, must be 0 to 1,000",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn fairness_takes_each_default_of_the_file() {
    let file: ManagerConfig = toml::from_str(
        "
        [defaults]
        fairness = { max_per_key = 4, evict_longest = false }
        max_queue_weight = 50
        overtaking = 8
        [bulkheads.own]
        fairness = { min_per_key = 1, max_per_key = 6 }
        [bulkheads.same]
        [bulkheads.on]
        fairness = true
        [bulkheads.off]
        fairness = false
        max_queue_weight = 7
        overtaking = 0
        ",
    )
    .unwrap();
    let defaults = Fairness::new().max_per_key(4).evict_longest(false);
    let own = defaults.min_per_key(1).max_per_key(6);
    for (name, fairness, weight, overtaking) in [
        ("own", Some(own), 50, 8),
        ("same", Some(defaults), 50, 8),
        ("on", Some(defaults), 50, 8),
        ("off", None, 7, 0),
    ] {
        let bulkheads = file.bulkheads();
        let config = bulkheads
            .iter()
            .find(|it| it.resolve().name == name)
            .unwrap();
        let resolved = config.resolve();
        assert_eq!(resolved.fairness, fairness, "{name}");
        assert_eq!(resolved.max_queue_weight, Some(weight), "{name}");
        assert_eq!(resolved.overtaking, overtaking, "{name}");
    }
    let null = "defaults: {fairness: {max_per_key: 3}}\nbulkheads: {a: {fairness: null}}";
    let config: ManagerConfig = serde_yaml_ng::from_str(null).unwrap();
    assert_eq!(config.bulkheads()[0].resolve().fairness, None);
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
    let table = "adaptive_limit = { min = 2, max_latency = '500ms', baseline_interval = 'off' }";
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
        ("adaptive_limit = 'maybe'", "true, false, or a table"),
        (
            "adaptive_limit = { baseline_interval = true }",
            r#"a duration as text, such as "10s", or "off""#,
        ),
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
fn adaptive_limit_takes_each_default_of_the_file() {
    const FILE: &str = "
        [defaults]
        enforcement = 'observe'
        adaptive_limit = { min = 3, samples = 100, max_latency = '1s' }
        [bulkheads.own]
        enforcement = 'enforce'
        adaptive_limit = { initial = 5, samples = '20' }
        [bulkheads.same]
        adaptive_limit = 'true'
        [bulkheads.fixed]
        adaptive_limit = false
    ";
    let config: ManagerConfig = toml::from_str(FILE).unwrap();
    let defaults = AdaptiveLimit::new().min(3).samples(100).max_latency(SECOND);
    let own = defaults.clone().initial(5).samples(20);
    for (name, adaptive, enforcement) in [
        ("own", Some(own), Enforcement::Enforce),
        ("same", Some(defaults), Enforcement::Observe),
        ("fixed", None, Enforcement::Observe),
    ] {
        let bulkhead = config.bulkheads().iter().find(|it| it.name() == name);
        let resolved = bulkhead.unwrap().resolve();
        assert_eq!(resolved.adaptive_limit, adaptive, "{name}");
        assert_eq!(resolved.enforcement, enforcement, "{name}");
    }
    let null = "defaults: {adaptive_limit: {min: 3}}\nbulkheads: {a: {adaptive_limit: null}}";
    let config: ManagerConfig = serde_yaml_ng::from_str(null).unwrap();
    assert_eq!(config.bulkheads()[0].resolve().adaptive_limit, None);
    let error = toml::from_str::<ManagerConfig>(&FILE.replace("initial = 5", "initial = 2"));
    let error = error.unwrap_err().to_string();
    let expected = "bulkhead \"own\": `adaptive_limit.initial` is 2, must be the minimum";
    assert!(error.contains(expected), "{error}");
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

/// Fault F06.
#[test]
fn every_setting_accepts_text_from_an_environment() {
    let mut covered = BTreeSet::new();
    let mut cover = |value: &serde_json::Value| {
        covered.extend(value.as_object().unwrap().keys().cloned());
    };
    for circuit in circuits() {
        let circuit = serde_json::to_value(circuit).unwrap();
        cover(&circuit);
        let document = serde_json::json!({ "bulkheads": { "payments": {
            "name": "payments",
            "max_concurrent_calls": 20,
            "max_queue_size": 0,
            "max_queue_weight": 30,
            "queue_order": "lifo",
            "overtaking": 8,
            "timeout": "2s",
            "max_wait": "0s",
            "run_timeout": "1s",
            "adaptive_limit": serde_json::to_value(every_adaptive_setting()).unwrap(),
            "enforcement": "observe",
            "fairness": serde_json::to_value(every_fairness_setting()).unwrap(),
            "track_running_calls": true,
            "circuit_breaker_enabled": false,
            "circuit_breaker": circuit,
        } } });
        cover(&document["bulkheads"]["payments"]);
        cover(&document["bulkheads"]["payments"]["adaptive_limit"]);
        cover(&document["bulkheads"]["payments"]["fairness"]);
        let typed: ManagerConfig = serde_json::from_value(document.clone()).unwrap();
        let text: ManagerConfig =
            from_environment(&document).unwrap_or_else(|error| panic!("{error}\n{document}"));
        assert_eq!(text, typed);
    }
    for settings in stores() {
        let document = serde_json::to_value(&settings).unwrap();
        cover(&document);
        let text: StoreSettings =
            from_environment(&document).unwrap_or_else(|error| panic!("{error}\n{document}"));
        assert_eq!(text, settings);
    }
    for all in [
        settings::<BulkheadConfig>(),
        settings::<AdaptiveLimit>(),
        settings::<Fairness>(),
        settings::<CircuitBreakerConfig>(),
        settings::<StoreSettings>(),
    ] {
        for setting in all {
            assert!(covered.contains(&setting), "{setting} was not set");
        }
    }
}

/// Fault F06.
#[test]
fn text_is_accepted_in_every_format() {
    let expected = BulkheadConfig::new("api")
        .max_concurrent_calls(7)
        .circuit_breaker_enabled(false)
        .circuit_breaker(CircuitBreakerConfig::new().failure_rate_threshold(0.5));
    let toml = "name = 'api'\nmax_concurrent_calls = '7'\ncircuit_breaker_enabled = 'false'\n\
        [circuit_breaker]\nfailure_rate_threshold = '0.5'";
    assert_eq!(toml::from_str::<BulkheadConfig>(toml).unwrap(), expected);
    let yaml = "name: api\nmax_concurrent_calls: '7'\ncircuit_breaker_enabled: 'off'\n\
        circuit_breaker: { failure_rate_threshold: '0.5' }";
    assert_eq!(
        serde_yaml_ng::from_str::<BulkheadConfig>(yaml).unwrap(),
        expected
    );

    // A source without null and without types, such as the variables of a process.
    let variables = [
        ("failure_threshold", "off"),
        ("failure_rate_threshold", "0.5"),
        ("minimum_number_of_calls", "20"),
        ("isolation_schedule", "1s, 5s"),
        ("automatic_half_open", "true"),
        ("initial_state", "half_open"),
    ];
    let source = MapDeserializer::<_, serde::de::value::Error>::new(variables.into_iter());
    let expected = CircuitBreakerConfig::new()
        .failure_threshold(None)
        .failure_rate_threshold(0.5)
        .minimum_number_of_calls(20)
        .isolation_schedule([SECOND, 5 * SECOND])
        .automatic_half_open(true)
        .initial_state(CircuitState::HalfOpen);
    assert_eq!(CircuitBreakerConfig::deserialize(source), Ok(expected));
}

/// Fault F06.
#[test]
fn text_in_another_spelling_is_an_error() {
    for (setting, text, message) in [
        (
            "queue_order",
            "LIFO",
            "unknown variant `LIFO`, expected `fifo` or `lifo`",
        ),
        ("queue_order", "", "unknown variant ``"),
        ("timeout", "", "a duration as text"),
        ("max_concurrent_calls", "", "a whole number"),
        ("max_concurrent_calls", "1_000", "a whole number"),
        ("max_concurrent_calls", "-1", "a whole number"),
        ("circuit_breaker_enabled", "", "true or false"),
        ("circuit_breaker", "", "a table of settings"),
    ] {
        let text = serde_json::json!({ "name": "api", setting: text });
        let error = serde_json::from_value::<BulkheadConfig>(text.clone()).unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
    for (setting, text, message) in [
        ("failure_rate_threshold", "50%", "a number, such as 0.5"),
        ("failure_threshold", "", "a number of failures, or \"off\""),
        ("isolation_schedule", "", "a duration as text"),
        ("isolation_schedule", "5s,,1m", "a duration as text"),
    ] {
        let text = serde_json::json!({ setting: text });
        let error = serde_json::from_value::<CircuitBreakerConfig>(text.clone()).unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
}

/// Fault F10.
#[test]
fn null_means_the_default_for_every_setting() {
    #[derive(Deserialize)]
    struct Service {
        #[serde(flatten)]
        bulkhead: BulkheadConfig,
    }
    fn check<T: DeserializeOwned + Debug + PartialEq>(fields: &str, default: &T) {
        for setting in settings::<T>().iter().filter(|setting| *setting != "name") {
            let json = format!("{{{fields}\"{setting}\":null}}");
            let read =
                serde_json::from_str::<T>(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
            assert_eq!(read, *default, "{json}");
            let yaml = json.replace("null", "");
            let read = serde_yaml_ng::from_str::<T>(&yaml)
                .unwrap_or_else(|error| panic!("{yaml}: {error}"));
            assert_eq!(read, *default, "{yaml}");
        }
    }
    check("\"name\":\"db\",", &BulkheadConfig::new("db"));
    check("", &CircuitBreakerConfig::new());
    check("", &StoreSettings::new());
    // Within a struct that is flattened, a null is a unit.
    let json = r#"{"name":"db","max_wait":null,"circuit_breaker":null}"#;
    let read = serde_json::from_str::<Service>(json).unwrap();
    assert_eq!(read.bulkhead, BulkheadConfig::new("db"));
    // Within tables: null is the default, or as if the field were missing.
    for (json, expected) in [
        (
            r#"{"isolation_backoff":{"factor":2,"max":"5m","jitter":null}}"#,
            CircuitBreakerConfig::new().isolation_backoff(IsolationBackoff::new(2.0, 300 * SECOND)),
        ),
        (
            r#"{"sliding_window":{"count":9,"length":null,"buckets":null}}"#,
            CircuitBreakerConfig::new().sliding_window(SlidingWindow::Count(9)),
        ),
    ] {
        assert_eq!(
            serde_json::from_str::<CircuitBreakerConfig>(json).unwrap(),
            expected
        );
    }
    for (json, missing) in [
        (
            r#"{"isolation_backoff":{"factor":null,"max":"5m"}}"#,
            "factor",
        ),
        (
            r#"{"max_half_open_duration":{"duration":"1m","then":null}}"#,
            "then",
        ),
        (
            r#"{"max_half_open_duration":{"duration":null,"then":"open"}}"#,
            "duration",
        ),
    ] {
        let error = serde_json::from_str::<CircuitBreakerConfig>(json).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("missing field `{missing}`")),
            "{error}"
        );
    }
    let counts = r#"{"share":{"quorum":null,"window":null,"counts":{"sliding_window":{"length":"10s","buckets":10},
        "failure_count_threshold":5,"failure_rate_threshold":null,"minimum_number_of_calls":null}}}"#;
    let policy = FleetCountPolicy::new(10 * SECOND, 10).failure_count_threshold(5);
    assert_eq!(
        serde_json::from_str::<StoreSettings>(counts).unwrap(),
        StoreSettings::new().share(SharingMode::Counts(policy))
    );
    // The tables of a file.
    let one = ManagerConfig::new().bulkhead(BulkheadConfig::new("db"));
    for (yaml, expected) in [
        ("bulkheads: { db: }", &one),
        ("bulkheads: { db: { name: } }", &one),
        ("bulkheads: { db: }\ndefaults:", &one),
        ("bulkheads:", &ManagerConfig::new()),
    ] {
        assert_eq!(
            &serde_yaml_ng::from_str::<ManagerConfig>(yaml).unwrap(),
            expected,
            "{yaml}"
        );
    }
}

/// Fault F11.
#[test]
fn type_errors_describe_the_expected_shape() {
    fn check<T: DeserializeOwned + Debug>(document: impl Fn(&str) -> String) {
        // None of these is a value of any setting, except where it is listed.
        for value in [
            "5",
            "-5",
            "0.25",
            "true",
            "\"?\"",
            "[[1]]",
            "[]",
            "{\"?\":1}",
            "{}",
        ] {
            let json = document(value);
            let Err(error) = serde_json::from_str::<T>(&json) else {
                continue;
            };
            let yaml = serde_yaml_ng::from_str::<T>(&json).unwrap_err().to_string();
            for error in [error.to_string(), yaml] {
                // Fields and words are in lower case, so a capital letter belongs to a type.
                let shape = error.split_once("expected").map_or("", |(_, shape)| shape);
                let shape = shape.replace("YAML", "");
                assert!(!shape.contains(char::is_uppercase), "{json}: {error}");
                assert!(
                    !error.contains("struct") && !error.contains("enum"),
                    "{json}: {error}"
                );
            }
        }
    }
    for setting in settings::<BulkheadConfig>() {
        check::<BulkheadConfig>(|value| format!("{{\"name\":\"db\",\"{setting}\":{value}}}"));
        check::<ManagerConfig>(|value| {
            format!("{{\"defaults\":{{\"{setting}\":{value}}},\"bulkheads\":{{}}}}")
        });
    }
    for setting in settings::<CircuitBreakerConfig>() {
        check::<CircuitBreakerConfig>(|value| format!("{{\"{setting}\":{value}}}"));
    }
    for setting in settings::<StoreSettings>() {
        check::<StoreSettings>(|value| format!("{{\"{setting}\":{value}}}"));
    }
    for json in [
        "?",
        "{\"bulkheads\":?}",
        "{\"bulkheads\":{\"a\":?}}",
        "{\"bulkheads\":{},\"defaults\":?}",
    ] {
        check::<ManagerConfig>(|value| json.replacen('?', value, 1));
    }

    for (toml, message) in [
        (
            "sliding_window = 100",
            r#"expected `{ count = 100 }` or `{ length = "60s", buckets = 60 }`"#,
        ),
        (
            "sliding_window = '60s'",
            r#"expected `{ count = 100 }` or `{ length = "60s", buckets = 60 }`"#,
        ),
        (
            "sliding_window = [100]",
            r#"expected `{ count = 100 }` or `{ length = "60s", buckets = 60 }`"#,
        ),
        (
            "isolation_backoff = 2",
            r#"expected `{ factor = 2, max = "5m" }`"#,
        ),
        (
            "isolation_schedule = 2",
            r#"expected a list of durations, such as ["5s", "1m"]"#,
        ),
        (
            "max_half_open_duration = '1m'",
            r#"expected `{ duration = "5m", then = "open" }`"#,
        ),
        (
            "initial_state = 1",
            r#"expected "closed", "open", "half_open""#,
        ),
        ("automatic_half_open = 1", "expected true or false"),
        (
            "failure_rate_threshold = []",
            "expected a number, such as 0.5",
        ),
        (
            "failure_threshold = 5000000000",
            "expected a number of failures, or \"off\"",
        ),
        (
            "success_threshold = 5000000000",
            "expected a whole number up to 4,294,967,295",
        ),
    ] {
        let text = format!("[bulkheads.a.circuit_breaker]\n{toml}\n");
        let (line, error) = toml_error::<ManagerConfig>(&text);
        assert!(line == 2 && error.contains(message), "{toml}: {error}");
    }
    for (toml, message) in [
        ("bulkheads = 5", "expected a table from names to bulkheads"),
        (
            "[bulkheads]\na = 5",
            "expected a table of settings, such as `{ max_concurrent_calls = 20 }`",
        ),
        ("[bulkheads]\na = []", "expected a table of settings"),
        (
            "[bulkheads.a]\nqueue_order = 1",
            r#"expected "fifo" or "lifo""#,
        ),
        (
            "[bulkheads.a]\ncircuit_breaker = []",
            "expected a table of settings",
        ),
        ("defaults = 5\n[bulkheads]", "expected a table of settings"),
    ] {
        let (_, error) = toml_error::<ManagerConfig>(toml);
        assert!(error.contains(message), "{toml}: {error}");
    }
    for (toml, message) in [
        ("push = 1", r#"expected "auto" or "off""#),
        (
            "on_outage = 1",
            r#"expected "hold_open" or `{ probe_locally = 1 }`"#,
        ),
        (
            "share = 'all'",
            r#"expected `{ quorum = 3, window = "10s" }` or `{ counts = { .. } }`"#,
        ),
        (
            "share = { counts = 5 }",
            "expected a table with `sliding_window`",
        ),
        (
            "probe_limit = 70000",
            "expected a whole number up to 65,535",
        ),
    ] {
        let (_, error) = toml_error::<StoreSettings>(toml);
        assert!(error.contains(message), "{toml}: {error}");
    }
}

/// Fault GAP04.
#[test]
fn defaults_apply_to_every_bulkhead_of_the_file() {
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let file = r#"
[defaults]
max_concurrent_calls = 50
timeout = "2s"

[defaults.circuit_breaker]
failure_rate_threshold = 0.5
minimum_number_of_calls = 20
sliding_window = { count = 200 }

[bulkheads.payments]
max_concurrent_calls = 20

[bulkheads.payments.circuit_breaker]
minimum_number_of_calls = 5
sliding_window = { length = "60s", buckets = 60 }

[bulkheads.reports]
max_queue_size = 100
"#;
    let bulkhead = |name| BulkheadConfig::new(name).timeout(2 * SECOND);
    let circuit = CircuitBreakerConfig::new().failure_rate_threshold(0.5);
    let minute = SlidingWindow::Time {
        length: 60 * SECOND,
        buckets: 60,
    };
    let expected = ManagerConfig::new()
        .bulkhead(
            bulkhead("payments")
                .max_concurrent_calls(20)
                .circuit_breaker(
                    circuit
                        .clone()
                        .minimum_number_of_calls(5)
                        .sliding_window(minute),
                ),
        )
        .bulkhead(
            bulkhead("reports")
                .max_concurrent_calls(50)
                .circuit_breaker(
                    circuit
                        .minimum_number_of_calls(20)
                        .sliding_window(SlidingWindow::Count(200)),
                ),
        );
    assert_eq!(read(file), expected);
    round_trips(&read(file));
    // The same from environment variables, and with the defaults at the end.
    let json: serde_json::Value = toml::from_str(file).unwrap();
    let read_variables: ManagerConfig = from_environment(&json).unwrap();
    let mut bulkheads = read_variables.bulkheads().to_vec();
    bulkheads.sort_by(|a, b| a.name().cmp(b.name()));
    assert_eq!(bulkheads, expected.bulkheads(), "in any order");
    let (defaults, bulkheads) = file.split_at(file.find("[bulkheads").unwrap());
    assert_eq!(read(&format!("{bulkheads}{defaults}")), expected);
    let yaml =
        |first: &str, second: &str| format!("{first}: {}\n{second}: {}", json[first], json[second]);
    for text in [yaml("defaults", "bulkheads"), yaml("bulkheads", "defaults")] {
        assert_eq!(
            serde_yaml_ng::from_str::<ManagerConfig>(&text).unwrap(),
            expected
        );
    }
}

/// Fault GAP04.
#[test]
fn settings_override_defaults_that_exclude_them() {
    let circuit = |defaults: &str, own: &str| {
        let json = format!(
            r#"{{"bulkheads":{{"a":{{"circuit_breaker":{own}}}}},"defaults":{{"circuit_breaker":{defaults}}}}}"#
        );
        let config = serde_json::from_str::<ManagerConfig>(&json);
        let config = config.unwrap_or_else(|error| panic!("{json}: {error}"));
        serde_json::to_value(&config.bulkheads()[0]).unwrap()["circuit_breaker"].to_string()
    };
    for (defaults, own, merged) in [
        (
            r#"{"isolation_duration":"5s"}"#,
            r#"{"isolation_schedule":["1s"]}"#,
            r#"{"isolation_schedule":["1s"]}"#,
        ),
        (
            r#"{"isolation_backoff":{"factor":2,"max":"5m"}}"#,
            r#"{"isolation_schedule":["1s"]}"#,
            r#"{"isolation_schedule":["1s"]}"#,
        ),
        (
            r#"{"isolation_schedule":["1s"]}"#,
            r#"{"isolation_duration":"5s"}"#,
            r#"{"isolation_duration":"5s"}"#,
        ),
        (
            r#"{"success_threshold":2}"#,
            r#"{"permitted_calls_in_half_open":4}"#,
            r#"{"permitted_calls_in_half_open":4}"#,
        ),
        (
            r#"{"permitted_calls_in_half_open":4}"#,
            r#"{"success_threshold":2}"#,
            r#"{"success_threshold":2}"#,
        ),
        // Two rules do not exclude each other: both are set.
        (
            r#"{"failure_threshold":7}"#,
            r#"{"failure_rate_threshold":0.5}"#,
            r#"{"failure_rate_threshold":0.5,"failure_threshold":7}"#,
        ),
        // Null is the default of the library.
        (
            r#"{"failure_threshold":7}"#,
            r#"{"failure_threshold":null}"#,
            "null",
        ),
        (r#"{"failure_threshold":7}"#, "null", "null"),
        (
            "null",
            r#"{"failure_threshold":7}"#,
            r#"{"failure_threshold":7}"#,
        ),
        (
            r#"{"failure_threshold":null}"#,
            r#"{"failure_threshold":7}"#,
            r#"{"failure_threshold":7}"#,
        ),
    ] {
        assert_eq!(circuit(defaults, own), merged, "{defaults} {own}");
    }
    let json =
        r#"{"defaults":{"timeout":"2s","max_wait":"1s"},"bulkheads":{"a":{"timeout":null}}}"#;
    let expected = ManagerConfig::new().bulkhead(BulkheadConfig::new("a").max_wait(SECOND));
    assert_eq!(
        serde_json::from_str::<ManagerConfig>(json).unwrap(),
        expected
    );
}

/// Fault GAP04.
#[test]
fn merged_settings_are_validated_together() {
    let read = |defaults: &str, own: &str| {
        toml::from_str::<ManagerConfig>(&format!(
            "[defaults.circuit_breaker]\n{defaults}\n[bulkheads.a.circuit_breaker]\n{own}\n"
        ))
    };
    // Each half is incomplete.
    for (one, other) in [
        (
            "slow_call_rate_threshold = 0.5",
            "slow_call_duration_threshold = '1s'",
        ),
        (
            "failure_count_threshold = 500",
            "sliding_window = { count = 500 }",
        ),
        (
            "isolation_backoff = { factor = 2, max = '10s' }",
            "isolation_duration = '1s'",
        ),
    ] {
        for (defaults, own) in [(one, other), (other, one)] {
            read(defaults, own).unwrap_or_else(|error| panic!("{defaults}\n{own}\n{error}"));
        }
        for (defaults, own) in [(one, ""), ("", one)] {
            let error = read(defaults, own).unwrap_err().to_string();
            assert!(
                error.contains("bulkhead \"a\": `"),
                "{defaults}\n{own}\n{error}"
            );
        }
    }
    // What nothing else can correct is an error of its table.
    for (wrong, message) in [
        (
            "success_threshold = 2\npermitted_calls_in_half_open = 4",
            "left out when",
        ),
        (
            "isolation_duration = '30s'\nisolation_backoff = { factor = 2, max = '10s' }",
            "isolation_backoff.max",
        ),
        (
            "failure_count_threshold = 500\nsliding_window = { count = 499 }",
            "failure_count_threshold",
        ),
    ] {
        let text = |table: &str| format!("[bulkheads.b]\n\n[{table}.circuit_breaker]\n{wrong}\n");
        for table in ["bulkheads.a", "defaults"] {
            let (line, error) = toml_error::<ManagerConfig>(&text(table));
            assert!(line == 3 && error.contains(message), "{line}: {error}");
        }
    }
    for (toml, line, message) in [
        (
            "[bulkheads]\n[defaults]\nname = 'a'",
            2,
            "`defaults` has the field `name`",
        ),
        (
            "[bulkheads]\n[defaults]\nunkown = 1",
            3,
            "unknown field `unkown`",
        ),
        (
            "[bulkheads]\n[defaults]\nmax_concurrent_calls = 0",
            3,
            "`max_concurrent_calls` is 0",
        ),
    ] {
        let (found, error) = toml_error::<ManagerConfig>(toml);
        assert!(found == line && error.contains(message), "{found}: {error}");
    }
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

/// Fault F12, SUR06.
#[test]
fn reload_reports_only_changes_that_took_effect() {
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let names = |names: &[BulkheadName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let immutable = |field, from: &str, to: &str| ConfigError::Immutable {
        field,
        from: from.into(),
        to: to.into(),
    };
    let manager = BulkheadManager::from_config(&read("[bulkheads.db]"), ClockOnly).unwrap();
    let db = manager.get_bulkhead("db").unwrap();
    for state in [
        "open",
        "half_open",
        "forced_open",
        "disabled",
        "metrics_only",
    ] {
        // An operator forces the circuit open in the file.
        let initial = format!("[bulkheads.db.circuit_breaker]\ninitial_state = '{state}'");
        for _ in 0..2 {
            let applied = manager.apply_config(&read(&initial)).unwrap();
            assert_eq!(
                (names(&applied.changed), names(&applied.unchanged)),
                (vec![], vec!["db".into()])
            );
            assert_eq!(applied.not_applied.len(), 1);
            assert_eq!(applied.not_applied[0].0, "db");
            assert_eq!(
                applied.not_applied[0].1,
                immutable("initial_state", "closed", state)
            );
            assert_eq!(db.config(), BulkheadConfig::new("db"), "what is in force");
        }
        assert_eq!(db.circuit_breaker().unwrap().state(), CircuitState::Closed);
        // Beside another change, which is applied.
        let applied = manager
            .apply_config(&read(&format!("{initial}\nfailure_threshold = 7")))
            .unwrap();
        assert_eq!(
            (names(&applied.changed), applied.not_applied.len()),
            (vec!["db".into()], 1)
        );
        assert_eq!(db.config(), BulkheadConfig::new("db").failure_threshold(7));
        manager.apply_config(&read("[bulkheads.db]")).unwrap();
    }
    // Only what differs in effect is a change.
    let closed = read("[bulkheads.db.circuit_breaker]\ninitial_state = 'closed'");
    assert_eq!(manager.apply_config(&closed).unwrap().not_applied, []);
    // A single bulkhead reports it as an error, and nothing has changed.
    let before = db.config();
    let open = CircuitBreakerConfig::new()
        .initial_state(CircuitState::Open)
        .failure_threshold(9);
    assert_eq!(
        db.reconfigure(BulkheadConfig::new("db").circuit_breaker(open)),
        Err(immutable("initial_state", "closed", "open"))
    );
    assert_eq!(db.config(), before);
}

/// Fault SUR06.
#[test]
fn reload_applies_all_but_an_enabled_circuit() {
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let file = "[bulkheads.a.circuit_breaker]\nfailure_threshold = 2\n\
        [bulkheads.b]\ncircuit_breaker_enabled = false\n[bulkheads.c]";
    let manager = BulkheadManager::from_config(&read(file), ClockOnly).unwrap();
    let file = "[bulkheads.a]\ncircuit_breaker_enabled = false\nmax_queue_size = 1\n\
        [bulkheads.b]\ncircuit_breaker_enabled = true\n\
        [bulkheads.c]\nmax_queue_size = 3\n[bulkheads.d]";
    let applied = manager.apply_config(&read(file)).unwrap();
    let names = |names: &[BulkheadName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&applied.created), ["d"]);
    assert_eq!(names(&applied.changed), ["a", "c"]);
    assert_eq!(names(&applied.unchanged), ["b"]);
    let reasons: Vec<_> = applied
        .not_applied
        .iter()
        .map(|(name, error)| format!("{name}: {error}"))
        .collect();
    assert_eq!(
        reasons,
        [
            "a: `circuit_breaker_enabled` can't change from \"true\" to \"false\" in place",
            "b: `circuit_breaker_enabled` can't change from \"false\" to \"true\" in place",
        ]
    );
    let [a, b] = ["a", "b"].map(|name| manager.get_bulkhead(name).unwrap());
    assert_eq!(
        a.config(),
        BulkheadConfig::new("a")
            .failure_threshold(2)
            .max_queue_size(1),
        "the circuit keeps its rules"
    );
    assert!(b.circuit_breaker().is_none());

    // The rules of a circuit that does not exist are no change.
    let file = "[bulkheads.b]\ncircuit_breaker_enabled = false\n\
        circuit_breaker = { failure_threshold = 9 }";
    assert_eq!(
        names(&manager.apply_config(&read(file)).unwrap().unchanged),
        ["b"]
    );
    // As documented: a new bulkhead has the new settings.
    manager.remove_bulkhead("b");
    let applied = manager.apply_config(&read("[bulkheads.b]")).unwrap();
    assert_eq!(
        (names(&applied.created), applied.not_applied),
        (vec!["b".into()], vec![])
    );
    assert!(
        manager
            .get_bulkhead("b")
            .unwrap()
            .circuit_breaker()
            .is_some()
    );
}

/// Fault F12.
#[test]
fn reload_takes_effect_while_the_circuit_is_open() {
    let runtime = ManualRuntime::new();
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let manager = BulkheadManager::from_config(&read("[bulkheads.db]"), runtime.clone()).unwrap();
    let circuit = manager
        .get_bulkhead("db")
        .unwrap()
        .circuit_breaker()
        .unwrap()
        .clone();
    circuit.open();
    let file = "[bulkheads.db.circuit_breaker]\nautomatic_half_open = true";
    let applied = manager.apply_config(&read(file)).unwrap();
    assert_eq!(applied.changed.len(), 1);
    let mut events = circuit.events();
    runtime.advance(30 * SECOND);
    assert!(events.try_next().is_some(), "without a call or a query");
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
