//! Several processes share circuits, in virtual time: each has its own driver and circuit breaker,
//! on one store in memory.

mod background;
mod growth;
mod history;
mod lifecycle;
mod notifications;
mod operators;
mod outages;
mod probes;
mod read_only;
mod rejections;
mod reporting;
mod scale;
mod sharing;
mod world;
