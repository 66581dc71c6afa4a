//! Every tensor of a model, from its configuration alone.

mod template;
pub(crate) mod v3;
pub(crate) mod v4;
pub(crate) mod v41;

pub(crate) use template::List;
pub use template::Template;

use cachalot_numerics::{Dtype, IntegerWidth, MatrixFormat, integer};

use crate::config::Architecture;

/// Parts of a checkpoint, as its bytes are usually accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Part {
    /// Routed experts of the main layers.
    RoutedExperts,
    /// Query, key-value and output projections with their norms and sinks.
    Attention,
    /// Shared experts.
    SharedExperts,
    /// Feed-forward of layers without experts (V3).
    DenseFeedForward,
    /// Token embedding.
    Embedding,
    /// Output projection to the vocabulary.
    Head,
    /// Compressors of keys and values, without the indexer's own.
    Compressors,
    /// Indexers, with their own compressors.
    Indexers,
    /// Hyper-connections of the layers and of the head.
    HyperConnections,
    /// Routers, with the tables from token to expert.
    Routers,
    /// Norms before attention, experts and head.
    Norms,
    /// The MTP layer or the DSpark stages, all of it.
    Stages,
    /// Engram tables (V4.1), of which a token reads a few rows.
    EngramTables,
    /// What turns these rows into an addition to the streams.
    EngramProjections,
    /// The vision tower (V4.1), which is not run.
    Vision,
}

impl Part {
    /// All parts, in the order of the enum.
    pub const ALL: [Part; 15] = [
        Part::RoutedExperts,
        Part::Attention,
        Part::SharedExperts,
        Part::DenseFeedForward,
        Part::Embedding,
        Part::Head,
        Part::Compressors,
        Part::Indexers,
        Part::HyperConnections,
        Part::Routers,
        Part::Norms,
        Part::Stages,
        Part::EngramTables,
        Part::EngramProjections,
        Part::Vision,
    ];

    /// Whether the matrices of this part are what a low-bit format may replace: projections that every token reads.
    ///
    /// Not among them: routed experts (4 bits already), the embedding (one row a token), routers, norms and
    /// hyper-connections (small, and sensitive), MTP layer and DSpark stages.
    pub const fn is_dense(self) -> bool {
        matches!(
            self,
            Part::Attention
                | Part::SharedExperts
                | Part::DenseFeedForward
                | Part::Head
                | Part::Compressors
                | Part::Indexers
        )
    }
}

/// Where in the model a tensor sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Outside all layers: embedding, head, last norm.
    Global,
    /// Main layer.
    Layer(usize),
    /// MTP layer or DSpark stage, stored as `mtp.N`.
    Stage(usize),
}

/// Which formats a weight matrix may be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatrixClass {
    /// Never quantised: BF16, or F32 in a checkpoint saved so.
    Plain,
    /// FP8 in blocks; BF16 or F32 in a checkpoint that is not quantised.
    Dense,
    /// FP4 in groups or FP8 in blocks; BF16 or F32 in a checkpoint that is not quantised.
    Expert,
    /// Rows that are looked up: FP8 with scales of their own; BF16 or F32 in a checkpoint that is not quantised.
    Table,
}

impl MatrixClass {
    /// Element types that the weights may be stored in.
    pub const fn dtypes(self) -> &'static [Dtype] {
        match self {
            MatrixClass::Plain => &[Dtype::Bf16, Dtype::F32],
            MatrixClass::Dense | MatrixClass::Table => &[Dtype::F8E4m3, Dtype::Bf16, Dtype::F32],
            MatrixClass::Expert => &[Dtype::I8, Dtype::F8E4m3, Dtype::Bf16, Dtype::F32],
        }
    }
}

/// What a logical tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A weight matrix: stored as `NAME.weight`, with `NAME.scale` if its format has scales.
    Matrix {
        /// Outputs.
        rows: usize,
        /// Inputs.
        columns: usize,
        /// Allowed formats.
        class: MatrixClass,
    },
    /// A tensor stored under its name as it is.
    Plain {
        /// Its shape.
        shape: Vec<usize>,
        /// Type in the releases.
        dtype: Dtype,
    },
}

impl SlotKind {
    /// Types in which a plain tensor may be stored, that of the releases first.
    pub fn plain_dtypes(dtype: Dtype) -> &'static [Dtype] {
        match dtype {
            Dtype::Bf16 => &[Dtype::Bf16, Dtype::F32],
            Dtype::F32 => &[Dtype::F32, Dtype::Bf16],
            _ => &[Dtype::I64],
        }
    }
}

/// One tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Official name; for a matrix without `.weight`.
    pub name: String,
    /// Part of the model.
    pub part: Part,
    /// Place in the model.
    pub place: Place,
    /// Shape and formats.
    pub kind: SlotKind,
}

/// One tensor as it lies in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Official full name.
    pub name: String,
    /// Part of the model.
    pub part: Part,
    /// Place in the model.
    pub place: Place,
    /// Stored element type.
    pub dtype: Dtype,
    /// Stored shape: packed FP4 halves the last side.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of the tensor.
    pub fn byte_count(&self) -> u64 {
        let elements: u64 = self.shape.iter().map(|side| *side as u64).product();
        elements * self.dtype.byte_count() as u64
    }
}

/// The formats in which a checkpoint stores its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// Matrices that are never quantised.
    pub plain: MatrixFormat,
    /// Dense matrices.
    pub dense: MatrixFormat,
    /// Routed experts.
    pub expert: MatrixFormat,
    /// Tables whose rows are looked up.
    pub table: MatrixFormat,
    /// Low-bit format of the dense part, where it is smaller than the others.
    pub low_bit: Option<IntegerWidth>,
}

impl Formats {
    /// Everything BF16.
    pub(crate) fn unquantised() -> Formats {
        Formats {
            plain: MatrixFormat::Bf16,
            dense: MatrixFormat::Bf16,
            expert: MatrixFormat::Bf16,
            table: MatrixFormat::Bf16,
            low_bit: None,
        }
    }

    /// The formats that a configuration announces: the released ones and what a conversion has made of them.
    pub fn announced(config: &dyn Architecture) -> Formats {
        Formats {
            low_bit: config.low_bit(),
            ..config.released_formats()
        }
    }

    /// The formats that a configuration announces, before any conversion.
    pub fn released(config: &dyn Architecture) -> Formats {
        config.released_formats()
    }

    /// The format of a matrix.
    pub fn of(self, part: Part, class: MatrixClass, rows: usize, columns: usize) -> MatrixFormat {
        let released = match class {
            MatrixClass::Plain => self.plain,
            MatrixClass::Dense => self.dense,
            MatrixClass::Expert => self.expert,
            MatrixClass::Table => self.table,
        };
        match self.low_bit {
            Some(width) if part.is_dense() && is_worth(released, width, rows, columns) => MatrixFormat::Integer(width),
            _ => released,
        }
    }
}

/// Whether a low-bit format can hold a matrix and is smaller than its present one. FP8 is smaller than int8.
pub(crate) fn is_worth(present: MatrixFormat, width: IntegerWidth, rows: usize, columns: usize) -> bool {
    columns.is_multiple_of(integer::GROUP)
        && MatrixFormat::Integer(width).byte_count(rows, columns) < present.byte_count(rows, columns)
}

/// Every logical tensor of the model: global ones, layers in order, then stages.
pub fn slots(config: &dyn Architecture) -> impl Iterator<Item = Slot> + '_ {
    places(config).flat_map(move |place| slots_at(config, place))
}

/// The tensors as the releases store them, in the formats that the configuration announces.
pub fn tensors(config: &dyn Architecture) -> impl Iterator<Item = TensorSpec> + '_ {
    let formats = Formats::announced(config);
    slots(config).flat_map(move |slot| slot.stored(formats))
}

/// All places of the model, in order.
pub fn places(config: &dyn Architecture) -> impl Iterator<Item = Place> + use<> {
    let layers = (0..config.layer_count()).map(Place::Layer);
    let stages = (0..config.nextn_stage_count()).map(Place::Stage);
    std::iter::once(Place::Global).chain(layers).chain(stages)
}

/// Every logical tensor at one place.
pub fn slots_at(config: &dyn Architecture, place: Place) -> Vec<Slot> {
    let prefix = config.name_prefix(place);
    let mut slots = Vec::new();
    for template in config.templates(place) {
        for repeat in 0..template.repeats {
            slots.push(Slot {
                name: format!("{prefix}{}", template.suffix_of(repeat)),
                part: template.part,
                place,
                kind: template.kind.clone(),
            });
        }
    }
    slots
}

impl Slot {
    /// The stored tensors of this slot: a matrix gives its weight and, in formats that have one, its scale.
    pub fn stored(self, formats: Formats) -> impl Iterator<Item = TensorSpec> {
        let Slot {
            name,
            part,
            place,
            kind,
        } = self;
        let tensor = move |name: String, dtype: Dtype, shape: Vec<usize>| TensorSpec {
            name,
            part,
            place,
            dtype,
            shape,
        };
        let (first, second) = match kind {
            SlotKind::Plain { shape, dtype } => (tensor(name, dtype, shape), None),
            SlotKind::Matrix { rows, columns, class } => {
                let format = formats.of(part, class, rows, columns);
                let scale = format
                    .scale_shape(rows, columns)
                    .map(|(dtype, shape)| tensor(format!("{name}.scale"), dtype, shape.to_vec()));
                let shape = format.weight_shape(rows, columns).to_vec();
                (tensor(format!("{name}.weight"), format.dtype(), shape), scale)
            }
        };
        std::iter::once(first).chain(second)
    }
}
