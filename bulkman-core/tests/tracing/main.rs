//! The spans of calls, and what is recorded in them.

mod events;
#[path = "../support/faulty_clock.rs"]
mod faulty_clock;
mod recorder;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::{Future, pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkman::circuit_breaker::CircuitState;
use bulkman::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, CircuitBreaker, CircuitBreakerConfig, Outcome, Runtime};
use faulty_clock::FaultyClock;
use futures_lite::future::{block_on, poll_once};
use recorder::{Recorded, Recorder, Targets, record_events};
use tracing::field::{Field, Visit};
use tracing::span::{Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn span_contains_name_id_times_and_outcome() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(
        BulkheadConfig::new("api").max_concurrent_calls(1),
        runtime.clone(),
    )
    .unwrap();
    let (report, recorded) = record_events(Level::DEBUG, || {
        runtime.block_on(async {
            let permit = bulkhead.acquire().await.unwrap();
            let clock = runtime.clone();
            let spawned = runtime.spawn(Box::pin(async move {
                clock.sleep_until(clock.now() + 2 * SECOND).await;
                permit.succeed();
            }));
            assert!(spawned.is_ok());
            let work = async {
                tracing::info!("working");
                runtime.sleep_until(runtime.now() + SECOND).await;
                Err::<(), _>("down")
            };
            bulkhead.call().execute_with_report(work).await
        })
    });
    assert_eq!((report.queued, report.ran), (2 * SECOND, SECOND));

    let [permit, call] = &recorded.spans("call")[..] else {
        panic!("{recorded:?}")
    };
    assert_eq!(call["bulkhead"], "api");
    assert_eq!(call["id"], report.id.to_string());
    assert_ne!(call["id"], permit["id"]);
    let times = |span: &BTreeMap<String, String>| {
        [&span["queued_seconds"], &span["ran_seconds"]].map(|time| time.parse::<f64>().unwrap())
    };
    assert_eq!(times(call), [2.0, 1.0]);
    assert_eq!(call["outcome"], "failure");
    assert!(!call.contains_key("reason"));
    assert_eq!(permit["outcome"], "success");
    assert_eq!(times(permit), [0.0, 2.0]);
    // The operation runs within the span of its call, even when it is polled again.
    assert_eq!(recorded.events("working")[0]["in span"], "call");
}

#[test]
fn panicking_clock_with_a_subscriber_leaks_no_permit() {
    let clock = FaultyClock::new();
    let (panics, _) = record_events(Level::DEBUG, || {
        let mut panics = 0;
        // A call with these limits reads it about ten times. Each of the readings fails once.
        for reading in 0..16 {
            let config = BulkheadConfig::new("api")
                .max_concurrent_calls(1)
                .timeout(SECOND);
            let rules = CircuitBreakerConfig::new()
                .slow_call_rate_threshold(0.5)
                .slow_call_duration_threshold(SECOND);
            let bulkhead = Bulkhead::new(config.circuit_breaker(rules), clock.clone()).unwrap();
            let call = bulkhead.execute(async { Ok::<_, ()>(()) });
            let ended = clock.while_faulty(reading..=reading, || clock.runtime.block_on(call));
            panics += u32::from(ended.is_none());
            let stats = bulkhead.stats();
            assert_eq!(
                (stats.permits_in_use, stats.active),
                (0, 0),
                "reading {reading}: {stats:?}"
            );
            assert!(bulkhead.try_acquire().is_ok(), "reading {reading}");
        }
        panics
    });
    assert!((3..16).contains(&panics), "{panics} readings failed");
}

#[test]
fn span_records_how_each_call_ended() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("api")
        .max_concurrent_calls(1)
        .max_queue_size(0)
        .run_timeout(SECOND);
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let ((), recorded) = record_events(Level::DEBUG, || {
        runtime.block_on(async {
            let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
            let _ = bulkhead.execute(ready(Err::<(), _>(()))).await;
            let ignored = bulkhead
                .call()
                .classify(|_: &Result<(), ()>| Outcome::Ignored);
            let _ = ignored.execute(ready(Ok(()))).await;
            let _ = bulkhead.execute(pending::<Result<(), ()>>()).await;
            let permit = bulkhead.try_acquire().unwrap();
            let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
            drop(permit);
            let _ = bulkhead.execute_sync(|| Ok::<_, ()>(()));
            let _ = bulkhead
                .execute_blocking(|| -> Result<(), ()> { panic!("expected by the test") })
                .await;
        });
        let panics = AssertUnwindSafe(|| {
            bulkhead.execute_sync(|| -> Result<(), ()> { panic!("expected by the test") })
        });
        assert!(catch_unwind(panics).is_err());
        bulkhead.shutdown();
        let _ = bulkhead.try_acquire();
    });
    let ends: Vec<_> = recorded
        .spans("call")
        .iter()
        .map(|span| span["outcome"].clone())
        .collect();
    let expected = [
        "success",
        "failure",
        "ignored",
        "timed_out",
        "cancelled",
        "rejected",
        "success",
        "panicked",
        "panicked",
        "rejected",
    ];
    assert_eq!(ends, expected);
    let reasons: Vec<_> = recorded
        .spans("call")
        .iter()
        .filter_map(|span| span.get("reason").cloned())
        .collect();
    assert_eq!(reasons, ["full", "shutdown"]);
    // A rejection is an event as well, for subscribers that filter spans.
    let rejections = recorded.events("call rejected");
    assert_eq!(
        rejections
            .iter()
            .map(|event| &*event["reason"])
            .collect::<Vec<_>>(),
        ["full", "shutdown"]
    );
    assert!(
        rejections
            .iter()
            .all(|event| event["bulkhead"] == "api" && event["level"] == "DEBUG")
    );
}

#[test]
fn cancelled_and_timed_out_waiters_have_different_outcomes() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("api").max_concurrent_calls(1);
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let ((), recorded) = record_events(Level::DEBUG, || {
        runtime.block_on(async {
            let _permit = bulkhead.acquire().await.unwrap();
            let _ = bulkhead
                .call()
                .max_wait(SECOND)
                .execute(ready(Ok::<_, ()>(())))
                .await;
            let mut cancelled = std::pin::pin!(bulkhead.acquire());
            assert!(poll_once(&mut cancelled).await.is_none());
        });
    });
    // The waiter that timed out was created before the one that was cancelled.
    let spans = recorded.spans("call");
    let observed: Vec<_> = spans
        .iter()
        .map(|s| (&*s["outcome"], s.get("reason").map(|r| &**r)))
        .collect();
    assert_eq!(
        observed,
        [
            ("cancelled", None),
            ("rejected", Some("timed_out_in_queue")),
            ("cancelled", None)
        ]
    );
    assert_eq!(spans[1]["queued_seconds"], "1.0");
    assert!(
        !spans[1].contains_key("ran_seconds"),
        "the operation was never started"
    );
}

#[test]
fn blocking_work_inherits_the_span_and_the_subscriber() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(BulkheadConfig::new("disk"), runtime.clone()).unwrap();
    let ((), recorded) = record_events(Level::DEBUG, || {
        let request = tracing::info_span!("request", path = "/report");
        let _entered = request.enter();
        let work = bulkhead.execute_blocking(|| {
            tracing::info!("reading");
            Ok::<_, ()>(())
        });
        runtime.block_on(work).unwrap();
    });
    assert_eq!(recorded.events("reading")[0]["in span"], "call");
    assert_eq!(recorded.spans("call")[0]["parent"], "request");
    assert_eq!(recorded.spans("call")[0]["outcome"], "success");

    // If calls have no span, the span of the caller is current.
    let ((), recorded) = record_events(Level::INFO, || {
        let _entered = tracing::info_span!("request").entered();
        let work = bulkhead.execute_blocking(|| {
            tracing::info!("reading");
            Ok::<_, ()>(())
        });
        runtime.block_on(work).unwrap();
    });
    assert_eq!(recorded.events("reading")[0]["in span"], "request");
}

#[test]
fn filtered_target_creates_no_span() {
    let bulkhead = Bulkhead::new(BulkheadConfig::new("api"), ClockOnly).unwrap();
    let recorded = Recorded::default();
    let layer = Recorder(recorded.clone()).with_filter(Targets(|target| target != "bulkman::call"));
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        let work = || {
            tracing::debug!("working");
            Ok::<_, ()>(())
        };
        bulkhead.execute_sync(work).unwrap();
    });
    assert!(recorded.spans("call").is_empty());
    assert!(!recorded.events("working")[0].contains_key("in span"));
}

/// Fault F07.
#[test]
fn destructors_of_operations_run_inside_the_span() {
    /// Logs when it is dropped, as a transaction that rolls back does.
    struct RollsBack;
    impl Drop for RollsBack {
        fn drop(&mut self) {
            tracing::info!("rolled back");
        }
    }
    /// A future that owns its guard and is not an `async` block.
    struct Panics(#[allow(dead_code, reason = "logs when dropped")] RollsBack);
    impl Future for Panics {
        type Output = Result<(), ()>;
        fn poll(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Self::Output> {
            panic!("expected by the test")
        }
    }
    async fn forever(_guard: RollsBack) -> Result<(), ()> {
        pending().await
    }
    fn blocking(guard: RollsBack) -> impl FnOnce() -> Result<(), ()> {
        move || {
            drop(guard);
            Ok(())
        }
    }
    type Case = (&'static str, fn(&Bulkhead, &ManualRuntime));
    const CASES: &[Case] = &[
        ("completed", |db, runtime| {
            let guard = RollsBack;
            let call = db.execute(async move {
                let _guard = guard;
                Ok::<_, ()>(())
            });
            runtime.block_on(call).unwrap();
        }),
        ("cancelled while it runs", |db, runtime| {
            let mut call = Box::pin(db.execute(forever(RollsBack)));
            assert!(runtime.block_on(poll_once(&mut call)).is_none());
        }),
        ("cancelled in the queue", |db, runtime| {
            let _busy = db.try_acquire().unwrap();
            let mut call = Box::pin(db.execute(forever(RollsBack)));
            assert!(runtime.block_on(poll_once(&mut call)).is_none());
        }),
        ("timed out", |db, runtime| {
            let call = db.call().run_timeout(SECOND).execute(forever(RollsBack));
            assert!(runtime.block_on(call).is_err());
        }),
        ("timed out in the queue", |db, runtime| {
            let _busy = db.try_acquire().unwrap();
            let call = db.call().max_wait(SECOND).execute(forever(RollsBack));
            assert!(runtime.block_on(call).is_err());
        }),
        ("rejected", |db, runtime| {
            db.circuit_breaker().unwrap().force_open();
            assert!(runtime.block_on(db.execute(forever(RollsBack))).is_err());
        }),
        ("panicked", |db, runtime| {
            let call = AssertUnwindSafe(|| runtime.block_on(db.execute(Panics(RollsBack))));
            assert!(catch_unwind(call).is_err());
        }),
        ("owned call", |db, runtime| {
            let wrapped = db.wrap(forever);
            let mut call = Box::pin(wrapped(RollsBack));
            assert!(runtime.block_on(poll_once(&mut call)).is_none());
        }),
        ("tower", |db, runtime| {
            use tower::{Layer, Service};
            let mut service = bulkman::tower::BulkheadLayer::new(db.clone()).layer(
                tower::service_fn(|guard| async {
                    let _guard: RollsBack = guard;
                    pending::<Result<(), std::io::Error>>().await
                }),
            );
            let mut call = Box::pin(service.call(RollsBack));
            assert!(runtime.block_on(poll_once(&mut call)).is_none());
        }),
        ("body", |db, runtime| {
            use http_body::Frame;
            use http_body_util::StreamBody;
            use tower::{Layer, Service};
            let mut service = bulkman::tower::BulkheadLayer::new(db.clone())
                .hold_until_body_end()
                .layer(tower::service_fn(|guard: RollsBack| {
                    let chunks = futures_lite::stream::unfold(guard, |guard| async {
                        let chunk = Frame::data(&b"chunk"[..]);
                        Some((Ok::<_, std::io::Error>(chunk), guard))
                    });
                    let response = http::Response::new(StreamBody::new(Box::pin(chunks)));
                    ready(Ok::<_, std::io::Error>(response))
                }));
            drop(runtime.block_on(service.call(RollsBack)).unwrap());
        }),
        ("sync, completed", |db, _| {
            db.execute_sync(blocking(RollsBack)).unwrap();
        }),
        ("sync, rejected", |db, _| {
            db.circuit_breaker().unwrap().force_open();
            assert!(db.execute_sync(blocking(RollsBack)).is_err());
        }),
        ("blocking, completed", |db, runtime| {
            runtime
                .block_on(db.execute_blocking(blocking(RollsBack)))
                .unwrap();
        }),
        ("blocking, cancelled in the queue", |db, runtime| {
            let _busy = db.try_acquire().unwrap();
            let mut call = Box::pin(db.execute_blocking(blocking(RollsBack)));
            assert!(runtime.block_on(poll_once(&mut call)).is_none());
        }),
        ("blocking, rejected", |db, runtime| {
            db.circuit_breaker().unwrap().force_open();
            assert!(
                runtime
                    .block_on(db.execute_blocking(blocking(RollsBack)))
                    .is_err()
            );
        }),
        ("blocking, result that no caller receives", |db, _| {
            let (start, started) = channel::<()>();
            let (dropped, caller) = channel::<()>();
            let (alive, ended) = channel::<()>();
            let mut call = Box::pin(db.execute_blocking(move || {
                // The caller is dropped while the closure runs.
                start.send(()).unwrap();
                assert!(caller.recv().is_err());
                Ok::<_, ()>((RollsBack, alive))
            }));
            assert!(block_on(poll_once(&mut call)).is_none());
            started.recv().unwrap();
            drop(call);
            drop(dropped);
            assert!(ended.recv().is_err());
        }),
    ];
    for (name, case) in CASES {
        let runtime = ManualRuntime::new();
        let config = BulkheadConfig::new("db").max_concurrent_calls(1);
        let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
        let ((), recorded) = record_events(Level::DEBUG, || case(&bulkhead, &runtime));
        let dropped = recorded.events("rolled back");
        assert_eq!(dropped.len(), 1, "{name}");
        let span = dropped[0].get("in span").map(String::as_str);
        assert_eq!(span, Some("call"), "{name}");
        assert_eq!(bulkhead.stats().permits_in_use, 0, "{name}");
    }
}

/// Fault F07.
#[test]
fn closure_that_the_runtime_drops_logs_inside_the_span() {
    /// A runtime that is shutting down.
    #[derive(Debug)]
    struct ShutDown(ManualRuntime);
    impl Runtime for ShutDown {
        fn now(&self) -> Instant {
            self.0.now()
        }
        fn sleep_until(&self, deadline: Instant) -> Sleep {
            self.0.sleep_until(deadline)
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
            Err(task)
        }
        fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
            drop(job);
        }
    }
    struct Logs;
    impl Drop for Logs {
        fn drop(&mut self) {
            tracing::info!("dropped");
        }
    }
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(BulkheadConfig::new("db"), ShutDown(runtime.clone())).unwrap();
    let (result, recorded) = record_events(Level::DEBUG, || {
        let guard = Logs;
        runtime.block_on(bulkhead.execute_blocking(move || {
            drop(guard);
            Ok::<_, ()>(())
        }))
    });
    assert!(result.unwrap_err().is_rejection());
    assert_eq!(recorded.events("dropped")[0]["in span"], "call");
}

/// Fault SUR03.
#[test]
fn failed_calls_have_the_status_error() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("api")
        .max_concurrent_calls(1)
        .run_timeout(SECOND);
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let ((), recorded) = record_events(Level::DEBUG, || {
        runtime.block_on(async {
            let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
            let _ = bulkhead.execute(ready(Err::<(), _>(()))).await;
            let _ = bulkhead.execute(pending::<Result<(), ()>>()).await;
            drop(bulkhead.try_acquire());
            let panics = bulkhead.execute_blocking(|| -> Result<(), ()> { panic!("expected") });
            let _ = panics.await;
            bulkhead.shutdown();
            let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
        });
    });
    let status: Vec<_> = recorded
        .spans("call")
        .iter()
        .map(|span| {
            let status = span.get("otel.status_code").cloned();
            (span["outcome"].clone(), status)
        })
        .collect();
    let error = Some(String::from("ERROR"));
    let expected = [
        ("success", None),
        ("failure", error.clone()),
        ("timed_out", error.clone()),
        ("cancelled", None),
        ("panicked", error),
        ("rejected", None),
    ];
    assert_eq!(
        status,
        expected.map(|(outcome, status)| (outcome.to_owned(), status))
    );
}

/// Fault SUR03.
#[test]
fn durations_of_spans_and_events_are_numbers() {
    /// Fields that were recorded as `f64`.
    #[derive(Clone, Default)]
    struct Numbers(Arc<Mutex<BTreeMap<String, f64>>>);
    impl Visit for Numbers {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            assert!(!format!("{value:?}").ends_with('s'), "{field}: {value:?}");
        }
        fn record_str(&mut self, _: &Field, _: &str) {}
        fn record_f64(&mut self, field: &Field, value: f64) {
            self.0.lock().unwrap().insert(field.name().into(), value);
        }
    }
    impl<S: Subscriber> Layer<S> for Numbers {
        fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
            values.record(&mut self.clone());
        }
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            event.record(&mut self.clone());
        }
    }
    let numbers = Numbers::default();
    let runtime = ManualRuntime::new();
    let config = CircuitBreakerConfig::new().failure_threshold(1);
    let breaker = CircuitBreaker::new("alone", config, runtime.clone()).unwrap();
    let bulkhead = Bulkhead::new(BulkheadConfig::new("api"), runtime.clone()).unwrap();
    tracing::subscriber::with_default(Registry::default().with(numbers.clone()), || {
        let work = async {
            runtime.sleep_until(runtime.now() + SECOND / 2).await;
            Ok::<_, ()>(())
        };
        runtime.block_on(bulkhead.execute(work)).unwrap();
        let _ = breaker.execute_sync(|| Err::<(), _>(()));
        let _ = breaker.execute_sync(|| Ok::<_, ()>(()));
    });
    let numbers = numbers.0.lock().unwrap().clone();
    let expected = [
        ("isolation_seconds", 30.0),
        ("queued_seconds", 0.0),
        ("ran_seconds", 0.5),
        ("retry_after_seconds", 30.0),
    ];
    assert_eq!(
        numbers,
        expected
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    );
}

/// Calls within a probe are part of it, so a probe that has ended must not stay on its thread.
///
/// Fault F02.
#[test]
fn clock_panic_anywhere_in_a_probe_leaves_no_probe_on_the_thread() {
    // A span reads the clock where the operation starts.
    tracing::subscriber::with_default(tracing_subscriber::registry(), || {
        for readings in 0..6 {
            let clock = FaultyClock::new();
            let rules = CircuitBreakerConfig::new().success_threshold(2);
            let config = BulkheadConfig::new("edge").circuit_breaker(rules);
            let bulkhead = Bulkhead::new(config, clock.clone()).unwrap();
            let circuit = bulkhead.circuit_breaker().unwrap();
            let call = || bulkhead.execute_sync(|| Ok::<_, ()>(1));
            circuit.half_open();
            let _panic = clock.while_faulty(readings.., call);
            // Only the panic of the operation itself is an outcome.
            if circuit.state() != CircuitState::HalfOpen {
                circuit.half_open();
            }
            for _ in 0..2 {
                assert_eq!(call(), Ok(1));
            }
            assert_eq!(circuit.state(), CircuitState::Closed, "{readings} readings");
        }
    });
}
