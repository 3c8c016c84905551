//! `MemoryStore` passes the conformance tests.

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::conformance::{Case, Harness};
use bulkman_core::store::{CircuitStore, MemoryStore};
use bulkman_core::testing::ManualRuntime;

struct InMemory {
    runtime: ManualRuntime,
    store: MemoryStore,
}

impl Harness for InMemory {
    fn store(&self, namespace: &str) -> Arc<dyn CircuitStore> {
        Arc::new(self.store.in_namespace(namespace).expect("a valid name"))
    }

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        self.runtime.advance(by);
        Box::pin(std::future::ready(()))
    }
}

fn run(case: Case) {
    let runtime = ManualRuntime::new();
    let store = MemoryStore::new(runtime.clone());
    futures_lite::future::block_on(case(&InMemory { runtime, store }));
}

bulkman_core::store_conformance!(run);
