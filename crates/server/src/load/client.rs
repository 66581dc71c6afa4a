//! One connection to a server, and one exchange on it.

use std::time::Duration;

use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle};

use super::{
    request::{Sent, path},
    stream::{StreamReader, read_refusal},
};
use crate::Error;

/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 1 << 20;

/// A server to be measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it was given.
    pub url: String,
    /// Host and port.
    authority: String,
    address: String,
    prefix: String,
    api_key: Option<HeaderValue>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A whole answer.
    Answered(StreamReader),
    /// A refusal in the protocol's form: its status and type, and when to try again.
    Refused {
        kind: String,
        status: u16,
        retry_after: Option<Duration>,
    },
    /// The client left, as it was meant to.
    Left,
    /// Neither an answer nor a refusal: a kind and the details.
    Failed(&'static str, String),
}

impl Target {
    /// # Errors
    /// [`Error::Url`] for what is no `http://` address.
    pub fn new(url: &str, api_key: Option<&str>) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Url {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| wrong("it cannot be read"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("it does not begin with http://"));
        }
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        let key = match api_key {
            None => None,
            Some(key) => Some(HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| Error::Key)?),
        };
        Ok(Target {
            url: url.trim_end_matches('/').to_owned(),
            authority: uri.authority().map_or(String::new(), ToString::to_string),
            address: format!("{host}:{port}"),
            // Paths begin with /v1 already.
            prefix: uri.path().trim_end_matches('/').trim_end_matches("/v1").to_owned(),
            api_key: key,
        })
    }

    /// The body of `GET path`, or of `POST path` where there is something to post.
    ///
    /// # Errors
    /// What happened, for people.
    pub async fn fetch(&self, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, String> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let request = self.request(method, path, "application/json", body.unwrap_or_default());
        let mut connection = Connection::open(self).await?;
        let response = connection.sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(text)?.to_bytes();
        match status {
            StatusCode::OK => Ok(bytes),
            status => Err(format!("{path} was answered with {status}")),
        }
    }

    fn request(&self, method: &str, path: &str, kind: &'static str, body: Vec<u8>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method.parse().unwrap_or_default();
        *request.uri_mut() = format!("{}{path}", self.prefix).parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(&self.authority) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(key) = &self.api_key {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        request
    }

    /// Sends the beginning of a request and leaves.
    pub async fn send_half(&self, sent: &Sent) {
        let head = format!(
            "POST {}{} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.prefix,
            path(sent.protocol),
            self.authority,
            sent.body.len() + 1,
        );
        if let Ok(mut stream) = TcpStream::connect(&self.address).await {
            let half = &sent.body[..sent.body.len() / 2];
            // A client that leaves does not care what became of its bytes.
            let _ = stream.write_all(&[head.as_bytes(), half].concat()).await;
        }
    }
}

/// An open connection; closed when dropped.
#[derive(Debug)]
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    async fn open(target: &Target) -> Result<Self, String> {
        let stream = TcpStream::connect(&target.address).await.map_err(text)?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let driver = tokio::spawn(async move {
            // Its error shows in the exchange.
            let _ = connection.await;
        });
        Ok(Connection { sender, driver })
    }

    /// Whether another request can be sent.
    async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

/// Sends a request on `connection`, which is opened if there is none, and reads what comes back. The connection is left
/// open where the server leaves it open.
pub async fn exchange(connection: &mut Option<Connection>, target: &Target, sent: &Sent) -> Outcome {
    let mut kept = connection.take();
    let is_ready = match &mut kept {
        Some(kept) => kept.is_ready().await,
        None => false,
    };
    let mut open = match kept.filter(|_| is_ready) {
        Some(kept) => kept,
        None => match Connection::open(target).await {
            Ok(open) => open,
            Err(reason) => return Outcome::Failed("not connected", reason),
        },
    };
    let request = target.request("POST", path(sent.protocol), sent.content_type, sent.body.clone());
    let response = match open.sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return Outcome::Failed("closed before an answer", text(error)),
    };
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    let outcome = match head.status {
        StatusCode::OK => read_answer(body, sent).await,
        _ => {
            let retry_after = head.headers.get(header::RETRY_AFTER);
            let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            read_refused(body, sent, status, seconds.map(Duration::from_secs)).await
        }
    };
    if !matches!(outcome, Outcome::Failed(..)) && open.is_ready().await {
        *connection = Some(open);
    }
    outcome
}

async fn read_answer(mut body: Incoming, sent: &Sent) -> Outcome {
    let mut reader = StreamReader::new(sent.protocol);
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => return Outcome::Failed("closed within an answer", text(error)),
        };
        if let Err(violation) = reader.feed(&data) {
            return Outcome::Failed("against the protocol", violation);
        }
    }
    match (reader.end(), &reader.error) {
        (Err(violation), _) => Outcome::Failed("against the protocol", violation),
        (Ok(()), Some(error)) => Outcome::Failed("error within an answer", error.clone()),
        (Ok(()), None) if sent.is_malformed => {
            let body = String::from_utf8_lossy(&sent.body).chars().take(200).collect();
            Outcome::Failed("malformed, but answered", body)
        }
        (Ok(()), None) => Outcome::Answered(reader),
    }
}

async fn read_refused(mut body: Incoming, sent: &Sent, status: u16, retry_after: Option<Duration>) -> Outcome {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Err(error) => return Outcome::Failed("closed within a refusal", text(error)),
        }
        if bytes.len() > REFUSAL_BYTES_MAX {
            return Outcome::Failed("against the protocol", "a refusal has no end".to_owned());
        }
    }
    match read_refusal(sent.protocol, status, &bytes) {
        Ok(kind) => Outcome::Refused {
            kind,
            status,
            retry_after,
        },
        Err(violation) => Outcome::Failed("against the protocol", violation),
    }
}

fn text(error: impl std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
