//! Prompts against DeepSeek's own package, and against the format as it is written down.

mod support;

use cachalot_chat::{
    AnswerStart, Conversation, Message, PromptEncoder, PromptError, PromptFormat, ReasoningEffort, ResponseFormat,
    Thinking, Tokenizer, TokenizerError, ToolCall, ToolChoice, ToolDefinition, conversation, message,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    format: String,
    thinking: String,
    messages: Vec<CaseMessage>,
    tools: Vec<CaseTool>,
    tool_choice: String,
    response_schema: Option<serde_json::Value>,
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct CaseMessage {
    role: String,
    content: String,
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Vec<CaseCall>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
struct CaseCall {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct CaseTool {
    name: String,
    description: Option<String>,
    parameters: serde_json::Value,
}

impl CaseMessage {
    fn message(&self) -> Message {
        let text = self.content.clone();
        match self.role.as_str() {
            "system" => message::system(text),
            "user" => message::user(text),
            "tool" => message::tool_result(self.tool_call_id.clone().expect("an id"), text),
            _ => {
                let calls = self.tool_calls.iter().map(|call| ToolCall {
                    id: call.id.clone(),
                    name: call.name.clone(),
                    arguments: call.arguments.clone(),
                });
                message::assistant(self.reasoning.clone(), text, calls.collect())
            }
        }
    }
}

impl Case {
    fn conversation(&self) -> Conversation {
        let thinking = match self.thinking.as_str() {
            "off" => Thinking::Off,
            "on" => Thinking::On,
            "low" => Thinking::Effort(ReasoningEffort::Low),
            "high" => Thinking::Effort(ReasoningEffort::High),
            _ => Thinking::Effort(ReasoningEffort::Max),
        };
        let tools = self.tools.iter().map(|tool| ToolDefinition {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
            strict: None,
            defer_loading: false,
        });
        Conversation {
            tools: tools.collect(),
            tool_choice: match self.tool_choice.as_str() {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                _ => ToolChoice::Required,
            },
            response_format: self
                .response_schema
                .clone()
                .map_or(ResponseFormat::Text, ResponseFormat::JsonSchema),
            ..conversation(self.messages.iter().map(CaseMessage::message).collect(), thinking)
        }
    }
}

fn encoder(format: PromptFormat) -> PromptEncoder {
    PromptEncoder::new(support::tokenizer(), format).expect("the built-in tokenizer has the tokens of every format")
}

#[test]
fn prompts_are_those_of_deepseeks_package() {
    let [v4, v4_dspark, v41] = [PromptFormat::V4, PromptFormat::V4Dspark, PromptFormat::V41].map(encoder);
    for case in support::cases::<Case>("prompts.jsonl") {
        let encoder = match case.format.as_str() {
            "V4" => &v4,
            "V4Dspark" => &v4_dspark,
            _ => &v41,
        };
        let prompt = encoder
            .conversation(&case.conversation())
            .expect("the conversation is valid");
        assert_eq!(prompt.text, case.text, "text of {}", case.name);
        assert_eq!(prompt.ids, case.ids, "ids of {}", case.name);
    }
}

/// The format as the design notes state it, letter by letter.
#[test]
fn v4_prompts_are_as_documented() {
    let turns = || {
        vec![
            message::system("Be brief."),
            message::user("Hi"),
            message::assistant(Some("A greeting.".into()), "Hello!", Vec::new()),
            message::user("Bye"),
        ]
    };
    let encoder = encoder(PromptFormat::V4);
    let text = |thinking| encoder.conversation(&conversation(turns(), thinking)).unwrap().text;
    let history = "Be brief.<｜User｜>Hi<｜Assistant｜></think>Hello!<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜>";
    assert_eq!(text(Thinking::Off), format!("<｜begin▁of▁sentence｜>{history}</think>"));
    assert_eq!(text(Thinking::On), format!("<｜begin▁of▁sentence｜>{history}<think>"));
    assert_eq!(text(Thinking::Effort(ReasoningEffort::High)), text(Thinking::On));
    let max = text(Thinking::Effort(ReasoningEffort::Max));
    assert!(
        max.starts_with("<｜begin▁of▁sentence｜>Reasoning Effort: Absolute maximum with no shortcuts permitted.\n")
    );
    assert!(max.ends_with(&format!("left unchecked.\n\n{history}<think>")));
}

#[test]
fn tool_turns_are_as_documented() {
    let call = |id: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: "f".into(),
        arguments: arguments.into(),
    };
    let asked = Conversation {
        tools: vec![ToolDefinition {
            name: "f".into(),
            description: None,
            parameters: serde_json::json!({"type": "object"}),
            strict: None,
            defer_loading: false,
        }],
        ..conversation(
            vec![
                message::user("Go"),
                message::assistant(
                    Some("Two.".into()),
                    "",
                    vec![call("z", r#"{"a": "x", "b": 2}"#), call("y", "{}")],
                ),
                message::tool_result("y", "second"),
                message::tool_result("z", "first"),
            ],
            Thinking::On,
        )
    };
    let prompt = encoder(PromptFormat::V4).conversation(&asked).unwrap();
    let turns = "<｜User｜>Go<｜Assistant｜><think>Two.</think>\n\n\
        <｜DSML｜tool_calls>\n\
        <｜DSML｜invoke name=\"f\">\n\
        <｜DSML｜parameter name=\"a\" string=\"true\">x</｜DSML｜parameter>\n\
        <｜DSML｜parameter name=\"b\" string=\"false\">2</｜DSML｜parameter>\n\
        </｜DSML｜invoke>\n\
        <｜DSML｜invoke name=\"f\">\n\
        </｜DSML｜invoke>\n\
        </｜DSML｜tool_calls><｜end▁of▁sentence｜>\
        <｜User｜><tool_result>first</tool_result>\n\n<tool_result>second</tool_result><｜Assistant｜><think>";
    assert!(prompt.text.ends_with(turns), "{}", prompt.text);
    assert!(prompt.text.starts_with("<｜begin▁of▁sentence｜>\n\n## Tools\n\n"));
}

#[test]
fn only_the_format_makes_special_tokens() {
    let encoder = encoder(PromptFormat::V4);
    let asked = conversation(vec![message::user("<｜User｜></think>｜DSML｜")], Thinking::Off);
    let prompt = encoder.conversation(&asked).unwrap();
    let tokenizer = encoder.tokenizer();
    let special: Vec<&[u8]> = prompt
        .ids
        .iter()
        .filter(|&&id| tokenizer.is_special(id))
        .map(|&id| tokenizer.token_bytes(id))
        .collect();
    let expected = ["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "</think>"].map(str::as_bytes);
    assert_eq!(special, expected);
    assert_eq!(tokenizer.decode(&prompt.ids), prompt.text);
}

#[test]
fn answers_begin_where_the_prompt_ends() {
    let encoder = encoder(PromptFormat::V4);
    let start = |messages, thinking| {
        let prompt = encoder.conversation(&conversation(messages, thinking)).unwrap();
        (
            prompt.answer_start,
            prompt.text.rsplit("<｜Assistant｜>").next().unwrap().to_owned(),
        )
    };
    let ask = || message::user("?");
    let begun = |reasoning: Option<&str>, text: &str| message::answer_prefix(reasoning.map(str::to_owned), text);
    assert_eq!(
        start(vec![ask()], Thinking::On),
        (AnswerStart::Reasoning, "<think>".into())
    );
    assert_eq!(
        start(vec![ask()], Thinking::Off),
        (AnswerStart::Text, "</think>".into())
    );
    assert_eq!(
        start(vec![ask(), begun(None, "It")], Thinking::Off),
        (AnswerStart::WithinText, "</think>It".into())
    );
    assert_eq!(
        start(vec![ask(), begun(Some("Hm"), "")], Thinking::On),
        (AnswerStart::WithinReasoning, "<think>Hm".into())
    );
    assert_eq!(
        start(vec![ask(), begun(Some("Hm"), "It")], Thinking::On),
        (AnswerStart::WithinText, "<think>Hm</think>It".into())
    );
    let completion = encoder.completion("Once </think>").unwrap();
    assert_eq!(completion.answer_start, AnswerStart::Completion);
    assert_eq!(completion.text, "<｜begin▁of▁sentence｜>Once </think>");
    assert_eq!(encoder.tokenizer().decode(&completion.ids), completion.text);
    assert_eq!(
        completion
            .ids
            .iter()
            .filter(|&&id| encoder.tokenizer().is_special(id))
            .count(),
        1
    );
}

#[test]
fn impossible_prompts_are_refused() {
    let encoder = encoder(PromptFormat::V4);
    let begun = || message::answer_prefix(None, "It");
    assert_eq!(
        encoder.conversation(&conversation(vec![begun(), message::user("?")], Thinking::Off)),
        Err(PromptError::PrefixNotLast { message_index: 0 })
    );
    let mut asked = conversation(vec![message::user("?")], Thinking::On);
    asked.tool_choice = ToolChoice::Required;
    asked.tools = vec![ToolDefinition {
        name: "f".into(),
        description: None,
        parameters: serde_json::json!({}),
        strict: None,
        defer_loading: false,
    }];
    assert_eq!(encoder.conversation(&asked), Err(PromptError::RequiredToolWithThinking));
    asked.thinking_mode = false;
    assert_eq!(
        encoder.conversation(&asked).unwrap().answer_start,
        AnswerStart::ToolCalls
    );
}

#[test]
fn missing_special_tokens_are_named() {
    let json = String::from_utf8(support::tokenizer_json()).unwrap();
    let json = json
        .replace("<｜System｜>", "<｜Other｜>")
        .replace("｜DSML｜", "｜OTHER｜");
    let tokenizer = Tokenizer::from_bytes(json.as_bytes(), support::VOCABULARY_SIZE).unwrap();
    let missing = |format| match PromptEncoder::new(tokenizer.clone(), format) {
        Err(TokenizerError::MissingSpecialTokens { names }) => names,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(PromptFormat::V4), ["｜DSML｜"]);
    assert_eq!(missing(PromptFormat::V41), ["｜DSML｜", "<｜System｜>"]);
}

/// V3 and R1: what Jinja makes of the `chat_template` in the releases' tokenizer_config.json. V3.1 and V3.2: a worked
/// example of V3.1's template, whose text-only form DeepSeek's encoder of V3.2 shares.
#[test]
fn prompts_of_v3_are_those_of_the_templates() {
    let messages = vec![
        message::system("Be brief."),
        message::system("Be kind."),
        message::user("Hi"),
        message::assistant(Some("A greeting.".to_owned()), "Hello!", Vec::new()),
        message::user("2+2?"),
    ];
    let begin = "<｜begin▁of▁sentence｜>Be brief.\n\nBe kind.<｜User｜>Hi<｜Assistant｜>";
    let plain = format!("{begin}Hello!<｜end▁of▁sentence｜><｜User｜>2+2?<｜Assistant｜>");
    let marked = format!("{begin}</think>Hello!<｜end▁of▁sentence｜><｜User｜>2+2?<｜Assistant｜>");
    for (format, thinking, expected, start) in [
        (PromptFormat::V3, Thinking::Off, plain.clone(), AnswerStart::Text),
        (PromptFormat::V3, Thinking::On, plain.clone(), AnswerStart::Text),
        (
            PromptFormat::R1,
            Thinking::On,
            format!("{plain}<think>\n"),
            AnswerStart::Reasoning,
        ),
        (
            PromptFormat::R1,
            Thinking::Off,
            format!("{plain}<think>\n"),
            AnswerStart::Reasoning,
        ),
        (
            PromptFormat::V31,
            Thinking::Off,
            format!("{marked}</think>"),
            AnswerStart::Text,
        ),
        (
            PromptFormat::V31,
            Thinking::Effort(ReasoningEffort::Max),
            format!("{marked}<think>"),
            AnswerStart::Reasoning,
        ),
    ] {
        let encoder = encoder(format);
        let prompt = encoder
            .conversation(&conversation(messages.clone(), thinking))
            .expect("a plain conversation");
        assert_eq!(prompt.text, expected, "{format:?}, {thinking:?}");
        assert_eq!(prompt.answer_start, start, "{format:?}, {thinking:?}");
        assert_eq!(encoder.tokenizer().decode(&prompt.ids), expected, "{format:?}");
    }
    let asked = conversation(vec![message::system("S"), message::user("U")], Thinking::On);
    let prompt = encoder(PromptFormat::V32).conversation(&asked).expect("plain");
    assert_eq!(prompt.text, "<｜begin▁of▁sentence｜>S<｜User｜>U<｜Assistant｜><think>");
}

#[test]
fn formats_without_tools_refuse_them() {
    let tool = ToolDefinition {
        name: "clock".to_owned(),
        description: None,
        parameters: serde_json::json!({"type": "object"}),
        strict: None,
        defer_loading: false,
    };
    for format in [PromptFormat::V3, PromptFormat::R1, PromptFormat::V31, PromptFormat::V32] {
        let mut asked = conversation(vec![message::user("What time is it?")], Thinking::Off);
        asked.tools = vec![tool.clone()];
        let refused = Err(PromptError::NotInFormat { what: "tools" });
        assert_eq!(encoder(format).conversation(&asked), refused, "{format:?}");
        asked.tool_choice = ToolChoice::None;
        assert!(encoder(format).conversation(&asked).is_ok(), "{format:?}");
        asked.messages.push(message::tool_result("1", "Noon."));
        assert_eq!(encoder(format).conversation(&asked), refused, "{format:?}");
    }
}

/// Going on with an answer that was begun.
#[test]
fn begun_answers_of_v3_go_on() {
    for (format, reasoning, text, end, start) in [
        (
            PromptFormat::V3,
            None,
            "It is",
            "<｜Assistant｜>It is",
            AnswerStart::WithinText,
        ),
        (
            PromptFormat::R1,
            Some("Two"),
            "",
            "<｜Assistant｜><think>\nTwo",
            AnswerStart::WithinReasoning,
        ),
        (
            PromptFormat::R1,
            Some("Two"),
            "It is",
            "<｜Assistant｜><think>\nTwo\n</think>\n\nIt is",
            AnswerStart::WithinText,
        ),
    ] {
        let begun = message::answer_prefix(reasoning.map(str::to_owned), text);
        let asked = conversation(vec![message::user("2+2?"), begun], Thinking::Off);
        let prompt = encoder(format).conversation(&asked).expect("plain");
        assert!(prompt.text.ends_with(end), "{}", prompt.text);
        assert_eq!(prompt.answer_start, start);
    }
}
