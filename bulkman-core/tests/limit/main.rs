//! The adaptive limit of a bulkhead, on virtual time.

mod client;
mod faults;
mod interaction;
mod observe;
mod simulated;
