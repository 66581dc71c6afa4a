//! From a model's files to an engine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cachalot_checkpoint::{Checkpoint, LowBit};
use cachalot_chip_cpu::CpuChip;
use cachalot_engine::{Engine, EngineOptions};
use cachalot_model::Model;

use crate::{compute::ComputeOptions, error::Error, location::Location, memory::MemoryPlan, progress::LateBar};

/// A model that is ready to compute.
pub struct Loaded {
    /// What reports call it.
    pub name: String,
    /// How errors name the place of its files.
    pub place: String,
    pub checkpoint: Checkpoint,
    pub engine: Engine,
    /// What `--dense` made of the dense part.
    pub low_bit: Option<LowBit>,
    /// From the name to the engine.
    pub load_time: Duration,
}

/// A model without an engine.
pub struct LoadedModel {
    pub checkpoint: Checkpoint,
    pub model: Model,
    /// What `--dense` made of the dense part.
    pub low_bit: Option<LowBit>,
    pub memory: Memory,
}

/// The memory that a model has.
pub struct Memory {
    pub plan: MemoryPlan,
    chip: Arc<CpuChip>,
}

impl Memory {
    /// To be asked when weights and states are complete.
    ///
    /// # Errors
    /// [`Error::Memory`] with the smallest limit that suffices.
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.plan.check(&self.chip, checkpoint.config())
    }
}

/// Opens, checks and loads a model into an engine for one session; a bar shows up if that takes long.
pub fn load(location: &Location, options: &ComputeOptions) -> Result<Loaded, Error> {
    let started = Instant::now();
    let LoadedModel {
        checkpoint,
        model,
        low_bit,
        memory,
    } = load_model(location, options)?;
    let engine = Engine::new(
        model,
        EngineOptions {
            context: memory.plan.context,
            ..options.engine()
        },
    )?;
    memory.check(&checkpoint)?;
    Ok(Loaded {
        name: location.name().to_owned(),
        place: location.display(),
        checkpoint,
        engine,
        low_bit,
        load_time: started.elapsed(),
    })
}

/// The same without an engine.
pub fn load_model(location: &Location, options: &ComputeOptions) -> Result<LoadedModel, Error> {
    let (checkpoint, low_bit) = open(location, options)?;
    let plan = MemoryPlan::new(&checkpoint, options);
    let chip = plan.chip(options.cpu());
    let bar = LateBar::counting("loading", "layers");
    let model = Model::load(
        &checkpoint,
        Arc::clone(&chip) as _,
        options.model(),
        &mut |done, total| {
            bar.set(done as u64, total as u64);
        },
    )?;
    Ok(LoadedModel {
        checkpoint,
        model,
        low_bit,
        memory: Memory { plan, chip },
    })
}

/// Opens and checks a model's files, and re-quantises the dense part if that is asked for.
pub fn open(location: &Location, options: &ComputeOptions) -> Result<(Checkpoint, Option<LowBit>), Error> {
    let mut checkpoint = location.open()?;
    let limit = checkpoint.config().context();
    if let Some(wanted) = options.context.filter(|wanted| *wanted > limit) {
        return Err(Error::Context { wanted, limit });
    }
    let Some(width) = options.dense else {
        return Ok((checkpoint, None));
    };
    let bar = LateBar::of_bytes("re-quantising");
    let low_bit = checkpoint.requantise_dense(width, |progress| bar.set(progress.bytes_done, progress.bytes_total))?;
    Ok((checkpoint, Some(low_bit)))
}
