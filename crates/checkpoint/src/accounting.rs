//! Bytes and parameters of a model, from its configuration alone.

use cachalot_numerics::Dtype;

use crate::{
    config::Architecture,
    inventory::{self, Formats, Part, Place, SlotKind},
};

/// What a part of a checkpoint amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Stored tensors.
    pub tensors: u64,
    /// Stored bytes, scales included.
    pub bytes: u64,
    /// Numbers that the model learns: FP4 counts unpacked, scales not at all, nor do tables of expert ids.
    pub parameters: u64,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Size) {
        self.tensors += other.tensors;
        self.bytes += other.bytes;
        self.parameters += other.parameters;
    }
}

/// Size of the whole checkpoint in the formats that the configuration announces.
pub fn total(config: &dyn Architecture) -> Size {
    sum(config, |_, _| true)
}

/// Size of one part.
pub fn part(config: &dyn Architecture, part: Part) -> Size {
    sum(config, |_, other| other == part)
}

/// Size of everything at one place, for example one layer.
pub fn place(config: &dyn Architecture, place: Place) -> Size {
    sum(config, |other, _| other == place)
}

/// What one decoded token reads of a part, at batch size 1 and without drafting: of the routed experts
/// those that it uses, of the embedding and of the tables of expert ids (single rows) nothing.
pub fn active(config: &dyn Architecture, part: Part) -> Size {
    let mut size = Size::default();
    let is_looked_up = matches!(part, Part::Embedding | Part::EngramTables);
    if is_looked_up || matches!(part, Part::Stages | Part::Vision) {
        return size;
    }
    for_each(config, |_, other, kind, repeats, stored| {
        let table = matches!(kind, SlotKind::Plain { dtype: Dtype::I64, .. });
        if other == part && !table {
            let repeats = match part {
                Part::RoutedExperts => config.experts_per_token() as u64,
                _ => repeats,
            };
            size += times(stored, repeats);
        }
    });
    size
}

/// What one decoded token reads altogether: [`active`] over all parts.
pub fn active_total(config: &dyn Architecture) -> Size {
    let mut size = Size::default();
    for part in Part::ALL {
        size += active(config, part);
    }
    size
}

/// How keys and compressed entries are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// Entries as FP8 with one scale byte for 64 channels (scales padded to 8 bytes) and BF16 rotated
    /// channels; index keys as FP4 with one scale byte for 32 channels.
    Packed,
    /// Everything as BF16.
    Bf16,
}

/// Bytes by which the state of a sequence grows with each token, on average. Windows do not grow.
pub fn kv_bytes_per_token(config: &dyn Architecture, format: KvFormat) -> f64 {
    config.kv_bytes_per_token(format)
}

/// Bytes of the state of a sequence that do not grow: windows, and what compressors have not yet compressed.
///
/// What drafting needs beside that to roll back is not counted.
pub fn fixed_bytes_per_sequence(config: &dyn Architecture, format: KvFormat) -> u64 {
    config.fixed_bytes_per_sequence(format)
}

/// No fewer tensors than the checkpoint has, without visiting them.
pub(crate) fn tensor_count_bound(config: &dyn Architecture) -> u64 {
    // A layer has below 64 tensors besides its experts, which have six each.
    let layers = config.layer_count() + config.nextn_stage_count();
    let global = 2 * config.templates(Place::Global).len();
    (layers as u64 + 1) * (64 + 6 * config.routed_expert_count() as u64) + global as u64
}

/// Elements of the largest tensor and an upper bound for the bytes of the checkpoint.
pub(crate) fn size_bounds(config: &dyn Architecture) -> (u128, u128) {
    let (mut elements_max, mut bytes) = (0, 0);
    for place in inventory::places(config) {
        for template in config.templates(place) {
            let elements = match &template.kind {
                SlotKind::Matrix { rows, columns, .. } => *rows as u128 * *columns as u128,
                SlotKind::Plain { shape, .. } => shape.iter().map(|side| *side as u128).product(),
            };
            elements_max = elements_max.max(elements);
            bytes += 8 * elements * template.repeats as u128;
        }
    }
    (elements_max, bytes)
}

fn sum(config: &dyn Architecture, wanted: impl Fn(Place, Part) -> bool) -> Size {
    let mut size = Size::default();
    for_each(config, |place, part, _, repeats, stored| {
        if wanted(place, part) {
            size += times(stored, repeats);
        }
    });
    size
}

fn times(size: Size, repeats: u64) -> Size {
    Size {
        tensors: size.tensors * repeats,
        bytes: size.bytes * repeats,
        parameters: size.parameters * repeats,
    }
}

/// Visits place, part, kind, number of repetitions and size of one repetition.
fn for_each(config: &dyn Architecture, mut visit: impl FnMut(Place, Part, &SlotKind, u64, Size)) {
    let formats = Formats::announced(config);
    for place in inventory::places(config) {
        for template in config.templates(place) {
            let size = size_of(template.part, &template.kind, formats);
            visit(place, template.part, &template.kind, template.repeats as u64, size);
        }
    }
}

fn size_of(part: Part, kind: &SlotKind, formats: Formats) -> Size {
    match kind {
        SlotKind::Matrix { rows, columns, class } => {
            let format = formats.of(part, *class, *rows, *columns);
            Size {
                tensors: 1 + format.scale_shape(*rows, *columns).is_some() as u64,
                bytes: format.byte_count(*rows, *columns) as u64,
                parameters: (rows * columns) as u64,
            }
        }
        SlotKind::Plain { shape, dtype } => {
            let elements: u64 = shape.iter().map(|side| *side as u64).product();
            Size {
                tensors: 1,
                bytes: elements * dtype.byte_count() as u64,
                parameters: match dtype {
                    Dtype::I64 => 0,
                    _ => elements,
                },
            }
        }
    }
}
