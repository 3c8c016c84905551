//! The targets of the adaptive limit, relative to an oracle in the same simulation.

use bulkman_limitsim::compare::{Contender, contenders, oracle};
use bulkman_limitsim::scenarios::{STEADY, all};

const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

fn bulkman() -> Contender {
    contenders()
        .into_iter()
        .find(|contender| contender.name == "bulkman")
        .unwrap()
}

/// Fault A15: calls of 10 ms and of 110 ms share one limit in the scenario `Mixed`.
#[test]
fn responses_in_time_are_near_those_of_the_oracle() {
    for scenario in all() {
        let score = bulkman().score(scenario, 1, &SEEDS);
        let target = match scenario.name() {
            "Bursty" | "Wobble" | "Trickle" | "Mixed" => 0.95,
            _ => 0.98,
        };
        assert!(
            score.median >= target,
            "{}: {}",
            scenario.name(),
            score.median
        );
        assert!(
            score.smallest >= 0.92,
            "{}: smallest {}",
            scenario.name(),
            score.smallest
        );
        let oracle = oracle(scenario, 1);
        let run = bulkman().run(scenario, 1, 1);
        for (share, factor) in [(0.5, 1.4), (0.99, 1.5)] {
            let (latency, target) = (run.percentile(share), factor * oracle.percentile(share));
            assert!(
                latency <= target,
                "{}: {latency} of {target}",
                scenario.name()
            );
        }
    }
}

/// Fault A23
#[test]
fn clients_of_one_server_share_it_without_a_queue() {
    let oracle = oracle(&STEADY, 1);
    for clients in [4, 12] {
        let score = bulkman().score(&STEADY, clients, &SEEDS);
        assert!(score.median >= 1.0, "{clients} clients: {}", score.median);
        let p99 = score.run.percentile(0.99);
        assert!(
            p99 <= 2.5 * oracle.percentile(0.99),
            "{clients} clients: {p99}"
        );
        assert!(
            score.fairness >= 0.3,
            "{clients} clients: {}",
            score.fairness
        );
    }
}

#[test]
fn no_other_rule_is_as_good_in_its_worst_scenario() {
    let worst = |contender: &Contender| {
        let single = all()
            .into_iter()
            .map(|scenario| contender.score(scenario, 1, &[11]).median);
        let several = [4, 12].map(|clients| contender.score(&STEADY, clients, &[11]).median);
        single.chain(several).fold(f64::INFINITY, f64::min)
    };
    let own = worst(&bulkman());
    for contender in contenders()
        .iter()
        .filter(|contender| contender.name != "bulkman")
    {
        let other = worst(contender);
        assert!(own >= 1.4 * other, "{}: {other}, and {own}", contender.name);
    }
}
