//! Prints comparisons of rules for adaptive concurrency limits.

use std::env;
use std::process::ExitCode;

use bulkman_limitsim::compare::{Contender, contenders, oracle};
use bulkman_limitsim::scenarios::{STEADY, all};
use bulkman_limitsim::{Bulkman, Observed, Simulation, scenarios, trace};

const USAGE: &str = "\
usage: limitsim COMMAND [SEEDS [RULE]]

  scenarios      responses in time relative to the oracle, one client, twelve scenarios
  clients N      N clients of one server, at 1.5 times its capacity
  details        latencies, overloads and limits of one client, for the first seed
  shift          service times that become four times longer for good, at twelve moments
  observe N      the estimate of observe mode, while a fixed limit of N is in force
  trace NAME     every closed window in the scenario NAME as CSV, for the first seed

SEEDS is a number or a range such as 1..10, both included; default 1..10.
RULE is a part of a rule's name; default all rules.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if run(&arguments).is_none() {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns `None` if the arguments are not valid.
fn run(arguments: &[String]) -> Option<()> {
    let (command, mut rest) = arguments.split_first()?;
    let mut number = None;
    if matches!(command.as_str(), "clients" | "observe") {
        let (first, others) = rest.split_first()?;
        number = Some(first.parse::<u32>().ok().filter(|number| *number > 0)?);
        rest = others;
    }
    let scenario = match rest.split_first().filter(|_| command == "trace") {
        Some((name, others)) => {
            rest = others;
            all().into_iter().find(|scenario| scenario.name() == name)
        }
        None => None,
    };
    let seeds = parse_seeds(rest.first().map_or("1..10", String::as_str))?;
    let rules = select(rest.get(1).map_or("", String::as_str));
    match (command.as_str(), number) {
        ("scenarios", _) => print_scenarios(&rules, &seeds),
        ("clients", Some(clients)) => print_clients(&rules, clients, &seeds),
        ("details", _) => print_details(&rules, seeds[0]),
        ("shift", _) => print_shift(seeds[0]),
        ("observe", Some(limit)) => print_observed(u64::from(limit), seeds[0]),
        ("trace", _) => print!("{}", trace::record(scenario?, seeds[0])),
        _ => return None,
    }
    Some(())
}

fn parse_seeds(text: &str) -> Option<Vec<u64>> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let seeds: Vec<u64> = (first.parse().ok()?..=last.parse().ok()?).collect();
    (!seeds.is_empty()).then_some(seeds)
}

fn select(part: &str) -> Vec<Contender> {
    contenders()
        .into_iter()
        .filter(|rule| rule.name.contains(part))
        .collect()
}

fn print_scenarios(rules: &[Contender], seeds: &[u64]) {
    let names: Vec<_> = all().iter().map(|scenario| scenario.name()).collect();
    println!("| rule | {} | worst |", names.join(" | "));
    println!("| --- |{}", " ---: |".repeat(names.len() + 1));
    for rule in rules {
        let scores: Vec<_> = all()
            .iter()
            .map(|scenario| rule.score(*scenario, 1, seeds))
            .collect();
        let cells: Vec<_> = scores
            .iter()
            .map(|score| format!("{:.2} ({:.2})", score.median, score.smallest))
            .collect();
        let worst = scores
            .iter()
            .map(|score| score.median)
            .fold(f64::INFINITY, f64::min);
        println!("| {} | {} | {worst:.2} |", rule.name, cells.join(" | "));
    }
    println!("\nMedian of {} seeds, and the smallest one.", seeds.len());
}

fn print_clients(rules: &[Contender], clients: u32, seeds: &[u64]) {
    println!(
        "| rule, {clients} clients | in time / oracle | smallest | largest | p50 ms | p99 ms | fairness |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for rule in rules {
        let score = rule.score(&STEADY, clients as usize, seeds);
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} |",
            rule.name,
            score.median,
            score.smallest,
            score.largest,
            score.run.percentile(0.5) * 1e3,
            score.run.percentile(0.99) * 1e3,
            score.fairness,
        );
    }
}

fn print_details(rules: &[Contender], seed: u64) {
    for scenario in all() {
        let oracle = oracle(scenario, seed);
        println!(
            "\n{}: oracle {:.3}",
            scenario.name(),
            oracle.in_time_per_second
        );
        println!(
            "| rule | in time | p50 ms | p99 ms | overloads | rejected | mean limit | largest |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        for rule in rules {
            let run = rule.run(scenario, 1, seed);
            println!(
                "| {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.4} | {:.3} | {} |",
                rule.name,
                run.in_time_per_second,
                run.percentile(0.5) * 1e3,
                run.percentile(0.99) * 1e3,
                run.overloads_per_second,
                run.rejected,
                run.mean_limit(0.0, scenario.length()),
                run.largest_limit(0.0, scenario.length()),
            );
        }
    }
}

fn print_shift(seed: u64) {
    println!("| 4 x slower from | mean limit from 15 s later | baseline at the end, ms |");
    println!("| ---: | ---: | ---: |");
    for moment in 0..12 {
        let scenario = scenarios::Shift {
            at: 20.0 + 0.7 * f64::from(moment),
            factor: 4.0,
        };
        let mut bulkman = Bulkman::default();
        let run = Simulation::new(&scenario, seed).run(vec![Box::new(&mut bulkman)]);
        let limit = run.mean_limit(scenario.at + 15.0, 45.0);
        let baseline = bulkman.rule().baseline().unwrap_or(f64::NAN) * 1e3;
        println!("| {:.1} s | {limit:.0} | {baseline:.0} |", scenario.at);
    }
}

fn print_observed(limit: u64, seed: u64) {
    println!("| scenario | rejected, or would be | rejected if enforced |\n| --- | ---: | ---: |");
    for scenario in all() {
        let mut observed = Observed::new(limit);
        let run = Simulation::new(scenario, seed).run(vec![Box::new(&mut observed)]);
        let share = run.rejected + (1.0 - run.rejected) * observed.would_reject();
        let enforced = Simulation::new(scenario, seed).run(vec![Box::new(Bulkman::default())]);
        println!(
            "| {} | {share:.3} | {:.3} |",
            scenario.name(),
            enforced.rejected
        );
    }
}
