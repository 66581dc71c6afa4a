//! Answers: token ids to reasoning, text and tool calls.

mod event;
mod prose;
mod tag;
mod tool_block;

use deepseek_recipe_core::special_tokens::SpecialToken;

pub use event::{Answer, Ending, Event, FinishReason, Irregularity};
use prose::Prose;
use tool_block::ToolBlock;

use crate::prompt::AnswerStart;
use crate::tokenizer::Tokenizer;
use crate::utf8_stream::Utf8Stream;

const THINKING_START: &str = SpecialToken::ThinkingStart.default_str();
const THINKING_END: &str = SpecialToken::ThinkingEnd.default_str();

/// Reads an answer token by token.
///
/// Markers count only as the special tokens that they are: an answer that spells `</think>` or `<｜DSML｜...>` letter
/// by letter is text. How the answer is cut into tokens does not matter otherwise. As DeepSeek's own parser, it
/// leaves out newlines at the beginning of reasoning and text, before `</think>` and before tool calls.
///
/// ```
/// use cachalot_chat::{Answer, AnswerParser, AnswerStart, FinishReason, Tokenizer};
///
/// let json = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny/tokenizer.json"))?;
/// let tokenizer = Tokenizer::from_bytes(&json, 2048)?;
/// let mut parser = AnswerParser::new(&tokenizer, AnswerStart::Reasoning);
/// let mut answer = Answer::default();
/// for id in tokenizer.encode_prompt("2+2=4</think>It is 4.<｜end▁of▁sentence｜>")? {
///     answer.extend(parser.push(id));
/// }
/// assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), ("2+2=4", "It is 4."));
/// assert_eq!(answer.finish, Some(FinishReason::Stop));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AnswerParser {
    tokenizer: Tokenizer,
    markers: Vec<(u32, Marker)>,
    utf8: Utf8Stream,
    place: Place,
    /// Number of the next block's first call.
    next_index: usize,
    /// Whether a whole call has been given.
    called: bool,
}

/// What a special token means in an answer. Special tokens without a meaning are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    ThinkingStart,
    ThinkingEnd,
    Dsml,
    End,
    /// Begins a turn of somebody else.
    Turn,
}

/// A part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// What the model thinks.
    Reasoning,
    /// What it says.
    Text,
    /// Markup of tool calls.
    ToolCalls,
    /// Nothing follows.
    Over,
}

#[derive(Debug)]
enum Place {
    Prose(Prose),
    /// Within tool calls, and what to go back to should the block call nothing.
    Tools(ToolBlock, Prose),
    Over,
}

impl AnswerParser {
    /// A parser for the answer to a prompt whose answer begins at `start`.
    pub fn new(tokenizer: &Tokenizer, start: AnswerStart) -> Self {
        let place = match start {
            AnswerStart::Reasoning => Place::Prose(Prose::new(true, true)),
            AnswerStart::Text => Place::Prose(Prose::new(false, true)),
            AnswerStart::WithinReasoning => Place::Prose(Prose::new(true, false)),
            AnswerStart::WithinText | AnswerStart::Completion => Place::Prose(Prose::new(false, false)),
            AnswerStart::ToolCalls => Place::Tools(ToolBlock::opened_by_prompt(), Prose::new(false, true)),
        };
        let mut meanings = vec![(SpecialToken::Eos, Marker::End)];
        if start != AnswerStart::Completion {
            meanings.extend([
                (SpecialToken::ThinkingStart, Marker::ThinkingStart),
                (SpecialToken::ThinkingEnd, Marker::ThinkingEnd),
                (SpecialToken::Dsml, Marker::Dsml),
                (SpecialToken::Bos, Marker::Turn),
                (SpecialToken::System, Marker::Turn),
                (SpecialToken::User, Marker::Turn),
                (SpecialToken::Assistant, Marker::Turn),
                (SpecialToken::LatestReminder, Marker::Turn),
            ]);
        }
        let markers = meanings
            .into_iter()
            .filter_map(|(token, marker)| Some((tokenizer.special_id(token.default_str())?, marker)))
            .collect();
        Self {
            tokenizer: tokenizer.clone(),
            markers,
            utf8: Utf8Stream::new(),
            place,
            next_index: 0,
            called: false,
        }
    }

    /// Takes in the next token and returns what became certain with it, often nothing. After
    /// [`Event::Finish`] further tokens give nothing.
    pub fn push(&mut self, id: u32) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.is_over() {
            self.token(id, &mut events);
            self.called |= events.iter().any(|event| matches!(event, Event::ToolCall { .. }));
        }
        events
    }

    /// Ends an answer that the model has not ended, and returns what was held back. Gives nothing after
    /// [`Event::Finish`].
    pub fn finish(&mut self, ending: Ending) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.is_over() {
            let mut text = String::new();
            self.utf8.finish(&mut text);
            self.text(&text, &mut events);
            self.end(Some(ending), &mut events);
        }
        events
    }

    /// Whether [`Event::Finish`] has been given.
    pub fn is_over(&self) -> bool {
        matches!(self.place, Place::Over)
    }

    /// Where in the answer the next token will be.
    pub fn section(&self) -> Section {
        match &self.place {
            Place::Prose(prose) if prose.in_reasoning => Section::Reasoning,
            Place::Prose(_) => Section::Text,
            Place::Tools(..) => Section::ToolCalls,
            Place::Over => Section::Over,
        }
    }

    fn token(&mut self, id: u32, events: &mut Vec<Event>) {
        let mut text = String::new();
        if !self.tokenizer.is_special(id) {
            self.utf8.push(self.tokenizer.token_bytes(id), &mut text);
            return self.text(&text, events);
        }
        self.utf8.finish(&mut text);
        self.text(&text, events);
        let spelling = String::from_utf8_lossy(self.tokenizer.token_bytes(id)).into_owned();
        match self.markers.iter().find(|(marker_id, _)| *marker_id == id) {
            None => self.text(&spelling, events),
            Some((_, Marker::ThinkingStart)) => self.thinking_start(events),
            Some((_, Marker::ThinkingEnd)) => self.thinking_end(events),
            Some((_, Marker::Dsml)) => self.dsml(events),
            Some((_, Marker::End)) => self.end(None, events),
            Some((_, Marker::Turn)) => {
                events.push(Event::Irregular(Irregularity::ForeignTurn { marker: spelling }));
                self.end(None, events);
            }
        }
    }

    fn text(&mut self, text: &str, events: &mut Vec<Event>) {
        match &mut self.place {
            Place::Prose(prose) => prose.text(text, events),
            Place::Tools(block, _) => {
                if let Some(rest) = block.text(text, events) {
                    self.place = Place::Prose(self.leave_block());
                    self.text(rest, events);
                }
            }
            Place::Over => {}
        }
    }

    fn thinking_start(&mut self, events: &mut Vec<Event>) {
        match &mut self.place {
            Place::Prose(prose) if prose.fresh && prose.in_reasoning => skip(THINKING_START, events),
            // The prompt closed the reasoning, or the model did, but it wants to think.
            Place::Prose(prose) if prose.fresh => *prose = Prose::new(true, true),
            Place::Prose(prose) => {
                prose.quoted_thinking += usize::from(!prose.in_reasoning);
                prose.text(THINKING_START, events);
            }
            Place::Tools(block, _) => block.thinking_marker(THINKING_START, events),
            Place::Over => {}
        }
    }

    fn thinking_end(&mut self, events: &mut Vec<Event>) {
        match &mut self.place {
            Place::Prose(prose) if prose.in_reasoning => {
                prose.flush_before_thinking_end(events);
                *prose = Prose::new(false, true);
            }
            Place::Prose(prose) if prose.quoted_thinking > 0 => {
                prose.quoted_thinking -= 1;
                prose.text(THINKING_END, events);
            }
            Place::Prose(prose) => {
                prose.fresh = false;
                skip(THINKING_END, events);
            }
            Place::Tools(block, _) => block.thinking_marker(THINKING_END, events),
            Place::Over => {}
        }
    }

    fn dsml(&mut self, events: &mut Vec<Event>) {
        match &mut self.place {
            Place::Prose(prose) => {
                let closes = prose.take_opening();
                let prose = prose.clone();
                self.place = Place::Tools(ToolBlock::opened(closes, prose.in_reasoning, self.next_index), prose);
            }
            Place::Tools(block, _) => {
                if let Some(closes) = block.dsml(events) {
                    let prose = self.leave_block();
                    self.place = Place::Tools(ToolBlock::opened(closes, prose.in_reasoning, self.next_index), prose);
                }
            }
            Place::Over => {}
        }
    }

    /// Leaves a block that is over for what follows it, which is returned: text, or what was before a block that
    /// called nothing.
    fn leave_block(&mut self) -> Prose {
        let Place::Tools(block, before) = &self.place else {
            return Prose::new(false, false);
        };
        self.next_index = block.next_index();
        if block.called() {
            Prose::new(false, true)
        } else {
            before.clone()
        }
    }

    /// Ends the answer: the model did, or the caller does.
    fn end(&mut self, ending: Option<Ending>, events: &mut Vec<Event>) {
        match &mut self.place {
            Place::Prose(prose) => {
                prose.flush(events);
                if prose.in_reasoning && ending != Some(Ending::Cancelled) {
                    events.push(Event::Irregular(Irregularity::ReasoningNotClosed));
                }
            }
            Place::Tools(block, _) => block.end(ending.is_none(), events),
            Place::Over => return,
        }
        let called = self.called || events.iter().any(|event| matches!(event, Event::ToolCall { .. }));
        events.push(Event::Finish(match ending {
            None if called => FinishReason::ToolCalls,
            None => FinishReason::Stop,
            Some(Ending::Length) => FinishReason::Length,
            Some(Ending::Cancelled) => FinishReason::Cancelled,
        }));
        self.place = Place::Over;
    }
}

fn skip(marker: &str, events: &mut Vec<Event>) {
    events.push(Event::Irregular(Irregularity::Skipped { raw: marker.to_owned() }));
}
