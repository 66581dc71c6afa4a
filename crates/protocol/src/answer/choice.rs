//! One answer: tokens to blocks.

use std::sync::Arc;

use cachalot_chat::{AnswerParser, AnswerStart, Ending, Event, FinishReason, Irregularity, Section, Tokenizer};

use super::block::{AnswerState, Block, CallBlock, CallState, Outcome, Piece, TokenLogprob};
use super::stops::StopFinder;
use super::tool_names::ToolNames;
use crate::warning::Warning;

/// What all answers to a request share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) start: AnswerStart,
    pub(crate) stops: Vec<String>,
    pub(crate) tools: ToolNames,
    pub(crate) logprobs: bool,
    /// Prefix of the ids of tool calls.
    pub(crate) call_prefix: String,
}

/// Turns the tokens of one answer into blocks, and says what changed.
#[derive(Debug)]
pub(crate) struct Choice {
    shared: Arc<Shared>,
    index: usize,
    parser: AnswerParser,
    stops: StopFinder,
    pub(crate) state: AnswerState,
    /// Log-probabilities of text that has not come out, and how many bytes it takes.
    pending: Vec<(TokenLogprob, usize)>,
    /// What was sampled, the end included.
    pub(crate) sampled: Vec<u32>,
    /// The open block is the last one.
    open: bool,
    call_count: usize,
    /// Whether the caller ends the answer, not the model.
    limited: bool,
}

impl Choice {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self {
            parser: AnswerParser::new(&shared.tokenizer, shared.start),
            stops: StopFinder::new(shared.stops.clone()),
            shared,
            index,
            state: AnswerState::default(),
            pending: Vec::new(),
            sampled: Vec::new(),
            open: false,
            call_count: 0,
            limited: false,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.outcome.is_some()
    }

    /// Takes in a token; nothing after the end.
    pub(crate) fn token(&mut self, token: u32, logprob: Option<f32>, top: &[(u32, f32)]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.is_over() {
            return pieces;
        }
        self.sampled.push(token);
        self.state.token_count += 1;
        let section = self.parser.section();
        self.state.reasoning_token_count += usize::from(section == Section::Reasoning);
        let events = self.parser.push(token);
        if let (true, Section::Text, Section::Text, Some(logprob)) =
            (self.shared.logprobs, section, self.parser.section(), logprob)
        {
            let top = top.to_vec();
            let bytes = self.shared.tokenizer.token_bytes(token).len();
            self.pending.push((TokenLogprob { token, logprob, top }, bytes));
        }
        self.events(events, &mut pieces);
        pieces
    }

    /// Ends the answer, unless it has ended by itself.
    pub(crate) fn finish(&mut self, ending: Option<Ending>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.is_over() {
            return pieces;
        }
        self.limited = ending.is_some();
        let events = match ending {
            Some(ending) => self.parser.finish(ending),
            None => {
                let eos = self.shared.tokenizer.eos_id();
                self.sampled.push(eos);
                self.parser.push(eos)
            }
        };
        self.events(events, &mut pieces);
        pieces
    }

    fn events(&mut self, events: Vec<Event>, pieces: &mut Vec<Piece>) {
        for event in events {
            if self.is_over() {
                return;
            }
            match event {
                Event::Text(text) => self.text(&text, pieces),
                Event::Reasoning(text) => {
                    self.flush(pieces);
                    self.reasoning(text, pieces);
                }
                Event::ToolCallStarted { name, .. } => {
                    self.flush(pieces);
                    self.start_call(name, pieces);
                }
                Event::ToolCallArguments { delta, .. } => self.arguments(delta, pieces),
                Event::ToolCall { call, .. } => {
                    self.warn_of_repeated_parameters(&call.arguments);
                    self.end_call(CallState::Whole, pieces);
                }
                Event::Irregular(irregularity) => self.irregular(irregularity, pieces),
                Event::Finish(reason) => self.end(reason, pieces),
            }
        }
    }

    fn text(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        let found = self.stops.push(text);
        self.emit_text(found.text, pieces);
        if let Some(stop) = found.stop {
            self.pending.clear();
            self.close(pieces);
            self.state.outcome = Some(Outcome::StopString(stop));
        }
    }

    fn flush(&mut self, pieces: &mut Vec<Piece>) {
        let text = self.stops.finish();
        self.emit_text(text, pieces);
    }

    fn emit_text(&mut self, delta: String, pieces: &mut Vec<Piece>) {
        let logprobs = self.take_logprobs(delta.len());
        if delta.is_empty() && logprobs.is_empty() {
            return;
        }
        if !(self.open && matches!(self.state.blocks.last(), Some(Block::Text { .. }))) {
            let (text, logprobs) = (String::new(), Vec::new());
            self.start(Block::Text { text, logprobs }, pieces);
        }
        if let Some(Block::Text { text, logprobs: all }) = self.state.blocks.last_mut() {
            text.push_str(&delta);
            all.extend(logprobs.iter().cloned());
            let block = self.state.blocks.len() - 1;
            let text = delta;
            pieces.push(Piece::Delta { block, text, logprobs });
        }
    }

    /// The log-probabilities of the tokens that `text_bytes` more bytes of text are from.
    fn take_logprobs(&mut self, text_bytes: usize) -> Vec<TokenLogprob> {
        if text_bytes == 0 {
            return Vec::new();
        }
        let mut covered = 0;
        let holds = self.stops.holds();
        let count = self.pending.iter().take_while(|(_, bytes)| {
            let taken = !holds || covered < text_bytes;
            covered += bytes;
            taken
        });
        let count = count.count();
        self.pending.drain(..count).map(|(logprob, _)| logprob).collect()
    }

    fn reasoning(&mut self, delta: String, pieces: &mut Vec<Piece>) {
        if !(self.open && matches!(self.state.blocks.last(), Some(Block::Reasoning(_)))) {
            self.start(Block::Reasoning(String::new()), pieces);
        }
        if let Some(Block::Reasoning(text)) = self.state.blocks.last_mut() {
            text.push_str(&delta);
            self.delta(delta, pieces);
        }
    }

    fn start_call(&mut self, name: String, pieces: &mut Vec<Piece>) {
        let resolved = self.shared.tools.resolve(&name);
        if let Some(warning) = resolved.warning {
            self.state.warnings.push(warning);
        }
        let index = self.call_count;
        self.call_count += 1;
        let call = CallBlock {
            index,
            id: format!("{}{:02}{:02}", self.shared.call_prefix, self.index, index),
            name: resolved.name,
            shape: resolved.shape,
            arguments: String::new(),
            state: CallState::Open,
        };
        self.start(Block::Call(call), pieces);
    }

    fn arguments(&mut self, delta: String, pieces: &mut Vec<Piece>) {
        if let Some(call) = self.open_call() {
            call.arguments.push_str(&delta);
            self.delta(delta, pieces);
        }
    }

    fn end_call(&mut self, state: CallState, pieces: &mut Vec<Piece>) {
        let Some(call) = self.open_call() else { return };
        let unfinished = state != CallState::Whole && call.arguments.is_empty();
        call.state = state;
        if unfinished {
            // Empty arguments would pass for those of a tool without parameters.
            self.arguments("{".into(), pieces);
        }
        self.close(pieces);
    }

    fn open_call(&mut self) -> Option<&mut CallBlock> {
        match self.state.blocks.last_mut() {
            Some(Block::Call(call)) if self.open => Some(call),
            _ => None,
        }
    }

    fn irregular(&mut self, irregularity: Irregularity, pieces: &mut Vec<Piece>) {
        self.state.warnings.push(Warning::of(&irregularity));
        match irregularity {
            // What the limit cut is nobody's mistake.
            Irregularity::ToolCallCut { index: Some(_), .. } if self.limited => self.end_call(CallState::Cut, pieces),
            Irregularity::ToolCallCut { index: Some(_), raw }
            | Irregularity::ToolCallMalformed { index: Some(_), raw } => {
                self.end_call(CallState::Malformed { raw }, pieces);
            }
            _ => {}
        }
    }

    fn end(&mut self, reason: FinishReason, pieces: &mut Vec<Piece>) {
        self.flush(pieces);
        let limited = matches!(reason, FinishReason::Length | FinishReason::Cancelled);
        let is_empty = self.state.calls().next().is_none() && self.state.text().is_empty();
        if !limited && is_empty && self.lost_a_call() {
            self.emit_text(LOST_CALL.to_owned(), pieces);
        }
        self.close(pieces);
        self.state.outcome = Some(match reason {
            FinishReason::Length => Outcome::Length,
            FinishReason::Cancelled => Outcome::Cancelled,
            // A call that could not be read counts as well: the client answers it with an error, and the model may
            // try again.
            _ if self.call_count > 0 => Outcome::ToolCalls,
            _ => Outcome::Stop,
        });
    }

    fn lost_a_call(&self) -> bool {
        let codes = ["tool_call_malformed", "tool_call_cut"];
        self.state.warnings.iter().any(|warning| codes.contains(&warning.code))
    }

    fn warn_of_repeated_parameters(&mut self, arguments: &str) {
        for name in super::arguments::repeated_members(arguments) {
            let message = format!("the parameter {name:?} was given more than once; the last value counts");
            self.state
                .warnings
                .push(Warning::new("parameter_repeated", message, ""));
        }
    }

    fn start(&mut self, block: Block, pieces: &mut Vec<Piece>) {
        self.close(pieces);
        self.state.blocks.push(block);
        self.open = true;
        let block = self.state.blocks.len() - 1;
        pieces.push(Piece::Started { block });
    }

    fn delta(&mut self, text: String, pieces: &mut Vec<Piece>) {
        let block = self.state.blocks.len() - 1;
        let logprobs = Vec::new();
        pieces.push(Piece::Delta { block, text, logprobs });
    }

    fn close(&mut self, pieces: &mut Vec<Piece>) {
        if std::mem::take(&mut self.open) {
            let block = self.state.blocks.len() - 1;
            pieces.push(Piece::Ended { block });
        }
    }
}

/// Said when an answer would be empty because its only tool call had not even a name.
const LOST_CALL: &str = "(The model began a tool call that could not be read. Ask it to try again.)";
