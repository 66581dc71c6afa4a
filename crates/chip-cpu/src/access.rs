//! Slices of tensors for the length of one operator.

use std::{borrow::Cow, ops::Range, sync::Mutex};

use cachalot_chip::{Error, OperationKind, Tensor};
use cachalot_numerics::{Dtype, bf16};

use crate::memory::{ChipId, CpuBuffer};

/// Hands out slices of tensors to the one operator that runs, and refuses what would alias.
///
/// It lives while the lock of its chip's stream is held and knows tensors of this chip only, so no other operator touches
/// their memory meanwhile; within the operator every slice handed out is remembered, and a second one may overlap it only
/// if neither is mutable.
pub(crate) struct Access<'a> {
    chip: ChipId,
    operation: OperationKind,
    /// A mutex only so that an operator's threads may share the access.
    borrows: Mutex<Vec<Borrow>>,
    stream: std::marker::PhantomData<&'a mut ()>,
}

struct Borrow {
    name: &'static str,
    addresses: Range<usize>,
    mutable: bool,
}

/// Element types that a slice may have.
///
/// # Safety
/// Every bit pattern must be a value.
unsafe trait Element: Copy {
    const DTYPES: &'static [Dtype];
}

// SAFETY: every bit pattern is a value.
unsafe impl Element for f32 {
    const DTYPES: &'static [Dtype] = &[Dtype::F32];
}

// SAFETY: every bit pattern is a value.
unsafe impl Element for i32 {
    const DTYPES: &'static [Dtype] = &[Dtype::I32];
}

// SAFETY: every bit pattern is a value.
unsafe impl Element for i64 {
    const DTYPES: &'static [Dtype] = &[Dtype::I64];
}

// SAFETY: every bit pattern is a value.
unsafe impl Element for u16 {
    const DTYPES: &'static [Dtype] = &[Dtype::Bf16];
}

impl<'a> Access<'a> {
    /// `_stream` proves that the lock of the stream of `chip` is held.
    pub fn new(chip: ChipId, _stream: &'a mut (), operation: OperationKind) -> Self {
        Access {
            chip,
            operation,
            borrows: Mutex::new(Vec::with_capacity(16)),
            stream: std::marker::PhantomData,
        }
    }

    pub fn operation(&self) -> OperationKind {
        self.operation
    }

    pub fn f32(&self, name: &'static str, tensor: &Tensor) -> Result<&'a [f32], Error> {
        self.slice(name, tensor)
    }

    pub fn f32_mut(&self, name: &'static str, tensor: &Tensor) -> Result<&'a mut [f32], Error> {
        self.slice_mut(name, tensor)
    }

    pub fn i32(&self, name: &'static str, tensor: &Tensor) -> Result<&'a [i32], Error> {
        self.slice(name, tensor)
    }

    pub fn i32_mut(&self, name: &'static str, tensor: &Tensor) -> Result<&'a mut [i32], Error> {
        self.slice_mut(name, tensor)
    }

    pub fn i64(&self, name: &'static str, tensor: &Tensor) -> Result<&'a [i64], Error> {
        self.slice(name, tensor)
    }

    /// An `F32` or `BF16` vector as `f32`.
    pub fn floats(&self, name: &'static str, tensor: &Tensor) -> Result<Cow<'a, [f32]>, Error> {
        if tensor.dtype() != Dtype::Bf16 {
            return Ok(Cow::Borrowed(self.f32(name, tensor)?));
        }
        let codes: &[u16] = self.slice(name, tensor)?;
        Ok(Cow::Owned(codes.iter().map(|code| bf16::decode(*code)).collect()))
    }

    /// The bytes of a tensor of any dtype.
    pub fn bytes(&self, name: &'static str, tensor: &Tensor) -> Result<&'a [u8], Error> {
        let range = self.register(name, tensor, false)?;
        // SAFETY: `register` checked the range against the buffer, the lock and the borrow list rule out writers.
        Ok(unsafe { std::slice::from_raw_parts(range.start as *const u8, range.len()) })
    }

    /// The bytes of a tensor of any dtype, to be written.
    pub fn bytes_mut(&self, name: &'static str, tensor: &Tensor) -> Result<&'a mut [u8], Error> {
        let range = self.register(name, tensor, true)?;
        // SAFETY: as in `bytes`; the borrow list rules out any other slice of this range.
        Ok(unsafe { std::slice::from_raw_parts_mut(range.start as *mut u8, range.len()) })
    }

    fn slice<T: Element>(&self, name: &'static str, tensor: &Tensor) -> Result<&'a [T], Error> {
        self.check_element::<T>(name, tensor)?;
        let range = self.register(name, tensor, false)?;
        self.check_alignment::<T>(name, &range)?;
        // SAFETY: as in `bytes`; the range is aligned; every bit pattern is a `T`.
        Ok(unsafe { std::slice::from_raw_parts(range.start as *const T, range.len() / size_of::<T>()) })
    }

    fn slice_mut<T: Element>(&self, name: &'static str, tensor: &Tensor) -> Result<&'a mut [T], Error> {
        self.check_element::<T>(name, tensor)?;
        let range = self.register(name, tensor, true)?;
        self.check_alignment::<T>(name, &range)?;
        // SAFETY: as in `slice`; the borrow list rules out any other slice of this range.
        Ok(unsafe { std::slice::from_raw_parts_mut(range.start as *mut T, range.len() / size_of::<T>()) })
    }

    fn check_element<T: Element>(&self, name: &'static str, tensor: &Tensor) -> Result<(), Error> {
        if T::DTYPES.contains(&tensor.dtype()) {
            return Ok(());
        }
        let (expected, found) = (T::DTYPES[0], tensor.dtype());
        Err(Error::Dtype {
            operation: self.operation,
            tensor: name,
            expected,
            found,
        })
    }

    /// Buffers are aligned for the type that they were made for; a tensor may look at one as another type.
    fn check_alignment<T>(&self, name: &'static str, range: &Range<usize>) -> Result<(), Error> {
        if range.start.is_multiple_of(align_of::<T>()) {
            return Ok(());
        }
        Err(Error::Argument {
            operation: self.operation,
            message: format!("'{name}' does not start at a whole element of its buffer"),
        })
    }

    /// Checks a range against its buffer and against everything borrowed so far, and remembers it.
    fn register(&self, name: &'static str, tensor: &Tensor, mutable: bool) -> Result<Range<usize>, Error> {
        let buffer = CpuBuffer::of(self.chip, tensor)?;
        let end = tensor.byte_offset().saturating_add(tensor.byte_count());
        let argument = |message: String| Error::Argument {
            operation: self.operation,
            message,
        };
        if end > buffer.byte_count() {
            return Err(argument(format!(
                "'{name}' reaches byte {end} of a buffer of {}",
                buffer.byte_count()
            )));
        }
        if mutable && !buffer.is_writable() {
            return Err(argument(format!("'{name}' is a weight and cannot be written")));
        }
        let base = buffer.as_ptr() as usize;
        let addresses = base + tensor.byte_offset()..base + end;
        let mut borrows = self.borrows.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for other in borrows.iter().filter(|other| mutable || other.mutable) {
            let is_empty = addresses.is_empty() || other.addresses.is_empty();
            if !is_empty && addresses.start < other.addresses.end && other.addresses.start < addresses.end {
                let (output, other) = if mutable {
                    (name, other.name)
                } else {
                    (other.name, name)
                };
                return Err(Error::Overlap {
                    operation: self.operation,
                    output,
                    other,
                });
            }
        }
        borrows.push(Borrow {
            name,
            addresses: addresses.clone(),
            mutable,
        });
        Ok(addresses)
    }
}
