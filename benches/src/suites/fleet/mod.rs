//! The cost and latency of sharing circuits through PostgreSQL.
//!
//! Twenty processes and a private server run on this machine.

pub(crate) mod agreement;
mod call;
mod idle;
mod leases;
mod opening;
mod outage;
mod spread;
mod transition;

use crate::fleet::server::Server;
use crate::harness::Findings;

/// The number of processes. Where one more decides, these adopt its decision.
const PROCESSES: usize = 20;
const CIRCUITS: usize = 200;

pub(crate) fn run() -> Findings {
    let server = Server::start_without_maintenance();
    let mut findings = Findings::default();
    spread::measure(&server, &mut findings);
    call::measure(&server, &mut findings);
    transition::measure(&server, &mut findings);
    idle::measure(&server, &mut findings);
    leases::measure(&server, &mut findings);
    opening::measure(&server, &mut findings);
    // Last, since these stop the server.
    outage::measure(&server, &mut findings);
    findings
}
