//! A small HTTP/1.1 server on the loopback interface, for one test.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    headers: Vec<(String, String)>,
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What to announce instead of the true length.
    pub announced_length: Option<usize>,
    /// How much of the body to send; the rest never comes.
    pub sent_bytes_max: usize,
    pub end: End,
}

/// What happens after the last byte of a reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Close,
    /// Stay silent until the client goes away.
    Silence,
}

pub struct Server {
    port: u16,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

type Handler = dyn Fn(&Request, usize) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    body_bytes_sent: AtomicU64,
    active_count: AtomicU64,
    active_count_max: AtomicU64,
    is_closing: AtomicBool,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The start of `Range: bytes=<start>-`.
    pub fn range_start(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?;
        Some(range.parse().expect("a range starts with a number"))
    }

    fn read(stream: &TcpStream) -> io::Result<Option<Request>> {
        let mut lines = BufReader::new(stream.take(64 << 10)).lines();
        let Some(first) = lines.next().transpose()? else {
            return Ok(None);
        };
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap(), words.next().unwrap_or_default());
        let mut headers = Vec::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Some(Request {
            method,
            target,
            headers,
        }))
    }
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Reply {
            status,
            headers,
            body,
            announced_length: None,
            sent_bytes_max: usize::MAX,
            end: End::Close,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sends only the first bytes of the body, then closes.
    pub fn cut_after(mut self, byte_count: usize) -> Self {
        self.sent_bytes_max = byte_count;
        self
    }

    pub fn then(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    pub fn announcing(mut self, byte_count: usize) -> Self {
        self.announced_length = Some(byte_count);
        self
    }
}

impl Server {
    /// The handler gets each request and how many came for the same target before.
    pub fn start(handler: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::new(Vec::new()),
            body_bytes_sent: AtomicU64::new(0),
            active_count: AtomicU64::new(0),
            active_count_max: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.is_closing.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&for_thread);
                // A client that goes away in the middle is part of the tests.
                thread::spawn(move || stream.and_then(|stream| shared.serve(&stream)));
            }
        });
        Server {
            port,
            shared,
            listener: Some(listener),
        }
    }

    /// The address under which tests reach the hub; `localhost` is another host on the same port.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Requests whose path and query hold a text.
    pub fn requests_for(&self, part: &str) -> Vec<Request> {
        let all = self.requests().into_iter();
        all.filter(|request| request.target.contains(part)).collect()
    }

    pub fn body_bytes_sent(&self) -> u64 {
        self.shared.body_bytes_sent.load(Ordering::Relaxed)
    }

    /// How many requests were in the handler at the same time, at most.
    pub fn active_count_max(&self) -> u64 {
        self.shared.active_count_max.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let Some(request) = Request::read(stream)? else {
            return Ok(());
        };
        let earlier_count = {
            let mut requests = self.requests.lock().unwrap();
            let same = requests
                .iter()
                .filter(|earlier| earlier.target == request.target)
                .count();
            requests.push(request.clone());
            same
        };
        let active_count = self.active_count.fetch_add(1, Ordering::SeqCst) + 1;
        self.active_count_max.fetch_max(active_count, Ordering::SeqCst);
        let reply = (self.handler)(&request, earlier_count);
        // Before the reply leaves, since the client may send its next request as soon as it has it.
        self.active_count.fetch_sub(1, Ordering::SeqCst);
        let length = reply.announced_length.unwrap_or(reply.body.len());
        let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
        if !reply.headers.iter().any(|(name, _)| name == "Transfer-Encoding") {
            head += &format!("Content-Length: {length}\r\n");
        }
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if request.method != "HEAD" {
            let body = &reply.body[..reply.body.len().min(reply.sent_bytes_max)];
            stream.write_all(body)?;
            self.body_bytes_sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        }
        if reply.end == End::Silence {
            io::copy(&mut stream, &mut io::sink())?;
        }
        Ok(())
    }
}
