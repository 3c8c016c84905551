//! The sockets of a runtime, beyond [`Runtime`](bulkman::Runtime).

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// TCP sockets that hyper can use.
pub(crate) trait Sockets: 'static {
    type Stream: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static;
    type Listener: Send + Sync + 'static;

    /// Converts a nonblocking listener.
    fn listener(listener: TcpListener) -> io::Result<Self::Listener>;
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}
