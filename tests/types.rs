//! What the public types promise without being called: Send, Sync, Unpin, sizes.

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
    Acquire, Drained, Execute, ExecuteBlocking, ExecuteInBulkhead, ExecuteWithReport,
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
fn what_is_shared_is_send_and_sync() {
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
fn what_a_task_holds_is_send() {
    send::<Permit>();
    send::<Acquire>();
    send::<Drained<'_>>();
    send::<Execute<&Bulkhead, Boxed, DefaultClassifier>>();
    send::<Execute<Bulkhead, Boxed, DefaultClassifier>>();
    send::<ExecuteInBulkhead<Boxed>>();
    send::<ExecuteWithReport<&Bulkhead, Boxed, DefaultClassifier>>();
    send::<ExecuteBlocking<fn() -> Result<u32, u32>, u32, u32, DefaultClassifier>>();
}

#[test]
fn futures_that_hold_nothing_pinned_are_unpin() {
    unpin::<Permit>();
    unpin::<Acquire>();
    unpin::<Drained<'_>>();
    unpin::<CircuitEvents>();
    unpin::<Execute<&Bulkhead, Boxed, DefaultClassifier>>();
    unpin::<ExecuteInBulkhead<Boxed>>();
    // A closure is moved, never pinned.
    unpin::<ExecuteBlocking<fn() -> Result<u32, u32>, u32, u32, DefaultClassifier>>();
}

#[test]
fn a_bulkhead_may_cross_a_panic() {
    fn survives<T: UnwindSafe + RefUnwindSafe>() {}
    survives::<CircuitBreaker>();
    survives::<BulkheadConfig>();
    survives::<BulkheadError<u32>>();
    // It is meant for `catch_unwind` without ceremony.
    survives::<Bulkhead>();
}

#[test]
fn an_operation_need_not_be_send_and_its_call_is_then_not_either() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(BulkheadConfig::new("types"), runtime.clone()).unwrap();
    let local = Rc::new(5);
    let inside = Rc::clone(&local);
    let operation = async move {
        std::future::ready(()).await;
        Ok::<_, Infallible>(*inside + 1)
    };
    assert_eq!(runtime.block_on(bulkhead.execute(operation)), Ok(6));
    // One that is `Send` stays so, also while it borrows.
    let text = String::from("borrowed");
    let call = send_value(bulkhead.execute(async { Ok::<_, Infallible>(text.len()) }));
    assert_eq!(runtime.block_on(call), Ok(8));
}

/// The most that a call may be larger than its operation.
const OVERHEAD: usize = 256;

#[test]
fn a_call_is_little_larger_than_its_operation() {
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
    sizes!("of nothing", async { Ok::<(), ()>(()) });
    sizes!("never", pending::<Result<(), ()>>());
    sizes!("with a kilobyte", async {
        let kilobyte = [1_u8; 1024];
        std::future::ready(()).await;
        Ok::<_, ()>(kilobyte.len())
    });
    check("acquire", size_of::<Acquire>(), 0);
    check("permit", size_of::<Permit>(), 0);
    let closure = || Ok::<(), ()>(());
    check(
        "execute_blocking, of nothing",
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
        "error of nothing: {} bytes",
        size_of::<BulkheadError<()>>()
    ));
    // Past the test harness, which would keep it to itself.
    writeln!(std::io::stderr(), "{}", figures.join("\n")).unwrap();
}
