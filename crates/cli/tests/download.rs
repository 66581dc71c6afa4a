//! Models by name, from a hub of the test's own.

mod support;

use std::{process::Command, sync::atomic::Ordering};

use rexpect::session::spawn_command;
use support::{
    folder,
    hub::{COMMIT, Hub},
};

const TIMEOUT_MS: u64 = 60_000;
const QUESTION: &str = "What is 34 + 25?";
const ANSWER: &str = "34 + 25 = 59.";

/// Exit code, standard output and standard error.
fn outcome(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_download_prints_the_folder_and_runs_from_then_on() {
    let (hub, home) = (Hub::start(), folder());
    let (code, printed, told) = outcome(hub.command(home.path(), &["download", "org/tiny"]));
    assert_eq!(code, Some(0), "{told}");
    assert!(
        printed.trim_end().ends_with(&format!("snapshots/{COMMIT}")),
        "{printed}"
    );
    assert!(told.contains("tokenizer.json is complete"), "{told}");
    let run = ["run", "--model", "org/tiny", "--greedy", QUESTION];
    let mut offline = hub.command(home.path(), &run);
    offline.env("HF_HUB_OFFLINE", "1");
    assert_eq!(outcome(offline).1.trim_end(), ANSWER);

    let (code, _, told) = outcome(hub.command(home.path(), &["download", "org/none"]));
    assert_eq!(code, Some(1));
    assert!(told.contains("org/none was not found"), "{told}");
}

#[test]
fn a_missing_model_is_downloaded_if_the_user_agrees() {
    let (hub, home) = (Hub::start(), folder());
    let run = ["run", "--model", "org/tiny", "--greedy", QUESTION];
    let (code, printed, told) = outcome(hub.command(home.path(), &run));
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(told.contains("cachalot download org/tiny"), "{told}");

    let mut session = spawn_command(hub.command(home.path(), &run), Some(TIMEOUT_MS)).unwrap();
    session
        .exp_string(&format!("Download {:.2} MB into", hub.byte_count as f64 / 1e6))
        .unwrap();
    session.send_line("no").unwrap();
    session.exp_string("nothing was downloaded").unwrap();
    session.exp_eof().unwrap();

    let (code, printed, told) = outcome(hub.command(home.path(), &[run.as_slice(), &["--yes"]].concat()));
    assert_eq!((code, printed.trim_end()), (Some(0), ANSWER), "{told}");
}

#[test]
fn control_c_leaves_a_download_that_can_be_continued() {
    let (hub, home) = (Hub::start(), folder());
    hub.stalls.store(true, Ordering::SeqCst);
    let download = ["download", "org/tiny"];
    let mut session = spawn_command(hub.command(home.path(), &download), Some(TIMEOUT_MS)).unwrap();
    session.exp_string("4 files").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    session.send_control('c').unwrap();
    session.exp_string("the same command continues").unwrap();
    session.exp_eof().unwrap();
    // The type of the status is not public.
    let status = format!("{:?}", session.process().wait());
    assert!(status.contains("Exited") && status.contains("130"), "{status}");

    hub.stalls.store(false, Ordering::SeqCst);
    let (code, _, told) = outcome(hub.command(home.path(), &download));
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains(", 0 bytes of them here already"), "{told}");
}
