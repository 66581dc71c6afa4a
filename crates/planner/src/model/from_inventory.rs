//! Weights of a model of any family, through the inventory of `cachalot-checkpoint`.

use std::collections::HashMap;

use cachalot_checkpoint::{
    Architecture,
    inventory::{self, Formats, Place, Slot, SlotKind},
};
use cachalot_numerics::{Dtype, MatrixFormat, ScaleDtype};

use super::{Part, Stored, Weight};

/// All weights. Layers that look alike are listed once and multiplied.
///
/// `kind` tells layers that do not look alike apart.
pub(super) fn weights(config: &dyn Architecture, kind: impl Fn(usize) -> usize) -> Vec<Weight> {
    let mut places: HashMap<(usize, usize), (Place, u64)> = HashMap::new();
    for place in inventory::places(config) {
        let signature = match place {
            Place::Global => (0, 0),
            Place::Layer(layer) => (1, kind(layer)),
            Place::Stage(stage) => (2, stage),
        };
        places.entry(signature).or_insert((place, 0)).1 += 1;
    }
    // Plans have formats of their own in the place of the released ones.
    let formats = Formats::released(config);
    let mut weights: HashMap<(Part, String, u64, u64, Stored), u64> = HashMap::new();
    for (place, repeats) in places.into_values() {
        for slot in inventory::slots_at(config, place) {
            let name = name_in_layer(&slot.name);
            let (rows, columns, stored) = stored(&slot, formats);
            let part = part(slot.part, &name);
            *weights.entry((part, name, rows, columns, stored)).or_default() += repeats;
        }
    }
    let mut weights: Vec<Weight> = weights
        .into_iter()
        .map(|((part, name, rows, columns, stored), count)| Weight {
            part,
            name,
            rows,
            columns,
            count,
            stored,
        })
        .collect();
    weights.sort_by(|a, b| (a.part, &a.name, a.rows).cmp(&(b.part, &b.name, b.rows)));
    weights
}

/// `layers.3.ffn.experts.7.w1` as `ffn.experts.w1`.
fn name_in_layer(name: &str) -> String {
    let parts = name
        .split('.')
        .filter(|part| !(*part == "layers" || *part == "mtp" || part.bytes().all(|byte| byte.is_ascii_digit())));
    parts.collect::<Vec<_>>().join(".")
}

fn part(part: inventory::Part, name: &str) -> Part {
    match part {
        inventory::Part::RoutedExperts => Part::RoutedExperts,
        inventory::Part::Attention => Part::Attention,
        inventory::Part::SharedExperts => Part::SharedExperts,
        inventory::Part::DenseFeedForward => Part::DenseFeedForward,
        inventory::Part::Embedding => Part::Embedding,
        inventory::Part::Head => Part::Head,
        inventory::Part::Compressors => Part::Compressors,
        inventory::Part::Indexers => Part::Indexers,
        inventory::Part::HyperConnections => Part::HyperConnections,
        inventory::Part::Routers => Part::Routers,
        inventory::Part::Stages if name.starts_with("ffn.experts.") => Part::StageExperts,
        inventory::Part::Stages => Part::Stages,
        inventory::Part::EngramTables => Part::EngramTables,
        inventory::Part::EngramProjections => Part::EngramProjections,
        inventory::Part::Vision => Part::Vision,
        _ => Part::Norms,
    }
}

fn stored(slot: &Slot, formats: Formats) -> (u64, u64, Stored) {
    match &slot.kind {
        SlotKind::Matrix { rows, columns, class } => {
            let stored = match formats.of(slot.part, *class, *rows, *columns) {
                MatrixFormat::Fp8Block { rows, columns, scale } => Stored::Fp8 {
                    block_rows: rows as u64,
                    block_columns: columns as u64,
                    scale_bytes: match scale {
                        ScaleDtype::E8m0 => 1,
                        _ => 4,
                    },
                },
                MatrixFormat::Bf16 => Stored::Bf16,
                MatrixFormat::F32 => Stored::F32,
                MatrixFormat::Integer(width) => Stored::Integer {
                    bits: width.bit_count() as u64,
                },
                _ => Stored::Fp4,
            };
            (*rows as u64, *columns as u64, stored)
        }
        SlotKind::Plain { shape, dtype } => {
            let elements: usize = shape.iter().product();
            let stored = match dtype {
                Dtype::I64 => Stored::I64,
                Dtype::F32 => Stored::F32,
                _ => Stored::Bf16,
            };
            (1, elements as u64, stored)
        }
    }
}
