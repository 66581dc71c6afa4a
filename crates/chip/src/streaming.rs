//! Routed experts on their way to a chip, and what a chip that does not keep them all has to tell.
//!
//! Routed experts are nearly all of a model's bytes, and a token uses few of them. A chip with less memory than the model
//! has bytes reads them from their files when they are needed ([`FileRange`]) and keeps those that are used most.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use crate::{Chip, Error, ExpertMatrices, MatrixSource, Tensor};

/// A file as it was found when the checkpoint was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub byte_count: u64,
    /// When it was last written, where the system tells.
    pub modified: Option<SystemTime>,
}

/// Where the bytes of a stored tensor lie.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file, shared by all its tensors.
    pub file: Arc<StoredFile>,
    /// First byte in the file.
    pub start: u64,
    /// Number of bytes.
    pub byte_count: usize,
}

/// Where a stored matrix lies.
#[derive(Clone, Debug)]
pub struct MatrixPlace {
    /// Stored weights.
    pub weights: FileRange,
    /// Stored scales; none for plain formats.
    pub scales: Option<FileRange>,
}

/// One routed expert on its way to a chip.
#[derive(Clone, Debug)]
pub struct ExpertSource {
    /// Gate.
    pub w1: MatrixSource,
    /// Down.
    pub w2: MatrixSource,
    /// Up.
    pub w3: MatrixSource,
    /// Where `w1`, `w2` and `w3` lie, if they come from files: the same bytes as those of the sources.
    pub places: Option<[MatrixPlace; 3]>,
}

impl ExpertSource {
    /// Puts the three matrices into the memory of `chip`, wherever they come from.
    ///
    /// # Errors
    /// As [`Chip::load_matrix`].
    pub fn load<C: Chip + ?Sized>(self, chip: &C) -> Result<ExpertMatrices, Error> {
        Ok(ExpertMatrices {
            w1: chip.load_matrix(self.w1)?,
            w2: chip.load_matrix(self.w2)?,
            w3: chip.load_matrix(self.w3)?,
        })
    }
}

/// What is known of the experts that a later [`Experts`](crate::Experts) of a layer will use.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'a> {
    /// Exactly these, `I32 [T, k]`: the output of an enqueued [`Route`](crate::Route).
    Chosen(&'a Tensor),
    /// Those that a fixed table gives for the tokens of the step, as in [`RouteChoice::Hash`](crate::RouteChoice::Hash).
    Hash {
        /// `I64 [V, k]`.
        table: &'a Tensor,
        /// `I32 [T]`.
        tokens: &'a Tensor,
    },
    /// Only that the step has so many rows.
    Rows(usize),
}

/// How a chip that reads experts from files has fared since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExpertTraffic {
    /// Experts that operators asked for; one asked for by several rows of a step counts once.
    pub request_count: u64,
    /// Of these, how many were in memory from earlier steps.
    pub hit_count: u64,
    /// Of these, how many were read ahead or on their way, thanks to [`Chip::expect_experts`].
    pub expected_count: u64,
    /// Experts read, those that nobody asked for in the end included.
    pub read_count: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Time during which at least one read was under way.
    pub read_seconds: f64,
    /// Time that operators waited for experts.
    pub wait_seconds: f64,
    /// Experts in memory now.
    pub resident_count: usize,
    /// Experts that fit in memory.
    pub slot_count: usize,
    /// Experts in all.
    pub expert_count: usize,
    /// Memory of one expert.
    pub slot_bytes: usize,
    /// Whether reads bypass the system's page cache.
    pub is_direct: bool,
}

impl ExpertTraffic {
    /// Experts that were neither in memory nor on their way when they were asked for.
    pub fn miss_count(&self) -> u64 {
        self.request_count - self.hit_count - self.expected_count
    }

    /// Share of the experts asked for that did not have to be read; 1 if none was asked for.
    pub fn hit_share(&self) -> f64 {
        match self.request_count {
            0 => 1.0,
            count => self.hit_count as f64 / count as f64,
        }
    }

    /// Bytes a second while something was read.
    pub fn read_bytes_per_second(&self) -> f64 {
        self.bytes_read as f64 / self.read_seconds.max(f64::MIN_POSITIVE)
    }

    /// What happened since `earlier`; numbers that are no counts stay as they are.
    pub fn since(&self, earlier: &ExpertTraffic) -> ExpertTraffic {
        ExpertTraffic {
            request_count: self.request_count - earlier.request_count,
            hit_count: self.hit_count - earlier.hit_count,
            expected_count: self.expected_count - earlier.expected_count,
            read_count: self.read_count - earlier.read_count,
            bytes_read: self.bytes_read - earlier.bytes_read,
            read_seconds: self.read_seconds - earlier.read_seconds,
            wait_seconds: self.wait_seconds - earlier.wait_seconds,
            ..*self
        }
    }
}
