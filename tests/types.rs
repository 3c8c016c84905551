//! Properties of the public types: `Send`, `Sync`, `Unpin`, unwind safety, sizes.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io::Write as _;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bulkman::bulkhead::{BulkheadName, BulkheadStats, HealthCheck};
use bulkman::call::{Call, Classifier, DefaultClassifier, ExecutionReport};
use bulkman::circuit_breaker::{CircuitEvents, CircuitSnapshot, Transition};
use bulkman::future::{
    Acquire, Drained, Execute, ExecuteBlocking, ExecuteInBulkhead, ExecuteOwned, ExecuteWithReport,
};
use bulkman::manager::ManagerError;
use bulkman::testing::ManualRuntime;
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadError, BulkheadManager, CircuitBreaker, CircuitBreakerConfig,
    ConfigError, Outcome, Permit, Runtime, SmolRuntime, TokioRuntime,
};

fn send<T: Send>() {}
fn send_sync<T: Send + Sync>() {}
fn unpin<T: Unpin>() {}
fn send_value<T: Send>(value: T) -> T {
    value
}

type Boxed = Pin<Box<dyn Future<Output = Result<u32, u32>> + Send>>;

#[test]
fn shared_types_are_send_and_sync() {
    send_sync::<Bulkhead>();
    send_sync::<BulkheadConfig>();
    send_sync::<BulkheadManager>();
    send_sync::<BulkheadStats>();
    send_sync::<BulkheadError<std::io::Error>>();
    send_sync::<Call<'_>>();
    send_sync::<CircuitBreaker>();
    send_sync::<CircuitBreakerConfig>();
    send_sync::<CircuitEvents>();
    send_sync::<CircuitSnapshot>();
    send_sync::<ConfigError>();
    send_sync::<ExecutionReport<u32, std::io::Error>>();
    send_sync::<HealthCheck>();
    send_sync::<ManagerError>();
    send_sync::<ManualRuntime>();
    send_sync::<BulkheadName>();
    send_sync::<SmolRuntime>();
    send_sync::<TokioRuntime>();
    send_sync::<Transition>();
    send_sync::<Box<dyn Runtime>>();
}

#[test]
fn futures_and_permits_are_send() {
    send::<Permit>();
    send::<Acquire>();
    send::<Drained<'_>>();
    send::<Execute<'_, Boxed, DefaultClassifier>>();
    send::<ExecuteOwned<Boxed, DefaultClassifier>>();
    send::<ExecuteInBulkhead<Boxed>>();
    send::<ExecuteWithReport<'_, Boxed, DefaultClassifier>>();
    send::<ExecuteBlocking<fn() -> Result<u32, u32>, u32, u32, DefaultClassifier>>();
}

#[test]
fn futures_without_pinned_fields_are_unpin() {
    unpin::<Permit>();
    unpin::<Acquire>();
    unpin::<Drained<'_>>();
    unpin::<CircuitEvents>();
    unpin::<Execute<'_, Boxed, DefaultClassifier>>();
    unpin::<ExecuteOwned<Boxed, DefaultClassifier>>();
    unpin::<ExecuteInBulkhead<Boxed>>();
    // A closure is moved, never pinned.
    unpin::<ExecuteBlocking<fn() -> Result<u32, u32>, u32, u32, DefaultClassifier>>();
}

#[test]
fn types_are_unwind_safe() {
    fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    unwind_safe::<CircuitBreaker>();
    unwind_safe::<BulkheadConfig>();
    unwind_safe::<BulkheadError<u32>>();
    // It can be used within `catch_unwind` without `AssertUnwindSafe`.
    unwind_safe::<Bulkhead>();
}

#[test]
fn operation_need_not_be_send() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(BulkheadConfig::new("types"), runtime.clone()).unwrap();
    let local = Rc::new(5);
    let inside = Rc::clone(&local);
    let operation = async move {
        std::future::ready(()).await;
        Ok::<_, Infallible>(*inside + 1)
    };
    assert_eq!(runtime.block_on(bulkhead.execute(operation)), Ok(6));
    // The call of an operation that is `Send` is `Send`, even if the operation borrows.
    let text = String::from("borrowed");
    let call = send_value(bulkhead.execute(async { Ok::<_, Infallible>(text.len()) }));
    assert_eq!(runtime.block_on(call), Ok(8));
}

/// Fault API07.
#[test]
fn runtime_states_each_capability_by_itself() {
    use bulkman::runtime::{BoxFuture, RuntimeCapabilities, Sleep};

    /// Has threads for blocking work, and nothing else.
    #[derive(Debug)]
    struct Threads;

    impl Threads {
        const CAPABILITIES: RuntimeCapabilities = RuntimeCapabilities::CLOCK.with_blocking(true);
    }

    impl Runtime for Threads {
        fn now(&self) -> std::time::Instant {
            bulkman::runtime::ClockOnly.now()
        }
        fn sleep_until(&self, _: std::time::Instant) -> Sleep {
            Box::pin(pending())
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
            Err(task)
        }
        fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
            std::thread::spawn(job);
        }
        fn capabilities(&self) -> RuntimeCapabilities {
            Self::CAPABILITIES
        }
    }

    let bulkhead = Bulkhead::new(BulkheadConfig::new("types"), Threads).unwrap();
    let sum = bulkhead.execute_blocking(|| Ok::<_, ()>(2));
    assert_eq!(futures_lite::future::block_on(sum), Ok(2));
    let checked = bulkhead.health_check(Duration::from_secs(1), || async { Ok::<_, ()>(()) });
    assert!(checked.is_err(), "it needs tasks and timers");
    let timed = BulkheadConfig::new("types").timeout(Duration::from_secs(1));
    assert!(Bulkhead::new(timed, Threads).is_err());
}

/// The maximum number of bytes that a call adds to its operation.
const OVERHEAD: usize = 256;

#[test]
fn future_of_a_call_is_little_larger_than_its_operation() {
    let bulkhead = Bulkhead::new(BulkheadConfig::new("types"), ManualRuntime::new()).unwrap();
    let manager = BulkheadManager::new(ManualRuntime::new());
    manager
        .create_bulkhead(BulkheadConfig::new("types"))
        .unwrap();
    let mut figures = Vec::new();
    let mut check = |what: &str, size: usize, own: usize| {
        figures.push(format!("{what}: {own} -> {size} bytes"));
        assert!(
            size <= own + OVERHEAD,
            "{what} is {size} bytes, its operation {own}"
        );
    };
    macro_rules! sizes {
        ($name:literal, $operation:expr) => {
            let own = size_of_val(&$operation);
            check(
                concat!("execute, ", $name),
                size_of_val(&bulkhead.execute($operation)),
                own,
            );
            let timed = bulkhead.call().timeout(Duration::from_secs(1));
            check(
                concat!("report, ", $name),
                size_of_val(&timed.execute_with_report($operation)),
                own,
            );
            let named = manager.execute_in_bulkhead("types", $operation);
            check(
                concat!("execute_in_bulkhead, ", $name),
                size_of_val(&named),
                own,
            );
        };
    }
    sizes!("empty", async { Ok::<(), ()>(()) });
    sizes!("pending", pending::<Result<(), ()>>());
    sizes!("with a kilobyte", async {
        let kilobyte = [1_u8; 1024];
        std::future::ready(()).await;
        Ok::<_, ()>(kilobyte.len())
    });
    check("acquire", size_of::<Acquire>(), 0);
    check("permit", size_of::<Permit>(), 0);
    let closure = || Ok::<(), ()>(());
    check(
        "execute_blocking, empty",
        size_of_val(&bulkhead.execute_blocking(closure)),
        0,
    );
    assert!(
        size_of::<BulkheadError<()>>() <= 64,
        "{}",
        size_of::<BulkheadError<()>>()
    );
    assert_eq!(size_of::<Bulkhead>(), size_of::<usize>());
    figures.push(format!(
        "error without operation error: {} bytes",
        size_of::<BulkheadError<()>>()
    ));
    // Written directly, because the test harness captures the output of `eprintln!`.
    writeln!(std::io::stderr(), "{}", figures.join("\n")).unwrap();
}

/// Fault API01.
#[test]
fn wrapped_function_can_be_stored_returned_and_spawned() {
    type Lookup = Box<dyn Fn(String) -> Boxed + Send + Sync>;

    fn guarded(runtime: &ManualRuntime) -> Lookup {
        let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone()).unwrap();
        let lookup = bulkhead.wrap(|word: String| async move { Ok::<_, u32>(word.len() as u32) });
        // The bulkhead's handle is dropped here; the function owns another one.
        Box::new(move |word| {
            let call = lookup(word);
            Box::pin(async move { call.await.map_err(|_| 0) })
        })
    }

    struct Client {
        lookup: Lookup,
    }

    let runtime = ManualRuntime::new();
    let client = Client {
        lookup: guarded(&runtime),
    };
    let thread = std::thread::spawn(move || runtime.block_on((client.lookup)("bulkhead".into())));
    assert_eq!(thread.join().unwrap(), Ok(8));
}

/// Fault API09.
#[test]
fn owned_call_outlives_the_handle_that_created_it() {
    let runtime = ManualRuntime::new();
    let call = {
        let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone()).unwrap();
        bulkhead.execute_owned(async { Ok::<_, u32>(7) })
    };
    let call: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(call);
    assert_eq!(runtime.block_on(call), Ok(7));
}

/// Fault API04.
#[test]
fn boxed_error_converts_to_application_errors_whatever_the_operation_returns() {
    type AnyResult = Result<u32, Box<dyn std::error::Error + Send + Sync>>;

    fn text(bulkhead: &Bulkhead) -> AnyResult {
        Ok(bulkhead
            .execute_sync(|| Err::<u32, _>(String::from("declined")))
            .map_err(BulkheadError::boxed)?)
    }
    fn any(bulkhead: &Bulkhead) -> AnyResult {
        let operation = || Err::<u32, Box<dyn std::error::Error + Send + Sync>>("declined".into());
        Ok(bulkhead
            .execute_sync(operation)
            .map_err(BulkheadError::boxed)?)
    }
    fn io(bulkhead: &Bulkhead) -> Result<u32, std::io::Error> {
        let operation = || Err::<u32, _>(std::io::Error::other("declined"));
        bulkhead
            .execute_sync(operation)
            .map_err(|error| std::io::Error::other(error.boxed()))
    }

    let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ManualRuntime::new()).unwrap();
    for error in [
        text(&bulkhead).unwrap_err(),
        any(&bulkhead).unwrap_err(),
        io(&bulkhead).unwrap_err().into(),
    ] {
        let mut last: &dyn std::error::Error = &*error;
        while let Some(source) = last.source() {
            last = source;
        }
        assert_eq!(last.to_string(), "declined");
    }
}

/// Fault API02, API10.
#[test]
fn classifier_type_serves_results_of_several_types() {
    #[derive(Clone, Copy)]
    struct ByCode;

    impl<T> Classifier<T, u32> for ByCode {
        fn classify(&self, result: &Result<T, u32>) -> Outcome {
            match result {
                Ok(_) | Err(404) => Outcome::Success,
                Err(_) => Outcome::Failure,
            }
        }
    }

    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), runtime.clone()).unwrap();
    let users = bulkhead.classified_by(ByCode);
    let name = runtime.block_on(users.execute(async { Err::<String, _>(404) }));
    assert_eq!(name.unwrap_err().into_operation(), Some(404));
    let age = runtime.block_on(users.execute_blocking(|| Err::<u8, _>(404)));
    assert_eq!(age.unwrap_err().into_operation(), Some(404));
    let call = bulkhead.call().classify_by(ByCode);
    assert!(call.execute_sync(|| Err::<(), _>(500)).is_err());
    let stats = bulkhead.stats();
    assert_eq!((stats.successful, stats.failed), (2, 1));

    // Nested bulkheads: the inner rejection is ignored, and merged into one error.
    let inner = Bulkhead::new(BulkheadConfig::new("inner"), runtime.clone()).unwrap();
    inner.shutdown();
    let nested = runtime.block_on(bulkhead.execute(inner.execute(async { Ok::<_, u32>(1) })));
    assert!(nested.unwrap_err().flatten().is_rejection());
    assert_eq!(bulkhead.stats().ignored, 1);
}
