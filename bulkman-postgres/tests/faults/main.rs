//! Faults that need a privilege, a tool, or a process to kill. The argument names the one to run.
//!
//! `tests/faults.sh` prepares the environment of each.

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

mod external_server;
mod fleet;
mod killed_holder;
mod partition;
mod pooler;

use std::process::ExitCode;

use bulkman_core::Runtime;
use bulkman_smol::SmolRuntime;
use bulkman_tokio::TokioRuntime;

use common::{on_smol, on_tokio};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["killed-holder"] => on_both!(killed_holder::lease_of_a_killed_holder_expires),
        ["hold-a-lease", url, schema] => on_tokio(killed_holder::hold_a_lease(
            TokioRuntime::new(),
            url,
            schema,
        )),
        ["fleet", size] => fleet::run(size.parse().expect("a number of processes"), ""),
        ["fleet", size, filter] => {
            fleet::run(size.parse().expect("a number of processes"), filter);
        }
        ["fleet-member", schema, isolation, resync_interval] => {
            let runtime = TokioRuntime::new();
            on_tokio(fleet::member(runtime, schema, isolation, resync_interval));
        }
        ["partition"] => on_both!(partition::dropped_packets_delay_no_call),
        ["pooler"] => {
            on_both!(pooler::transaction_pooler_falls_back_to_polling);
            on_both!(pooler::pooler_without_simple_protocol_is_reported);
            on_both!(pooler::push_resumes_without_the_pooler);
        }
        ["external-server", ref command @ ..] => return external_server::run(command),
        _ => {
            eprintln!("this is run by tests/faults.sh");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Runs a scenario on each runtime.
macro_rules! on_both {
    ($scenario:path) => {{
        on_tokio($scenario(TokioRuntime::new()));
        on_smol($scenario(SmolRuntime::new()));
    }};
}
use on_both;

/// Prints and returns the time since `since`.
fn print_elapsed(
    what: &str,
    runtime: &impl Runtime,
    since: std::time::Instant,
) -> std::time::Duration {
    let elapsed = runtime.now().saturating_duration_since(since);
    println!("    {what}: {elapsed:.1?}");
    elapsed
}
