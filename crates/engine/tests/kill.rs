//! Processes killed while they write cache files: the next one finds a shorter cache at worst, never a wrong one.
//!
//! `cargo test -p cachalot-engine --test kill`; `CACHALOT_KILL_COUNT` sets the number of kills (default 10).

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use cachalot_chip::Mode;
use cachalot_engine::{CacheOptions, Service, ServiceOptions};
use support::{ask, prompt, request, service, small};

const CHILD: &str = "--write-cache-into";
const PROMPT_COUNT: usize = 6;

fn on_disk(folder: Option<&Path>) -> Service {
    let cache = CacheOptions {
        directory: folder.map(Path::to_owned),
        ..CacheOptions::default()
    };
    let options = ServiceOptions {
        cache: Some(cache),
        ..small()
    };
    service(Mode::Fast, options)
}

/// Answers prompts until it is killed.
fn child(folder: &Path, first: usize) {
    let service = on_disk(Some(folder));
    if let Some(fault) = service.status().cache_fault {
        panic!("{fault}");
    }
    println!("ready");
    for i in (first..).take(10_000) {
        ask(&service, request(prompt(i % PROMPT_COUNT, 700 + 100 * (i % 7)), 2));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CHILD) {
        let first = arguments[at + 2].parse().expect("a number");
        return child(Path::new(&arguments[at + 1]), first);
    }
    let kill_count = std::env::var("CACHALOT_KILL_COUNT").map_or(10, |count| count.parse().expect("a number"));
    let texts: Vec<Vec<u32>> = (0..PROMPT_COUNT).map(|seed| prompt(seed, 1200)).collect();
    let expected: Vec<_> = {
        let service = on_disk(None);
        texts
            .iter()
            .map(|text| ask(&service, request(text.clone(), 4)).tokens())
            .collect()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut reused_total = 0;
    for kill in 0..kill_count {
        let mut process = Command::new(std::env::current_exe().expect("a path"))
            .args([CHILD, &folder.path().to_string_lossy(), &kill.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let output = process.stdout.as_mut().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("readable");
        assert_eq!(line, "ready\n");
        std::thread::sleep(Duration::from_millis(5 + (kill as u64 * 37) % 300));
        process.kill().expect("SIGKILL");
        process.wait().expect("ends");
        let service = on_disk(Some(folder.path()));
        let index = kill % PROMPT_COUNT;
        let answer = ask(&service, request(texts[index].clone(), 4));
        assert_eq!(answer.tokens(), expected[index], "kill {kill}");
        assert_eq!(service.status().cache_fault, None);
        reused_total += answer.reused;
    }
    assert!(reused_total > 0, "nothing was ever found");
    println!("{kill_count} kills: every answer right, {reused_total} tokens reused");
}
