//! Adaptive limits before a simulated server, in virtual and in real time.

pub(crate) mod client;
pub(crate) mod crates;
pub(crate) mod load;
pub(crate) mod server;
