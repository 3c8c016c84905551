//! Synchronous work on other threads: the cost of the round trip.

use bulkman_core::Bulkhead;
use bulkman_smol::SmolRuntime;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::bulkman::{config, on_tokio};
use super::group::BLOCKING;
use super::{PERMITS, ready, succeeds};
use crate::harness::measure::Case;

pub(crate) fn cases() -> Vec<Case> {
    let work = || ready(succeeds!());
    let handle = Handle::current();
    let mut cases = Vec::new();
    let (bulkhead, on) = (on_tokio(config()), handle.clone());
    cases.push(Case::new(BLOCKING, "bulkman on tokio", move || {
        on.block_on(bulkhead.execute_blocking(work)).is_ok()
    }));
    let on = handle.clone();
    cases.push(Case::new(
        BLOCKING,
        "tokio: spawn_blocking, unguarded",
        move || on.block_on(on.spawn_blocking(work)).is_ok(),
    ));
    let semaphore = Semaphore::new(PERMITS);
    cases.push(Case::new(
        BLOCKING,
        "tokio: Semaphore, spawn_blocking",
        move || {
            handle.block_on(async {
                let _permit = semaphore.acquire().await.expect("never closed");
                handle.spawn_blocking(work).await.is_ok()
            })
        },
    ));
    let bulkhead = Bulkhead::new(config(), SmolRuntime::new()).expect("a valid configuration");
    cases.push(Case::new(BLOCKING, "bulkman on smol", move || {
        smol::block_on(bulkhead.execute_blocking(work)).is_ok()
    }));
    cases.push(Case::new(BLOCKING, "smol: unblock, unguarded", move || {
        smol::block_on(smol::unblock(work)).is_ok()
    }));
    cases
}
