//! Which tensor of the new files comes from where.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use cachalot_numerics::{IntegerWidth, MatrixFormat};
use safetensors::tensor::Dtype as StoredDtype;
use serde_json::json;

use crate::{
    Checkpoint, Error, StoredMatrix, header,
    names::{self, Meaning},
};

/// A safetensors file to be.
pub(super) struct ShardPlan {
    pub(super) name: String,
    /// Position among the source's shards.
    pub(super) source: usize,
    /// In the order of their bytes.
    pub(super) tensors: Vec<PlannedTensor>,
    /// Whether it differs from the source's shard.
    pub(super) is_changed: bool,
    header: Vec<u8>,
    byte_count: u64,
}

/// A tensor of the new file.
pub(super) struct PlannedTensor {
    /// Name as it is stored.
    pub(super) name: String,
    dtype: StoredDtype,
    shape: Vec<usize>,
    pub(super) byte_count: u64,
    pub(super) content: Content,
}

/// Where the bytes come from.
pub(super) enum Content {
    /// These bytes of the source's shard.
    Copied(Range<usize>),
    /// Codes of the matrix at this position of the list; its scales are the next tensor.
    Codes(usize),
    /// Scales of the matrix whose codes came before.
    Scales,
}

/// The new shards: those of the source with the matrices of the list replaced.
pub(super) fn shards(
    checkpoint: &Checkpoint,
    matrices: &[StoredMatrix],
    width: IntegerWidth,
) -> Result<Vec<ShardPlan>, Error> {
    let positions = matrices.iter().enumerate();
    let positions: HashMap<&str, usize> = positions.map(|(position, m)| (m.name.as_str(), position)).collect();
    let mut plans = Vec::new();
    for (source, shard) in checkpoint.catalogue.shards.iter().enumerate() {
        let entries = header::read(&shard.data).map_err(|fault| Error::Header {
            file: checkpoint.source.display(&shard.name).display().to_string(),
            fault,
        })?;
        let mut tensors = Vec::new();
        let mut is_changed = false;
        for entry in entries {
            match part_of(&entry.name, &positions) {
                None => tensors.push(PlannedTensor {
                    byte_count: (entry.end - entry.start) as u64,
                    name: entry.name,
                    dtype: entry.dtype,
                    shape: entry.shape,
                    content: Content::Copied(entry.start..entry.end),
                }),
                Some(Replaced::Scale) => is_changed = true,
                Some(Replaced::Weight { position, module }) => {
                    is_changed = true;
                    tensors.extend(integers(&matrices[position], position, module, width));
                }
            }
        }
        // Wide elements first, so that every tensor begins at a multiple of its element's size. Codes stay before their
        // scales: the order of equals does not change.
        if is_changed {
            tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
        }
        plans.push(ShardPlan::new(
            shard.name.clone(),
            source,
            tensors,
            is_changed,
            shard.data.len(),
        ));
    }
    Ok(plans)
}

/// A stored tensor that goes.
enum Replaced<'a> {
    /// The weight of the matrix at `position`; `module` is its stored name without suffix.
    Weight { position: usize, module: &'a str },
    /// The scale of a matrix of the list.
    Scale,
}

fn part_of<'a>(stored: &'a str, positions: &HashMap<&str, usize>) -> Option<Replaced<'a>> {
    let Meaning::Tensor(official) = names::meaning(stored) else {
        return None;
    };
    if let Some(matrix) = official.strip_suffix(".scale") {
        return positions.contains_key(matrix).then_some(Replaced::Scale);
    }
    let position = *positions.get(official.strip_suffix(".weight")?)?;
    let module = stored.strip_suffix(".weight")?;
    Some(Replaced::Weight { position, module })
}

/// Codes and scales of a matrix.
fn integers(matrix: &StoredMatrix, position: usize, module: &str, width: IntegerWidth) -> [PlannedTensor; 2] {
    let format = MatrixFormat::Integer(width);
    let tensor = |suffix: &str, shape: [usize; 2], content| PlannedTensor {
        name: format!("{module}.{suffix}"),
        dtype: StoredDtype::U8,
        shape: shape.to_vec(),
        byte_count: (shape[0] * shape[1]) as u64,
        content,
    };
    let (_, scales) = format
        .scale_shape(matrix.rows, matrix.columns)
        .expect("integers have scales");
    [
        tensor(
            "weight",
            format.weight_shape(matrix.rows, matrix.columns),
            Content::Codes(position),
        ),
        tensor("scale", scales, Content::Scales),
    ]
}

impl ShardPlan {
    fn new(name: String, source: usize, tensors: Vec<PlannedTensor>, is_changed: bool, source_bytes: usize) -> Self {
        let entries = tensors.iter().map(|tensor| {
            (
                tensor.name.as_str(),
                tensor.dtype,
                tensor.shape.as_slice(),
                tensor.byte_count,
            )
        });
        let header = header::encode(entries);
        let byte_count = match is_changed {
            true => header.len() as u64 + tensors.iter().map(|tensor| tensor.byte_count).sum::<u64>(),
            false => source_bytes as u64,
        };
        ShardPlan {
            name,
            source,
            tensors,
            is_changed,
            header,
            byte_count,
        }
    }

    pub(super) fn file_byte_count(&self) -> u64 {
        self.byte_count
    }

    /// What stands before the tensors' bytes.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }
}

/// The index of the new shards.
pub(super) fn index_text(shards: &[ShardPlan]) -> String {
    let tensors = || {
        shards
            .iter()
            .flat_map(|shard| shard.tensors.iter().map(move |tensor| (shard, tensor)))
    };
    let weight_map: BTreeMap<&str, &str> = tensors()
        .map(|(shard, tensor)| (tensor.name.as_str(), shard.name.as_str()))
        .collect();
    let total_size: u64 = tensors().map(|(_, tensor)| tensor.byte_count).sum();
    json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map }).to_string()
}
