//! `cachalot download`: a model by name, into the shared cache.

use cachalot_hub::{Repository, Revision};
use clap::Args;

use crate::{error::Error, fetch, location::open_hub};

/// Get a model by name, into the cache that the Hugging Face tools share.
///
/// Prints the model's folder. What an earlier download left is continued. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT,
/// HF_TOKEN and HF_HUB_OFFLINE are obeyed.
#[derive(Args, Debug)]
pub struct DownloadArguments {
    /// The model's name, such as deepseek-ai/DeepSeek-V4-Flash
    name: String,

    /// Branch, tag or commit
    #[arg(long, default_value = "main")]
    revision: String,
}

pub fn run(arguments: &DownloadArguments) -> Result<(), Error> {
    let repository: Repository = arguments.name.parse()?;
    let revision: Revision = arguments.revision.parse()?;
    let folder = fetch::download(&open_hub()?, &repository, &revision)?;
    super::print(&folder.display().to_string())
}
