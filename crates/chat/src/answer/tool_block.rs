//! A block of tool calls, from its first marker to its end.

use deepseek_recipe_core::messages::ToolCall;
use deepseek_recipe_core::special_tokens::SpecialToken;
use serde::de::IgnoredAny;

use super::event::{Event, Irregularity};
use super::tag::{Meaning, Tag, split_opening};

const DSML: &str = SpecialToken::Dsml.default_str();

/// Reads one block. Text and markers go in, events come out.
#[derive(Debug)]
pub(super) struct ToolBlock {
    /// Number of the next call within the answer.
    next_index: usize,
    /// What the model wrote since the last whole call.
    raw: String,
    /// Whether `raw` holds markup that means nothing.
    malformed: bool,
    call: Option<Call>,
    place: Place,
    in_reasoning: bool,
    called: bool,
}

#[derive(Debug)]
struct Call {
    index: usize,
    tool: String,
    arguments: String,
}

/// Where in the block the reader is.
#[derive(Debug)]
enum Place {
    /// Outside of tags and values; holds the text since the last tag.
    Between(String),
    Tag(Tag),
    Value(Value),
}

#[derive(Debug)]
struct Value {
    name: String,
    is_string: bool,
    /// A value that is no string, which has to be whole to be checked.
    json: String,
    /// `<` or `</` that may open the closing tag.
    held: &'static str,
}

impl ToolBlock {
    /// A block that the prompt opened.
    pub(super) fn opened_by_prompt() -> Self {
        Self {
            next_index: 0,
            raw: String::new(),
            malformed: false,
            call: None,
            place: Place::Between(String::new()),
            in_reasoning: false,
            called: false,
        }
    }

    /// A block whose first marker, `｜DSML｜`, has come, after `<` or (if `closes`) `</`.
    pub(super) fn opened(closes: bool, in_reasoning: bool, next_index: usize) -> Self {
        Self {
            next_index,
            raw: format!("{}{DSML}", opening(closes)),
            place: Place::Tag(Tag::new(closes)),
            in_reasoning,
            ..Self::opened_by_prompt()
        }
    }

    /// Whether a tool was called in this block.
    pub(super) fn called(&self) -> bool {
        self.called
    }

    /// Number of the next call within the answer.
    pub(super) fn next_index(&self) -> usize {
        self.next_index
    }

    /// Takes in text; returns what follows the block's end, or `None` if the block goes on.
    pub(super) fn text<'t>(&mut self, mut text: &'t str, events: &mut Vec<Event>) -> Option<&'t str> {
        while !text.is_empty() {
            match (&mut self.place, &mut self.call) {
                (Place::Tag(tag), _) => {
                    let after = tag.take(text);
                    self.raw.push_str(&text[..text.len() - after.map_or(0, str::len)]);
                    let after = after?;
                    if self.end_tag(events) {
                        return Some(after);
                    }
                    text = after;
                }
                (Place::Value(value), Some(call)) => {
                    self.raw.push_str(text);
                    value.take(text, call, events);
                    return None;
                }
                (place, _) => {
                    self.raw.push_str(text);
                    match place {
                        Place::Between(between) => between.push_str(text),
                        _ => *place = Place::Between(text.to_owned()),
                    }
                    return None;
                }
            }
        }
        None
    }

    /// Takes in the marker `｜DSML｜`. If it follows the end of the block, returns whether its tag closes.
    pub(super) fn dsml(&mut self, events: &mut Vec<Event>) -> Option<bool> {
        let closes = match &mut self.place {
            Place::Between(between) => {
                let (text, closes) = split_opening(between);
                if !text.trim().is_empty() {
                    events.push(Event::Irregular(Irregularity::Skipped { raw: text.to_owned() }));
                }
                closes
            }
            Place::Tag(tag) if !tag.quoted() => {
                // The tag has no end, and what was to follow it is lost in it.
                let closes = tag.cut_at_opening();
                self.malformed = true;
                if self.end_tag(events) {
                    return Some(closes);
                }
                self.end_value(events);
                closes
            }
            Place::Value(value) if value.held == "</" => {
                value.held = "";
                self.end_value(events);
                true
            }
            Place::Tag(_) | Place::Value(_) => {
                self.text(DSML, events);
                return None;
            }
        };
        self.place = Place::Tag(Tag::new(closes));
        if self.raw.is_empty() {
            self.raw.push_str(opening(closes));
        }
        self.raw.push_str(DSML);
        None
    }

    /// Takes in `<think>` or `</think>`, which is text in a value and nothing elsewhere.
    pub(super) fn thinking_marker(&mut self, marker: &str, events: &mut Vec<Event>) {
        match &self.place {
            Place::Between(_) => events.push(Event::Irregular(Irregularity::Skipped { raw: marker.to_owned() })),
            Place::Tag(_) | Place::Value(_) => {
                self.text(marker, events);
            }
        }
    }

    /// The answer ended within the block, because the model ended it (`stopped`) or not.
    pub(super) fn end(&mut self, stopped: bool, events: &mut Vec<Event>) {
        let between = match &self.place {
            Place::Between(text) => Some(text.trim().to_owned()),
            Place::Tag(_) | Place::Value(_) => None,
        };
        match between {
            Some(text) if stopped => {
                self.end_call(events);
                if self.malformed || !self.called {
                    self.report_malformed(None, events);
                } else if !text.is_empty() {
                    events.push(Event::Irregular(Irregularity::Skipped { raw: text }));
                }
            }
            Some(text) if text.is_empty() && self.called && !self.malformed && self.call.is_none() => {}
            _ => {
                let index = self.call.take().map(|call| call.index);
                let raw = std::mem::take(&mut self.raw);
                events.push(Event::Irregular(Irregularity::ToolCallCut { index, raw }));
            }
        }
    }

    /// Acts on the tag that is now whole; returns whether it ended the block.
    fn end_tag(&mut self, events: &mut Vec<Event>) -> bool {
        let Place::Tag(tag) = std::mem::replace(&mut self.place, Place::Between(String::new())) else {
            return false;
        };
        let meaning = tag.meaning();
        let ends_block = meaning == Meaning::BlockEnd;
        match (meaning, &mut self.call) {
            (Meaning::Block | Meaning::ParameterEnd, _) => {}
            (Meaning::Invoke { tool }, _) => {
                self.end_call(events);
                self.start_call(tool, events);
            }
            (Meaning::Parameter { name, is_string }, Some(call)) => {
                self.place = Place::Value(Value::start(name, is_string, call, events));
            }
            (Meaning::InvokeEnd, Some(_)) | (Meaning::BlockEnd, _) => self.end_call(events),
            (Meaning::Parameter { .. } | Meaning::InvokeEnd | Meaning::Unknown, _) => self.malformed = true,
        }
        // Markup without a meaning before any call is no block: what follows it is prose again.
        let is_over = ends_block || (self.malformed && !self.called);
        if (self.malformed && self.call.is_none()) || (is_over && !self.called) {
            self.report_malformed(None, events);
        }
        is_over
    }

    fn start_call(&mut self, tool: String, events: &mut Vec<Event>) {
        if self.in_reasoning && !self.called {
            events.push(Event::Irregular(Irregularity::ToolCallInReasoning));
        }
        let index = self.next_index;
        self.next_index += 1;
        self.called = true;
        events.push(Event::ToolCallStarted {
            index,
            name: tool.clone(),
        });
        self.call = Some(Call {
            index,
            tool,
            arguments: String::new(),
        });
    }

    /// Completes the open call, if there is one. It counts only if everything in it had a meaning.
    fn end_call(&mut self, events: &mut Vec<Event>) {
        let Some(mut call) = self.call.take() else { return };
        if self.malformed {
            return self.report_malformed(Some(call.index), events);
        }
        call.append(if call.arguments.is_empty() { "{}" } else { "}" }, events);
        let Call {
            index,
            tool: name,
            arguments,
        } = call;
        let id = format!("call_{index:02}");
        events.push(Event::ToolCall {
            index,
            call: ToolCall { id, name, arguments },
        });
        self.raw.clear();
    }

    fn end_value(&mut self, events: &mut Vec<Event>) {
        if let (Place::Value(value), Some(call)) = (&mut self.place, &mut self.call) {
            value.end(call, events);
        }
    }

    fn report_malformed(&mut self, index: Option<usize>, events: &mut Vec<Event>) {
        let raw = std::mem::take(&mut self.raw);
        self.malformed = false;
        events.push(Event::Irregular(Irregularity::ToolCallMalformed { index, raw }));
    }
}

fn opening(closes: bool) -> &'static str {
    if closes { "</" } else { "<" }
}

impl Call {
    fn append(&mut self, delta: &str, events: &mut Vec<Event>) {
        if !delta.is_empty() {
            self.arguments.push_str(delta);
            events.push(Event::ToolCallArguments {
                index: self.index,
                delta: delta.to_owned(),
            });
        }
    }
}

impl Value {
    /// Begins the value of the parameter `name`. One that does not say whether it is a string is one if it is no JSON.
    fn start(name: String, is_string: Option<bool>, call: &mut Call, events: &mut Vec<Event>) -> Self {
        let is_string = is_string.unwrap_or(false);
        let separator = if call.arguments.is_empty() { "{" } else { ", " };
        let quote = if is_string { "\"" } else { "" };
        call.append(&format!("{separator}{}: {quote}", json_string(&name)), events);
        Self {
            name,
            is_string,
            json: String::new(),
            held: "",
        }
    }

    fn take(&mut self, text: &str, call: &mut Call, events: &mut Vec<Event>) {
        let text = format!("{}{text}", self.held);
        self.held = ["</", "<"]
            .into_iter()
            .find(|opening| text.ends_with(opening))
            .unwrap_or("");
        self.append(&text[..text.len() - self.held.len()], call, events);
    }

    fn append(&mut self, text: &str, call: &mut Call, events: &mut Vec<Event>) {
        if self.is_string {
            call.append(inside_quotes(&json_string(text)), events);
        } else {
            self.json.push_str(text);
        }
    }

    fn end(&mut self, call: &mut Call, events: &mut Vec<Event>) {
        self.append(self.held, call, events);
        if self.is_string {
            call.append("\"", events);
        } else if serde_json::from_str::<IgnoredAny>(&self.json).is_ok() {
            call.append(&self.json, events);
        } else {
            call.append(&json_string(&self.json), events);
            events.push(Event::Irregular(Irregularity::ValueNotJson {
                index: call.index,
                parameter: self.name.clone(),
                value: std::mem::take(&mut self.json),
            }));
        }
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn inside_quotes(json: &str) -> &str {
    &json[1..json.len() - 1]
}
