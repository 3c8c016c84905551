//! Checks the documents against the code: settings, defaults, features and the names of methods.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulkman::adaptive::Enforcement;
use bulkman::call::{Call, ExecutionReport};
use bulkman::circuit_breaker::{
    HalfOpenPolicy, HalfOpenTimeoutAction, IsolationBackoff, IsolationDuration,
    ResolvedCircuitBreakerConfig, SlidingWindow,
};
use bulkman::store::MemoryStore;
use bulkman::tower::{BulkheadLayer, ServiceError};
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadManager, CircuitBreaker, CircuitBreakerConfig, Outcome,
    QueueOrder,
};

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
            "overtaking" => new().overtaking(default.parse().unwrap()),
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
            "track_running_calls" => new().track_running_calls(default.parse().unwrap()),
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

/// No call has a timeout by default, so a program that is copied has to set one.
#[test]
fn programs_to_start_from_set_a_timeout() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let mut programs = Vec::new();
    for readme in [
        "README.md",
        "bulkman-tokio/README.md",
        "bulkman-smol/README.md",
    ] {
        let text = read(readme);
        let blocks = text.split("```rust").skip(1);
        programs.extend(blocks.map(|block| {
            let (code, _) = block.split_once("```").unwrap();
            (readme, code.to_owned())
        }));
    }
    for example in [
        "axum_service",
        "blocking",
        "embedded",
        "guarded_client",
        "manager",
        "own_runtime",
        "quickstart",
        "quickstart_smol",
        "thread_per_core",
    ] {
        programs.push((example, read(&format!("examples/{example}.rs"))));
    }
    assert_eq!(programs.len(), 13);
    for (name, code) in programs {
        let limits = [".timeout(", ".run_timeout(", ".hanging_call_threshold("];
        let creates = code.contains("BulkheadConfig");
        let limited = limits.iter().any(|limit| code.contains(limit));
        assert!(!creates || limited, "{name} has no timeout:\n{code}");
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
        "hanging_call_threshold" => or_off(settings.hanging_call_threshold),
        "count_calls_in_flight" => settings.count_calls_in_flight.to_string(),
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
        if let Some((_, target)) = setting.split_once("](Self::") {
            assert_eq!(target.trim_end_matches(')'), name, "the target of the link");
        }
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
    let listed: Vec<_> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| code(line.split('|').nth(1).unwrap()))
        .collect();
    let unique: BTreeSet<_> = listed.iter().copied().collect();
    assert_eq!(unique.len(), listed.len(), "listed twice: {listed:?}");
    let (_, features) = MANIFEST.split_once("[features]\n").unwrap();
    let declared: BTreeSet<_> = features
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = ["))
        .map(|(name, _)| name)
        .filter(|name| *name != "default")
        .collect();
    assert_eq!(unique, declared);
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

/// Declares a function that calls methods and reads fields, and the list of their names.
///
/// A name that does not exist does not compile.
macro_rules! names_in_use {
    (
        fn $name:ident($($parameter:ident: $type:ty),* $(,)?);
        methods { $($receiver:ident.$method:ident($($argument:expr),* $(,)?);)* }
        fields { $($owner:ident.$field:ident;)* }
    ) => {
        #[allow(
            dead_code,
            clippy::let_underscore_future,
            clippy::too_many_arguments,
            reason = "it only has to compile"
        )]
        fn $name($($parameter: $type),*) {
            $(let _ = $receiver.clone().$method($($argument),*);)*
            $(let _ = &$owner.$field;)*
        }

        const METHODS: &[&str] = &[$(stringify!($method)),*];
        const FIELDS: &[&str] = &[$(stringify!($field)),*];
    };
}

names_in_use! {
    fn every_documented_name(
        config: BulkheadConfig,
        circuit: CircuitBreakerConfig,
        bulkhead: Bulkhead,
        breaker: CircuitBreaker,
        manager: BulkheadManager,
        call: Call<'_>,
        layer: BulkheadLayer,
        rejected: Arc<ServiceError>,
        report: Arc<ExecutionReport<(), ()>>,
        store: MemoryStore,
        second: Duration,
    );
    methods {
        config.max_concurrent_calls(1);
        config.max_queue_size(1);
        config.timeout(second);
        config.max_wait(second);
        config.run_timeout(second);
        config.circuit_breaker_enabled(true);
        circuit.failure_rate_threshold(0.5);
        circuit.slow_call_rate_threshold(0.5);
        circuit.slow_call_duration_threshold(second);
        circuit.hanging_call_threshold(1);
        circuit.minimum_number_of_calls(1);
        circuit.sliding_window(SlidingWindow::Count(1));
        circuit.success_threshold(1);
        circuit.permitted_calls_in_half_open(1);
        circuit.isolation_duration(second);
        circuit.isolation_schedule([second]);
        circuit.isolation_backoff(IsolationBackoff::new(2.0, second));
        circuit.probe_timeout(second);
        circuit.max_half_open_duration(second, HalfOpenTimeoutAction::Open);
        circuit.automatic_half_open(true);
        bulkhead.execute(ready(Ok::<(), ()>(())));
        bulkhead.execute_blocking(|| Ok::<(), ()>(()));
        bulkhead.execute_sync(|| Ok::<(), ()>(()));
        bulkhead.wrap(|(): ()| ready(Ok::<(), ()>(())));
        bulkhead.acquire();
        bulkhead.call();
        bulkhead.health_check(second, || ready(Ok::<(), ()>(())));
        bulkhead.state();
        bulkhead.is_healthy();
        bulkhead.stats();
        bulkhead.reset_stats();
        bulkhead.retry_after();
        bulkhead.shutdown();
        bulkhead.drained();
        call.execute_with_report(ready(Ok::<(), ()>(())));
        breaker.force_open();
        breaker.disable();
        breaker.metrics_only();
        breaker.close();
        manager.create_bulkhead(config.clone());
        manager.get_bulkhead("a");
        manager.get_or_create_bulkhead(config.clone());
        manager.execute_in_bulkhead("a", ready(Ok::<(), ()>(())));
        manager.all_stats();
        manager.health_status();
        manager.share_through(store.clone());
        layer.classify(|_: &Result<(), ()>| Outcome::Success);
        rejected.http_status();
        rejected.retry_after_seconds();
    }
    fields {
        report.result;
        report.ran;
        report.queued;
        report.bulkhead;
        report.id;
    }
}

/// Names in the code of the documents that are not methods or fields of this library.
const OTHER_NAMES: &[&str] = &[
    // Constructors and variants.
    "new",
    "Count",
    // Traits, and modules.
    "with_bulkhead",
    // The standard library, and what the reader's program calls so.
    "from_secs",
    "function",
];

/// Names in `docs/MIGRATING.md` and `docs/COMPARISON.md` that look like ours must be ours.
#[test]
fn methods_in_the_migration_guide_exist() {
    let migrating = include_str!("../docs/MIGRATING.md");
    let ours = migrating
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("| ---"))
        .map(|line| {
            let line = line.replace("\\|", "/");
            let cells: Vec<_> = line.split('|').collect();
            let [_, theirs, ours, _] = cells[..] else {
                panic!("{line}")
            };
            // Names that are the same are in the other column.
            let same = if ours.contains("the same") {
                theirs
            } else {
                ""
            };
            format!("{same}{ours}")
        });
    let prose = migrating
        .lines()
        .filter(|line| !line.starts_with('|'))
        .map(str::to_owned);
    let mut found = BTreeSet::new();
    for text in ours.chain(prose) {
        for span in code(&text) {
            found.extend(called(span));
            // A setting, a method or a field alone.
            if span.starts_with(|c: char| c.is_ascii_lowercase())
                && span.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            {
                found.insert(span.to_owned());
            }
        }
    }
    let listed: BTreeSet<_> = [METHODS, FIELDS]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let known = |name: &String| listed.contains(name) || OTHER_NAMES.contains(&&**name);
    let unknown: Vec<_> = found.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "docs/MIGRATING.md: {unknown:?}");
    // The list has nothing that the document no longer names.
    let unused: Vec<_> = listed.difference(&found).collect();
    assert!(unused.is_empty(), "{unused:?}");

    for line in include_str!("../docs/COMPARISON.md").lines() {
        for name in code(line).into_iter().flat_map(called) {
            assert!(known(&name), "docs/COMPARISON.md: {name}");
        }
    }
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

/// Returns the code spans of a line.
fn code(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Returns the names that are called in `code`, as `name(` or `.name(`.
fn called(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices('(') {
        let before = &code[..at];
        let start = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map_or(0, |last| last + 1);
        if start < at {
            names.push(before[start..].to_owned());
        }
    }
    names
}
