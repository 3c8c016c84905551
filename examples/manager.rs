//! The manager: one bulkhead per dependency, found by name. Only the failing one is isolated.

use std::error::Error;
use std::time::Duration;

use bulkman::bulkhead::{BulkheadState, BulkheadStats};
use bulkman::manager::ManagerError;
use bulkman::{BulkheadConfig, BulkheadError, BulkheadManager, TokioRuntime};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let manager = BulkheadManager::new(TokioRuntime::new());
    let database = BulkheadConfig::new("database").max_concurrent_calls(20);
    let mail = BulkheadConfig::new("mail")
        .max_concurrent_calls(2)
        .failure_threshold(3);
    let search = BulkheadConfig::new("search")
        .max_concurrent_calls(5)
        .timeout(Duration::from_secs(2));
    manager.create_bulkhead(database.clone())?;
    manager.create_bulkhead(mail)?;
    manager.create_bulkhead(search)?;

    println!("orders arrive while the mail server is down:");
    for order in 1..=5 {
        let stored = manager.execute_in_bulkhead("database", store(order)).await;
        let sent = manager.execute_in_bulkhead("mail", send(order)).await;
        println!(
            "  order {order}: {}, {}",
            describe(&stored),
            describe(&sent)
        );
        assert_eq!(stored, Ok(()));
        let expected_rejection = order > 3;
        assert_eq!(
            sent.is_err_and(|error| error.is_rejection()),
            expected_rejection
        );
    }

    println!("\nhealth:");
    let health = manager.health_status();
    for (name, state) in &health {
        println!("  {name:<10}{state:?}");
    }
    let states: Vec<_> = health
        .iter()
        .map(|(name, state)| (name.as_str(), *state))
        .collect();
    assert_eq!(
        states,
        [
            ("database", BulkheadState::Healthy),
            ("mail", BulkheadState::Isolated),
            ("search", BulkheadState::Healthy),
        ]
    );

    println!("\nstatistics:");
    println!(
        "  {:<10}{:>8}{:>8}{:>8}{:>10}",
        "name", "started", "ok", "failed", "rejected"
    );
    let stats = manager.all_stats();
    for BulkheadStats {
        bulkhead,
        started,
        successful,
        failed,
        rejected,
        ..
    } in &stats
    {
        println!(
            "  {bulkhead:<10}{started:>8}{successful:>8}{failed:>8}{:>10}",
            rejected.total()
        );
    }
    let mail = &stats[1];
    assert_eq!(
        (mail.started, mail.failed, mail.rejected.circuit.open),
        (3, 3, 2)
    );

    println!("\none name, one bulkhead:");
    let same = manager.get_or_create_bulkhead(database.clone())?;
    println!(
        "  requested again with the same settings: {} calls so far",
        same.stats().started
    );
    assert_eq!(same.stats().started, 5);
    let conflict = manager.get_or_create_bulkhead(database.max_concurrent_calls(50));
    let conflict = conflict.expect_err("the settings differ");
    println!("  with different settings: {conflict}");
    assert!(matches!(
        conflict,
        ManagerError::Conflict {
            field: "max_concurrent_calls",
            ..
        }
    ));
    let missing = manager.execute_in_bulkhead("fax", send(6)).await;
    println!("  an unknown name: {}", describe(&missing));
    assert!(matches!(missing, Err(BulkheadError::NotFound { .. })));

    manager.remove_bulkhead("search").expect("it exists");
    manager.shutdown();
    manager.drained().await;
    let late = manager.execute_in_bulkhead("database", store(7)).await;
    println!("\nafter shutdown: {}", describe(&late));
    assert!(matches!(late, Err(BulkheadError::Shutdown { .. })));
    Ok(())
}

async fn store(_order: u32) -> Result<(), &'static str> {
    tokio::task::yield_now().await;
    Ok(())
}

async fn send(_order: u32) -> Result<(), &'static str> {
    Err("connection refused")
}

fn describe(result: &Result<(), BulkheadError<&'static str>>) -> String {
    match result {
        Ok(()) => String::from("done"),
        Err(BulkheadError::Operation(error)) => format!("failed ({error})"),
        Err(error) => error.to_string(),
    }
}
