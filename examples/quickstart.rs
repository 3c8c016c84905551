//! A server is healthy, slow, failing and healthy again; its client calls it through a bulkhead.
//!
//! `cargo run --example quickstart`: no set-up, about two seconds. The story itself is in
//! `story/mod.rs`; this file puts it on Tokio, `quickstart_smol.rs` puts it on smol.

mod story;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bulkman::{Bulkhead, TokioRuntime};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Arc::new(TokioRuntime::new());
    let bulkhead = Bulkhead::new(story::config(), runtime.clone())?;
    story::tell::<TokioSockets>(&bulkhead, runtime).await
}

struct TokioSockets;

impl story::Sockets for TokioSockets {
    type Stream = TokioIo<TcpStream>;
    type Listener = TcpListener;

    fn listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        TcpListener::from_std(listener)
    }

    async fn accept(listener: &TcpListener) -> io::Result<Self::Stream> {
        Ok(TokioIo::new(listener.accept().await?.0))
    }

    async fn connect(address: SocketAddr) -> io::Result<Self::Stream> {
        Ok(TokioIo::new(TcpStream::connect(address).await?))
    }
}
