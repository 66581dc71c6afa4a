/// What can go wrong while text is generated or scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model or its state failed.
    #[error(transparent)]
    Model(#[from] cachalot_model::Error),
    /// The chip failed.
    #[error(transparent)]
    Chip(#[from] cachalot_chip::Error),
    /// Logits are NaN or infinite.
    #[error(
        "the model produced a non-finite logit after {position} tokens; a weight is damaged: run `cachalot inspect \
         --verify` on the model"
    )]
    NonFinite {
        /// Tokens fed so far.
        position: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A prompt leaves no room for an answer.
    #[error("a prompt of {length} tokens leaves no room in the context of {context}; shorten it or raise --context")]
    PromptTooLong {
        /// Tokens of the prompt.
        length: usize,
        /// Tokens possible.
        context: usize,
    },
    /// A sampling option is out of range.
    #[error("{option} is {value}, expected {expected}")]
    Sampling {
        /// The option.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The caller asked to stop while a prompt was being fed.
    #[error("cancelled")]
    Cancelled,
}
