//! What is sent: prompts of a wanted length in each protocol's form, and bodies that are no requests.

use serde_json::json;

use super::{LoadOptions, random::Random};
use crate::Protocol;

const WORDS: [&str; 48] = [
    "time", "river", "house", "seven", "green", "walk", "story", "window", "bread", "early", "music", "north", "paper",
    "garden", "small", "winter", "friend", "open", "stone", "letter", "quiet", "morning", "table", "bird", "forest",
    "yellow", "ship", "answer", "road", "clock", "summer", "near", "mountain", "cold", "simple", "market", "light",
    "island", "brother", "under", "glass", "horse", "evening", "field", "water", "second", "village", "round",
];

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub protocol: Protocol,
    pub body: Vec<u8>,
    pub content_type: &'static str,
    /// Whether it is no request and has to be refused.
    pub is_malformed: bool,
}

/// Writes requests.
#[derive(Debug)]
pub struct Author {
    model: String,
    words_per_token: f64,
    shared: Vec<&'static str>,
    options: LoadOptions,
}

impl Author {
    /// Writes for `model`, which needs `words_per_token` of this module's words for a token.
    pub fn new(options: &LoadOptions, model: String, words_per_token: f64) -> Self {
        let mut random = Random::new(options.seed ^ 0x5eed);
        let shared = (0..1 << 16).map(|_| WORDS[random.below(WORDS.len())]).collect();
        Author {
            model,
            words_per_token,
            shared,
            options: options.clone(),
        }
    }

    /// Words by which [`Author::new`]'s `words_per_token` can be measured.
    pub fn sample() -> String {
        WORDS.join(" ")
    }

    /// Words in [`Author::sample`].
    pub fn sample_word_count() -> usize {
        WORDS.len()
    }

    /// Whom it writes to.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The next request.
    pub fn write(&self, random: &mut Random) -> Sent {
        let protocol = self.options.protocols[random.below(self.options.protocols.len())];
        if random.unit() < self.options.malformed {
            let (body, content_type) = self.malformed(random);
            return Sent {
                protocol,
                body,
                content_type,
                is_malformed: true,
            };
        }
        let prompt_length = self.options.prompt_lengths.draw(random);
        let output_length = self.options.output_lengths.draw(random);
        let (shared, own) = self.prompt(prompt_length, random);
        let mut body = json!({ "model": self.model, "stream": true });
        let message = json!({ "role": "user", "content": own });
        match protocol {
            Protocol::Messages => {
                body["max_tokens"] = json!(output_length);
                body["messages"] = json!([message]);
                if !shared.is_empty() {
                    body["system"] = json!(shared);
                }
            }
            Protocol::Responses => {
                body["max_output_tokens"] = json!(output_length);
                body["store"] = json!(false);
                body["input"] = json!([message]);
                if !shared.is_empty() {
                    body["instructions"] = json!(shared);
                }
            }
            Protocol::ChatCompletions | Protocol::Completions => {
                body["max_tokens"] = json!(output_length);
                body["stream_options"] = json!({ "include_usage": true });
                let system = (!shared.is_empty()).then(|| json!({ "role": "system", "content": shared }));
                body["messages"] = system.into_iter().chain([message]).collect();
            }
        }
        Sent {
            protocol,
            body: body.to_string().into_bytes(),
            content_type: "application/json",
            is_malformed: false,
        }
    }

    /// What all prompts have in common, as system prompts of agents have it, and what is this one's own.
    fn prompt(&self, token_count: usize, random: &mut Random) -> (String, String) {
        let word_count = ((token_count as f64 * self.words_per_token).round() as usize).max(1);
        let shared_count = (word_count as f64 * self.options.shared_prefix).round() as usize;
        let shared: Vec<&str> = self.shared.iter().cycle().take(shared_count).copied().collect();
        let own_count = (word_count - shared_count.min(word_count)).max(1);
        let own: Vec<&str> = (0..own_count).map(|_| WORDS[random.below(WORDS.len())]).collect();
        (shared.join(" "), own.join(" "))
    }

    /// A body that no protocol takes, with its content type.
    fn malformed(&self, random: &mut Random) -> (Vec<u8>, &'static str) {
        const JSON: &str = "application/json";
        let whole = json!({ "model": self.model, "max_tokens": 8, "messages": [{ "role": "user", "content": "Hi" }],
            "input": "Hi" });
        let mut changed = whole.clone();
        match random.below(10) {
            0 => {
                let text = whole.to_string();
                let cut = 1 + random.below(text.len() - 2);
                (text.as_bytes()[..cut].to_vec(), JSON)
            }
            1 => (Vec::new(), JSON),
            2 => (b"{\"model\": \"\xff\xfe\"}".to_vec(), JSON),
            3 => ("[".repeat(100_000).into_bytes(), JSON),
            4 => (b"[]".to_vec(), JSON),
            5 => (whole.to_string().into_bytes(), "text/plain"),
            6 => {
                changed["messages"] = json!("none");
                changed["input"] = json!(7);
                (changed.to_string().into_bytes(), JSON)
            }
            7 => {
                changed["temperature"] = json!(-1);
                (changed.to_string().into_bytes(), JSON)
            }
            8 => {
                changed["model"] = json!("no such model");
                (changed.to_string().into_bytes(), JSON)
            }
            _ => ((0..64).map(|_| random.next() as u8).collect(), JSON),
        }
    }
}

/// Where requests of a protocol go.
pub fn path(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::ChatCompletions => "/v1/chat/completions",
        Protocol::Completions => "/v1/completions",
        Protocol::Responses => "/v1/responses",
        Protocol::Messages => "/v1/messages",
    }
}
