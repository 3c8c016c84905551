//! The quickstart on smol: `cargo run --example quickstart_smol`.
//!
//! The story is the same as on Tokio, in `story/mod.rs`; only the sockets and the argument of
//! [`Bulkhead::with_runtime`] differ.

mod story;

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bulkman::{Bulkhead, SmolRuntime};
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::FuturesIo;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Arc::new(SmolRuntime::new());
    let bulkhead = Bulkhead::with_runtime(story::config(), runtime.clone())?;
    smol::block_on(story::tell::<SmolSockets>(&bulkhead, runtime))
}

struct SmolSockets;

impl story::Sockets for SmolSockets {
    type Stream = FuturesIo<TcpStream>;
    type Listener = TcpListener;

    async fn listen() -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    async fn accept(listener: &TcpListener) -> io::Result<Self::Stream> {
        listener.accept().await.map(|(stream, _peer)| FuturesIo::new(stream))
    }

    async fn connect(address: SocketAddr) -> io::Result<Self::Stream> {
        TcpStream::connect(address).await.map(FuturesIo::new)
    }
}
