//! The prompt formats of the releases, and what reasoning effort means in each.

use deepseek_recipe_core::conversation::{Conversation, ReasoningEffort};
use deepseek_recipe_core::special_tokens::SpecialToken;
use deepseek_recipe_encoding::dsv4::DeepseekV4Encoding;
use deepseek_recipe_encoding::dsv41::DeepseekV41Encoding;
use deepseek_recipe_encoding::{PromptEncoding, RenderedPrompt};

/// The prompt format of a release.
///
/// V4 files do not say which of the first two they want, and share one `tokenizer.json`; the later releases are
/// those whose `config.json` has `dspark_*` keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptFormat {
    /// The first releases, DeepSeek-V4-Flash and DeepSeek-V4-Pro: only effort max has a paragraph.
    V4,
    /// The releases with a DSpark drafter, V4-Flash-0731 and V4-Pro-0813: the first releases' max paragraph became
    /// that of effort high, and max got a stronger one.
    V4Dspark,
    /// DeepSeek-V4.1: system turns have a token of their own, thinking always states its effort as a number.
    V41,
}

impl PromptFormat {
    /// The special tokens that prompts of this format are built from.
    pub(crate) fn special_tokens(self) -> &'static [SpecialToken] {
        use SpecialToken::*;
        match self {
            Self::V4 | Self::V4Dspark => &[Bos, Eos, ThinkingStart, ThinkingEnd, User, Assistant, Dsml],
            Self::V41 => &[Bos, Eos, ThinkingStart, ThinkingEnd, User, Assistant, Dsml, System],
        }
    }

    /// The effort to ask the renderer for, whose paragraphs are those of the DSpark releases and whose default in V4
    /// is high, so that the prompt has what this release's own encoder writes for `effort`.
    pub(crate) fn rendered_effort(self, effort: Option<ReasoningEffort>) -> Option<ReasoningEffort> {
        match (self, effort) {
            (Self::V4, Some(ReasoningEffort::Max)) => Some(ReasoningEffort::High),
            (Self::V4, _) => Some(ReasoningEffort::Low),
            (Self::V4Dspark, None) => Some(ReasoningEffort::Low),
            (Self::V4Dspark | Self::V41, effort) => effort,
        }
    }

    pub(crate) fn render(self, conversation: &Conversation) -> RenderedPrompt {
        match self {
            Self::V4 | Self::V4Dspark => DeepseekV4Encoding::new().render_conversation(conversation),
            Self::V41 => DeepseekV41Encoding::new().render_conversation(conversation),
        }
    }
}
