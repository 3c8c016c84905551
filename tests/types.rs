//! Properties of the public types: `Send`, `Sync`, `Unpin`, unwind safety, sizes.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io::Write as _;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bulkman::bulkhead::{BulkheadName, BulkheadStats, HealthCheck};
use bulkman::call::{Call, DefaultClassifier, ExecutionReport};
use bulkman::circuit_breaker::{CircuitEvents, CircuitSnapshot, Transition};
use bulkman::future::{
    Acquire, Drained, Execute, ExecuteBlocking, ExecuteInBulkhead, ExecuteOwned, ExecuteWithReport,
};
use bulkman::manager::ManagerError;
use bulkman::testing::ManualRuntime;
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadError, BulkheadManager, CircuitBreaker, CircuitBreakerConfig,
    ConfigError, Permit, Runtime, SmolRuntime, TokioRuntime,
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
