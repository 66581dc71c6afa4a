//! model.safetensors.index.json: which shard holds which tensor.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use serde_json::Value;

use crate::{Error, json, source::is_plain_name};

/// Name of the index file.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// How the index can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexFault {
    /// There is no `weight_map` of texts.
    #[error("\"weight_map\" is not an object from tensor names to file names; download the index again")]
    Form,
    /// A shard is named by a path.
    #[error(
        "tensor {tensor:?} is said to be in {shard:?}, expected the plain name of a .safetensors file; do not use this checkpoint, somebody changed it"
    )]
    ShardName {
        /// The tensor.
        tensor: String,
        /// The name.
        shard: String,
    },
    /// Shards that the index names are not there.
    #[error(
        "{count} of {total} shards are missing, first {first:?}; download them (the download was probably interrupted)"
    )]
    ShardsMissing {
        /// The first missing file.
        first: String,
        /// How many are missing.
        count: usize,
        /// How many the index names.
        total: usize,
    },
    /// Tensors are not in the shard that the index names.
    #[error(
        "{count} tensors are not in the shard that the index names, first {first:?} in {shard}; download that shard and the index again"
    )]
    NotInShard {
        /// The first such tensor.
        first: String,
        /// Where it should be.
        shard: String,
        /// How many.
        count: usize,
    },
    /// Shards hold tensors that the index does not list.
    #[error(
        "{count} tensors of the shards are not in the index, first {first:?} of {shard}; download the index again or delete it if there is one shard only"
    )]
    NotInIndex {
        /// The first such tensor.
        first: String,
        /// Where it is.
        shard: String,
        /// How many.
        count: usize,
    },
}

/// The parsed index.
pub(crate) struct Index {
    /// Shard names, sorted.
    pub(crate) shards: Vec<String>,
    /// From tensor name to a position in `shards`.
    pub(crate) shard_of: HashMap<String, usize>,
}

/// Parses the index; names of shards are checked, their presence is not.
pub(crate) fn parse(text: &str, origin: &Path) -> Result<Index, Error> {
    let fault = |fault| Error::Index {
        file: origin.display().to_string(),
        fault,
    };
    let value = json::parse(text).map_err(|source| Error::Json {
        origin: origin.to_owned(),
        source,
    })?;
    let Value::Object(mut outer) = value else {
        return Err(fault(IndexFault::Form));
    };
    let Some(Value::Object(weight_map)) = outer.remove("weight_map") else {
        return Err(fault(IndexFault::Form));
    };
    let mut names = BTreeSet::new();
    for (tensor, shard) in &weight_map {
        let shard = shard.as_str().ok_or_else(|| fault(IndexFault::Form))?;
        if !is_plain_name(shard) || !shard.ends_with(".safetensors") {
            return Err(fault(IndexFault::ShardName {
                tensor: tensor.clone(),
                shard: shard.chars().take(200).collect(),
            }));
        }
        if !names.contains(shard) {
            names.insert(shard.to_owned());
        }
    }
    let shards: Vec<String> = names.into_iter().collect();
    let position_of: HashMap<&str, usize> = shards
        .iter()
        .enumerate()
        .map(|(position, name)| (name.as_str(), position))
        .collect();
    let shard_of = weight_map
        .iter()
        .filter_map(|(tensor, shard)| Some((tensor.clone(), position_of[shard.as_str()?])))
        .collect();
    Ok(Index { shards, shard_of })
}
