//! Compares rules by their responses in time, relative to the oracle.

use crate::bulkman::Bulkman;
use crate::fixed::Fixed;
use crate::limiter::Limiter;
use crate::oracle::Oracle;
use crate::peers;
use crate::random::Random;
use crate::run::Run;
use crate::scenario::Scenario;
use crate::simulation::Simulation;

/// A rule in a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// The name of the rule.
    pub name: &'static str,
    /// Creates a limiter for one client.
    pub create: fn(&mut Random) -> Box<dyn Limiter>,
}

/// Returns this project's rule, and then the rules of other systems and two fixed limits.
#[must_use]
pub fn contenders() -> Vec<Contender> {
    let contender = |name, create| Contender { name, create };
    vec![
        contender("bulkman", |_| Box::new(Bulkman::default())),
        contender("Netflix Gradient2", |_| {
            Box::new(peers::NetflixGradient2::default())
        }),
        contender("Envoy gradient", |_| Box::new(peers::Envoy::default())),
        contender("Vector ARC", |_| Box::new(peers::Vector::default())),
        contender("failsafe-go", |_| Box::new(peers::FailsafeGo::default())),
        contender("Sui Adaptive", |_| Box::new(peers::Sui::default())),
        contender("tower-resilience AIMD", |_| {
            Box::new(peers::TowerResilienceAimd::default())
        }),
        contender("tower-resilience Vegas", |_| {
            Box::new(peers::TowerResilienceVegas::default())
        }),
        contender(
            "Palantir dialogue",
            |_| Box::new(peers::Palantir::default()),
        ),
        contender("Netflix Vegas", |random| {
            Box::new(peers::NetflixVegas::new(random))
        }),
        contender("Netflix AIMD", |_| Box::new(peers::NetflixAimd::default())),
        contender("fixed 20", |_| Box::new(Fixed(20))),
        contender("fixed 100", |_| Box::new(Fixed(100))),
    ]
}

impl Contender {
    /// Simulates clients with this rule, which share the server of a scenario.
    #[must_use]
    pub fn run(&self, scenario: &dyn Scenario, clients: usize, seed: u64) -> Run {
        let mut random = Random::new(seed);
        let limiters = (0..clients).map(|_| (self.create)(&mut random)).collect();
        Simulation::new(scenario, seed).run(limiters)
    }

    /// Returns the results for each seed, relative to one oracle for all clients.
    ///
    /// # Panics
    ///
    /// If there is no seed.
    #[must_use]
    pub fn score(&self, scenario: &dyn Scenario, clients: usize, seeds: &[u64]) -> Score {
        let mut results: Vec<_> = seeds
            .iter()
            .map(|&seed| {
                let run = self.run(scenario, clients, seed);
                (
                    run.in_time_per_second / oracle(scenario, seed).in_time_per_second,
                    run,
                )
            })
            .collect();
        results.sort_by(|(first, _), (second, _)| first.total_cmp(second));
        let (smallest, largest) = (results[0].0, results[results.len() - 1].0);
        let mut fairness: Vec<_> = results.iter().map(|(_, run)| run.fairness()).collect();
        fairness.sort_by(f64::total_cmp);
        let (median, run) = results.swap_remove(results.len() / 2);
        Score {
            median,
            smallest,
            largest,
            fairness: fairness[fairness.len() / 2],
            run,
        }
    }
}

/// The results of a rule in one scenario, over several seeds.
#[derive(Clone, Debug)]
pub struct Score {
    /// The responses in time relative to the oracle, in the median seed.
    pub median: f64,
    /// The smallest of all seeds.
    pub smallest: f64,
    /// The largest of all seeds.
    pub largest: f64,
    /// The responses of the smallest client relative to the largest, median of the seeds.
    pub fairness: f64,
    /// The run of the median seed.
    pub run: Run,
}

/// Simulates the oracle as one client.
#[must_use]
pub fn oracle(scenario: &dyn Scenario, seed: u64) -> Run {
    Simulation::new(scenario, seed).run(vec![Box::new(Oracle(scenario))])
}
