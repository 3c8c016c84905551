//! The adaptive limit beside the rules of other systems and an oracle.
//!
//! The server is simulated, once in virtual time and once in real time. The rules of other systems
//! are implementations of their descriptions in virtual time, and the crates themselves in real
//! time.

mod cost;
mod pictures;
mod real_time;
mod targets;
mod virtual_time;

use crate::harness::Findings;

pub(crate) fn run() -> Findings {
    let rules = virtual_time::compare();
    let mut tables = virtual_time::tables(&rules);
    let mut targets = targets::virtual_time(&rules, virtual_time::observe());
    targets.push(targets::closing(cost::closing()));
    let scenarios = real_time::run();
    tables.push(real_time::table(&scenarios));
    targets.extend(targets::real_time(&scenarios));
    Findings {
        tables,
        targets,
        charts: vec![pictures::lost(&rules)],
        timelines: vec![pictures::over_time()],
    }
}
