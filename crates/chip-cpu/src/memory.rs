//! The CPU's two kinds of memory: its own pages and the bytes of mapped files.

use std::{
    any::Any,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use cachalot_chip::{Buffer, Error, Matrix, MatrixSource, Tensor, TensorSource};
use cachalot_numerics::{Dtype, MatrixFormat, ScaleDtype, e8m0};
use memmap2::{MmapOptions, MmapRaw};

use crate::account::{Account, Charge};

/// Name under which this chip appears in errors and on the command line.
pub(crate) const CHIP_NAME: &str = "cpu";

/// Tells the chips of a process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChipId(u64);

impl ChipId {
    /// A number that no other chip has.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ChipId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Bytes of a tensor.
#[derive(Debug)]
pub(crate) struct CpuBuffer {
    /// The chip whose stream orders the accesses.
    chip: ChipId,
    memory: Memory,
    _charge: Option<Charge>,
}

#[derive(Debug)]
enum Memory {
    /// Anonymous pages, zero until written and committed when touched.
    Owned(MmapRaw),
    /// Bytes of somebody else, usually a mapped file. Never written.
    Shared(Bytes),
}

impl Buffer for CpuBuffer {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CpuBuffer {
    pub fn allocate(chip: ChipId, account: &Arc<Account>, byte_count: usize) -> Result<Self, Error> {
        let memory = Memory::Owned(allocate_pages(byte_count)?);
        Ok(CpuBuffer {
            chip,
            memory,
            _charge: Some(account.charge(byte_count)),
        })
    }

    /// Keeps the source's bytes if they are aligned for `dtype`, else copies them.
    pub fn load(chip: ChipId, source: &TensorSource) -> Result<Self, Error> {
        source.check()?;
        let memory = if (source.data.as_ptr() as usize).is_multiple_of(source.dtype.byte_count()) {
            Memory::Shared(source.data.clone())
        } else {
            let map = allocate_pages(source.data.len())?;
            // SAFETY: the new mapping is at least as long as the source and nobody else knows it yet.
            unsafe { std::ptr::copy_nonoverlapping(source.data.as_ptr(), map.as_mut_ptr(), source.data.len()) };
            Memory::Owned(map)
        };
        Ok(CpuBuffer {
            chip,
            memory,
            _charge: None,
        })
    }

    /// The buffer behind a tensor of `chip`.
    pub fn of(chip: ChipId, tensor: &Tensor) -> Result<&CpuBuffer, Error> {
        let buffer: Option<&CpuBuffer> = tensor.buffer().as_any().downcast_ref();
        buffer
            .filter(|buffer| buffer.chip == chip)
            .ok_or_else(|| Error::ForeignTensor {
                chip: CHIP_NAME.to_owned(),
            })
    }

    /// Whether operators may write to it.
    pub fn is_writable(&self) -> bool {
        matches!(self.memory, Memory::Owned(_))
    }

    pub fn as_ptr(&self) -> *const u8 {
        match &self.memory {
            Memory::Owned(map) => map.as_ptr(),
            Memory::Shared(bytes) => bytes.as_ptr(),
        }
    }

    pub fn byte_count(&self) -> usize {
        match &self.memory {
            Memory::Owned(map) => map.len(),
            Memory::Shared(bytes) => bytes.len(),
        }
    }
}

/// Pages that are zero and are committed when touched.
pub(crate) fn allocate_pages(byte_count: usize) -> Result<MmapRaw, Error> {
    // A mapping of zero bytes is an error of the system, an empty tensor is not.
    let map = MmapOptions::new().len(byte_count.max(1)).no_reserve_swap().map_anon();
    let map = map.map_err(|error| Error::OutOfMemory {
        bytes: byte_count,
        reason: error.to_string(),
    })?;
    Ok(MmapRaw::from(map))
}

/// E8M0 codes of scales from 2^-64 to 2^64. Weights with these are far from the ends of bf16 and `f32`, so kernels that
/// flush subnormal numbers, or add exponents as integers, are exact.
const MODERATE_SCALE_CODES: RangeInclusive<u8> = 127 - 64..=127 + 64;

/// A weight matrix in its stored form.
#[derive(Debug)]
pub(crate) struct CpuMatrix {
    pub name: String,
    pub rows: usize,
    pub columns: usize,
    pub format: MatrixFormat,
    pub weights: Bytes,
    pub scales: Bytes,
    /// Scales and codes are looked at when the matrix is first used: reading those of all experts at load would read
    /// gigabytes.
    is_checked: AtomicBool,
    has_moderate_scales: AtomicBool,
}

impl Buffer for CpuMatrix {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CpuMatrix {
    pub fn load(source: MatrixSource) -> Result<Self, Error> {
        source.check()?;
        let MatrixSource {
            name,
            rows,
            columns,
            format,
            weights,
            scales,
        } = source;
        Ok(CpuMatrix {
            name,
            rows,
            columns,
            format,
            weights,
            scales,
            is_checked: AtomicBool::new(false),
            has_moderate_scales: AtomicBool::new(false),
        })
    }

    /// The matrix behind a handle, its scales and codes checked.
    pub fn of(matrix: &Matrix) -> Result<&CpuMatrix, Error> {
        let matrix: &CpuMatrix = matrix
            .buffer()
            .as_any()
            .downcast_ref()
            .ok_or_else(|| Error::ForeignTensor {
                chip: CHIP_NAME.to_owned(),
            })?;
        matrix.check()?;
        Ok(matrix)
    }

    /// The matrix behind a handle whose rows are looked up: checked as a whole, unless every row has scales of its own.
    /// Such tables may be larger than memory, and [`CpuMatrix::check_row`] looks at what is read.
    pub fn of_table(matrix: &Matrix) -> Result<&CpuMatrix, Error> {
        match matrix.format() {
            MatrixFormat::Fp8Block { rows: 1, .. } => {
                matrix
                    .buffer()
                    .as_any()
                    .downcast_ref()
                    .ok_or_else(|| Error::ForeignTensor {
                        chip: CHIP_NAME.to_owned(),
                    })
            }
            _ => CpuMatrix::of(matrix),
        }
    }

    /// Looks at codes and scales of a row of a table that was not checked as a whole.
    pub fn check_row(&self, row: usize) -> Result<(), Error> {
        let MatrixFormat::Fp8Block {
            rows: 1,
            columns,
            scale,
        } = self.format
        else {
            return Ok(());
        };
        let codes = &self.weights[row * self.columns..][..self.columns];
        if let Some(place) = codes.iter().position(|code| code & 0x7F == 0x7F) {
            return Err(Error::BadWeight {
                name: self.name.clone(),
                index: row * self.columns + place,
            });
        }
        let count = self.columns.div_ceil(columns);
        let scales = row * count..(row + 1) * count;
        let is_bad = |index: &usize| {
            let scale = scale.decode(&self.scales, *index);
            !(scale.is_finite() && scale > 0.0)
        };
        match scales.clone().find(is_bad) {
            None => Ok(()),
            Some(index) => Err(Error::BadScale {
                name: self.name.clone(),
                index,
                value: scale.decode(&self.scales, index).to_string(),
            }),
        }
    }

    /// Looks at scales and codes, once.
    pub fn check(&self) -> Result<(), Error> {
        if !self.is_checked.load(Ordering::Acquire) {
            self.check_scales()?;
            self.check_codes()?;
            let is_moderate = |code: &u8| MODERATE_SCALE_CODES.contains(code);
            let is_moderate = self.scales.iter().all(is_moderate);
            self.has_moderate_scales.store(is_moderate, Ordering::Relaxed);
            self.is_checked.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether all E8M0 scales are in [`MODERATE_SCALE_CODES`]. Known once the matrix was checked.
    pub fn has_moderate_scales(&self) -> bool {
        self.has_moderate_scales.load(Ordering::Relaxed)
    }

    /// e4m3 has a NaN, which the fast kernels do not carry through. Other formats have none, or plain floats whose NaN
    /// reaches the logits.
    fn check_codes(&self) -> Result<(), Error> {
        let MatrixFormat::Fp8Block { .. } = self.format else {
            return Ok(());
        };
        // Whole chunks without a branch inside are compared many bytes at a time.
        let is_nan = |code: &u8| code & 0x7F == 0x7F;
        let damaged = |chunk: &[u8]| chunk.iter().fold(false, |found, code| found | is_nan(code));
        if !self.weights.chunks(4096).any(damaged) {
            return Ok(());
        }
        match self.weights.iter().position(is_nan) {
            Some(index) => Err(Error::BadWeight {
                name: self.name.clone(),
                index,
            }),
            None => Ok(()),
        }
    }

    fn check_scales(&self) -> Result<(), Error> {
        let bad = |index: usize, value: String| Error::BadScale {
            name: self.name.clone(),
            index,
            value,
        };
        let Some((dtype, _)) = self.format.scale_shape(self.rows, self.columns) else {
            return Ok(());
        };
        if let MatrixFormat::Integer(width) = self.format {
            return match self.scales.iter().position(|code| !width.has_scale(*code)) {
                Some(index) => Err(bad(index, format!("byte {:#04x}", self.scales[index]))),
                None => Ok(()),
            };
        }
        if dtype == Dtype::F8E8m0 {
            return match self.scales.iter().position(|code| *code == e8m0::NAN) {
                Some(index) => Err(bad(index, "NaN".to_owned())),
                None => Ok(()),
            };
        }
        for index in 0..self.scales.len() / 4 {
            let scale = ScaleDtype::F32.decode(&self.scales, index);
            if !(scale.is_finite() && scale > 0.0) {
                return Err(bad(index, scale.to_string()));
            }
        }
        Ok(())
    }

    /// Decodes one row. Exact.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.format
            .decode_row(&self.weights, &self.scales, self.columns, row, out);
    }
}
