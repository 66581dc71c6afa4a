//! Tensors of the stages.

use cachalot_checkpoint::DeepseekV4Config;
use cachalot_chip::{Matrix, Tensor};

use super::mtp;
use crate::{
    Error,
    loader::Loader,
    v4::weights::{Hyper, Layer, Reader},
};

/// The MTP layer or the DSpark stages of a checkpoint.
pub(in crate::v4) struct Drafter {
    /// One layer for MTP, all stages of DSpark.
    pub stages: Vec<Layer>,
    /// Collapse and norm before the model's own head.
    pub hyper_head: Hyper,
    pub norm: Tensor,
    pub kind: Kind,
}

pub(in crate::v4) enum Kind {
    Mtp(Mtp),
    Dspark(Dspark),
}

/// What an MTP layer has besides a layer.
pub(in crate::v4) struct Mtp {
    pub e_proj: Matrix,
    pub h_proj: Matrix,
    pub enorm: Tensor,
    pub hnorm: Tensor,
}

/// What the DSpark stages have besides layers.
pub(in crate::v4) struct Dspark {
    pub block_size: usize,
    pub noise_token: u32,
    /// Layers whose outputs are tapped.
    pub layers: Vec<usize>,
    pub main_proj: Matrix,
    pub main_norm: Tensor,
    pub markov_w1: Matrix,
    pub markov_w2: Matrix,
    pub confidence: Matrix,
}

impl Drafter {
    /// The drafter, if it is wanted and the checkpoint stores one.
    pub fn load(loader: &Loader<'_>, config: &DeepseekV4Config) -> Result<Option<Self>, Error> {
        // An audited checkpoint has all of a drafter's tensors or none.
        if !loader.wants_drafter || config.nextn_stage_count() == 0 || !loader.has("mtp.0.attn_norm.weight") {
            return Ok(None);
        }
        // Further MTP layers, which no release has, would draft the tokens after; the first one is fed back instead.
        let stage_count = config.dspark.as_ref().map_or(1, |_| config.nextn_stage_count());
        let reader = Reader { loader, config };
        let stages = (0..stage_count)
            .map(|stage| reader.layer(config.num_hidden_layers + stage, &format!("mtp.{stage}")))
            .collect::<Result<_, _>>()?;
        let last = format!("mtp.{}", stage_count - 1);
        let kind = match &config.dspark {
            None => Kind::Mtp(Mtp {
                e_proj: loader.matrix("mtp.0.e_proj")?,
                h_proj: loader.matrix("mtp.0.h_proj")?,
                enorm: loader.vector("mtp.0.enorm.weight")?,
                hnorm: loader.vector("mtp.0.hnorm.weight")?,
            }),
            Some(dspark) => Kind::Dspark(Dspark {
                block_size: dspark.block_size,
                noise_token: dspark.noise_token_id,
                layers: dspark.target_layer_ids.clone(),
                main_proj: loader.matrix("mtp.0.main_proj")?,
                main_norm: loader.vector("mtp.0.main_norm.weight")?,
                markov_w1: loader.matrix(&format!("{last}.markov_head.markov_w1"))?,
                markov_w2: loader.matrix(&format!("{last}.markov_head.markov_w2"))?,
                confidence: loader.matrix(&format!("{last}.confidence_head.proj"))?,
            }),
        };
        Ok(Some(Drafter {
            stages,
            hyper_head: reader.hyper(&format!("{last}.hc_head"))?,
            norm: loader.vector(&format!("{last}.norm.weight"))?,
            kind,
        }))
    }

    /// Channels of each tap.
    pub fn tap_widths(&self, stream_count: usize, hidden: usize) -> Vec<usize> {
        match &self.kind {
            Kind::Mtp(_) => vec![stream_count * hidden],
            Kind::Dspark(dspark) => vec![hidden; dspark.layers.len()],
        }
    }

    /// Tokens that can be guessed at once.
    pub fn draft_count_max(&self) -> usize {
        match &self.kind {
            Kind::Mtp(_) => mtp::DRAFT_COUNT_MAX,
            Kind::Dspark(dspark) => dspark.block_size,
        }
    }

    /// Rows that one request has in a drafting pass.
    pub fn rows_per_request(&self) -> usize {
        match &self.kind {
            Kind::Mtp(_) => 1,
            Kind::Dspark(dspark) => dspark.block_size,
        }
    }
}
