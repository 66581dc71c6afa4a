use std::{ops::Deref, path::Path};

use cachalot_numerics::IntegerWidth;
use serde_json::{Map, Value};

use super::{
    Architecture, DeepseekV3Config, DeepseekV4Config, DeepseekV41Config, Quantization,
    fields::{DOWNLOAD_AGAIN, Fields, shorten},
};
use crate::{
    Error,
    accounting::KvFormat,
    inventory::{Formats, Place, Template},
    json,
};

/// The configuration of a model of any family; what all of them tell is asked through [`Architecture`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ModelConfig {
    /// DeepSeek-V3, R1, V3.1 and V3.2.
    V3(DeepseekV3Config),
    /// DeepSeek-V4: Flash, Pro and their variants.
    V4(DeepseekV4Config),
    /// DeepSeek-V4.1-Flash.
    V41(Box<DeepseekV41Config>),
}

impl ModelConfig {
    /// Reads config.json as DeepSeek publishes it or as transformers 5 saves it.
    ///
    /// `origin` only names the file in errors.
    ///
    /// # Errors
    /// [`Error::Json`] for broken text, [`Error::ModelType`] for families that are not supported,
    /// [`Error::ConfigKeyMissing`] and [`Error::ConfigValue`] for everything that does not fit together.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self, Error> {
        let map = object(text, origin)?;
        match model_type(&Fields::new(&map, origin))? {
            "deepseek_v4" => DeepseekV4Config::from_map(&map, origin).map(ModelConfig::V4),
            "deepseek_v41" => DeepseekV41Config::from_map(&map, origin).map(ModelConfig::from),
            _ => DeepseekV3Config::from_map(&map, origin).map(ModelConfig::V3),
        }
    }

    /// The configuration of V4; `None` for other families.
    pub fn as_v4(&self) -> Option<&DeepseekV4Config> {
        match self {
            ModelConfig::V4(config) => Some(config),
            _ => None,
        }
    }

    pub(crate) fn set_low_bit(&mut self, width: IntegerWidth) {
        match self {
            ModelConfig::V3(config) => config.low_bit = Some(width),
            ModelConfig::V4(config) => config.low_bit = Some(width),
            ModelConfig::V41(config) => config.low_bit = Some(width),
        }
    }
}

impl Deref for ModelConfig {
    type Target = dyn Architecture;

    fn deref(&self) -> &Self::Target {
        match self {
            ModelConfig::V3(config) => config,
            ModelConfig::V4(config) => config,
            ModelConfig::V41(config) => &**config,
        }
    }
}

/// So that a [`ModelConfig`] may be passed as any architecture; methods are also found through its target.
macro_rules! delegate {
    ($(fn $name:ident($($argument:ident: $type:ty)?) -> $result:ty;)*) => {
        impl Architecture for ModelConfig {
            $(fn $name(&self $(, $argument: $type)?) -> $result {
                (**self).$name($($argument)?)
            })*
        }
    };
}

delegate! {
    fn family() -> &'static str;
    fn vocab_size() -> usize;
    fn hidden_size() -> usize;
    fn layer_count() -> usize;
    fn nextn_stage_count() -> usize;
    fn context() -> usize;
    fn bos_token_id() -> u32;
    fn eos_token_ids() -> &[u32];
    fn routed_expert_count() -> usize;
    fn experts_per_token() -> usize;
    fn expert_width() -> usize;
    fn quantization() -> Option<Quantization>;
    fn low_bit() -> Option<IntegerWidth>;
    fn fp8_block(name: &str) -> [usize; 2];
    fn released_formats() -> Formats;
    fn templates(place: Place) -> Vec<Template>;
    fn name_prefix(place: Place) -> String;
    fn layer_kinds() -> Vec<(&'static str, usize)>;
    fn layer_notes() -> Vec<String>;
    fn kv_bytes_per_token(format: KvFormat) -> f64;
    fn fixed_bytes_per_sequence(format: KvFormat) -> u64;
}

impl From<DeepseekV3Config> for ModelConfig {
    fn from(config: DeepseekV3Config) -> Self {
        ModelConfig::V3(config)
    }
}

impl From<DeepseekV4Config> for ModelConfig {
    fn from(config: DeepseekV4Config) -> Self {
        ModelConfig::V4(config)
    }
}

impl From<DeepseekV41Config> for ModelConfig {
    fn from(config: DeepseekV41Config) -> Self {
        ModelConfig::V41(Box::new(config))
    }
}

/// The outermost object of a config.json.
pub(super) fn object(text: &str, origin: &Path) -> Result<Map<String, Value>, Error> {
    let value = json::parse(text).map_err(|source| Error::Json {
        origin: origin.to_owned(),
        source,
    })?;
    match value {
        Value::Object(map) => Ok(map),
        other => Err(Error::ConfigValue {
            origin: origin.to_owned(),
            key: String::new(),
            value: shorten(&other),
            expected: "an object".into(),
            remedy: DOWNLOAD_AGAIN,
        }),
    }
}

/// Refuses configurations of other families than `wanted`.
pub(super) fn require<'a>(fields: &Fields<'a>, wanted: &[&str]) -> Result<&'a str, Error> {
    match model_type(fields)? {
        found if wanted.contains(&found) => Ok(found),
        found => Err(refused(fields, found, "of another family")),
    }
}

/// The family of a configuration, if it is one that is supported.
fn model_type<'a>(fields: &Fields<'a>) -> Result<&'a str, Error> {
    let model_type = fields.text("model_type")?.unwrap_or_default();
    match model_type {
        "deepseek_v3" | "deepseek_v32" | "deepseek_v4" | "deepseek_v41" => Ok(model_type),
        "" if fields.get("n_layers").is_some() => Err(Error::ConfigKeyMissing {
            origin: fields.origin.to_owned(),
            key: "model_type".into(),
            remedy: "this looks like inference/config.json, use the config.json beside the weights",
        }),
        "" => Err(fields.missing("model_type")),
        "qwen2" | "llama" => Err(refused(
            fields,
            model_type,
            "not supported: the R1-Distill models are Qwen and Llama with other layers than DeepSeek's own",
        )),
        other if other.starts_with("deepseek") => Err(refused(fields, other, "not supported yet")),
        other => Err(refused(fields, other, "not supported")),
    }
}

fn refused(fields: &Fields<'_>, model_type: &str, verdict: &'static str) -> Error {
    Error::ModelType {
        origin: fields.origin.to_owned(),
        model_type: model_type.chars().take(80).collect(),
        verdict,
    }
}
