//! The conversation: what was said, and how the next answer is asked for.

use std::{fs::File, io::Write, path::Path};

use cachalot_chat::{Answer, Message, Thinking, message};
use cachalot_engine::{SamplingOptions, Session};
use serde_json::{Value, json};

use crate::{
    answering::{self, Turn},
    error::Error,
    numbers,
    printer::Printer,
    texts::Texts,
};

/// A conversation with its settings.
pub struct Talk<'e> {
    pub session: Session<'e>,
    /// Tokens that fit.
    pub context: usize,
    pub texts: &'e Texts,
    pub sampling: SamplingOptions,
    pub token_count_max: Option<usize>,
    pub thinking: Thinking,
    pub system: Option<String>,
    /// Questions and answers.
    pub exchanges: Vec<(String, Answer)>,
    /// The last question, also if its answer was not kept.
    pub question: Option<String>,
    /// The last answer's sentence for `/stats`.
    pub cost: Option<String>,
}

impl Talk<'_> {
    /// Asks, and shows the answer as it comes.
    ///
    /// An exchange is kept if the answer says something; one that was stopped or cut in its reasoning is not.
    pub fn ask(&mut self, question: String) -> Result<(), Error> {
        self.question = Some(question.clone());
        let prompt = self.texts.prompt(&self.messages(&question), self.thinking)?;
        let mut printer = Printer::to_output();
        let turn = answering::answer(
            &mut self.session,
            self.texts,
            &prompt,
            self.sampling.clone(),
            self.token_count_max,
            |event| printer.show(event),
        )?;
        self.cost = Some(cost(&turn));
        let (is_cancelled, reason) = (turn.is_cancelled(), turn.finish_reason());
        let says_something = !turn.answer.text.trim().is_empty() || !turn.answer.tool_calls.is_empty();
        if says_something {
            self.exchanges.push((question, turn.answer));
            if is_cancelled {
                super::note("stopped");
            }
        } else if is_cancelled {
            return Err(Error::interrupted());
        } else {
            super::note(&format!("no answer (ended by {reason}); /regenerate asks again"));
        }
        Ok(())
    }

    /// Asks the last question again, with other random numbers.
    pub fn ask_again(&mut self) -> Result<(), Error> {
        let Some(question) = self.question.clone() else {
            super::note("there is no question yet");
            return Ok(());
        };
        let answered = self.exchanges.pop_if(|(last, _)| *last == question);
        self.sampling.seed = self.sampling.seed.wrapping_add(1);
        let kept_count = self.exchanges.len();
        let result = self.ask(question);
        if self.exchanges.len() == kept_count {
            // The old answer is better than none.
            self.exchanges.extend(answered);
        }
        result
    }

    pub fn set_thinking(&mut self, is_on: bool) {
        self.thinking = match (is_on, self.thinking) {
            (false, _) => Thinking::Off,
            (true, Thinking::Off) => Thinking::On,
            (true, thinking) => thinking,
        };
    }

    /// Tokens and speed, for people.
    pub fn stats(&self) -> String {
        format!(
            "{} answer{}, {} of {} tokens in the context{}",
            self.exchanges.len(),
            if self.exchanges.len() == 1 { "" } else { "s" },
            numbers::grouped(self.session.tokens().len() as u64),
            numbers::grouped(self.context as u64),
            self.cost.as_ref().map_or_else(String::new, |cost| format!("\n{cost}"))
        )
    }

    /// Writes the conversation into a new file, as messages of the chat protocols.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        let mut messages: Vec<Value> = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({ "role": "system", "content": system }));
        }
        for (question, answer) in &self.exchanges {
            messages.push(json!({ "role": "user", "content": question }));
            let mut message = json!({ "role": "assistant", "content": answer.text });
            if !answer.reasoning.is_empty() {
                message["reasoning_content"] = json!(answer.reasoning);
            }
            messages.push(message);
        }
        let mut file = File::create_new(path).map_err(failed)?;
        writeln!(file, "{:#}", json!({ "messages": messages })).map_err(failed)
    }

    fn messages(&self, question: &str) -> Vec<Message> {
        let mut messages: Vec<Message> = self.system.iter().map(message::system).collect();
        for (question, answer) in &self.exchanges {
            messages.push(message::user(question));
            messages.push(answer.clone().into_message());
        }
        messages.push(message::user(question));
        messages
    }
}

fn cost(turn: &Turn) -> String {
    format!(
        "last answer: {} tokens, {:.1} tokens/s; prompt: {} tokens, {} of them reused, first token after {}",
        turn.token_count,
        turn.tokens_per_second(),
        turn.prompt_token_count,
        turn.reused_token_count,
        numbers::seconds(turn.prompt_time.as_secs_f64())
    )
}
