//! A fleet of real processes around a PostgreSQL server of their own.
//!
//! This program starts itself again as the fleet's processes. They are told what to do, and say
//! what happened and when, by lines on pipes; the moments are readings of one clock.

pub(crate) mod clock;
pub(crate) mod crew;
pub(crate) mod proxy;
pub(crate) mod role;
pub(crate) mod server;
pub(crate) mod told;
pub(crate) mod worker;
