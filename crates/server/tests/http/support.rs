//! A server over a scripted backend, and a client that sees raw bytes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cachalot_server::{
    Protocol, Refusal, Server, ServerOptions,
    backend::{Answer, Backend, BackendStatus, Inquiry, ModelCard, Part, Reuse},
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// Does what the body says: `{"stream": bool, "silence_ms": n, "events": n, "event_bytes": n, "begins": bool,
/// "act": "panic" | ...}`.
/// A body with a model is a request of a protocol, whose stream [`speak`] writes.
#[derive(Debug, Default)]
pub struct Script {
    /// Answers that were given up because nobody listened.
    pub abandoned: Arc<AtomicUsize>,
    /// Answers begun.
    pub begun: Arc<AtomicUsize>,
}

impl Backend for Script {
    fn answer(&self, inquiry: Inquiry) -> Result<Answer, Refusal> {
        let script: Value = serde_json::from_slice(&inquiry.body).map_err(|_| Refusal::new(400, "no JSON"))?;
        match script["act"].as_str() {
            Some("panic") => panic!("as the script says"),
            Some("full") => return Err(Refusal::new(429, "the queue is full").with_retry_after(7)),
            _ => {}
        }
        let is_wrong =
            script["temperature"] == -1 || script["messages"] == "none" || script["model"] == "no such model";
        if !script.is_object() || is_wrong {
            return Err(Refusal::new(400, "no request"));
        }
        if script["model"] == "full" {
            return Err(Refusal::new(429, "the queue is full").with_retry_after(1));
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        let is_streamed = script["stream"] == true;
        let (sender, parts) = mpsc::channel(4);
        let abandoned = Arc::clone(&self.abandoned);
        let protocol = inquiry.protocol;
        tokio::spawn(async move {
            let outcome = match script["model"].as_str() {
                Some(model) => speak(protocol, model, &sender).await,
                None => perform(&script, is_streamed, &sender).await,
            };
            if outcome.is_none() {
                abandoned.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Answer { is_streamed, parts })
    }

    fn count_tokens(&self, body: &[u8]) -> Result<Value, Refusal> {
        Ok(json!({ "input_tokens": body.len() }))
    }

    fn tokenize(&self, body: &[u8]) -> Result<Value, Refusal> {
        Ok(json!({ "tokens": body }))
    }

    fn detokenize(&self, _body: &[u8]) -> Result<Value, Refusal> {
        Ok(json!({ "prompt": "" }))
    }

    fn stored_response(&self, id: &str, owner: Option<usize>) -> Option<Value> {
        (id == "resp_1" && owner != Some(1)).then(|| json!({ "id": id }))
    }

    fn forget_response(&self, id: &str, owner: Option<usize>) -> bool {
        self.stored_response(id, owner).is_some()
    }

    fn model(&self) -> ModelCard {
        ModelCard {
            name: "scripted".to_owned(),
            aliases: vec!["claude-*".to_owned()],
            context: 4096,
            created: 0,
        }
    }

    fn probe(&self, _time_max: Duration) -> Result<(), String> {
        Ok(())
    }

    fn status(&self) -> BackendStatus {
        BackendStatus {
            prefill_token_count: 7,
            decode_tokens_per_second: 2.5,
            cache_fault: Some("the folder is gone".to_owned()),
            memory_bytes: vec![("pages", 4096)],
            step_times: vec![("model", Duration::from_millis(1500))],
            ..BackendStatus::default()
        }
    }

    fn drain(&self, _time_max: Duration) {}
}

/// A whole answer of two tokens to a prompt of nine, four of them reused. The model `cut` leaves the end out, the model
/// `slow` thinks for a minute.
async fn speak(protocol: Protocol, model: &str, sender: &mpsc::Sender<Part>) -> Option<()> {
    if model == "slow" {
        sender.send(Part::Admitted(Reuse::default())).await.ok()?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
            () = sender.closed() => return None,
        }
    }
    let mut events = match protocol {
        Protocol::ChatCompletions | Protocol::Completions => vec![
            json!({ "choices": [{ "delta": { "content": "a" } }] }),
            json!({ "choices": [{ "delta": { "content": "b" }, "finish_reason": "stop" }] }),
            json!({ "choices": [], "usage": { "prompt_tokens": 9, "completion_tokens": 2,
                "prompt_tokens_details": { "cached_tokens": 4 } } }),
        ],
        Protocol::Responses => vec![
            json!({ "type": "response.output_text.delta", "delta": "ab" }),
            json!({ "type": "response.completed", "response": { "usage": { "input_tokens": 9, "output_tokens": 2,
                "input_tokens_details": { "cached_tokens": 4 } } } }),
        ],
        Protocol::Messages => vec![
            json!({ "type": "message_start", "message": { "usage": { "input_tokens": 5, "cache_read_input_tokens": 4 } } }),
            json!({ "type": "content_block_delta" }),
            json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 2 } }),
            json!({ "type": "message_stop" }),
        ],
    };
    if model == "cut" {
        events.pop();
    }
    let mut text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    if protocol == Protocol::ChatCompletions {
        text.push_str("data: [DONE]\n\n");
    }
    sender.send(Part::Events(text)).await.ok()?;
    sender.send(Part::End).await.ok()
}

async fn perform(script: &Value, is_streamed: bool, sender: &mpsc::Sender<Part>) -> Option<()> {
    let reuse = Reuse {
        prompt: 100,
        reused: 60,
        missed: Some(("diverged", Some(60))),
    };
    sender.send(Part::Admitted(reuse)).await.ok()?;
    sender.send(Part::Prefill { done: 80, total: 100 }).await.ok()?;
    if script["begins"] == true {
        sender.send(Part::Events("data: begin\n\n".to_owned())).await.ok()?;
    }
    let silence = Duration::from_millis(script["silence_ms"].as_u64().unwrap_or(0));
    tokio::select! {
        () = tokio::time::sleep(silence) => {}
        () = sender.closed() => return None,
    }
    if script["act"] == "fail" {
        return sender
            .send(Part::Failed(Refusal::new(500, "the chip failed")))
            .await
            .ok();
    }
    let text = "x".repeat(script["event_bytes"].as_u64().unwrap_or(1) as usize);
    for _ in 0..script["events"].as_u64().unwrap_or(2) {
        sender.send(Part::Token).await.ok()?;
        if is_streamed {
            sender.send(Part::Events(format!("data: {text}\n\n"))).await.ok()?;
        }
    }
    let end = if is_streamed {
        Part::End
    } else {
        Part::Body(json!({ "text": text }))
    };
    sender.send(end).await.ok()
}

/// A running server; stopped when dropped.
pub struct Running {
    pub address: SocketAddr,
    pub abandoned: Arc<AtomicUsize>,
    pub begun: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<usize>>,
}

impl Running {
    pub fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = ServerOptions::default();
        options.address.set_port(0);
        options.probe_interval = Duration::from_millis(50);
        options.drain_time_max = Duration::from_millis(500);
        change(&mut options);
        let server = Server::listen(options).unwrap();
        let address = server.address();
        let script = Script::default();
        let (abandoned, begun) = (Arc::clone(&script.abandoned), Arc::clone(&script.begun));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            server.run(Arc::new(script), async {
                let _ = stopped.await;
            })
        });
        Running {
            address,
            abandoned,
            begun,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Sends bytes as they are.
    pub fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// Sends a request and reads the response to its end.
    pub fn ask(&self, request: &str, headers: &str, body: &str) -> Response {
        read(self.connect(message(request, headers, body).as_bytes()))
    }

    /// Posts a script.
    pub fn post(&self, path: &str, script: &Value) -> Response {
        self.ask(&format!("POST {path}"), JSON, &script.to_string())
    }

    /// Orders the server to stop.
    pub fn stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Waits for its end and tells how many answers were cut off.
    pub fn join(&mut self) -> usize {
        self.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub const JSON: &str = "content-type: application/json\r\n";

/// A request on a connection of its own.
pub fn message(request: &str, headers: &str, body: &str) -> String {
    let host = if headers.contains("host:") {
        ""
    } else {
        "host: localhost\r\n"
    };
    let length = body.len();
    format!("{request} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Reads to the end; chunk sizes of streams stay in the body.
pub fn read(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no response: {text:?}"));
    Response {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
