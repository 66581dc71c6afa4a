//! Looking for bad values: a few tensors at open, all of them on demand.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cachalot_numerics::{Dtype, MatrixFormat};

use crate::{
    Checkpoint, Error, Progress, StoredMatrix,
    catalogue::Placement,
    parallel,
    values::{self, ValueFault},
};

/// Checks the scales of a matrix: no NaN, and for F32 positive and finite.
///
/// `name` is what errors call the file; the matrix's own name goes with it.
///
/// # Errors
/// [`Error::Value`] with the first bad scale.
pub fn check_scales(name: &str, matrix: &StoredMatrix) -> Result<(), Error> {
    let (Some(scales), Some((dtype, _))) = (&matrix.scales, matrix.format.scale_shape(matrix.rows, matrix.columns))
    else {
        return Ok(());
    };
    let bad = match matrix.format {
        MatrixFormat::Integer(width) => values::bad_integer_scale(width, scales),
        _ => values::bad_scale(dtype, scales),
    };
    match bad {
        None => Ok(()),
        Some((index, fault)) => Err(Error::Value {
            file: name.to_owned(),
            tensor: format!("{}.scale", matrix.name),
            index,
            fault,
        }),
    }
}

impl Checkpoint {
    /// Reads every tensor and looks for NaN, infinities, scales that are not positive and ids of experts
    /// that do not exist. Takes as long as reading the files; one thread for each core.
    ///
    /// `progress` is called now and then, from several threads.
    ///
    /// # Errors
    /// [`Error::Value`] with the first bad element of the first bad tensor in the order of the files.
    pub fn verify(&self, progress: impl Fn(Progress) + Sync) -> Result<(), Error> {
        let mut tensors: Vec<(&String, &Placement)> = self.catalogue.tensors.iter().collect();
        tensors.sort_by_key(|(_, placement)| (placement.shard, placement.start));
        let bytes_total = tensors.iter().map(|(_, p)| (p.end - p.start) as u64).sum();
        let numbered: Vec<_> = tensors.into_iter().enumerate().collect();
        let bytes_done = AtomicU64::new(0);
        let first_bad = AtomicUsize::new(usize::MAX);
        let results = parallel::map(&numbered, |(position, (name, placement))| {
            if *position > first_bad.load(Ordering::Relaxed) {
                return Ok(());
            }
            let result = self.check_tensor(name, placement);
            if result.is_err() {
                first_bad.fetch_min(*position, Ordering::Relaxed);
            }
            let bytes = (placement.end - placement.start) as u64;
            let done = bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress(Progress {
                bytes_done: done,
                bytes_total,
            });
            result
        });
        results.into_iter().collect()
    }

    /// Checks what is small or cheap enough to be looked at whenever a checkpoint is opened.
    pub(crate) fn check_cheap_values(&self) -> Result<(), Error> {
        let cheap = self.catalogue.tensors.iter().filter(|(name, _)| is_cheap(name));
        let mut cheap: Vec<(&String, &Placement)> = cheap.collect();
        cheap.sort_by_key(|(_, placement)| (placement.shard, placement.start));
        cheap
            .into_iter()
            .try_for_each(|(name, placement)| self.check_tensor(name, placement))
    }

    /// Checks weights and scales of a stored matrix.
    pub(crate) fn check_matrix(&self, matrix: &StoredMatrix) -> Result<(), Error> {
        for suffix in ["weight", "scale"] {
            let name = format!("{}.{suffix}", matrix.name);
            if let Some(placement) = self.catalogue.tensors.get(&name) {
                self.check_tensor(&name, placement)?;
            }
        }
        Ok(())
    }

    pub(crate) fn check_tensor(&self, name: &str, placement: &Placement) -> Result<(), Error> {
        match self.fault_in(name, placement) {
            None => Ok(()),
            Some((index, fault)) => Err(Error::Value {
                file: self.shard_display(placement).display().to_string(),
                tensor: name.to_owned(),
                index,
                fault,
            }),
        }
    }

    fn fault_in(&self, name: &str, placement: &Placement) -> Option<(usize, ValueFault)> {
        let (dtype, bytes) = (placement.dtype()?, self.catalogue.bytes(placement));
        if name.ends_with(".tid2eid") {
            return values::bad_expert(bytes, self.config.routed_expert_count());
        }
        if name.ends_with(".scale") {
            return match (dtype, self.config.low_bit()) {
                (Dtype::U8, Some(width)) => values::bad_integer_scale(width, bytes),
                _ => values::bad_scale(dtype, bytes),
            };
        }
        values::bad_number(dtype, bytes)
    }
}

/// Norms, sinks, routers' biases, tables of experts, small hyper-connection tensors, scales of dense
/// matrices: some 20 MB of V4-Flash, nearly all of it tables. Experts' scales (4 GB) are not among them.
fn is_cheap(name: &str) -> bool {
    const ENDS: [&str; 8] = [
        "norm.weight",
        ".attn_sink",
        ".gate.bias",
        ".gate.bias_vl",
        ".gate.tid2eid",
        "_base",
        "_scale",
        ".scale",
    ];
    // Experts and Engram tables are gigabytes, their scales too.
    let is_large = name.contains(".experts.") || name.contains(".engram.embed.");
    !is_large && ENDS.iter().any(|end| name.ends_with(end))
}
