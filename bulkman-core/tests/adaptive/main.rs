//! The adaptive limit: recorded traces, invariants, and known faults of other limiters.

mod faults_in_simulation;
mod faults_of_rule;
mod golden;
mod invariants;
mod saturated;
mod simulated;
mod targets;
mod trace;
