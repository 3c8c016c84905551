//! A web service that receives more requests than its backend can serve, and its clients.
//!
//! They use HTTP/1.1 over TCP on loopback, each on a separate thread.

pub(crate) mod clients;
pub(crate) mod service;
