//! A web service with more requests than its backend can serve, and the clients that send them.
//!
//! Both are real: HTTP/1.1 over TCP on loopback, each side on a separate thread.

pub(crate) mod clients;
pub(crate) mod service;
