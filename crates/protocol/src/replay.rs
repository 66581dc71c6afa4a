//! Earlier answers as they were sampled.
//!
//! Clients send answers back as JSON. Rendered again they are often other tokens than those the model drew: another
//! cut into tokens, another spelling of JSON, no reasoning. Everything after the first difference would have to be
//! computed anew. So sampled answers are kept for a while, and go into the next prompt as they were.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cachalot_chat::{Conversation, Message, Prompt, Tokenizer, ToolCall, ToolChoice, message};
use serde_json::Value;

use crate::answer::Outcome;
use crate::answer::block::{AnswerState, CallState};

const THINKING_START: &str = "<think>";

/// Sampled answers, bounded in bytes; the least recently used go first.
///
/// An answer with tool calls is found by their ids, names, arguments and the text; one without by the text and every
/// token before it. The reasoning must be the same or left out by the client. Nothing is found across scopes.
#[derive(Debug)]
pub struct ReplayStore {
    byte_count_max: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<u64, Entry>,
    /// Keys by last use.
    uses: BTreeMap<u64, u64>,
    use_count: u64,
    byte_count: usize,
}

#[derive(Debug)]
struct Entry {
    scope: String,
    before: Fingerprint,
    reasoning: String,
    text: String,
    calls: Vec<ToolCall>,
    ids: Vec<u32>,
    last_use: u64,
}

/// Two hashes of the tokens before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Fingerprint(u64, u64);

/// Where an answer begins: what it is kept under.
#[derive(Debug, Clone)]
pub(crate) struct TurnStart {
    scope: String,
    before: Fingerprint,
    /// The end of the prompt, which belongs to the answer's turn: `<think>` or `</think>`.
    opening: Vec<u32>,
}

impl ReplayStore {
    /// A store of at most `byte_count_max` bytes; 0 keeps nothing.
    pub fn new(byte_count_max: usize) -> Self {
        Self {
            byte_count_max,
            entries: Mutex::default(),
        }
    }

    /// Answers that are kept.
    pub fn answer_count(&self) -> usize {
        self.lock().by_key.len()
    }

    /// Bytes that they take.
    pub fn byte_count(&self) -> usize {
        self.lock().byte_count
    }

    /// Keeps the answer `state` that was sampled as `sampled` after `start`, if it ended by itself and in format.
    pub(crate) fn record(&self, start: &TurnStart, sampled: &[u32], state: &AnswerState) {
        let ended = matches!(state.outcome, Some(Outcome::Stop | Outcome::ToolCalls));
        let broken = [
            "tool_call_malformed",
            "tool_call_cut",
            "tool_call_in_reasoning",
            "foreign_turn",
        ];
        let is_broken = state.warnings.iter().any(|warning| broken.contains(&warning.code))
            || state.calls().any(|call| call.state != CallState::Whole);
        if !ended || is_broken || sampled.is_empty() {
            return;
        }
        let Message::Assistant { tool_calls, .. } = as_message(state) else {
            return;
        };
        let entry = Entry {
            scope: start.scope.clone(),
            before: start.before,
            reasoning: state.reasoning(),
            text: state.text(),
            calls: tool_calls.unwrap_or_default(),
            ids: start.opening.iter().chain(sampled).copied().collect(),
            last_use: 0,
        };
        self.lock().insert(entry, self.byte_count_max);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic elsewhere leaves at worst a wrong count of bytes.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn insert(&mut self, mut entry: Entry, byte_count_max: usize) {
        let bytes = entry.byte_count();
        if bytes > byte_count_max {
            return;
        }
        let key = key(&entry.scope, entry.before, &entry.text, &entry.calls);
        self.remove(key);
        self.use_count += 1;
        entry.last_use = self.use_count;
        self.uses.insert(entry.last_use, key);
        self.byte_count += bytes;
        self.by_key.insert(key, entry);
        while self.byte_count > byte_count_max {
            let Some((_, oldest)) = self.uses.first_key_value() else {
                return;
            };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: u64) {
        if let Some(entry) = self.by_key.remove(&key) {
            self.uses.remove(&entry.last_use);
            self.byte_count = self.byte_count.saturating_sub(entry.byte_count());
        }
    }

    fn touch(&mut self, key: u64) -> Option<&Entry> {
        let entry = self.by_key.get_mut(&key)?;
        self.uses.remove(&entry.last_use);
        self.use_count += 1;
        entry.last_use = self.use_count;
        self.uses.insert(entry.last_use, key);
        Some(entry)
    }
}

impl Entry {
    fn byte_count(&self) -> usize {
        let calls = self
            .calls
            .iter()
            .map(|call| call.id.len() + call.name.len() + call.arguments.len());
        let fixed = std::mem::size_of::<Self>() + 64;
        fixed + self.scope.len() + self.reasoning.len() + self.text.len() + 4 * self.ids.len() + calls.sum::<usize>()
    }

    fn fits(&self, scope: &str, before: Fingerprint, reasoning: &str, text: &str, calls: &[ToolCall]) -> bool {
        self.scope == scope
            && self.text == text
            && (reasoning.is_empty() || reasoning == self.reasoning)
            && self.calls.len() == calls.len()
            && (!calls.is_empty() || self.before == before)
            && self.calls.iter().zip(calls).all(|(kept, call)| {
                kept.id == call.id && kept.name == call.name && same_json(&kept.arguments, &call.arguments)
            })
    }
}

fn same_json(left: &str, right: &str) -> bool {
    let parse = |text| serde_json::from_str::<Value>(text).ok();
    left == right || parse(left).is_some_and(|value| Some(value) == parse(right))
}

/// What an answer is kept under: what it follows only matters without tool calls, whose ids are unique.
fn key(scope: &str, before: Fingerprint, text: &str, calls: &[ToolCall]) -> u64 {
    let mut hasher = DefaultHasher::new();
    scope.hash(&mut hasher);
    text.hash(&mut hasher);
    calls.len().hash(&mut hasher);
    if calls.is_empty() {
        before.hash(&mut hasher);
    }
    for call in calls {
        call.id.hash(&mut hasher);
    }
    hasher.finish()
}

impl TurnStart {
    /// Where the answer to `prompt` begins; `None` where no whole turn follows.
    pub(crate) fn new(scope: &str, prompt: &Prompt, tokenizer: &Tokenizer) -> Option<Self> {
        use cachalot_chat::AnswerStart::{Reasoning, Text};
        if !matches!(prompt.answer_start, Reasoning | Text) {
            return None;
        }
        let assistant = tokenizer.special_id("<｜Assistant｜>")?;
        let place = prompt.ids.iter().rposition(|id| *id == assistant)?;
        let (before, opening) = prompt.ids.split_at(place + 1);
        let mut hashes = Hashes::new();
        Some(Self {
            scope: scope.to_owned(),
            before: hashes.up_to(before),
            opening: opening.to_vec(),
        })
    }
}

/// Hashes growing prefixes of one sequence.
struct Hashes {
    first: DefaultHasher,
    second: DefaultHasher,
    count: usize,
}

impl Hashes {
    fn new() -> Self {
        let mut second = DefaultHasher::new();
        second.write_u64(0x9E37_79B9_7F4A_7C15);
        Self {
            first: DefaultHasher::new(),
            second,
            count: 0,
        }
    }

    /// Fingerprint of `ids`, which begin with those of the last call.
    fn up_to(&mut self, ids: &[u32]) -> Fingerprint {
        for id in &ids[self.count..] {
            self.first.write_u32(*id);
            self.second.write_u32(*id);
        }
        self.count = ids.len();
        Fingerprint(self.first.finish(), self.second.finish())
    }
}

/// Looks up the answers of one conversation, oldest first.
pub(crate) struct Lookup<'s> {
    store: &'s ReplayStore,
    scope: &'s str,
    messages: &'s [Message],
    /// Whether the format keeps the reasoning of earlier answers.
    keeps_reasoning: bool,
    hashes: Hashes,
    found_count: usize,
}

impl<'s> Lookup<'s> {
    pub(crate) fn new(store: &'s ReplayStore, scope: &'s str, conversation: &'s Conversation) -> Self {
        let offers_tools = !conversation.tools.is_empty() && conversation.tool_choice != ToolChoice::None;
        Self {
            store,
            scope,
            messages: &conversation.messages,
            keeps_reasoning: conversation.thinking_mode && offers_tools,
            hashes: Hashes::new(),
            found_count: 0,
        }
    }

    pub(crate) fn found_count(&self) -> usize {
        self.found_count
    }

    /// The tokens of the answer that is the message at `index`, after the tokens `before`.
    pub(crate) fn turn(&mut self, index: usize, before: &[u32], tokenizer: &Tokenizer) -> Option<Vec<u32>> {
        let before = self.hashes.up_to(before);
        let Message::Assistant {
            content,
            reasoning_content,
            tool_calls,
            ..
        } = self.messages.get(index)?
        else {
            return None;
        };
        let calls = tool_calls.as_deref().unwrap_or_default();
        let reasoning = reasoning_content.as_deref().unwrap_or_default();
        let key = key(self.scope, before, content, calls);
        let mut entries = self.store.lock();
        let kept = entries
            .by_key
            .get(&key)
            .is_some_and(|entry| entry.fits(self.scope, before, reasoning, content, calls));
        let entry = if kept { entries.touch(key)? } else { return None };
        let thinks = entry.ids.first().copied() == tokenizer.special_id(THINKING_START);
        if thinks && !self.keeps_reasoning {
            return None;
        }
        self.found_count += 1;
        Some(entry.ids.clone())
    }
}

/// The answer as a message of the next turn.
pub(crate) fn as_message(state: &AnswerState) -> Message {
    let reasoning = Some(state.reasoning()).filter(|reasoning| !reasoning.is_empty());
    let calls = state.calls().map(|call| ToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    });
    message::assistant(reasoning, state.text(), calls.collect())
}
