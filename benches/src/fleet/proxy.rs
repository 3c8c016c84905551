//! Counts round trips on the way to the server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A way to the server that counts how often the server answered after something was asked.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    asked: AtomicBool,
    round_trips: AtomicU64,
}

impl Proxy {
    /// Passes on the first connection that comes in.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let line = Arc::new(Line::default());
        let counted = Arc::clone(&line);
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let server = TcpStream::connect(server).expect("the server");
            for side in [&client, &server] {
                side.set_nodelay(true).expect("an option of TCP");
            }
            let (from_server, to_client) = (server.try_clone(), client.try_clone());
            let asking = Arc::clone(&counted);
            thread::spawn(move || {
                pass_on(client, server, || {
                    asking.asked.store(true, Ordering::SeqCst)
                });
            });
            pass_on(
                from_server.expect("a handle"),
                to_client.expect("a handle"),
                || {
                    if counted.asked.swap(false, Ordering::SeqCst) {
                        counted.round_trips.fetch_add(1, Ordering::SeqCst);
                    }
                },
            );
        });
        Self { port, line }
    }

    pub(crate) fn round_trips(&self) -> u64 {
        self.line.round_trips.load(Ordering::SeqCst)
    }
}

/// Until one side ends.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut()) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        seen();
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
