//! The story on smol: `cargo run --example story_smol`.
//!
//! The steps are the same as on Tokio, in `story_steps/mod.rs`. Only the sockets and the argument
//! of [`Bulkhead::new`] differ.

mod story_steps;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bulkman::{Bulkhead, SmolRuntime};
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::FuturesIo;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Arc::new(SmolRuntime::new());
    let bulkhead = Bulkhead::new(story_steps::config(), runtime.clone())?;
    smol::block_on(story_steps::run::<SmolSockets>(&bulkhead, runtime))
}

struct SmolSockets;

impl story_steps::Sockets for SmolSockets {
    type Stream = FuturesIo<TcpStream>;
    type Listener = TcpListener;

    fn listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        TcpListener::try_from(listener)
    }

    async fn accept(listener: &TcpListener) -> io::Result<Self::Stream> {
        Ok(FuturesIo::new(listener.accept().await?.0))
    }

    async fn connect(address: SocketAddr) -> io::Result<Self::Stream> {
        Ok(FuturesIo::new(TcpStream::connect(address).await?))
    }
}
