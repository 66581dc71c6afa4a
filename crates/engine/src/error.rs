use std::time::Duration;

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
    /// A prompt has a token that stands for a part of an image.
    #[error("the prompt's token {token} stands for an image; only text is read, send a description instead")]
    Image {
        /// The token.
        token: u32,
    },
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
    /// As many requests wait as may.
    #[error("{waiting} requests wait already; try again in {} s", retry_after.as_secs().max(1))]
    QueueFull {
        /// Requests waiting.
        waiting: usize,
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// The service is ending and takes no new requests.
    #[error("the service is shutting down; try another one or wait for its restart")]
    ShuttingDown,
    /// The deadline passed before the first token.
    #[error("the deadline passed after {} s, before the answer began", waited.as_secs())]
    Deadline {
        /// Time since submission.
        waited: Duration,
    },
    /// The steps that computed this request failed, again after a replay.
    #[error("computing the answer failed {attempts} times: {reason}")]
    StepFailed {
        /// What the last step failed with.
        reason: String,
        /// Steps that failed.
        attempts: u32,
    },
    /// A grammar or schema cannot be used, or the answer left it.
    #[error("{what}: {reason}")]
    Constraint {
        /// The constraint, for example `JSON schema`.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The thread that runs the steps could not be started.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The caller asked to stop while a prompt was being fed.
    #[error("cancelled")]
    Cancelled,
}
