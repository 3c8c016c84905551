//! The adaptive limit: recorded traces, invariants, and known faults of other limiters.

mod golden;
mod invariants;
mod saturated;
mod simulated;
mod trace;
