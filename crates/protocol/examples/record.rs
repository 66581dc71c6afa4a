//! Writes bodies, streams and errors of every protocol into a folder, for `tools/protocol/check_sdk.py`:
//! `cargo run -p cachalot-protocol --example record -- FOLDER`.

use std::path::Path;

use cachalot_protocol::{
    AnswerEncoder, EndReason, ErrorKind, Frame, ModelInfo, Protocol, ProtocolError, count_tokens_body, models_body,
};
use serde_json::{Value, json};

#[path = "../tests/support/mod.rs"]
mod support;

use support::{request, run, tokens};

const NAMES: [(Protocol, &str); 4] = [
    (Protocol::ChatCompletions, "chat"),
    (Protocol::Responses, "responses"),
    (Protocol::Messages, "messages"),
    (Protocol::Completions, "completions"),
];

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("the folder to write to");
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/answers.jsonl");
    for (number, line) in std::fs::read_to_string(corpus)?.lines().enumerate() {
        let case: Value = serde_json::from_str(line).expect("a case");
        let answer = tokens(case["answer"].as_str().expect("an answer"));
        let end = if case["cut"] == true {
            EndReason::Length
        } else {
            EndReason::Stop
        };
        for (protocol, name) in &NAMES[..3] {
            let thinking = case["thinking"] == true;
            let (frames, _) = run(*protocol, &request(*protocol, thinking, true), &answer, end);
            let (_, encoder) = run(*protocol, &request(*protocol, thinking, false), &answer, end);
            write(folder, &format!("{name}.{number:02}"), &frames, &encoder)?;
        }
    }
    settings(folder)?;
    for (protocol, name) in NAMES {
        let error = ProtocolError::invalid("messages[0].content", "is missing").to_body(protocol);
        std::fs::write(folder.join(format!("{name}.error.json")), error.to_string())?;
    }
    let model = ModelInfo {
        id: "deepseek-v4-flash".into(),
        created: 1_750_000_000,
        context_token_count: 1 << 20,
    };
    std::fs::write(folder.join("models.json"), models_body(&[model]).to_string())?;
    std::fs::write(folder.join("count_tokens.json"), count_tokens_body(7).to_string())
}

/// Log-probabilities, several answers, custom tools, carried reasoning, failures in a stream.
fn settings(folder: &Path) -> std::io::Result<()> {
    let chat = json!({"logprobs": true, "top_logprobs": 2, "n": 2});
    let responses = json!({"top_logprobs": 2, "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "tools": [{"type": "custom", "name": "f"}]});
    let call = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"input\" string=\"true\">a\n\"b\"</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>";
    let answer = tokens(&format!("Hm</think>Look: 日本{call}"));
    for ((protocol, name), extra) in NAMES[..2].iter().zip([chat, responses]) {
        for stream in [true, false] {
            let mut body = request(*protocol, true, stream);
            body.as_object_mut()
                .expect("an object")
                .extend(extra.as_object().expect("an object").clone());
            let (frames, encoder) = run(*protocol, &body, &answer, EndReason::Stop);
            if stream {
                std::fs::write(folder.join(format!("{name}.settings.sse")), text(&frames))?;
            } else {
                std::fs::write(folder.join(format!("{name}.settings.json")), encoder.body().to_string())?;
            }
        }
    }
    let body = json!({"model": "m", "prompt": "Once", "logprobs": 2, "stream": true, "n": 2, "stream_options": {"include_usage": true}});
    let (frames, encoder) = run(Protocol::Completions, &body, &tokens("upon a time"), EndReason::Length);
    write(folder, "completions.settings", &frames, &encoder)?;
    let error = ProtocolError::new(ErrorKind::Internal, "the model failed in this step");
    for (protocol, name) in &NAMES[1..3] {
        let call = support::call(*protocol, &request(*protocol, false, true));
        let mut encoder = support::encoder(&call, &support::prepared(&call));
        let mut frames = encoder.start(0);
        frames.extend(encoder.token(0, tokens("Yes")[0], None, &[]));
        frames.extend(encoder.fail(&error));
        std::fs::write(folder.join(format!("{name}.failed.sse")), text(&frames))?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, frames: &[Frame], encoder: &AnswerEncoder) -> std::io::Result<()> {
    std::fs::write(folder.join(format!("{name}.sse")), text(frames))?;
    std::fs::write(folder.join(format!("{name}.json")), encoder.body().to_string())
}

fn text(frames: &[Frame]) -> String {
    frames.iter().map(Frame::to_string).collect()
}
