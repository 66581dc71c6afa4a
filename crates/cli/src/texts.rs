//! Text in and out of a model: its tokenizer, its prompt format, and where its answers end.

use cachalot_chat::{
    Conversation, Message, Prompt, PromptEncoder, PromptFormat, ReasoningEffort, Thinking, Tokenizer, conversation,
};
use cachalot_checkpoint::{Checkpoint, ModelConfig};
use cachalot_engine::SamplingOptions;
use clap::{Args, ValueEnum};

use crate::{error::Error, generation_config::GenerationConfig, loading::Loaded};

/// What a model needs to talk.
pub struct Texts {
    pub encoder: PromptEncoder,
    /// How the release wants its tokens drawn.
    pub sampling: SamplingOptions,
    pub stop_tokens: Vec<u32>,
}

/// Whether the model thinks first. It does by default, as in DeepSeek's own conversations; the built-in model needs it
/// for sums.
#[derive(Args, Clone, Copy, Debug)]
pub struct ThinkingArguments {
    /// Let the model think before it answers (the default)
    #[arg(long, overrides_with = "no_think")]
    think: bool,

    /// Have the model answer at once
    #[arg(long)]
    no_think: bool,

    /// How hard the model thinks [default: what the release does when nothing is asked for]
    #[arg(long, value_name = "EFFORT", conflicts_with = "no_think")]
    effort: Option<Effort>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Effort {
    Low,
    High,
    Xhigh,
    Max,
}

impl Texts {
    pub fn of(loaded: &Loaded) -> Result<Self, Error> {
        Texts::of_checkpoint(&loaded.checkpoint, &loaded.place)
    }

    /// The same of a checkpoint; `place` names its folder in errors.
    pub fn of_checkpoint(checkpoint: &Checkpoint, place: &str) -> Result<Self, Error> {
        let config = checkpoint.config();
        let format = prompt_format(checkpoint);
        let wrong = |source| Error::Tokenizer {
            place: place.to_owned(),
            source,
        };
        let tokenizer = tokenizer(checkpoint, place)?;
        let encoder = PromptEncoder::new(tokenizer, format).map_err(wrong)?;
        let file = checkpoint.file("generation_config.json");
        let generation = GenerationConfig::read(file.as_deref(), place)?;
        let mut stop_tokens = config.eos_token_ids().to_vec();
        stop_tokens.extend(generation.stop_tokens);
        stop_tokens.push(encoder.tokenizer().eos_id());
        Ok(Texts {
            encoder,
            sampling: generation.sampling,
            stop_tokens,
        })
    }

    /// The prompt of a conversation.
    pub fn prompt(&self, messages: &[Message], thinking: Thinking) -> Result<Prompt, Error> {
        let conversation: Conversation = conversation(messages.to_vec(), thinking);
        Ok(self.encoder.conversation(&conversation)?)
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        self.encoder.tokenizer()
    }
}

impl ThinkingArguments {
    pub fn choice(&self) -> Thinking {
        match self.effort {
            _ if self.no_think => Thinking::Off,
            None => Thinking::On,
            Some(Effort::Low) => Thinking::Effort(ReasoningEffort::Low),
            Some(Effort::High) => Thinking::Effort(ReasoningEffort::High),
            Some(Effort::Xhigh) => Thinking::Effort(ReasoningEffort::Xhigh),
            Some(Effort::Max) => Thinking::Effort(ReasoningEffort::Max),
        }
    }
}

fn prompt_format(checkpoint: &Checkpoint) -> PromptFormat {
    match checkpoint.config() {
        ModelConfig::V3(config) => {
            let has_power_scales = config
                .quantization
                .is_some_and(|quantization| quantization.scale_fmt.is_some());
            let template = chat_template(checkpoint);
            PromptFormat::of_v3(template.as_deref(), config.indexer.is_some(), has_power_scales)
        }
        ModelConfig::V4(config) if config.dspark.is_some() => PromptFormat::V4Dspark,
        ModelConfig::V41(_) => PromptFormat::V41,
        _ => PromptFormat::V4,
    }
}

/// The Jinja template beside the tokenizer, in a file of its own or in tokenizer_config.json.
fn chat_template(checkpoint: &Checkpoint) -> Option<String> {
    if let Some(file) = checkpoint.file("chat_template.jinja") {
        return String::from_utf8(file.to_vec()).ok();
    }
    let file = checkpoint.file("tokenizer_config.json")?;
    let config: serde_json::Value = serde_json::from_slice(&file).ok()?;
    config["chat_template"].as_str().map(str::to_owned)
}

/// The model's tokenizer; `place` names its folder in errors.
pub fn tokenizer(checkpoint: &Checkpoint, place: &str) -> Result<Tokenizer, Error> {
    let Some(json) = checkpoint.file("tokenizer.json") else {
        return Err(Error::TokenizerMissing {
            place: place.to_owned(),
        });
    };
    Tokenizer::from_bytes(&json, checkpoint.config().vocab_size()).map_err(|source| Error::Tokenizer {
        place: place.to_owned(),
        source,
    })
}
