//! The adaptive limit of a bulkhead, on virtual time.

mod client;
mod faults;
mod interaction;
mod model;
mod observe;
mod simulated;
