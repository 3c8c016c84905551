//! A proxy that can swallow the answers of the server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A proxy in front of a server. Its threads end with the process.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    control: Arc<Control>,
}

#[derive(Default)]
struct Control {
    /// Answers are acknowledged and dropped.
    swallows: AtomicBool,
    /// The delay of each message, in milliseconds, in each direction.
    delay_ms: AtomicU64,
    open: AtomicUsize,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let control = Arc::new(Control::default());
        let shared = Arc::clone(&control);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, control) = (client.unwrap(), Arc::clone(&shared));
                thread::spawn(move || relay(client, server, &control));
            }
        });
        Self { port, control }
    }

    /// Returns `url` with this proxy's address.
    pub(crate) fn url(&self, url: &str, server_port: u16) -> String {
        url.replace(&format!(":{server_port}/"), &format!(":{}/", self.port))
    }

    pub(crate) fn swallow_answers(&self, swallow: bool) {
        self.control.swallows.store(swallow, Ordering::SeqCst);
    }

    pub(crate) fn delay(&self, one_way: Duration) {
        let milliseconds = u64::try_from(one_way.as_millis()).unwrap();
        self.control.delay_ms.store(milliseconds, Ordering::SeqCst);
    }

    /// Returns the number of connections that the client has not closed.
    pub(crate) fn open_connections(&self) -> usize {
        self.control.open.load(Ordering::SeqCst)
    }
}

fn relay(client: TcpStream, server: SocketAddr, control: &Arc<Control>) {
    control.open.fetch_add(1, Ordering::SeqCst);
    if let Ok(server) = TcpStream::connect(server) {
        let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let shared = Arc::clone(control);
        let answers = thread::spawn(move || copy(from, to, &shared, true));
        copy(client.try_clone().unwrap(), server, control, false);
        control.open.fetch_sub(1, Ordering::SeqCst);
        let _ = answers.join();
    } else {
        control.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Copies until one side closes, and then closes both.
fn copy(mut from: TcpStream, mut to: TcpStream, control: &Control, answers: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let delay = control.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            #[allow(clippy::disallowed_methods, reason = "the proxy delays in real time")]
            thread::sleep(Duration::from_millis(delay));
        }
        if answers && control.swallows.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
