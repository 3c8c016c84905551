//! A server is healthy, slow, failing and healthy again; its client calls it through a bulkhead.
//!
//! `cargo run --example quickstart`: no set-up, about two seconds. The story itself is in
//! `story/mod.rs`; this file puts it on Tokio, `quickstart_smol.rs` puts it on smol.

mod story;

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bulkman::{Bulkhead, TokioRuntime};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Arc::new(TokioRuntime::new());
    let bulkhead = Bulkhead::with_runtime(story::config(), runtime.clone())?;
    story::tell::<TokioSockets>(&bulkhead, runtime).await
}

struct TokioSockets;

impl story::Sockets for TokioSockets {
    type Stream = TokioIo<TcpStream>;
    type Listener = TcpListener;

    async fn listen() -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    async fn accept(listener: &TcpListener) -> io::Result<Self::Stream> {
        listener.accept().await.map(|(stream, _peer)| TokioIo::new(stream))
    }

    async fn connect(address: SocketAddr) -> io::Result<Self::Stream> {
        TcpStream::connect(address).await.map(TokioIo::new)
    }
}
