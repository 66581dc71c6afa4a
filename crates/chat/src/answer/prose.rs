//! Reasoning and text, between the markers.

use super::event::Event;
use super::tag::split_opening;

/// Reasoning or text.
#[derive(Debug, Clone)]
pub(super) struct Prose {
    pub(super) in_reasoning: bool,
    /// Whether nothing but newlines has come, which are left out.
    pub(super) fresh: bool,
    /// `<think>`s within the text that a `</think>` has not closed: an answer that speaks of such tags.
    pub(super) quoted_thinking: usize,
    /// Newlines and an opening (`<` or `</`), which are left out if a marker follows.
    held: String,
}

impl Prose {
    pub(super) fn new(in_reasoning: bool, fresh: bool) -> Self {
        Self {
            in_reasoning,
            fresh,
            quoted_thinking: 0,
            held: String::new(),
        }
    }

    /// Takes in text and gives out all but what a marker might follow.
    pub(super) fn text(&mut self, text: &str, events: &mut Vec<Event>) {
        self.held.push_str(text);
        if self.fresh {
            let newline_bytes = self.held.len() - self.held.trim_start_matches('\n').len();
            self.held.drain(..newline_bytes);
            self.fresh = self.held.is_empty();
        }
        let (before, _) = split_opening(&self.held);
        let certain = before.trim_end_matches('\n').len();
        let rest = self.held.split_off(certain);
        self.flush(events);
        self.held = rest;
    }

    /// Gives out what is held: no marker followed.
    pub(super) fn flush(&mut self, events: &mut Vec<Event>) {
        if !self.held.is_empty() {
            let text = std::mem::take(&mut self.held);
            events.push(if self.in_reasoning {
                Event::Reasoning(text)
            } else {
                Event::Text(text)
            });
        }
    }

    /// Leaves out the newlines before `</think>`.
    pub(super) fn flush_before_thinking_end(&mut self, events: &mut Vec<Event>) {
        if self.held.ends_with('\n') {
            self.held.clear();
        }
        self.flush(events);
    }

    /// Leaves out the newlines and the opening before `｜DSML｜`; returns whether it was the opening of an end tag.
    pub(super) fn take_opening(&mut self) -> bool {
        let (_, closes) = split_opening(&self.held);
        self.held.clear();
        closes
    }
}
