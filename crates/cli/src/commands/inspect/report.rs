//! What `cachalot inspect` tells, as text and as JSON.

use cachalot_checkpoint::{
    ModelConfig,
    accounting::{self, KvFormat},
    inventory::{Formats, Part},
};
use cachalot_numerics::MatrixFormat;
use serde_json::{Value, json};

use crate::numbers::{bytes, grouped, parameters};

/// Contexts for which the memory of a sequence is told.
const CONTEXTS: [(&str, u64); 2] = [("128k", 128 << 10), ("1M", 1 << 20)];

pub struct Report {
    pub name: String,
    pub config: ModelConfig,
    /// Where the numbers come from.
    pub source: String,
    /// What is stored; `None` where there is only a configuration.
    pub files: Option<Files>,
    pub verified: bool,
}

pub struct Files {
    pub weight_bytes: u64,
    pub weight_files: usize,
    pub tensor_count: usize,
    /// MTP layers or DSpark stages.
    pub stage_count: usize,
    pub extra_tensors: Vec<String>,
    pub has_tokenizer: bool,
}

impl Report {
    pub fn to_text(&self) -> String {
        let (config, total) = (&self.config, accounting::total(&self.config));
        let active = accounting::active_total(config);
        let mut lines = vec![format!("{} (from {})", self.name, self.source), String::new()];
        let mut row = |label: &str, text: String| lines.push(format!("{label:17} {text}"));
        row("parameters", self.parameters_text());
        row("weights", self.weights_text(total.bytes));
        row("read per token", bytes(active.bytes));
        row("layers", self.layers_text());
        row(
            "experts",
            format!(
                "{} routed, {} for each token; 1 shared",
                config.routed_expert_count(),
                config.experts_per_token()
            ),
        );
        row("quantisation", self.quantisation_text());
        row("vocabulary", format!("{} tokens", grouped(config.vocab_size() as u64)));
        row("context", format!("{} tokens", grouped(config.context() as u64)));
        if self.verified {
            row("verified", "all weights read, no bad value found".to_owned());
        }
        lines.push(String::new());
        lines.extend(self.part_lines());
        lines.push(String::new());
        lines.extend(self.state_lines());
        lines.extend(self.notices());
        lines.join("\n")
    }

    fn parameters_text(&self) -> String {
        let active = accounting::active_total(&self.config).parameters;
        let drafting = accounting::part(&self.config, Part::Stages).parameters;
        let mut text = format!(
            "{} total, {} active",
            parameters(self.main_parameters()),
            parameters(active)
        );
        if drafting > 0 {
            text.push_str(&format!("; {} more for drafting", parameters(drafting)));
        }
        text
    }

    /// Parameters without those that only draft, as releases are named.
    fn main_parameters(&self) -> u64 {
        accounting::total(&self.config).parameters - accounting::part(&self.config, Part::Stages).parameters
    }

    fn weights_text(&self, computed_bytes: u64) -> String {
        match &self.files {
            None => format!("{} (computed)", bytes(computed_bytes)),
            Some(files) => format!(
                "{} in {} file{}, {} tensors",
                bytes(files.weight_bytes),
                files.weight_files,
                if files.weight_files == 1 { "" } else { "s" },
                grouped(files.tensor_count as u64)
            ),
        }
    }

    fn layers_text(&self) -> String {
        let kinds: Vec<String> = self
            .config
            .layer_kinds()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let mut text = format!("{}: {}", self.config.layer_count(), kinds.join(", "));
        for note in self.config.layer_notes() {
            text.push_str("; ");
            text.push_str(&note);
        }
        text
    }

    fn quantisation_text(&self) -> String {
        let formats = Formats::announced(&self.config);
        let mut text = format!(
            "routed experts {}, other matrices {}",
            format_text(formats.expert),
            format_text(formats.dense)
        );
        if let Some(width) = formats.low_bit {
            let integers = format_text(MatrixFormat::Integer(width));
            text.push_str(&format!("; where it is smaller, the dense part {integers}"));
        }
        text
    }

    fn part_lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:18} {:>10} {:>16} {:>12}",
            "part", "stored", "read per token", "parameters"
        )];
        for part in Part::ALL {
            let (size, active) = (
                accounting::part(&self.config, part),
                accounting::active(&self.config, part),
            );
            if size.bytes > 0 {
                lines.push(format!(
                    "{:18} {:>10} {:>16} {:>12}",
                    part_name(part),
                    bytes(size.bytes),
                    or_none(active.bytes),
                    parameters(size.parameters)
                ));
            }
        }
        lines
    }

    fn state_lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:18} {:>10} {:>16}", "state of a sequence", "packed", "bf16")];
        let mut row = |label: &str, cell: &dyn Fn(KvFormat) -> String| {
            let (packed, bf16) = (cell(KvFormat::Packed), cell(KvFormat::Bf16));
            lines.push(format!("{label:18} {packed:>10} {bf16:>16}"));
        };
        row("fixed", &|format| {
            bytes(accounting::fixed_bytes_per_sequence(&self.config, format))
        });
        row("each token", &|format| {
            format!(
                "{} bytes",
                grouped(accounting::kv_bytes_per_token(&self.config, format).round() as u64)
            )
        });
        for (label, tokens) in CONTEXTS {
            row(&format!("{label} tokens"), &|format| {
                bytes(self.state_bytes(format, tokens))
            });
        }
        lines
    }

    fn notices(&self) -> Vec<String> {
        let Some(files) = &self.files else { return Vec::new() };
        let mut lines = Vec::new();
        let computed = accounting::total(&self.config).bytes;
        if files.stage_count < self.config.nextn_stage_count() {
            lines.push("notice: the announced MTP layers or DSpark stages are not stored".to_owned());
        } else if files.weight_bytes.abs_diff(computed) > computed / 20 {
            lines.push("notice: tensors are stored in other formats than config.json announces; sizes of parts are those announced".to_owned());
        }
        if let [first, ..] = files.extra_tensors.as_slice() {
            let count = files.extra_tensors.len();
            lines.push(format!(
                "notice: {count} stored tensors are not used, for example {first}"
            ));
        }
        if !files.has_tokenizer {
            lines.push("notice: there is no tokenizer.json; `cachalot score --tokens` works without".to_owned());
        }
        if !lines.is_empty() {
            lines.insert(0, String::new());
        }
        lines
    }

    fn state_bytes(&self, format: KvFormat, tokens: u64) -> u64 {
        let growing = accounting::kv_bytes_per_token(&self.config, format) * tokens as f64;
        accounting::fixed_bytes_per_sequence(&self.config, format) + growing.round() as u64
    }

    pub fn to_json(&self) -> Value {
        let (config, total) = (&self.config, accounting::total(&self.config));
        let active = accounting::active_total(config);
        let formats = Formats::announced(config);
        let parts: serde_json::Map<_, _> = Part::ALL
            .into_iter()
            .map(|part| {
                let (size, active) = (accounting::part(config, part), accounting::active(config, part));
                let value = json!({
                    "bytes": size.bytes,
                    "bytes_per_token": active.bytes,
                    "parameters": size.parameters,
                    "active_parameters": active.parameters,
                });
                (part_name(part).replace([' ', '-'], "_"), value)
            })
            .collect();
        let state = |format| {
            let contexts = CONTEXTS.map(|(label, tokens)| (label.to_owned(), json!(self.state_bytes(format, tokens))));
            json!({
                "fixed_bytes": accounting::fixed_bytes_per_sequence(config, format),
                "bytes_per_token": accounting::kv_bytes_per_token(config, format),
                "bytes_at": serde_json::Map::from_iter(contexts),
            })
        };
        let layers: serde_json::Map<_, _> = config
            .layer_kinds()
            .into_iter()
            .map(|(kind, count)| (kind.to_lowercase().replace(' ', "_"), json!(count)))
            .collect();
        json!({
            "name": self.name,
            "source": self.source,
            "parameters": self.main_parameters(),
            "drafting_parameters": total.parameters - self.main_parameters(),
            "active_parameters": active.parameters,
            "bytes": total.bytes,
            "bytes_per_token": active.bytes,
            "parts": parts,
            "state": { "packed": state(KvFormat::Packed), "bf16": state(KvFormat::Bf16) },
            "layers": layers,
            "hash_layers": self.config.as_v4().map_or(0, |config| config.num_hash_layers),
            "drafting_stages": config.nextn_stage_count(),
            "routed_experts": config.routed_expert_count(),
            "experts_per_token": config.experts_per_token(),
            "quantisation": {
                "experts": format_text(formats.expert),
                "dense": format_text(formats.dense),
                "low_bit": formats.low_bit.map(|width| width.to_string()),
            },
            "vocabulary": config.vocab_size(),
            "context": config.context(),
            "files": self.files.as_ref().map(|files| json!({
                "weight_bytes": files.weight_bytes,
                "weight_files": files.weight_files,
                "tensors": files.tensor_count,
                "drafting_stages": files.stage_count,
                "unused_tensors": files.extra_tensors,
                "tokenizer": files.has_tokenizer,
            })),
            "verified": self.verified,
        })
    }
}

fn or_none(count: u64) -> String {
    if count == 0 { "none".to_owned() } else { bytes(count) }
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::RoutedExperts => "routed experts",
        Part::Attention => "attention",
        Part::SharedExperts => "shared experts",
        Part::DenseFeedForward => "dense feed-forward",
        Part::Embedding => "embedding",
        Part::Head => "head",
        Part::Compressors => "compressors",
        Part::Indexers => "indexers",
        Part::HyperConnections => "hyper-connections",
        Part::Routers => "routers",
        Part::Norms => "norms",
        Part::Stages => "drafting stages",
        Part::EngramTables => "Engram tables",
        Part::EngramProjections => "Engram projections",
        Part::Vision => "vision tower",
        _ => "other",
    }
}

fn format_text(format: MatrixFormat) -> String {
    match format {
        MatrixFormat::Bf16 => "BF16".to_owned(),
        MatrixFormat::F32 => "F32".to_owned(),
        MatrixFormat::Fp8Block { rows, columns, scale } => {
            format!("FP8 in blocks of {rows}x{columns}, {} scales", scale.dtype())
        }
        MatrixFormat::Fp4Group { group } => format!("FP4 in groups of {group}, E8M0 scales"),
        other => other.to_string(),
    }
}
