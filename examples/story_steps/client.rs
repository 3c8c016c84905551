//! The client: one GET request over one connection.

use std::net::SocketAddr;
use std::{fmt, io};

use futures_lite::future;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};

use super::sockets::Sockets;

/// Fetches a page. Dropping the future closes the connection.
pub(crate) async fn get<S: Sockets>(address: SocketAddr, path: &str) -> Result<String, FetchError> {
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("the parts are valid");
    let (mut sender, connection) = http1::handshake(S::connect(address).await?).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status.is_success() {
            Ok(String::from_utf8_lossy(&body).into_owned())
        } else {
            Err(FetchError::Status(status))
        }
    };
    let drive = async {
        // If the connection breaks, the exchange returns the error.
        let _ = connection.await;
        future::pending().await
    };
    future::or(exchange, drive).await
}

/// The error of a request.
#[derive(Debug)]
pub(crate) enum FetchError {
    Io(io::Error),
    Http(hyper::Error),
    Status(StatusCode),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Status(status) => status.fmt(f),
        }
    }
}

impl std::error::Error for FetchError {}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<hyper::Error> for FetchError {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}
