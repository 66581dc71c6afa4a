/// What can go wrong with a model or its sequences.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint lacks a tensor or holds a bad one.
    #[error(transparent)]
    Checkpoint(#[from] cachalot_checkpoint::Error),
    /// The chip failed or refused.
    #[error(transparent)]
    Chip(#[from] cachalot_chip::Error),
    /// A tensor is stored in a type that its place cannot use.
    #[error("tensor '{name}' has dtype {found}, expected {expected}")]
    TensorDtype {
        /// The tensor.
        name: String,
        /// Types that would do.
        expected: &'static str,
        /// The type found.
        found: cachalot_numerics::Dtype,
    },
    /// A token id is not in the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}; the tokenizer does not belong to this model")]
    Token {
        /// The id.
        token: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// A token stands for a part of an image, which this version does not read.
    #[error("token {token} stands for an image; only text is read, send a description instead")]
    Image {
        /// The token.
        token: u32,
    },
    /// A sequence would grow beyond the model's or the pool's context.
    #[error("a sequence of {length} tokens exceeds the context of {context}; shorten the prompt or the answer")]
    Context {
        /// Tokens wanted.
        length: usize,
        /// Tokens possible.
        context: usize,
    },
    /// A step has more rows than the pool was made for.
    #[error("a step of {rows} rows exceeds the pool's {limit}; cut the prompt into chunks")]
    StepRows {
        /// Rows wanted.
        rows: usize,
        /// Rows possible.
        limit: usize,
    },
    /// A step or the pool has more sequences than the pool was made for.
    #[error("more than {limit} sequences at once; wait for one to end")]
    Sequences {
        /// Sequences possible.
        limit: usize,
    },
    /// All pages are in use.
    #[error("the pool has {free} free pages, {wanted} are needed; end a sequence or use a larger pool")]
    Pages {
        /// Pages needed.
        wanted: usize,
        /// Pages left.
        free: usize,
    },
    /// A roll-back went further than the tails remember.
    #[error("cannot roll back to {target} tokens: the state remembers back to {earliest}; replay the sequence")]
    RollBack {
        /// Length wanted.
        target: usize,
        /// Shortest length that can still be reached.
        earliest: usize,
    },
    /// A sequence of another pool was passed.
    #[error("a sequence was used with a pool that it does not belong to")]
    ForeignSequence,
    /// A step was asked of a model with a pool of another one.
    #[error("a pool was used with a model that it was not made for")]
    ForeignPool,
    /// The configuration can be read, but the family cannot be run yet.
    #[error("models of the family {family} cannot be run by this version; `inspect` and `plan` know them")]
    Family {
        /// Name of the family.
        family: &'static str,
    },
    /// A step failed half-way and overwrote what the sequence needs.
    #[error("the sequence's state was lost in a failed step at {length} tokens; replay the sequence")]
    StateLost {
        /// Tokens before the failed step.
        length: usize,
    },
    /// A snapshot does not belong to this model, numeric mode, KV format or length.
    #[error("a snapshot's {what} has the length {found}, expected {expected}; it belongs to another model")]
    SnapshotLength {
        /// The part.
        what: &'static str,
        /// Bytes or pages expected.
        expected: usize,
        /// Bytes or pages given.
        found: usize,
    },
    /// The tokens given to draft from are not those of the sequence and one more.
    #[error("drafting after {length} tokens needs those and the next one, got {found}")]
    DraftTokens {
        /// Tokens of the sequence.
        length: usize,
        /// Tokens given.
        found: usize,
    },
    /// A step without rows.
    #[error("a step needs at least one token for each sequence")]
    EmptyChunk,
}
