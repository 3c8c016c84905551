//! One bulkhead for all threads of a thread-per-core server.
//!
//! Each thread has its own executor. Its tasks never leave it and need not be `Send`. The limit,
//! the queue and the circuit are those of the process.

use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, SmolRuntime};
use smol::LocalExecutor;
use smol::future::block_on;

const CORES: usize = 4;
const CALLS_PER_CORE: usize = 50;
const LIMIT: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let config = BulkheadConfig::new("disk")
        .max_concurrent_calls(LIMIT)
        .max_queue_size(CORES * CALLS_PER_CORE);
    // Its timers work on any thread, and need no reactor of the executor.
    let bulkhead = Bulkhead::new(config, SmolRuntime::new())?;
    let load = Arc::new(Load::default());

    let cores: Vec<_> = (0..CORES)
        .map(|core| {
            let (bulkhead, load) = (bulkhead.clone(), Arc::clone(&load));
            thread::Builder::new()
                .name(format!("core-{core}"))
                .spawn(move || serve(&bulkhead, &load))
        })
        .collect::<Result<_, _>>()?;
    let mut served = 0;
    for core in cores {
        served += core.join().expect("no thread panics");
    }

    let most = load.most.load(Ordering::SeqCst);
    println!("{served} calls of {CORES} threads, at most {most} at once");
    assert_eq!(served, CORES * CALLS_PER_CORE);
    assert!(most <= LIMIT, "{most} calls ran at once");
    let stats = bulkhead.stats();
    assert_eq!((stats.successful, stats.active), (served as u64, 0));
    Ok(())
}

/// Serves the calls of one core. Returns how many it has served.
fn serve(bulkhead: &Bulkhead, load: &Load) -> usize {
    let executor = LocalExecutor::new();
    // Shared by the tasks of this thread, without a lock.
    let served = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..CALLS_PER_CORE)
        .map(|call| {
            let served = Rc::clone(&served);
            executor.spawn(async move {
                let read = bulkhead.execute(async {
                    let _running = load.enter();
                    smol::future::yield_now().await;
                    served.borrow_mut().push(call);
                    Ok::<_, Infallible>(())
                });
                read.await.expect("the queue has room for all calls");
            })
        })
        .collect();
    block_on(executor.run(async {
        for task in tasks {
            task.await;
        }
        // A limit of time works as on any executor.
        let slow = bulkhead.call().timeout(Duration::from_millis(5));
        let hangs = std::future::pending::<Result<(), Infallible>>();
        let late = slow.execute(hangs).await;
        assert!(matches!(late, Err(BulkheadError::Timeout { .. })));
    }));
    served.borrow().len()
}

/// How many calls run at once, and how many ever have.
#[derive(Default)]
struct Load {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Running<'a>(&'a Load);

impl Load {
    fn enter(&self) -> Running<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Running(self)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}
