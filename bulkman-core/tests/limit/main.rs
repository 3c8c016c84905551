//! The adaptive limit of a bulkhead, on virtual time.

mod client;
mod faults;
#[path = "../support/faulty_clock.rs"]
mod faulty_clock;
mod interaction;
mod model;
mod observe;
mod simulated;
