//! What a replica needs of each device's memory.

use crate::{
    catalogue::Chip,
    model::{Model, Part},
    precision::Precision,
    step::Layout,
};

/// Part of an accelerator's memory that drivers, libraries and fragmentation take.
pub const RESERVED_PART: f64 = 0.06;
/// Part of a machine's memory that the system and its other programs take.
pub const RESERVED_HOST_PART: f64 = 0.10;
/// Tokens of a pass of prefill that workspace is kept for.
const WORKSPACE_TOKENS: f64 = 8192.0;
/// Snapshots kept for each sequence, to roll back to.
pub const SNAPSHOTS_PER_SEQUENCE: f64 = 1.0;

/// What has to fit.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Model.
    pub model: &'a Model,
    /// Formats of the weights.
    pub precision: Precision,
    /// How the replica is spread.
    pub layout: Layout,
    /// Sequences of the replica.
    pub sequences: f64,
    /// Tokens of each sequence.
    pub context: f64,
    /// Whether the drafter is loaded.
    pub drafting: bool,
}

/// Bytes on one device, by what they are for.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Everything but routed experts, by part.
    pub dense: Vec<(Part, f64)>,
    /// Routed experts, the drafter's included.
    pub experts: f64,
    /// What grows with the context of the sequences.
    pub kv: f64,
    /// Windows and open rows of the sequences.
    pub fixed: f64,
    /// Snapshots of them.
    pub snapshots: f64,
    /// Activations of the largest pass and logits.
    pub workspace: f64,
    /// What the device offers after what others take.
    pub available: f64,
}

impl Memory {
    /// Needs of a request on a device of a chip; `None` if the chip's memory is unknown.
    ///
    /// Dense weights are divided between devices that share a copy, experts between all devices, and keys are
    /// copied to all devices that share a sequence, because every head reads them.
    pub fn of(request: &Request, chip: &Chip) -> Option<Memory> {
        let Request { model, precision, .. } = *request;
        let reserved = if chip.host_memory {
            RESERVED_HOST_PART
        } else {
            RESERVED_PART
        };
        let available = chip.memory_bytes()? * (1.0 - reserved);
        let (tensor, devices) = (request.layout.tensor as f64, request.layout.devices as f64);
        let (mut dense, mut experts) = (Vec::new(), 0.0);
        for part in Part::ALL {
            let bytes = precision.part_bytes(model, part);
            let drafter = matches!(part, Part::Stages | Part::StageExperts);
            match part {
                _ if bytes == 0.0 || (drafter && !request.drafting) => {}
                Part::RoutedExperts | Part::StageExperts => {
                    let count = match part {
                        Part::RoutedExperts => model.experts.count,
                        _ => model.drafter.map_or(1, |drafter| drafter.experts.0),
                    };
                    // Each device holds whole experts, at least one.
                    experts += bytes / count as f64 * (count as f64 / devices).ceil();
                }
                Part::EngramTables => dense.push((part, bytes / devices)),
                _ => dense.push((part, bytes / tensor)),
            }
        }
        let sequences = (request.sequences / request.layout.data()).ceil().max(1.0);
        let format = precision.kv_format();
        let fixed = sequences * model.fixed_bytes_per_sequence(format) as f64;
        // Rows of the streams in F32 and of the widest product, and logits in F32 for each sequence.
        let rows = WORKSPACE_TOKENS * (4 * model.hidden * (model.streams + 4)) as f64;
        Some(Memory {
            dense,
            experts,
            kv: sequences * request.context * model.kv_bytes_per_token(format),
            fixed,
            snapshots: fixed * SNAPSHOTS_PER_SEQUENCE,
            workspace: rows + sequences * 4.0 * model.vocabulary as f64 / tensor,
            available,
        })
    }

    /// Bytes of everything but routed experts.
    pub fn without_experts(&self) -> f64 {
        let dense: f64 = self.dense.iter().map(|(_, bytes)| bytes).sum();
        dense + self.kv + self.fixed + self.snapshots + self.workspace
    }

    /// Bytes of everything.
    pub fn total(&self) -> f64 {
        self.without_experts() + self.experts
    }

    /// Whether everything fits.
    pub fn fits(&self) -> bool {
        self.total() <= self.available
    }

    /// Part of the routed experts that fits beside everything else, 0 to 1.
    pub fn resident_experts(&self) -> f64 {
        ((self.available - self.without_experts()) / self.experts).clamp(0.0, 1.0)
    }
}
