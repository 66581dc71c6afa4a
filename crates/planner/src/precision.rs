//! In which formats the weights of a model lie on a chip.

use crate::{
    catalogue::{Chip, Operand},
    model::{KvFormat, Model, Part, Stored, Weight},
};

/// A way to keep the weights of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As released.
    Released,
    /// INT8 weights and activations on chips without FP8. V4's narrow projections and `wo_a` stay BF16, as the
    /// converter of Huawei's recipes leaves them.
    W8A8,
    /// As W8A8, with INT4 routed experts.
    W4A8,
    /// Local files of "4 bits": routed experts 4.5 bits, other quantised matrices 8.5, the rest BF16.
    Q4,
    /// Local files of "2 bits": gate and up of routed experts 2.0625 bits, down 2.625, the rest as Q4.
    Q2,
    /// Everything unpacked.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 6] = [
        Precision::Released,
        Precision::W8A8,
        Precision::W4A8,
        Precision::Q4,
        Precision::Q2,
        Precision::Bf16,
    ];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Released => "released",
            Precision::W8A8 => "w8a8",
            Precision::W4A8 => "w4a8",
            Precision::Q4 => "q4",
            Precision::Q2 => "q2",
            Precision::Bf16 => "bf16",
        }
    }

    /// By its name, in any case.
    pub fn by_name(name: &str) -> Option<Precision> {
        let found = Precision::ALL.into_iter();
        found
            .clone()
            .find(|precision| precision.name().eq_ignore_ascii_case(name))
    }

    /// What a chip runs by default: the released weights, or INT8 on accelerators without FP8.
    pub fn of_chip(chip: &Chip) -> Precision {
        let released = chip.fp8_tflops.value().is_some() || chip.int8_tops.value().is_none();
        if released { Precision::Released } else { Precision::W8A8 }
    }

    /// Bytes of all tensors of a kind.
    pub fn bytes(self, weight: &Weight) -> f64 {
        let elements = (weight.rows * weight.columns) as f64;
        let quantised = matches!(weight.stored, Stored::Fp8 { .. } | Stored::Fp4 | Stored::Integer { .. });
        let row_scales = 4.0 * weight.rows as f64;
        let one = match self {
            _ if !quantised || weight.part == Part::EngramTables => {
                weight.stored.bytes(weight.rows, weight.columns) as f64
            }
            Precision::Released => weight.stored.bytes(weight.rows, weight.columns) as f64,
            Precision::Bf16 => 2.0 * elements,
            Precision::W8A8 | Precision::W4A8 if stays_bf16(weight) => 2.0 * elements,
            // A scale and a bias for each row.
            Precision::W4A8 if is_expert(weight) => elements / 2.0 + 2.0 * row_scales,
            Precision::W8A8 | Precision::W4A8 => elements + row_scales,
            Precision::Q4 if is_expert(weight) => elements * 4.5 / 8.0,
            Precision::Q2 if is_expert(weight) && is_down(weight) => elements * 2.625 / 8.0,
            Precision::Q2 if is_expert(weight) => elements * 2.0625 / 8.0,
            Precision::Q4 | Precision::Q2 => elements * 8.5 / 8.0,
        };
        one * weight.count as f64
    }

    /// Operands of the products with a weight.
    pub fn operand(self, weight: &Weight) -> Operand {
        match (self, weight.stored) {
            (_, Stored::Bf16 | Stored::F32 | Stored::I64) => Operand::Bf16,
            (Precision::Released, _) => Operand::Fp8,
            (Precision::W8A8 | Precision::W4A8, _) if !stays_bf16(weight) => Operand::Int8,
            _ => Operand::Bf16,
        }
    }

    /// Operands of the indexer's scores.
    pub fn index_operand(self) -> Operand {
        match self {
            Precision::Released => Operand::Fp8,
            Precision::W8A8 | Precision::W4A8 => Operand::Int8,
            _ => Operand::Bf16,
        }
    }

    /// How keys and entries are kept beside these weights.
    pub fn kv_format(self) -> KvFormat {
        match self {
            Precision::W8A8 | Precision::W4A8 | Precision::Bf16 => KvFormat::Bf16,
            _ => KvFormat::Packed,
        }
    }

    /// Bytes of a part.
    pub fn part_bytes(self, model: &Model, part: Part) -> f64 {
        let weights = model.weights.iter().filter(|weight| weight.part == part);
        weights.map(|weight| self.bytes(weight)).sum()
    }
}

fn is_expert(weight: &Weight) -> bool {
    matches!(weight.part, Part::RoutedExperts | Part::StageExperts)
}

fn is_down(weight: &Weight) -> bool {
    weight.name.ends_with("w2") || weight.name.ends_with("down_proj")
}

fn stays_bf16(weight: &Weight) -> bool {
    ["attn.wq_a", "attn.wkv", "attn.wo_a"].contains(&weight.name.as_str())
}
