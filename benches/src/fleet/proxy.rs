//! A proxy that counts round trips to the server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A proxy of the server. It counts the responses that follow a request.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    counter: Arc<Counter>,
}

#[derive(Default)]
struct Counter {
    request_sent: AtomicBool,
    round_trips: AtomicU64,
}

impl Proxy {
    /// Starts a proxy that forwards one connection to `server`.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let counter = Arc::new(Counter::default());
        let counted = Arc::clone(&counter);
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let server = TcpStream::connect(server).expect("the server");
            for side in [&client, &server] {
                side.set_nodelay(true).expect("a TCP socket");
            }
            let (from_server, to_client) = (server.try_clone(), client.try_clone());
            let requests = Arc::clone(&counted);
            thread::spawn(move || {
                forward(client, server, || {
                    requests.request_sent.store(true, Ordering::SeqCst)
                });
            });
            forward(
                from_server.expect("a clone of the socket"),
                to_client.expect("a clone of the socket"),
                || {
                    if counted.request_sent.swap(false, Ordering::SeqCst) {
                        counted.round_trips.fetch_add(1, Ordering::SeqCst);
                    }
                },
            );
        });
        Self { port, counter }
    }

    pub(crate) fn round_trips(&self) -> u64 {
        self.counter.round_trips.load(Ordering::SeqCst)
    }
}

/// Copies data until one side closes its connection.
fn forward(mut from: TcpStream, mut to: TcpStream, mut on_data: impl FnMut()) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        on_data();
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
