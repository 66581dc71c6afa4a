//! What an answer consists of.

use deepseek_recipe_core::messages::{InputMessage as Message, ToolCall};

use crate::conversation::message;

/// A piece of an answer.
///
/// Pieces of text are whole characters and join without separators. A tool call is [`ToolCallStarted`], any number
/// of [`ToolCallArguments`], then [`ToolCall`]; one that never becomes whole ends as an [`Irregularity`] instead.
/// [`Finish`] comes last, once.
///
/// [`ToolCallStarted`]: Event::ToolCallStarted
/// [`ToolCallArguments`]: Event::ToolCallArguments
/// [`ToolCall`]: Event::ToolCall
/// [`Finish`]: Event::Finish
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What the model thinks.
    Reasoning(String),
    /// What the model says.
    Text(String),
    /// The model begins to call a tool.
    ToolCallStarted {
        /// Number of the call within the answer, from 0.
        index: usize,
        /// Name of the tool.
        name: String,
    },
    /// The next piece of the arguments' JSON text; the pieces of a whole call join to its arguments.
    ToolCallArguments {
        /// Number of the call within the answer.
        index: usize,
        /// The piece.
        delta: String,
    },
    /// A whole call; its arguments are a JSON object, its id is unique within the answer.
    ToolCall {
        /// Number of the call within the answer.
        index: usize,
        /// The call.
        call: ToolCall,
    },
    /// The answer left the format; nothing that the model wrote is lost without such an event.
    Irregular(Irregularity),
    /// The answer is over.
    Finish(FinishReason),
}

/// How an answer left the format, and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Irregularity {
    /// A tool was called before the reasoning was closed. The call counts, and the reasoning ends there.
    ToolCallInReasoning,
    /// The answer ended before the reasoning was closed, so it may have no text.
    ReasoningNotClosed,
    /// The answer ended within a tool call, mostly because of the token limit. The call does not count.
    ToolCallCut {
        /// Number of the call within the answer; `None` where not even its name was whole.
        index: Option<usize>,
        /// What the model wrote of it.
        raw: String,
    },
    /// Tool call markup that is no whole call. It was left out, and the call does not count.
    ToolCallMalformed {
        /// Number of the call within the answer; `None` outside of a call.
        index: Option<usize>,
        /// What the model wrote.
        raw: String,
    },
    /// A value announced as JSON is none. It was passed on as a string.
    ValueNotJson {
        /// Number of the call within the answer.
        index: usize,
        /// Name of the parameter.
        parameter: String,
        /// The value.
        value: String,
    },
    /// A marker or text where it means nothing, such as a second `</think>` or words between tool calls. It was left
    /// out.
    Skipped {
        /// What the model wrote.
        raw: String,
    },
    /// The model began a turn of somebody else. The answer ends before it.
    ForeignTurn {
        /// The token that begins the turn.
        marker: String,
    },
}

/// Why an answer is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// The model ended it after calling at least one tool.
    ToolCalls,
    /// The token limit was reached.
    Length,
    /// The caller gave it up.
    Cancelled,
}

/// Why the caller ends an answer that the model has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The token limit is reached.
    Length,
    /// Nobody wants the rest.
    Cancelled,
}

/// A whole answer, put together from its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// What the model thought.
    pub reasoning: String,
    /// What it said.
    pub text: String,
    /// The tools it called.
    pub tool_calls: Vec<ToolCall>,
    /// Where it left the format.
    pub irregularities: Vec<Irregularity>,
    /// Why it ended; `None` while it goes on.
    pub finish: Option<FinishReason>,
}

impl Answer {
    /// Adds the next event.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Reasoning(delta) => self.reasoning.push_str(&delta),
            Event::Text(delta) => self.text.push_str(&delta),
            Event::ToolCall { call, .. } => self.tool_calls.push(call),
            Event::Irregular(irregularity) => self.irregularities.push(irregularity),
            Event::Finish(reason) => self.finish = Some(reason),
            Event::ToolCallStarted { .. } | Event::ToolCallArguments { .. } => {}
        }
    }

    /// The answer as a message of the conversation's next turn.
    pub fn into_message(self) -> Message {
        let reasoning = (!self.reasoning.is_empty()).then_some(self.reasoning);
        message::assistant(reasoning, self.text, self.tool_calls)
    }
}

impl Extend<Event> for Answer {
    fn extend<I: IntoIterator<Item = Event>>(&mut self, events: I) {
        events.into_iter().for_each(|event| self.add(event));
    }
}
