//! Measures the cost of a call through bulkman, beside its peers.
//!
//! `cargo run --release -p bulkman-bench -- <suite> [--json FILE] [--plot DIR]` runs a suite.
//! Without arguments, it lists the suites. The README of this package describes them.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the real clock"
)]

mod contenders;
mod fleet;
mod harness;
mod instructions;
mod limits;
mod machine;
mod options;
mod overload;
mod suites;
mod waiting_calls;
mod workers;

use std::error::Error;
use std::process::ExitCode;

use harness::json;
use options::Options;

/// Returns `true` if the build is incremental, so that a call takes a sixth more instructions.
fn built_incrementally() -> bool {
    matches!(option_env!("CARGO_INCREMENTAL"), Some("1" | "true"))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if built_incrementally() {
        return Err(
            "built incrementally, which keeps small functions from being inlined across \
                    crates: build with CARGO_INCREMENTAL=0"
                .into(),
        );
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["instructions"] => return instructions::run(false),
        ["instructions", "--record"] => return instructions::run(true),
        [instructions::WORKLOAD, path, calls] => {
            return instructions::workload(path, calls.parse()?);
        }
        [fleet::worker::ARGUMENT, ref role @ ..] => return fleet::worker::run(role),
        _ => {}
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{}", options::USAGE);
            return Ok(ExitCode::from(2));
        }
    };
    let machine = machine::description();
    println!("{machine}\n");
    let mut all_met = true;
    let mut report = vec![("machine", machine.as_str().into())];
    for suite in &options.suites {
        let findings = (suite.run)(&options);
        findings.print();
        all_met &= findings.all_met();
        report.push((suite.name, findings.to_json()));
        if let Some(folder) = &options.plots {
            std::fs::create_dir_all(folder)?;
            for chart in &findings.charts {
                chart.draw(folder, &machine)?;
            }
            for timeline in &findings.timelines {
                timeline.draw(folder)?;
            }
        }
    }
    if let Some(file) = &options.json {
        json::write(file, &json::object(report))?;
    }
    Ok(if all_met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
