//! The prompt formats of the releases, and what reasoning effort means in each.

use deepseek_recipe_core::conversation::{Conversation, ReasoningEffort, ResponseFormat};
use deepseek_recipe_core::messages::InputMessage as Message;
use deepseek_recipe_core::special_tokens::SpecialToken;
use deepseek_recipe_encoding::dsv4::DeepseekV4Encoding;
use deepseek_recipe_encoding::dsv41::DeepseekV41Encoding;
use deepseek_recipe_encoding::{PromptEncoding, RenderedPrompt};

use crate::before_v31::{self, Opening, system_text};
use crate::conversation::message;

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
    /// DeepSeek-V3 and V3-0324, which do not think. Text only, no tools.
    V3,
    /// DeepSeek-R1 and R1-0528, which always think. Text only, no tools.
    R1,
    /// DeepSeek-V3.1 and V3.2-Exp: text is written as in V4, with all system messages in front. No tools.
    V31,
    /// DeepSeek-V3.2: text is written as in V4. No tools: its markup of calls is not V4's.
    V32,
    /// DeepSeek-V4.1: system turns have a token of their own, thinking always states its effort as a number.
    V41,
}

impl PromptFormat {
    /// The format of a release of the V3 family, by the Jinja template that comes with its tokenizer: R1's begins answers
    /// with `<think>`, those since V3.1 ask whether to think. Without one (V3.2 ships an encoder instead), `has_indexer`
    /// and `has_power_scales` (`scale_fmt` is `ue8m0`, since V3.1) decide; R1 without a template is taken for V3.
    ///
    /// ```
    /// use cachalot_chat::PromptFormat;
    /// let template = "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}";
    /// assert_eq!(PromptFormat::of_v3(Some(template), false, false), PromptFormat::R1);
    /// assert_eq!(PromptFormat::of_v3(None, true, true), PromptFormat::V32);
    /// ```
    pub fn of_v3(template: Option<&str>, has_indexer: bool, has_power_scales: bool) -> Self {
        match template {
            Some(template) if template.contains("<｜Assistant｜><think>\\n") => Self::R1,
            Some(template) if template.contains("thinking") => Self::V31,
            Some(_) => Self::V3,
            None if has_indexer => Self::V32,
            None if has_power_scales => Self::V31,
            None => Self::V3,
        }
    }

    /// Whether tools can be offered and called.
    pub fn has_tools(self) -> bool {
        matches!(self, Self::V4 | Self::V4Dspark | Self::V41)
    }

    /// Makes a conversation what the format can express: whether the model thinks where it has no choice, and what its
    /// own template does with system messages and demands on the answer's form.
    pub(crate) fn settle(self, conversation: &mut Conversation) {
        match self {
            Self::V3 => conversation.thinking_mode = false,
            Self::R1 => conversation.thinking_mode = true,
            Self::V31 => {
                let text = system_text(&conversation.messages);
                conversation
                    .messages
                    .retain(|message| !matches!(message, Message::System { .. }));
                if !text.is_empty() {
                    conversation.messages.insert(0, message::system(text));
                }
                conversation.response_format = ResponseFormat::Text;
            }
            Self::V32 | Self::V4 | Self::V4Dspark | Self::V41 => {}
        }
    }

    /// The special tokens that prompts of this format are built from.
    pub(crate) fn special_tokens(self) -> &'static [SpecialToken] {
        use SpecialToken::*;
        match self {
            Self::V3 => &[Bos, Eos, User, Assistant],
            Self::R1 | Self::V31 | Self::V32 => &[Bos, Eos, ThinkingStart, ThinkingEnd, User, Assistant],
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
            // The renderer's word for no paragraph.
            (Self::V3 | Self::R1 | Self::V31 | Self::V32, _) => Some(ReasoningEffort::Low),
            (Self::V4Dspark, None) => Some(ReasoningEffort::Low),
            (Self::V4Dspark | Self::V41, effort) => effort,
        }
    }

    pub(crate) fn render(self, conversation: &Conversation) -> RenderedPrompt {
        match self {
            Self::V3 => before_v31::render(conversation, Opening::Answer),
            Self::R1 => before_v31::render(conversation, Opening::Reasoning),
            Self::V31 | Self::V32 | Self::V4 | Self::V4Dspark => {
                DeepseekV4Encoding::new().render_conversation(conversation)
            }
            Self::V41 => DeepseekV41Encoding::new().render_conversation(conversation),
        }
    }
}
