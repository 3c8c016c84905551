//! Faults that need a privilege, a tool, or a process to kill: one a run, named by the argument.
//! `tests/faults.sh` makes what each of them needs.

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

mod given;
mod killed;
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
        ["killed-holder"] => on_both!(killed::a_killed_holders_slot_is_free_after_its_term),
        ["hold-a-lease", url, schema] => {
            on_tokio(killed::hold_a_lease(TokioRuntime::new(), url, schema))
        }
        ["partition"] => on_both!(partition::packets_that_are_dropped_hold_up_nobody),
        ["pooler"] => on_both!(pooler::a_transaction_pooler_is_polled_through),
        ["given-server", ref command @ ..] => return given::run(command),
        _ => {
            eprintln!("this is run by tests/faults.sh");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// A scenario on each runtime.
macro_rules! on_both {
    ($scenario:path) => {{
        on_tokio($scenario(TokioRuntime::new()));
        on_smol($scenario(SmolRuntime::new()));
    }};
}
use on_both;

/// How long something took, for whoever reads the output.
fn took(what: &str, runtime: &impl Runtime, since: std::time::Instant) -> std::time::Duration {
    let elapsed = runtime.now().saturating_duration_since(since);
    println!("    {what}: {elapsed:.1?}");
    elapsed
}
