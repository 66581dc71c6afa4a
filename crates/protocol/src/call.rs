//! What a request asks for, whatever its protocol.

use cachalot_chat::{Message, Thinking, ToolDefinition};
use serde_json::{Map, Value};

use crate::error::ProtocolError;
use crate::limits::Limits;
use crate::{chat_completions, completions, messages, responses};

/// The protocols of the generating routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `POST /v1/chat/completions` of OpenAI.
    ChatCompletions,
    /// `POST /v1/responses` of OpenAI.
    Responses,
    /// `POST /v1/messages` of Anthropic.
    Messages,
    /// `POST /v1/completions` of OpenAI: plain text, no chat format.
    Completions,
}

/// Reads the body of a request.
///
/// Unknown fields are ignored; known ones must be right, and those that would change the answer but are not supported
/// are refused.
///
/// # Errors
/// [`ProtocolError`] naming the field. Never panics, whatever the bytes.
pub fn parse(protocol: Protocol, body: &[u8], limits: &Limits) -> Result<Call, ProtocolError> {
    match protocol {
        Protocol::ChatCompletions => chat_completions::parse(body, limits),
        Protocol::Responses => responses::parse(body, limits),
        Protocol::Messages => messages::parse(body, limits),
        Protocol::Completions => completions::parse(body, limits),
    }
}

/// A checked request. [`Preparer::prepare`](crate::Preparer::prepare) turns it into token ids.
#[derive(Debug, Clone)]
pub struct Call {
    /// How it was asked, and has to be answered.
    pub protocol: Protocol,
    /// Name of the model as the client gave it.
    pub model: String,
    /// What to go on from.
    pub input: Input,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Most tokens of one answer, reasoning included; `None` as many as fit.
    pub token_count_max: Option<usize>,
    /// Texts that end an answer and are left out of it. Looked for in the text, not in reasoning and tool calls.
    pub stops: Vec<String>,
    /// Answers that are wanted, at least 1.
    pub answer_count: usize,
    /// `Some(k)`: the log-probability of each token is wanted, and of the `k` likeliest.
    pub logprob_count: Option<usize>,
    /// What the text must be like.
    pub format: AnswerFormat,
    /// Whether the answer is wanted as a stream of events.
    pub stream: bool,
    /// Whether a stream of chat completions or completions is to end with the usage.
    pub include_usage: bool,
    /// The response whose conversation this one continues; see [`Call::continue_from`].
    pub previous_response_id: Option<String>,
    /// Whether the response is to be kept for `previous_response_id`.
    pub store: bool,
    /// The end user as the client names them.
    pub user: Option<String>,
    /// What was left aside, like tools that run on OpenAI's servers; for the log.
    pub ignored: Vec<String>,
    /// Settings that the Responses protocol repeats in its answers.
    pub(crate) echo: Map<String, Value>,
}

/// What a request goes on from.
#[derive(Debug, Clone)]
pub enum Input {
    /// A conversation.
    Dialogue(Box<Dialogue>),
    /// Plain text.
    Text(String),
    /// Token ids as they are.
    Tokens(Vec<u32>),
}

/// A conversation as the client sent it.
#[derive(Debug, Clone, Default)]
pub struct Dialogue {
    /// Instructions of this request alone, which come first and are not carried over by `previous_response_id`.
    pub instructions: Option<String>,
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// The tools on offer.
    pub tools: Vec<Tool>,
    /// Whether and which tools are to be called.
    pub selection: ToolSelection,
    /// Whether several tools may be called in one answer.
    pub parallel_calls: bool,
    /// How to think; `None` as the server does by default.
    pub thinking: Option<Thinking>,
}

/// A tool on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// What goes into the prompt.
    pub definition: ToolDefinition,
    /// What the client calls it.
    pub shape: ToolShape,
}

impl Tool {
    /// Whether calls must follow the schema.
    pub fn is_strict(&self) -> bool {
        self.definition.strict == Some(true)
    }
}

/// How a tool's calls are passed to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToolShape {
    /// Arguments are a JSON object.
    Function,
    /// A custom tool of the Responses protocol: its only argument, the text `input`, is passed on bare.
    Custom,
}

/// Which tools are to be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolSelection {
    /// The model chooses.
    #[default]
    Auto,
    /// None; the prompt does not mention them.
    None,
    /// At least one.
    Required,
    /// At least one of these.
    Among(Vec<String>),
}

/// What the text of an answer must be like.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum AnswerFormat {
    /// Anything.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that follows the schema.
    JsonSchema(Value),
    /// What the regular expression matches.
    Regex(String),
    /// What the grammar in llguidance's dialect of Lark derives.
    Lark(String),
}

/// How tokens are drawn; `None` as the server does by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// 0 to 100; 0 takes the likeliest token.
    pub temperature: Option<f32>,
    /// Above 0, up to 1.
    pub top_p: Option<f32>,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: Option<usize>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Above 0, up to 10.
    pub repetition_penalty: Option<f32>,
    /// Same seed, same text.
    pub seed: Option<u64>,
    /// Token ids and what is added to their logits, -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
}

/// A conversation to continue from; opaque, for the server to keep under a response's id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub(crate) messages: Vec<Message>,
}

impl History {
    /// Roughly the bytes it takes.
    pub fn byte_count(&self) -> usize {
        self.messages.iter().map(message_bytes).sum()
    }
}

fn message_bytes(message: &Message) -> usize {
    const FIXED: usize = std::mem::size_of::<Message>();
    FIXED
        + match message {
            Message::System { content, .. } | Message::User { content, .. } | Message::Tool { content, .. } => {
                content.as_str().len()
            }
            Message::Assistant {
                content,
                reasoning_content,
                tool_calls,
                ..
            } => {
                let calls = tool_calls.iter().flatten();
                content.len()
                    + reasoning_content.as_ref().map_or(0, String::len)
                    + calls
                        .map(|call| call.id.len() + call.name.len() + call.arguments.len())
                        .sum::<usize>()
            }
            Message::LatestReminder { content } => content.len(),
        }
}

impl Call {
    /// A call with defaults for everything but these.
    pub(crate) fn new(protocol: Protocol, model: &str, input: Input) -> Self {
        Self {
            protocol,
            model: model.to_owned(),
            input,
            sampling: Sampling::default(),
            token_count_max: None,
            stops: Vec::new(),
            answer_count: 1,
            logprob_count: None,
            format: AnswerFormat::Text,
            stream: false,
            include_usage: false,
            previous_response_id: None,
            store: false,
            user: None,
            ignored: Vec::new(),
            echo: Map::new(),
        }
    }

    /// The conversation, unless the input is plain text or tokens.
    pub fn dialogue(&self) -> Option<&Dialogue> {
        match &self.input {
            Input::Dialogue(dialogue) => Some(dialogue),
            Input::Text(_) | Input::Tokens(_) => None,
        }
    }

    /// Puts the conversation of an earlier response before this one's; the server calls it with what it kept for
    /// [`previous_response_id`](Self::previous_response_id).
    pub fn continue_from(&mut self, history: &History) {
        if let Input::Dialogue(dialogue) = &mut self.input {
            dialogue.messages.splice(0..0, history.messages.iter().cloned());
        }
    }
}
