//! What one pass of a model moves and computes on one device.

use crate::{
    catalogue::Operand,
    model::{Drafter, Model, Part, Weight},
    precision::Precision,
};

/// How a replica of a model is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Devices of the replica. Routed experts are spread over all of them.
    pub devices: u64,
    /// Devices that share one copy of everything else; the others hold copies and serve other sequences.
    pub tensor: u64,
}

impl Layout {
    /// Copies of everything but routed experts.
    pub fn data(self) -> f64 {
        self.devices as f64 / self.tensor as f64
    }
}

/// What a pass does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// One token, and drafts to verify, for each of `sequences` in the replica, at `context` tokens.
    Decode {
        /// Sequences of the replica.
        sequences: f64,
        /// Tokens of each.
        context: f64,
    },
    /// `tokens` for each copy of the attention weights, of prompts that are `prompt` long.
    Prefill {
        /// Tokens of a pass and copy.
        tokens: f64,
        /// Length of the prompts.
        prompt: f64,
    },
}

/// Drafting and verification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speculation {
    /// Tokens drafted for each step and sequence; 0 for none.
    pub drafts: u64,
    /// Tokens that a step yields on average, the sampled one included: 1 to `drafts + 1`.
    pub tokens_per_step: f64,
}

impl Speculation {
    /// No drafting.
    pub const OFF: Speculation = Speculation {
        drafts: 0,
        tokens_per_step: 1.0,
    };
}

/// Classes of operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Dense products: projections, shared experts, head.
    Dense,
    /// Routed experts.
    Experts,
    /// Routed experts that come from slower memory.
    Offload,
    /// Scores and values over keys.
    Attention,
    /// Scores of the indexer.
    Indexer,
    /// Residual streams and other rows between products.
    Rows,
    /// Drafting.
    Drafter,
    /// All-to-all of routed experts.
    AllToAll,
    /// All-reduce of shared attention.
    AllReduce,
    /// Time from one kernel to the next.
    Launches,
}

impl Class {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Class::Dense => "dense products",
            Class::Experts => "routed experts",
            Class::Offload => "experts from slower memory",
            Class::Attention => "attention",
            Class::Indexer => "indexer",
            Class::Rows => "rows and residual streams",
            Class::Drafter => "drafter",
            Class::AllToAll => "all-to-all",
            Class::AllReduce => "all-reduce",
            Class::Launches => "launches",
        }
    }
}

/// What one operator class costs one device in a pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Class.
    pub class: Class,
    /// Bytes read or written in the device's memory.
    pub bytes: f64,
    /// Operations, two for a multiply-add, and of what operands.
    pub operations: [(Operand, f64); 3],
    /// Bytes sent over the fast link.
    pub link_bytes: f64,
    /// Bytes sent over the network.
    pub network_bytes: f64,
    /// Bytes from slower memory.
    pub slow_bytes: f64,
    /// Kernels.
    pub launches: f64,
}

impl Cost {
    fn new(class: Class) -> Cost {
        Cost {
            class,
            bytes: 0.0,
            operations: [(Operand::Bf16, 0.0), (Operand::Int8, 0.0), (Operand::Fp8, 0.0)],
            link_bytes: 0.0,
            network_bytes: 0.0,
            slow_bytes: 0.0,
            launches: 0.0,
        }
    }

    fn operate(&mut self, operand: Operand, operations: f64) {
        self.operations[operand as usize].1 += operations;
    }
}

/// A pass, ready to be costed.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Model.
    pub model: &'a Model,
    /// Formats of the weights.
    pub precision: Precision,
    /// How the replica is spread.
    pub layout: Layout,
    /// What is done.
    pub work: Work,
    /// Drafting.
    pub speculation: Speculation,
    /// Devices that the fast link connects.
    pub link_devices: u64,
    /// Part of the uses of experts that find them in the device's memory.
    pub hit_rate: f64,
}

/// Rows of activations that a residual stream or a layer's input is read or written, for each sub-layer.
const STREAM_PASSES: f64 = 3.0;
const ROW_PASSES: f64 = 6.0;

/// Rows that a token reads of an Engram table: 8 heads for n-grams of 2, 3 and 4.
const ENGRAM_ROWS: f64 = 24.0;

impl Step<'_> {
    /// Tokens that go through the main layers on one device.
    fn tokens(&self) -> f64 {
        match self.work {
            Work::Decode { .. } => self.sequences() * (1 + self.speculation.drafts) as f64,
            Work::Prefill { tokens, .. } => tokens,
        }
    }

    /// Sequences of one copy of the attention weights; the busiest copy has at least one.
    fn sequences(&self) -> f64 {
        match self.work {
            Work::Decode { sequences, .. } => (sequences / self.layout.data()).max(1.0),
            Work::Prefill { tokens, prompt } => tokens / prompt,
        }
    }

    /// Tokens of the whole replica.
    fn tokens_of_replica(&self) -> f64 {
        match self.work {
            Work::Decode { sequences, .. } => sequences * (1 + self.speculation.drafts) as f64,
            Work::Prefill { tokens, .. } => tokens * self.layout.data(),
        }
    }

    /// Costs of all classes.
    pub fn costs(&self) -> Vec<Cost> {
        let mut costs = vec![self.dense()];
        costs.extend(self.experts(
            self.model.experts.layers as f64,
            Part::RoutedExperts,
            self.tokens_of_replica(),
        ));
        costs.extend(self.attention());
        costs.push(self.rows());
        if self.speculation.drafts > 0 && matches!(self.work, Work::Decode { .. }) {
            costs.extend(self.model.drafter.map(|drafter| self.drafter(drafter)));
        }
        costs.push(self.all_to_all());
        if self.layout.tensor > 1 {
            costs.push(self.all_reduce());
        }
        let mut launches = Cost::new(Class::Launches);
        launches.launches = self.model.launches() as f64
            + if self.layout.tensor > 1 {
                2.0 * self.model.layers as f64
            } else {
                0.0
            };
        costs.push(launches);
        costs
    }

    fn dense(&self) -> Cost {
        let mut cost = Cost::new(Class::Dense);
        for weight in &self.model.weights {
            let rows = match weight.part {
                Part::RoutedExperts | Part::StageExperts | Part::Stages | Part::Vision => continue,
                Part::Embedding => {
                    cost.bytes += self.tokens() * 2.0 * weight.columns as f64;
                    continue;
                }
                Part::EngramTables => {
                    let row = weight.stored.bytes(1, weight.columns) as f64;
                    cost.bytes += self.tokens() * ENGRAM_ROWS * row;
                    continue;
                }
                Part::Head => self.logit_rows(),
                _ => self.tokens(),
            };
            self.product(&mut cost, weight, rows, 1.0);
        }
        cost
    }

    /// Adds a product of `rows` rows with weights that the copy's devices share.
    fn product(&self, cost: &mut Cost, weight: &Weight, rows: f64, passes: f64) {
        if weight.stored == crate::model::Stored::I64 {
            return;
        }
        let share = passes / self.layout.tensor as f64;
        cost.bytes += self.precision.bytes(weight) * share;
        let operations = 2.0 * weight.parameters() as f64 * rows * share;
        cost.operate(self.precision.operand(weight), operations);
    }

    /// Rows that need logits.
    fn logit_rows(&self) -> f64 {
        match self.work {
            Work::Decode { .. } => self.tokens(),
            Work::Prefill { .. } => self.sequences(),
        }
    }

    /// Routed experts of `layers` layers for `tokens` tokens of the replica, and those of them that must be fetched.
    fn experts(&self, layers: f64, part: Part, tokens: f64) -> Vec<Cost> {
        let (count, active) = match (part, self.model.drafter) {
            (Part::StageExperts, Some(drafter)) => drafter.experts,
            _ => (self.model.experts.count, self.model.experts.active),
        };
        let mut cost = Cost::new(Class::Experts);
        let devices = self.layout.devices as f64;
        // Beyond one expert for each device, copies of experts fill the devices.
        let local = (count as f64 / devices).max(1.0);
        let used = 1.0 - (1.0 - active as f64 / count as f64).powf(tokens);
        // Copies are used in turns, so a copy is used as often as the original would be by a part of the tokens.
        let copies = (devices / count as f64).max(1.0);
        let used = if copies > 1.0 {
            1.0 - (1.0 - active as f64 / count as f64).powf(tokens / copies)
        } else {
            used
        };
        let all: Vec<&Weight> = self.model.weights.iter().filter(|weight| weight.part == part).collect();
        for weight in all {
            let one = self.precision.bytes(weight) / weight.count as f64;
            let matrices = weight.count as f64 / (layers * count as f64);
            cost.bytes += one * matrices * local * used * layers;
            let parameters = (weight.rows * weight.columns) as f64 * matrices * layers;
            let operations = 2.0 * parameters * tokens * active as f64 / devices;
            cost.operate(self.precision.operand(weight), operations);
        }
        if self.hit_rate >= 1.0 || part == Part::StageExperts {
            return vec![cost];
        }
        let mut slow = Cost::new(Class::Offload);
        slow.slow_bytes = cost.bytes * (1.0 - self.hit_rate);
        vec![cost, slow]
    }

    fn attention(&self) -> [Cost; 2] {
        let (mut attention, mut indexer) = (Cost::new(Class::Attention), Cost::new(Class::Indexer));
        let format = self.precision.kv_format() as usize;
        let (tokens, sequences, tensor) = (self.tokens(), self.sequences(), self.layout.tensor as f64);
        let queries_per_sequence = (tokens / sequences).max(1.0);
        for group in &self.model.attention {
            let layers = group.layers as f64;
            let (window, entries) = self.mean(|n| group.keys(n));
            let (all, candidates) = self.mean(|n| (group.entries(n), group.candidates(n)));
            let width = match self.work {
                Work::Decode { .. } => group.width,
                Work::Prefill { .. } => group.prefill_width,
            };
            let multiply_adds = layers * tokens * group.heads as f64 * width as f64 * (window + entries);
            attention.operate(Operand::Bf16, 2.0 * multiply_adds / tensor);
            // Each query of a sequence may select other entries, but no more than there are.
            let entries_read = (entries * queries_per_sequence).min(all);
            let bytes = window * group.window_bytes[format] as f64 + entries_read * group.entry_bytes[format] as f64;
            attention.bytes += layers * sequences * bytes;
            if let Some((heads, channels)) = group.index {
                let layers = group.index_layers as f64;
                indexer.bytes += layers * sequences * candidates * group.key_bytes[format] as f64;
                let multiply_adds = layers * tokens * (heads * channels) as f64 * candidates;
                indexer.operate(self.precision.index_operand(), 2.0 * multiply_adds / tensor);
            }
        }
        [attention, indexer]
    }

    /// The mean over the positions of the queries.
    fn mean(&self, value: impl Fn(f64) -> (f64, f64)) -> (f64, f64) {
        match self.work {
            Work::Decode { context, .. } => value(context - 1.0),
            Work::Prefill { prompt, .. } => {
                const POINTS: usize = 32;
                let mut sum = (0.0, 0.0);
                for point in 0..POINTS {
                    let (a, b) = value((point as f64 + 0.5) / POINTS as f64 * prompt - 0.5);
                    sum = (sum.0 + a, sum.1 + b);
                }
                (sum.0 / POINTS as f64, sum.1 / POINTS as f64)
            }
        }
    }

    fn rows(&self) -> Cost {
        let mut cost = Cost::new(Class::Rows);
        let row = 2.0 * self.model.hidden as f64;
        let streams = if self.model.streams > 1 {
            self.model.streams as f64
        } else {
            0.0
        };
        let sub_layers = 2.0 * self.model.layers as f64;
        cost.bytes = self.tokens() * sub_layers * row * (STREAM_PASSES * streams + ROW_PASSES);
        cost
    }

    /// An MTP layer runs once for each draft, DSpark's stages once for all of them.
    fn drafter(&self, drafter: Drafter) -> Cost {
        let (passes, tokens) = match drafter.block {
            None => (self.speculation.drafts as f64, self.sequences()),
            Some(block) => (1.0, self.sequences() * block as f64),
        };
        let mut cost = Cost::new(Class::Drafter);
        for weight in self.model.weights.iter().filter(|weight| weight.part == Part::Stages) {
            self.product(&mut cost, weight, tokens, passes);
        }
        for weight in self.model.weights.iter().filter(|weight| weight.part == Part::Head) {
            self.product(&mut cost, weight, tokens, passes);
        }
        let replica = tokens * self.layout.data() * self.tokens_of_replica() / (self.tokens() * self.layout.data());
        for experts in self.experts(drafter.layers as f64, Part::StageExperts, replica) {
            cost.bytes += experts.bytes * passes;
            for (operand, operations) in experts.operations {
                cost.operate(operand, operations * passes);
            }
        }
        cost.launches = passes * drafter.layers as f64 * 29.0;
        cost
    }

    /// Dispatch in one byte and combination in two bytes for each channel.
    fn all_to_all(&self) -> Cost {
        let mut cost = Cost::new(Class::AllToAll);
        let devices = self.layout.devices as f64;
        if devices <= 1.0 {
            return cost;
        }
        let experts = self.model.experts;
        let row = 3.0 * self.model.hidden as f64;
        // Devices that share a sequence divide its rows between them.
        let tokens = self.tokens() / self.layout.tensor as f64;
        let domain = (self.link_devices as f64).min(devices);
        let nodes = devices / domain;
        let active = experts.active as f64;
        let far = 1.0 - 1.0 / nodes;
        // In prefill a row crosses the network once for each node; in decode once for each expert.
        let crossings = match self.work {
            Work::Decode { .. } => active * far,
            Work::Prefill { .. } => {
                let limit = experts.node_limit.map_or(nodes, |limit| (limit as f64).min(nodes));
                let met = nodes * (1.0 - (1.0 - 1.0 / nodes).powf(active));
                met.min(limit) * far
            }
        };
        let layers = experts.layers as f64;
        cost.network_bytes = tokens * layers * crossings * row;
        cost.link_bytes = tokens * layers * active * row * (1.0 - 1.0 / domain) / nodes;
        cost
    }

    /// Two sums of a row in BF16 for each layer.
    fn all_reduce(&self) -> Cost {
        let mut cost = Cost::new(Class::AllReduce);
        let tensor = self.layout.tensor as f64;
        let row = 2.0 * self.model.hidden as f64;
        cost.link_bytes = 2.0 * self.model.layers as f64 * self.tokens() * row * 2.0 * (tensor - 1.0) / tensor;
        cost
    }
}
