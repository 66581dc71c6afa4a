use cachalot_chip::{Mode, RowFormat};

/// How keys and entries are kept in [`Mode::Fast`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvFormat {
    /// FP8 keys with a bf16 tail and FP4 index keys, as the official inference rounds them: 3,514 bytes a token in
    /// V4-Flash.
    #[default]
    Packed,
    /// bf16 keys, entries and index keys, without Hadamard rotation: 6,880 bytes a token in V4-Flash.
    Bf16,
}

/// How a model computes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelOptions {
    /// Numeric mode. Default: [`Mode::Fast`].
    pub mode: Mode,
    /// KV format of [`Mode::Fast`]. The reference keeps `f32`, official always rounds as packed.
    pub kv_format: KvFormat,
    /// Whether to load the MTP layer or the DSpark stages, where the checkpoint has them, so that
    /// [`Model::draft`](crate::Model::draft) can guess tokens. Default false.
    pub drafter: bool,
}

impl ModelOptions {
    /// Format of window rows and entries.
    pub(crate) fn row_format(&self) -> RowFormat {
        match (self.mode, self.kv_format) {
            (Mode::Reference, _) => RowFormat::F32,
            (Mode::Official, _) | (Mode::Fast, KvFormat::Packed) => RowFormat::Fp8Tail,
            (Mode::Fast, KvFormat::Bf16) => RowFormat::Bf16,
        }
    }

    /// Format of index keys.
    pub(crate) fn index_format(&self) -> RowFormat {
        match (self.mode, self.kv_format) {
            (Mode::Reference, _) => RowFormat::F32,
            (Mode::Official, _) | (Mode::Fast, KvFormat::Packed) => RowFormat::Fp4Hadamard,
            (Mode::Fast, KvFormat::Bf16) => RowFormat::Bf16,
        }
    }
}

/// Sizes of a [`StatePool`](crate::StatePool).
#[derive(Clone, Copy, Debug)]
pub struct StateOptions {
    /// Sequences that live at once. Default 1.
    pub sequence_count_max: usize,
    /// Tokens of all sequences together, rounded up to whole pages. Default: the model's context.
    pub token_count_max: Option<usize>,
    /// Rows of a step. Default 512.
    pub step_row_count_max: usize,
    /// Tokens that can be rolled back (speculation). Default 8.
    pub rollback_count_max: usize,
    /// Tokens that may be drafted at once; 0 keeps nothing for a drafter. Default 0.
    pub draft_count_max: usize,
}

impl Default for StateOptions {
    fn default() -> Self {
        StateOptions {
            sequence_count_max: 1,
            token_count_max: None,
            step_row_count_max: 512,
            rollback_count_max: 8,
            draft_count_max: 0,
        }
    }
}
