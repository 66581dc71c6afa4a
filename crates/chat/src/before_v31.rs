//! The formats of V3 and R1, whose prompts do not say whether to think: V3 never does, R1 always.

use deepseek_recipe_core::conversation::Conversation;
use deepseek_recipe_core::messages::InputMessage as Message;
use deepseek_recipe_core::prompt::Prompt;
use deepseek_recipe_core::special_tokens::SpecialToken;
use deepseek_recipe_encoding::RenderedPrompt;

/// Whether answers begin with `<think>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    Answer,
    Reasoning,
}

/// System messages come first, with an empty line between them; of earlier answers only the text is kept.
pub(crate) fn render(conversation: &Conversation, opening: Opening) -> RenderedPrompt {
    let mut prompt = Prompt::special(SpecialToken::Bos.default_str());
    prompt.push_plain(system_text(&conversation.messages));
    let mut is_answered = false;
    for message in &conversation.messages {
        match message {
            Message::User { content, .. } => {
                prompt.push_special(SpecialToken::User.default_str());
                prompt.push_plain(content.as_str());
            }
            Message::Assistant {
                content,
                reasoning_content,
                prefix,
                ..
            } => {
                prompt.push_special(SpecialToken::Assistant.default_str());
                if *prefix {
                    is_answered = true;
                    push_beginning(&mut prompt, opening, reasoning_content.as_deref(), content);
                } else {
                    prompt.push_plain(content);
                    prompt.push_special(SpecialToken::Eos.default_str());
                }
            }
            _ => {}
        }
    }
    if !is_answered {
        prompt.push_special(SpecialToken::Assistant.default_str());
        push_beginning(&mut prompt, opening, None, "");
    }
    let (prompt, special_ranges) = prompt.into_parts();
    RenderedPrompt {
        prompt,
        special_ranges,
        image_sources: Vec::new(),
    }
}

/// The texts of all system messages.
pub(crate) fn system_text(messages: &[Message]) -> String {
    let texts = messages.iter().filter_map(|message| match message {
        Message::System { content, .. } => Some(content.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n\n")
}

/// What stands between `<｜Assistant｜>` and the next token.
fn push_beginning(prompt: &mut Prompt, opening: Opening, reasoning: Option<&str>, text: &str) {
    if opening == Opening::Reasoning {
        prompt.push_special(SpecialToken::ThinkingStart.default_str());
        prompt.push_plain("\n");
        prompt.push_plain(reasoning.unwrap_or_default());
        if !text.is_empty() {
            prompt.push_plain("\n");
            prompt.push_special(SpecialToken::ThinkingEnd.default_str());
            prompt.push_plain("\n\n");
        }
    }
    prompt.push_plain(text);
}
