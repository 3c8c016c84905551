//! What the story needs of a runtime beyond bulkman's own [`Runtime`](bulkman::Runtime).

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// TCP, in the form that hyper takes.
pub(crate) trait Sockets: 'static {
    type Stream: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static;
    type Listener: Send + Sync + 'static;

    /// Takes over a listener that does not block.
    fn listener(listener: TcpListener) -> io::Result<Self::Listener>;
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}
