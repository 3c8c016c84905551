//! The bulkhead beside the rule for one thread, on the simulated server.

use bulkman_core::adaptive::AdaptiveLimit;
use bulkman_limitsim::scenarios::{Drop, FastErrors, Grow, Hang, Shift, Steady};
use bulkman_limitsim::{Bulkman, Scenario, Simulation};

use crate::client::{Client, config};

/// The bulkhead rounds latencies to a thousandth, so runs differ after a while, but not by much.
#[test]
fn bulkhead_serves_as_much_as_the_rule_for_one_thread() {
    let scenarios: [&dyn Scenario; 6] = [
        &Steady {
            load: 1.5,
            length: 60.0,
        },
        &Drop,
        &Hang,
        &Grow,
        &FastErrors,
        &Shift {
            at: 20.0,
            factor: 4.0,
        },
    ];
    for scenario in scenarios {
        let mut client = Client::new(config(AdaptiveLimit::new()));
        let actual = Simulation::new(scenario, 1).run(vec![Box::new(&mut client)]);
        let mut rule = Bulkman::default();
        let expected = Simulation::new(scenario, 1).run(vec![Box::new(&mut rule)]);
        let ratio = actual.in_time_per_second / expected.in_time_per_second;
        let name = scenario.name();
        println!(
            "{name}: {ratio:.3} in time, p99 {:.3} of {:.3}, {} windows",
            actual.percentile(0.99),
            expected.percentile(0.99),
            client.windows.len(),
        );
        assert!((0.94..1.1).contains(&ratio), "{name}: {ratio}");
        assert!(client.windows.len() > 20, "{name}");
    }
}

/// Every call is a sample here, and latencies are rounded to a thousandth.
#[test]
fn first_decisions_are_those_of_the_rule_for_one_thread() {
    let adaptive = AdaptiveLimit::new().samples(10_000);
    let mut client = Client::new(config(adaptive.clone()));
    let _ = Simulation::new(&Drop, 1).run(vec![Box::new(&mut client)]);
    let mut rule = Bulkman::new(&adaptive).recording();
    let _ = Simulation::new(&Drop, 1).run(vec![Box::new(&mut rule)]);
    let actual = client.windows.iter().take(30);
    let expected = rule.decisions().iter().take(30);
    let mut changes = 0;
    for ((at, status), (now, decision, rule)) in actual.zip(expected) {
        assert!((at - now).abs() < 1e-6, "{at} {now}");
        let (estimate, limit) = (status.estimate, rule.limit());
        let difference = (estimate / limit - 1.0).abs();
        assert!(difference < 0.002, "{estimate} {limit} at {now}");
        assert_eq!(status.reached, decision.window.reached, "at {now}");
        changes += u32::from(decision.adjustment.is_some());
    }
    assert!(changes > 5, "{changes}");
}
