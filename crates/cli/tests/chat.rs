//! Conversations: piped, and on a terminal.

mod support;

use std::fs;

use rexpect::session::{PtySession, spawn_command};
use serde_json::Value;
use support::{command, folder, run_in};

const TIMEOUT_MS: u64 = 60_000;

#[test]
fn a_piped_conversation() {
    let home = folder();
    let input = "/system You are a helpful assistant.\nWhat is HCA?\n/think off\nWhat \\\nis 3 + 4?\n/stats\n/frob\n/save talk.json\n";
    let outcome = run_in(home.path(), &["chat", "--greedy"], input.as_bytes());
    assert_eq!(outcome.code, Some(0), "{}", outcome.errors);
    let answers: Vec<&str> = outcome.output.lines().collect();
    assert!(
        answers[0].starts_with("HCA is heavily compressed attention."),
        "{}",
        outcome.output
    );
    for part in ["2 answers", "there is no /frob", "saved to talk.json"] {
        assert!(outcome.errors.contains(part), "{part} in {}", outcome.errors);
    }
    let saved: Value = serde_json::from_slice(&fs::read(home.path().join("talk.json")).unwrap()).unwrap();
    let roles: Vec<&Value> = saved["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["role"])
        .collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(saved["messages"][2]["content"], answers[0]);
    assert!(saved["messages"][2]["reasoning_content"].is_string());
    assert_eq!(saved["messages"][3]["content"], "What \nis 3 + 4?");
    assert!(saved["messages"][4].get("reasoning_content").is_none());

    // A second conversation does not replace the file.
    let outcome = run_in(home.path(), &["chat", "--greedy"], b"/save talk.json\n");
    assert!(outcome.errors.contains("cannot write talk.json"), "{}", outcome.errors);
}

#[test]
fn turns_reuse_what_they_share() {
    let home = folder();
    let input = b"What is HCA?\nWhat is moe?\n/stats\n";
    let outcome = run_in(home.path(), &["chat", "--greedy", "--no-think"], input);
    let reused = outcome
        .errors
        .split(" of them reused")
        .next()
        .and_then(|text| text.split_whitespace().last());
    assert!(
        reused
            .and_then(|count| count.parse::<usize>().ok())
            .is_some_and(|count| count > 10),
        "{}",
        outcome.errors
    );
}

#[test]
fn a_message_that_does_not_fit_does_not_end_the_conversation() {
    let home = folder();
    let input = format!("{}\nWhat is HCA?\n", "word ".repeat(1000));
    let outcome = run_in(home.path(), &["chat", "--greedy", "--context", "512"], input.as_bytes());
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.errors.contains("context of 512"), "{}", outcome.errors);
    assert!(
        outcome.output.contains("heavily compressed attention"),
        "{}",
        outcome.output
    );
}

fn terminal(home: &std::path::Path, arguments: &[&str]) -> PtySession {
    let mut command = command(home);
    command
        .arg("chat")
        .args(arguments)
        .current_dir(home)
        .env("TERM", "xterm");
    let mut session = spawn_command(command, Some(TIMEOUT_MS)).expect("a terminal");
    session.exp_string("/help lists commands").expect("a greeting");
    session.exp_string("> ").expect("a prompt");
    session
}

#[test]
fn control_c_stops_the_answer_and_then_the_program() {
    let home = folder();
    // Noise of some hundred tokens.
    let mut session = terminal(home.path(), &["--temperature", "100", "--seed", "1"]);
    session.send_line("Tell me a story").unwrap();
    // Reasoning is dimmed; by then the model is writing.
    session.exp_string("\x1b[2m").unwrap();
    session.send_control('c').unwrap();
    session.exp_string("stopped").unwrap();
    session.send_line("/stats").unwrap();
    session.exp_string("tokens in the context").unwrap();
    session.send_control('c').unwrap();
    session.exp_string("Ctrl-C again or Ctrl-D leaves").unwrap();
    session.send_control('c').unwrap();
    session.exp_eof().unwrap();
}

#[test]
fn lines_are_edited_and_remembered() {
    let home = folder();
    let mut session = terminal(home.path(), &["--greedy"]);
    session.send("What is 99?").unwrap();
    session.send_control('c').unwrap();
    session.send_line("What is 34 + 25?").unwrap();
    session.exp_string("\x1b[2m4+5=9").unwrap();
    session.exp_string("34 + 25 = 59.").unwrap();
    // Lines that are typed before the prompt is back are kept.
    session.send("```\n/exit\n```\n/stats\n").unwrap();
    session.exp_string("2 answers").unwrap();
    session.send_control('d').unwrap();
    session.exp_eof().unwrap();
    let history = fs::read_to_string(home.path().join("state/cachalot/chat_history")).unwrap();
    assert!(
        history.contains("What is 34 + 25?\n") && !history.contains("99"),
        "{history}"
    );
}
