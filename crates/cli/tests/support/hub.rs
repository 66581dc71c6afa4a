//! A hub on this machine that holds the built-in model as `org/tiny`.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ring::digest::{SHA256, digest};
use serde_json::json;

use super::{TINY, command};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model-00001-of-00001.safetensors";

/// Serves until the test ends.
pub struct Hub {
    endpoint: String,
    /// Of all files.
    pub byte_count: usize,
    /// Whether the weights stop halfway.
    pub stalls: Arc<AtomicBool>,
}

impl Hub {
    pub fn start() -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let stalls = Arc::new(AtomicBool::new(false));
        let files = Arc::new(files());
        let byte_count = files.values().map(Vec::len).sum();
        let stalling = Arc::clone(&stalls);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, stalling) = (Arc::clone(&files), Arc::clone(&stalling));
                // A reader that went away is no concern of the hub.
                thread::spawn(move || answer(stream, &files, &stalling));
            }
        });
        Hub {
            endpoint,
            byte_count,
            stalls,
        }
    }

    /// The program, with this hub as its hub.
    pub fn command(&self, home: &Path, arguments: &[&str]) -> Command {
        let mut command = command(home);
        command
            .args(arguments)
            .current_dir(home)
            .env("HF_ENDPOINT", &self.endpoint)
            .env("NO_PROXY", "127.0.0.1")
            .env_remove("HF_HUB_OFFLINE")
            .env("TERM", "xterm");
        command
    }
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let names = ["config.json", "tokenizer.json", "model.safetensors.index.json", WEIGHTS];
    let read = |name: &str| (name.to_owned(), fs::read(format!("{TINY}/{name}")).expect("a file"));
    names.into_iter().map(read).collect()
}

/// One request for each connection; ranges are ignored, as a hub may.
fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, stalls: &AtomicBool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    if path.starts_with("/api/models/org/tiny/revision/main") {
        return write(&mut stream, "200 OK", listing(files).as_bytes(), None);
    }
    let name = path
        .strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"))
        .unwrap_or_default();
    match files.get(name) {
        None => write(&mut stream, "404 Not Found", b"", None),
        Some(content) => {
            let stall = (name == WEIGHTS && stalls.load(Ordering::SeqCst)).then_some(content.len() / 2);
            write(&mut stream, "200 OK", content, stall)
        }
    }
}

fn listing(files: &BTreeMap<String, Vec<u8>>) -> String {
    let siblings: Vec<_> = files
        .iter()
        .map(|(name, content)| {
            let hash: String = digest(&SHA256, content)
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            json!({ "rfilename": name, "size": content.len(), "lfs": { "sha256": hash, "size": content.len() } })
        })
        .collect();
    json!({ "sha": COMMIT, "siblings": siblings }).to_string()
}

fn write(stream: &mut TcpStream, status: &str, content: &[u8], stall: Option<usize>) -> std::io::Result<()> {
    let length = content.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&content[..stall.unwrap_or(length)])?;
    stream.flush()?;
    if stall.is_some() {
        thread::sleep(Duration::from_secs(60));
    }
    Ok(())
}
