//! Which model a command works on.

use clap::Args;

/// For commands whose only positional argument is the model.
#[derive(Args, Debug)]
pub struct ModelChoice {
    /// Folder of a model, or its name on the hub, such as deepseek-ai/DeepSeek-V4-Flash [default: the built-in model]
    #[arg(value_name = "MODEL")]
    positional: Option<String>,

    /// The same as the argument MODEL
    #[arg(short = 'm', long = "model", value_name = "MODEL", conflicts_with = "positional")]
    named: Option<String>,

    /// Download the model without asking if it is not on this machine
    #[arg(short, long)]
    pub yes: bool,
}

impl ModelChoice {
    pub fn name(&self) -> Option<&str> {
        self.positional.as_deref().or(self.named.as_deref())
    }
}
