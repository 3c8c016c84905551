//! A fleet of real processes around a private PostgreSQL server.
//!
//! This program starts itself again as the fleet's processes. They receive commands and send
//! reports as lines on pipes. All times are readings of one clock.

pub(crate) mod clock;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod report;
pub(crate) mod role;
pub(crate) mod server;
pub(crate) mod worker;
