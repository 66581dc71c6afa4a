//! What an operator has to move and to compute, whatever chip it runs on.

use std::{collections::BTreeSet, ops::AddAssign};

use super::{
    Attention, Compress, Experts, KeyForm, LatentAttention, LatentQuery, Operation, RouteChoice, SelectEntries,
    StoreEntries, StoreKeys,
};
use crate::{Chip, ChipTransfer, Entries, Error, Matrix, Rows, Tensor};

/// The least that an operator must read, write and compute, each byte counted once.
///
/// Weights count whole, as they are stored, even where one call needs a part of them (a compressor that completes no
/// window): so the weights of one decoded token are what a model's accounting says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Stored weights with their scales. Of routed experts, those that any row chose.
    pub weight_bytes: u64,
    /// State of sequences: window rows, entries, index keys, rows of open windows.
    pub state_bytes: u64,
    /// Activations, and the rows that are looked up in tables (embedding, expert ids).
    pub row_bytes: u64,
    /// Multiply-adds.
    pub multiply_adds: u64,
}

impl Cost {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.state_bytes + self.row_bytes
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.weight_bytes += other.weight_bytes;
        self.state_bytes += other.state_bytes;
        self.row_bytes += other.row_bytes;
        self.multiply_adds += other.multiply_adds;
    }
}

impl Operation<'_> {
    /// What this operator costs. Positions and chosen experts are read back from `chip`, so this waits for everything
    /// enqueued: for profiles, not for steps. Experts are known only after the router ran.
    ///
    /// # Errors
    /// As [`Chip::read`].
    pub fn cost(&self, chip: &dyn Chip) -> Result<Cost, Error> {
        Ok(match self {
            Operation::Embed(o) => Cost {
                row_bytes: bytes(&[o.tokens, o.streams])
                    + (o.tokens.element_count() * o.table.format().row_byte_count(o.table.columns())) as u64,
                ..Cost::default()
            },
            Operation::HyperMix(o) => Cost {
                weight_bytes: bytes(&[o.function, o.scale, o.base]),
                row_bytes: bytes(&[o.streams, o.input, o.post, o.comb]),
                // The products, the squares of the norm, the mixed input.
                multiply_adds: count(o.streams) * (o.function.shape()[0] as u64 + 2),
                ..Cost::default()
            },
            Operation::HyperPost(o) => Cost {
                row_bytes: bytes(&[o.y, o.post, o.comb]) + 2 * bytes(&[o.streams]),
                multiply_adds: count(o.streams) * (o.streams.shape()[1] as u64 + 1),
                ..Cost::default()
            },
            Operation::HyperHead(o) => Cost {
                weight_bytes: bytes(&[o.function, o.scale, o.base]),
                row_bytes: bytes(&[o.streams, o.out]),
                multiply_adds: count(o.streams) * (o.function.shape()[0] as u64 + 2),
                ..Cost::default()
            },
            Operation::HyperWeights(o) => Cost {
                weight_bytes: bytes(&[o.function, o.scale, o.base]),
                row_bytes: bytes(&[o.streams, o.pre, o.post, o.comb]),
                multiply_adds: count(o.streams) * (o.function.shape()[0] as u64 + 1),
                ..Cost::default()
            },
            Operation::HyperCollapse(o) => rows(&[o.streams, o.pre, o.out], count(o.streams)),
            Operation::NgramRows(o) => rows(&[o.ids, o.out], 2 * count(o.out)),
            Operation::EngramGate(o) => Cost {
                weight_bytes: bytes(&[o.query_weight, o.key_weight]),
                // Dot product and two norms of each stream, and what is added.
                ..rows(&[o.keys_value, o.streams, o.streams], 6 * count(o.streams))
            },
            Operation::PoolWindows(o) => rows(&[o.kv, o.gate, o.out], 2 * count(o.kv)),
            Operation::StoreEntries(o) => store_entries(o, chip)?,
            Operation::SelectBlocks(o) => {
                let (fixed, blocks) = (rows(&[o.query, o.weights, o.blocks], 0), o.blocks.shape()[1]);
                // Where all blocks fit, nothing is scored.
                let is_scored = |visible: u64| visible.div_ceil(o.block_size as u64) > blocks as u64;
                scores(fixed, &o.rows, &o.keys, o.query, chip, |visible| {
                    if is_scored(visible) { visible } else { 0 }
                })?
            }
            Operation::SelectInBlocks(o) => {
                let fixed = rows(&[o.query, o.weights, o.blocks, o.selected], 0);
                let most = (o.blocks.shape()[1] * o.block_size) as u64;
                scores(fixed, &o.rows, &o.keys, o.query, chip, |visible| visible.min(most))?
            }
            Operation::RmsNorm(o) => Cost {
                weight_bytes: o.weight.map_or(0, |weight| bytes(&[weight])),
                row_bytes: bytes(&[o.x, o.out]),
                multiply_adds: 2 * count(o.x),
                ..Cost::default()
            },
            Operation::Linear(o) => product(o.weight, o.x, o.out),
            Operation::GroupedLinear(o) => product(o.weight, o.x, o.out),
            Operation::RopeAngles(o) => rows(&[o.positions, o.frequencies, o.out], 0),
            Operation::Rope(o) => {
                // Only the rotary channels are touched: one angle turns a pair in each head.
                let pairs = o.x.shape()[1] as u64 * count(o.angles) / 2;
                let mut cost = rows(&[o.angles], 4 * pairs);
                cost.row_bytes += 16 * pairs;
                cost
            }
            Operation::RopeHalves(o) => {
                let pairs = o.x.shape()[1] as u64 * count(o.angles) / 2;
                let mut cost = rows(&[o.angles], 4 * pairs);
                cost.row_bytes += 16 * pairs;
                cost
            }
            Operation::StoreKeys(o) => store_keys(o),
            Operation::LatentQuery(o) => product_of_heads(o),
            Operation::LatentAttention(o) => latent_attention(o, chip)?,
            Operation::PackRows(o) => rows(&[o.x, o.out], count(o.x)),
            Operation::WriteTail(o) => Cost {
                state_bytes: bytes(&[o.x]),
                row_bytes: bytes(&[o.x]),
                ..Cost::default()
            },
            Operation::Compress(o) => compress(o, chip)?,
            Operation::IndexQuery(o) => rows(&[o.query, o.query], count(o.query)),
            Operation::SelectEntries(o) => select(o, chip)?,
            Operation::Attention(o) => attention(o, chip)?,
            Operation::Route(o) => {
                let mut cost = rows(&[o.logits, o.experts, o.weights], 0);
                match o.choice {
                    RouteChoice::Biased { bias } | RouteChoice::Grouped { bias, .. } => {
                        cost.weight_bytes += bytes(&[bias])
                    }
                    RouteChoice::Hash { tokens, .. } => cost.row_bytes += bytes(&[tokens]) + 8 * count(o.experts),
                }
                cost
            }
            Operation::Experts(o) => experts(o, chip)?,
            Operation::SwiGlu(o) => rows(&[o.gate, o.up, o.out], 2 * count(o.out)),
            Operation::Add(o) => rows(&[o.a, o.b, o.out], count(o.out)),
            Operation::GatherRows(o) => rows(&[o.rows, o.out, o.out], 0),
            Operation::CopyTensor(o) => rows(&[o.x, o.out], 0),
        })
    }
}

fn bytes(tensors: &[&Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.byte_count() as u64).sum()
}

fn count(tensor: &Tensor) -> u64 {
    tensor.element_count() as u64
}

fn rows(tensors: &[&Tensor], multiply_adds: u64) -> Cost {
    Cost {
        row_bytes: bytes(tensors),
        multiply_adds,
        ..Cost::default()
    }
}

fn matrix_bytes(matrix: &Matrix) -> u64 {
    matrix.format().byte_count(matrix.rows(), matrix.columns()) as u64
}

fn product(weight: &Matrix, x: &Tensor, out: &Tensor) -> Cost {
    Cost {
        weight_bytes: matrix_bytes(weight),
        // Every output is one dot product over the columns, grouped or not.
        ..rows(&[x, out], count(out) * weight.columns() as u64)
    }
}

fn experts(operation: &Experts<'_>, chip: &dyn Chip) -> Result<Cost, Error> {
    let chosen = chip.read_i32(operation.chosen)?;
    let distinct: BTreeSet<i32> = chosen.iter().copied().collect();
    let mut cost = rows(&[operation.x, operation.chosen, operation.weights, operation.out], 0);
    for index in distinct {
        let expert = usize::try_from(index)
            .ok()
            .and_then(|index| operation.experts.get(index));
        let Some(expert) = expert else { continue };
        cost.weight_bytes += [&expert.w1, &expert.w2, &expert.w3]
            .map(matrix_bytes)
            .iter()
            .sum::<u64>();
    }
    if let Some(expert) = operation.experts.first() {
        let parameters = 3 * expert.w1.rows() * expert.w1.columns();
        cost.multiply_adds = (chosen.len() * parameters) as u64;
    }
    Ok(cost)
}

/// Positions of the rows of each sequence of a step.
fn positions(rows: &Rows<'_>, chip: &dyn Chip) -> Result<Vec<Vec<u64>>, Error> {
    let positions = chip.read_i32(rows.positions)?;
    let firsts = chip.read_i32(rows.first_rows)?;
    let sequences = firsts.windows(2).map(|pair| {
        let range = pair[0].max(0) as usize..pair[1].max(0) as usize;
        let own = positions.get(range).unwrap_or_default();
        own.iter().map(|position| (*position).max(0) as u64).collect()
    });
    Ok(sequences.collect())
}

fn compress(operation: &Compress<'_>, chip: &dyn Chip) -> Result<Cost, Error> {
    let ratio = operation.out.ratio as u64;
    let all = positions(&operation.rows, chip)?;
    let completed = all
        .iter()
        .flatten()
        .filter(|position| (*position + 1) % ratio == 0)
        .count() as u64;
    let windows = if operation.overlap { 2 } else { 1 };
    // Of the rows of overlapping windows, each window takes one half.
    let values = windows * ratio * operation.out.width as u64;
    let entry_bytes = operation.out.format.byte_count(operation.out.width, operation.out.tail) as u64;
    Ok(Cost {
        weight_bytes: bytes(&[operation.ape, operation.norm]),
        state_bytes: completed * (2 * 4 * values + entry_bytes),
        row_bytes: 0,
        multiply_adds: completed * 2 * values,
    })
}

fn select(operation: &SelectEntries<'_>, chip: &dyn Chip) -> Result<Cost, Error> {
    let keys = &operation.keys;
    let key_bytes = keys.format.byte_count(keys.width, keys.tail) as u64;
    let visible = |position: u64| (position + 1) / keys.ratio as u64;
    let mut cost = rows(&[operation.query, operation.weights, operation.selected], 0);
    let products = (operation.query.shape()[1] * keys.width) as u64;
    for sequence in positions(&operation.rows, chip)? {
        // The rows of a sequence can share one pass over its keys.
        cost.state_bytes += sequence.last().map_or(0, |last| visible(*last)) * key_bytes;
        cost.multiply_adds += sequence.iter().map(|position| visible(*position)).sum::<u64>() * products;
    }
    Ok(cost)
}

/// Scores of up to `scored(visible)` keys a row, beside `fixed` costs.
fn scores(
    fixed: Cost,
    rows: &Rows<'_>,
    keys: &Entries<'_>,
    query: &Tensor,
    chip: &dyn Chip,
    scored: impl Fn(u64) -> u64,
) -> Result<Cost, Error> {
    let key_bytes = keys.format.byte_count(keys.width, keys.tail) as u64;
    let products = (query.shape()[1] * keys.width) as u64;
    let visible = |position: u64| (position + 1) / keys.ratio as u64;
    let mut cost = fixed;
    for sequence in positions(rows, chip)? {
        let counts: Vec<u64> = sequence.iter().map(|position| scored(visible(*position))).collect();
        let all = sequence.last().map_or(0, |last| visible(*last));
        // Rows may share keys; no more than there are.
        cost.state_bytes += counts.iter().sum::<u64>().min(all) * key_bytes;
        cost.multiply_adds += counts.iter().sum::<u64>() * products;
    }
    Ok(cost)
}

fn store_entries(operation: &StoreEntries<'_>, chip: &dyn Chip) -> Result<Cost, Error> {
    let out = &operation.out;
    let all = positions(&operation.rows, chip)?;
    let completed = |position: &&u64| (**position + 1).is_multiple_of(out.ratio as u64);
    let count = all.iter().flatten().filter(completed).count() as u64;
    Ok(Cost {
        state_bytes: count * out.format.byte_count(out.width, out.tail) as u64,
        row_bytes: count * 4 * out.width as u64,
        multiply_adds: count * 2 * out.tail as u64,
        ..Cost::default()
    })
}

fn attention(operation: &Attention<'_>, chip: &dyn Chip) -> Result<Cost, Error> {
    let [heads, width] = [operation.query.shape()[1], operation.query.shape()[2]];
    let row_bytes = operation.format.byte_count(width, operation.rotary) as u64;
    let window = |position: u64| (position + 1).min(operation.window as u64);
    let mut cost = rows(&[operation.query, operation.fresh, operation.out], 0);
    cost.weight_bytes = bytes(&[operation.sink]);
    for sequence in positions(&operation.rows, chip)? {
        let Some((first, last)) = sequence.first().zip(sequence.last()) else {
            continue;
        };
        // Window rows from before this step; those of the step are among the rows.
        cost.state_bytes += (window(*first) - 1) * row_bytes;
        let mut keys: u64 = sequence.iter().map(|position| window(*position)).sum();
        if let Some(attend) = &operation.entries {
            let visible = |position: u64| (position + 1) / attend.entries.ratio as u64;
            let limit = attend.selected.map_or(u64::MAX, |selected| selected.shape()[1] as u64);
            let attended: u64 = sequence.iter().map(|position| visible(*position).min(limit)).sum();
            let entry_bytes = attend
                .entries
                .format
                .byte_count(attend.entries.width, attend.entries.tail) as u64;
            // Rows may choose the same entries; no more than there are.
            cost.state_bytes += attended.min(visible(*last)) * entry_bytes;
            cost.row_bytes += attend.selected.map_or(0, |selected| bytes(&[selected]));
            keys += attended;
        }
        cost.multiply_adds += 2 * keys * (heads * width) as u64;
    }
    Ok(cost)
}

fn store_keys(operation: &StoreKeys<'_>) -> Cost {
    let out = &operation.out;
    let entry_bytes = out.format.byte_count(out.width, out.tail) as u64;
    Cost {
        weight_bytes: match operation.form {
            KeyForm::Latent { norm } => bytes(&[norm]),
            KeyForm::Index { norm, bias } => bytes(&[norm, bias]),
        },
        state_bytes: operation.rows.row_count() as u64 * entry_bytes,
        ..rows(&[operation.x, operation.angles], 4 * count(operation.x))
    }
}

fn product_of_heads(operation: &LatentQuery<'_>) -> Cost {
    let parameters = (operation.absorb.rows() * operation.absorb.columns()) as u64;
    Cost {
        weight_bytes: matrix_bytes(operation.absorb),
        ..rows(
            &[operation.query, operation.angles, operation.out],
            operation.query.shape()[0] as u64 * parameters,
        )
    }
}

fn latent_attention(operation: &LatentAttention<'_>, chip: &dyn Chip) -> Result<Cost, Error> {
    let (entries, heads) = (&operation.keys.entries, operation.query.shape()[1] as u64);
    let entry_bytes = entries.format.byte_count(entries.width, entries.tail) as u64;
    let limit = operation
        .keys
        .selected
        .map_or(u64::MAX, |selected| selected.shape()[1] as u64);
    let mut cost = rows(&[operation.query, operation.out], 0);
    cost.row_bytes += operation.keys.selected.map_or(0, |selected| bytes(&[selected]));
    // A key is read whole, its value is the part before the tail.
    let width = (2 * entries.width - entries.tail) as u64;
    for sequence in positions(&operation.rows, chip)? {
        let Some(last) = sequence.last() else { continue };
        let attended: u64 = sequence.iter().map(|position| (position + 1).min(limit)).sum();
        // Rows may choose the same entries; no more than there are.
        cost.state_bytes += attended.min(last + 1) * entry_bytes;
        cost.multiply_adds += attended * heads * width;
    }
    Ok(cost)
}
