//! The fuzz targets as functions. Each panics if a property does not hold.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bulkman::circuit_breaker::{Admission, CircuitState};
use bulkman::future::Acquire;
use bulkman::manager::ManagerConfig;
use bulkman::runtime::ClockOnly;
use bulkman::store::StoreEvent;
use bulkman::testing::ManualRuntime;
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadError, BulkheadManager, CircuitBreaker, CircuitBreakerConfig,
    Outcome, Permit, Priority, Runtime,
};
use bulkman_postgres::fuzzing;

/// Parses text as a configuration file, in TOML and JSON.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let parsed = [
        toml::from_str::<ManagerConfig>(text).ok(),
        serde_json::from_str::<ManagerConfig>(text).ok(),
    ];
    for config in parsed.into_iter().flatten() {
        if BulkheadManager::from_config(&config, ClockOnly).is_err() {
            continue;
        }
        let json = serde_json::to_string(&config).expect("a valid configuration serializes");
        let again: ManagerConfig = serde_json::from_str(&json).expect("and parses again");
        assert_eq!(again, config, "{json}");
    }
}

/// Writes SQL literals, and reads them as PostgreSQL does.
pub fn literals(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let number = data
        .iter()
        .fold(0_i64, |sum, byte| sum.wrapping_mul(257) ^ i64::from(*byte));
    let texts: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let sql = fuzzing::literal_sql(&text, number, texts.clone());
    let mut rest = &*sql;
    expect(&mut rest, "SELECT (");
    assert_eq!(string_literal(&mut rest), text);
    expect(&mut rest, &format!("::text), ('{number}'::int8), (ARRAY["));
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            expect(&mut rest, ",");
        }
        assert_eq!(string_literal(&mut rest), *text);
    }
    expect(&mut rest, "]::text[])\n");
    assert_eq!(rest, "", "{sql}");
}

fn expect(rest: &mut &str, prefix: &str) {
    *rest = rest
        .strip_prefix(prefix)
        .unwrap_or_else(|| panic!("{prefix:?} before {rest:?}"));
}

/// Reads a string literal with escapes, by the lexical rules of PostgreSQL.
fn string_literal(rest: &mut &str) -> String {
    expect(rest, "E'");
    let mut value = String::new();
    let mut characters = rest.char_indices();
    loop {
        let (at, character) = characters.next().expect("the literal ends");
        match character {
            '\\' => {
                let (_, escaped) = characters.next().expect("an escaped character");
                assert!(matches!(escaped, '\\' | '\''), "\\{escaped} has a meaning");
                value.push(escaped);
            }
            '\'' if rest[at + 1..].starts_with('\'') => {
                characters.next();
                value.push('\'');
            }
            '\'' => {
                *rest = &rest[at + 1..];
                return value;
            }
            other => value.push(other),
        }
    }
}

/// Parses notifications; without a valid HMAC they are hints at most.
pub fn notifications(data: &[u8]) {
    let payload = String::from_utf8_lossy(data);
    for key in [None, Some(vec![7; 64]), Some(Vec::new())] {
        let parsed = fuzzing::parse_notification(key, &payload);
        assert!(
            !matches!(parsed, Some(StoreEvent::Applied(_))),
            "accepted without the key: {payload:?}"
        );
    }
}

/// A call of the queue target: the future, and what the model expects of it.
struct Waiter {
    future: Pin<Box<Acquire>>,
    priority: usize,
    granted: bool,
}

/// Runs operations on a bulkhead, and compares it with a plain model.
pub fn queue(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut next = move || bytes.next();
    let (Some(limit), Some(capacity)) = (next(), next()) else {
        return;
    };
    let (mut limit, capacity) = (usize::from(limit % 4) + 1, usize::from(capacity % 8));
    let config = BulkheadConfig::new("fuzz")
        .max_concurrent_calls(limit)
        .max_queue_size(capacity)
        .circuit_breaker_enabled(false);
    let bulkhead = Bulkhead::new(config, ManualRuntime::new()).expect("valid settings");
    let mut held: Vec<Permit> = Vec::new();
    let mut waiters: Vec<Waiter> = Vec::new();
    let mut in_use = 0;
    let mut closed = false;

    while let Some(operation) = next() {
        let argument = usize::from(operation / 8);
        match operation % 8 {
            0..=2 => {
                let priority = argument % 3;
                let levels = [Priority::High, Priority::Normal, Priority::Low];
                let call = bulkhead.call().priority(levels[priority]);
                let mut future = Box::pin(call.acquire());
                let waiting = waiters.iter().filter(|waiter| !waiter.granted).count();
                match poll(future.as_mut()) {
                    Poll::Ready(Ok(permit)) => {
                        assert!(
                            !closed && waiting == 0 && in_use < limit,
                            "overtook a waiter"
                        );
                        in_use += 1;
                        held.push(permit);
                    }
                    Poll::Ready(Err(BulkheadError::Full { .. })) => {
                        assert!(!closed && waiting >= capacity && (waiting > 0 || in_use >= limit));
                    }
                    Poll::Ready(Err(BulkheadError::Shutdown { .. })) => assert!(closed),
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    Poll::Pending => {
                        assert!(!closed && waiting < capacity && (waiting > 0 || in_use >= limit));
                        waiters.push(Waiter {
                            future,
                            priority,
                            granted: false,
                        });
                    }
                }
            }
            3 | 4 if !held.is_empty() => {
                held.swap_remove(argument % held.len()).succeed();
                in_use -= 1;
                grant(&mut waiters, &mut in_use, limit);
            }
            5 if !waiters.is_empty() => {
                let cancelled = waiters.remove(argument % waiters.len());
                if cancelled.granted {
                    in_use -= 1;
                    grant(&mut waiters, &mut in_use, limit);
                }
            }
            6 => {
                for mut waiter in std::mem::take(&mut waiters) {
                    match poll(waiter.future.as_mut()) {
                        Poll::Ready(Ok(permit)) => {
                            assert!(waiter.granted, "granted out of order");
                            held.push(permit);
                        }
                        Poll::Ready(Err(BulkheadError::Shutdown { .. })) => assert!(closed),
                        Poll::Ready(Err(error)) => panic!("{error}"),
                        Poll::Pending => {
                            assert!(!waiter.granted && !closed, "a grant was lost");
                            waiters.push(waiter);
                        }
                    }
                }
            }
            7 if argument == 31 => {
                bulkhead.shutdown();
                closed = true;
                waiters.retain(|waiter| waiter.granted);
            }
            7 if !closed => {
                limit = argument % 4 + 1;
                let config = bulkhead.config().max_concurrent_calls(limit);
                bulkhead.reconfigure(config).expect("valid settings");
                grant(&mut waiters, &mut in_use, limit);
            }
            _ => {}
        }
        let stats = bulkhead.stats();
        let waiting = waiters.iter().filter(|waiter| !waiter.granted).count();
        assert_eq!(
            (stats.permits_in_use, stats.waiting),
            (in_use, waiting),
            "{stats:?}"
        );
        assert_eq!(stats.active, held.len() as u64);
        let ended = stats.successful + stats.failed + stats.ignored + stats.cancelled;
        assert_eq!(stats.started, ended + stats.active);
    }
}

/// Grants permits in the model: by priority, and by arrival within it.
fn grant(waiters: &mut [Waiter], in_use: &mut usize, limit: usize) {
    while *in_use < limit {
        let next = waiters
            .iter_mut()
            .filter(|waiter| !waiter.granted)
            .min_by_key(|waiter| waiter.priority);
        let Some(waiter) = next else { return };
        waiter.granted = true;
        *in_use += 1;
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs operations on a circuit breaker, on a virtual clock.
pub fn circuit(data: &[u8]) {
    const SUCCESSES: u32 = 3;
    const ISOLATION: Duration = Duration::from_secs(10);
    let config = CircuitBreakerConfig::new()
        .failure_threshold(3)
        .success_threshold(SUCCESSES)
        .isolation_duration(ISOLATION)
        .probe_timeout(Duration::MAX);
    let clock = ManualRuntime::new();
    let breaker = CircuitBreaker::new("fuzz", config, clock.clone()).expect("valid settings");
    let mut admissions: VecDeque<(Admission<'_>, u64)> = VecDeque::new();

    for byte in data {
        let argument = u32::from(byte / 8);
        let now = clock.now();
        match byte % 8 {
            0 | 1 => {
                let before = breaker.snapshot_at(now);
                match breaker.try_acquire_at(now) {
                    Ok(admission) => {
                        let after = breaker.snapshot_at(now);
                        assert_ne!(after.state, CircuitState::Open);
                        assert_ne!(after.state, CircuitState::ForcedOpen);
                        admissions.push_back((admission, after.generation));
                    }
                    Err(rejection) => {
                        assert_ne!(before.state, CircuitState::Closed);
                        assert!(rejection.retry_after.is_none_or(|after| after <= ISOLATION));
                        if before.state == CircuitState::HalfOpen {
                            assert_eq!(before.probes_remaining, Some(0));
                        }
                    }
                }
            }
            operation @ 2..=4 if !admissions.is_empty() => {
                let index = argument as usize % admissions.len();
                let Some((admission, generation)) = admissions.remove(index) else {
                    continue;
                };
                let before = breaker.snapshot_at(now);
                let outcome = match operation {
                    2 => Some(Outcome::Success),
                    3 => Some(Outcome::Failure),
                    _ => None,
                };
                match outcome {
                    Some(outcome) => admission.record_at(outcome, Duration::ZERO, now),
                    None => drop(admission),
                }
                let after = breaker.snapshot_at(now);
                if generation != before.generation {
                    assert_eq!(
                        after, before,
                        "an outcome of an older generation has an effect"
                    );
                }
            }
            5 => clock.advance(Duration::from_secs(u64::from(argument))),
            6 => match argument % 4 {
                0 => breaker.open(),
                1 => breaker.half_open(),
                2 => breaker.force_open(),
                _ => breaker.close(),
            },
            _ => {}
        }
        let snapshot = breaker.snapshot();
        if snapshot.state == CircuitState::HalfOpen {
            let probes = admissions
                .iter()
                .filter(|(_, generation)| *generation == snapshot.generation)
                .count() as u32;
            let remaining = snapshot.probes_remaining.expect("half-open has probes");
            assert!(
                probes + remaining <= SUCCESSES,
                "{probes} run, {remaining} remain"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs that are close to valid ones.
    const CONFIGS: &[&str] = &[
        "[bulkheads.payments]\nmax_concurrent_calls = 20\ntimeout = \"2s 500ms\"\n",
        "[bulkheads.a.circuit_breaker]\nfailure_rate_threshold = 0.5\nsliding_window = { length = \"60s\", buckets = 60 }\n",
        "[bulkheads.b.circuit_breaker]\nisolation_duration = \"5s\"\nisolation_backoff = { factor = 2.0, max = \"60s\", jitter = 0.5 }\n",
        "{\"bulkheads\":{\"c\":{\"circuit_breaker_enabled\":false,\"queue_order\":\"lifo\"}}}",
    ];
    const PAYLOADS: &[&str] = &[
        "1|7",
        "1|7|00ff|1|2|3|4|5|6|7|8|9|10|11|12|3|0|abcrest",
        "1|9223372036854775807|",
        "2|7",
    ];
    const TEXTS: &[&str] = &[
        "it's \\ a -- $1 test\n",
        "E'\\'' || '",
        "\0\u{1f980} ''\\\\",
    ];

    /// Runs a target with mutations of seeds, or with random bytes. The sequence is fixed.
    fn run(target: fn(&[u8]), seeds: &[&str], cases: usize) {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below.max(1) as u64) as usize
        };
        for seed in seeds {
            target(seed.as_bytes());
        }
        for _ in 0..cases {
            let mut input: Vec<u8> = match seeds.len() {
                0 => (0..random(400)).map(|_| random(256) as u8).collect(),
                n => seeds[random(n)].as_bytes().to_vec(),
            };
            if !seeds.is_empty() {
                for _ in 0..=random(4) {
                    let at = random(input.len() + 1);
                    match random(3) {
                        0 if at < input.len() => input[at] = random(256) as u8,
                        1 if at < input.len() => drop(input.remove(at)),
                        _ => input.insert(at, b"0123456789.-\"'{}[]=|\n\\ "[random(23)]),
                    }
                }
            }
            target(&input);
        }
    }

    #[test]
    fn config_holds() {
        run(config, CONFIGS, 20_000);
    }

    #[test]
    fn literals_hold() {
        run(literals, TEXTS, 20_000);
        run(literals, &[], 5_000);
    }

    #[test]
    fn notifications_hold() {
        run(notifications, PAYLOADS, 20_000);
    }

    #[test]
    fn queue_holds() {
        run(queue, &[], 5_000);
    }

    #[test]
    fn circuit_holds() {
        run(circuit, &[], 5_000);
    }
}
