//! One answer, from the prompt to its last token.

use std::time::{Duration, Instant};

use cachalot_chat::{Answer, AnswerParser, Ending, Event, Prompt};
use cachalot_engine::{FinishReason, GenerationOptions, SamplingOptions, Session};
use serde_json::{Value, json};

use crate::{error::Error, interrupt::Cooperation, progress::LateBar, texts::Texts};

/// A whole answer with what it cost.
pub struct Turn {
    pub answer: Answer,
    pub prompt_token_count: usize,
    /// Prompt tokens that were in the session already.
    pub reused_token_count: usize,
    pub token_count: usize,
    /// From the start to the first token of the answer.
    pub prompt_time: Duration,
    /// From the first token of the answer to its end.
    pub answer_time: Duration,
}

/// Generates an answer; `observe` hears its events as they come. Ctrl-C ends it early, as
/// [`cachalot_chat::FinishReason::Cancelled`].
pub fn answer(
    session: &mut Session<'_>,
    texts: &Texts,
    prompt: &Prompt,
    sampling: SamplingOptions,
    token_count_max: Option<usize>,
    mut observe: impl FnMut(&Event) -> Result<(), Error>,
) -> Result<Turn, Error> {
    let cooperation = Cooperation::begin();
    let started = Instant::now();
    let options = GenerationOptions {
        sampling,
        token_count_max,
        stop_tokens: texts.stop_tokens.clone(),
    };
    let bar = LateBar::counting("reading the prompt", "tokens");
    let mut generation = session
        .generate(&prompt.ids, options, cooperation.flag(), &mut |done| {
            bar.set(done as u64, prompt.ids.len() as u64);
        })
        .map_err(|error| match error {
            cachalot_engine::Error::Cancelled => Error::interrupted(),
            error => error.into(),
        })?;
    drop(bar);
    let prompt_time = started.elapsed();

    let mut parser = AnswerParser::new(texts.tokenizer(), prompt.answer_start);
    let mut answer = Answer::default();
    while !parser.is_over() {
        let events = if cooperation.is_raised() {
            parser.finish(Ending::Cancelled)
        } else {
            match generation.next_token()? {
                Some(token) => parser.push(token),
                None if generation.finish_reason() == Some(FinishReason::Stop) => {
                    parser.push(texts.tokenizer().eos_id())
                }
                None => parser.finish(Ending::Length),
            }
        };
        for event in events {
            observe(&event)?;
            answer.add(event);
        }
    }
    Ok(Turn {
        answer,
        prompt_token_count: prompt.ids.len(),
        reused_token_count: generation.reused_count(),
        token_count: generation.generated_count(),
        prompt_time,
        answer_time: started.elapsed().saturating_sub(prompt_time),
    })
}

impl Turn {
    /// Why the answer ended, in the words of the chat protocols.
    pub fn finish_reason(&self) -> &'static str {
        use cachalot_chat::FinishReason::{Cancelled, Length, Stop, ToolCalls};
        match self.answer.finish {
            Some(Stop) | None => "stop",
            Some(ToolCalls) => "tool_calls",
            Some(Length) => "length",
            Some(Cancelled) => "cancelled",
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.answer.finish == Some(cachalot_chat::FinishReason::Cancelled)
    }

    /// Tokens of the prompt that had to be computed, for each second.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        (self.prompt_token_count - self.reused_token_count) as f64 / self.prompt_time.as_secs_f64()
    }

    /// Tokens of the answer for each second; the first one comes with the prompt.
    pub fn tokens_per_second(&self) -> f64 {
        self.token_count.saturating_sub(1) as f64 / self.answer_time.as_secs_f64().max(1e-9)
    }

    /// Text, reasoning, tool calls, why it ended, tokens.
    pub fn to_json(&self) -> Value {
        let calls = self.answer.tool_calls.iter();
        let calls: Vec<Value> = calls
            .map(|call| json!({ "id": call.id, "name": call.name, "arguments": call.arguments }))
            .collect();
        json!({
            "text": self.answer.text,
            "reasoning": self.answer.reasoning,
            "tool_calls": calls,
            "finish_reason": self.finish_reason(),
            "usage": {
                "prompt_tokens": self.prompt_token_count,
                "reused_prompt_tokens": self.reused_token_count,
                "completion_tokens": self.token_count,
                "total_tokens": self.prompt_token_count + self.token_count,
            },
        })
    }
}
