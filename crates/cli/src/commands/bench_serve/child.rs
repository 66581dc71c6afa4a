//! A server of this program, for as long as it is measured.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::error::Error;

/// A running `cachalot serve`; ended when dropped.
pub struct Child {
    process: std::process::Child,
    url: String,
}

impl Child {
    /// Starts a server on a free port and waits until it serves. What it says goes to standard error.
    pub fn start(model: Option<&str>, options: &[String]) -> Result<Self, Error> {
        let failed = |reason: String| Error::ServerStart { reason };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(["serve", "--port", "0"]);
        if let Some(model) = model {
            command.args(["--model", model]);
        }
        let mut process = command
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let output = process.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut last = "it said nothing".to_owned();
        let url = loop {
            let Some(line) = lines.next() else {
                let _ = process.wait();
                return Err(failed(last));
            };
            eprintln!("{line}");
            if let Some(url) = line.split(' ').find(|word| word.starts_with("http://")) {
                break url.to_owned();
            }
            last = line;
        };
        // Read on, so that the server never waits for its reader.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        Ok(Child { process, url })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
