use std::sync::{Arc, Mutex, MutexGuard};

use cachalot_chip::{
    Chip, Description, Error, Evidence, Matrix, MatrixSource, Mode, Operation, OperationKind, Support, Tensor,
    TensorSource,
};
use cachalot_numerics::Dtype;

use crate::{
    access::Access,
    kernels::Kernels,
    memory::{CHIP_NAME, ChipId, CpuBuffer, CpuMatrix},
    operators,
    pool::Pool,
};

/// Settings of a [`CpuChip`].
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// Threads that compute. Default: the cores available to this process.
    pub threads: usize,
    /// Kernels of [`Mode::Fast`]. Default: the best that the processor has. [`Mode::Reference`] and
    /// [`Mode::Official`] always run portable code.
    pub kernels: Kernels,
}

impl Default for CpuOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        CpuOptions {
            threads,
            kernels: Kernels::detect(),
        }
    }
}

/// The CPU.
pub struct CpuChip {
    id: ChipId,
    pool: Pool,
    kernels: Kernels,
    /// Held while an operator runs or memory is transferred: operators complete in the order of their calls.
    stream: Mutex<()>,
}

impl CpuChip {
    /// Opens the CPU. Kernels that this processor cannot run are replaced by portable ones.
    pub fn new(options: CpuOptions) -> Self {
        let kernels = if options.kernels.is_available() {
            options.kernels
        } else {
            Kernels::Portable
        };
        CpuChip {
            id: ChipId::new(),
            pool: Pool::new(options.threads),
            kernels,
            stream: Mutex::new(()),
        }
    }

    /// The kernels in use.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // A panic inside an operator leaves tensors half written, which later operators overwrite or report.
        self.stream.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn tensor(&self, buffer: CpuBuffer, dtype: Dtype, shape: &[usize]) -> Tensor {
        Tensor::new(Arc::new(buffer), dtype, shape)
    }
}

impl Chip for CpuChip {
    fn description(&self) -> Description {
        let architecture = std::env::consts::ARCH;
        let details = format!("{architecture} {}, {} threads", self.kernels, self.pool.thread_count());
        Description {
            name: CHIP_NAME.to_owned(),
            details,
            evidence: Evidence::Measured,
        }
    }

    fn support(&self, kind: OperationKind, mode: Mode) -> Support {
        if mode == Mode::Fast && self.kernels != Kernels::Portable && operators::has_fast_kernel(kind) {
            return Support::Native;
        }
        Support::Reference
    }

    fn allocate(&self, dtype: Dtype, shape: &[usize]) -> Result<Tensor, Error> {
        let byte_count = shape
            .iter()
            .try_fold(dtype.byte_count(), |count, dimension| count.checked_mul(*dimension));
        let byte_count = byte_count
            .filter(|count| *count <= isize::MAX as usize)
            .ok_or_else(|| Error::OutOfMemory {
                bytes: usize::MAX,
                reason: format!("shape {shape:?} exceeds the address space"),
            })?;
        Ok(self.tensor(CpuBuffer::allocate(self.id, byte_count)?, dtype, shape))
    }

    fn load(&self, source: TensorSource) -> Result<Tensor, Error> {
        Ok(self.tensor(CpuBuffer::load(self.id, &source)?, source.dtype, &source.shape))
    }

    fn load_matrix(&self, source: MatrixSource) -> Result<Matrix, Error> {
        let matrix = CpuMatrix::load(source)?;
        let (rows, columns, format) = (matrix.rows, matrix.columns, matrix.format);
        Ok(Matrix::new(Arc::new(matrix), rows, columns, format))
    }

    fn write(&self, tensor: &Tensor, bytes: &[u8]) -> Result<(), Error> {
        check_length(tensor, bytes.len())?;
        let mut stream = self.lock();
        Access::new(self.id, &mut stream, OperationKind::CopyTensor)
            .bytes_mut("host copy", tensor)?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, tensor: &Tensor, bytes: &mut [u8]) -> Result<(), Error> {
        check_length(tensor, bytes.len())?;
        let mut stream = self.lock();
        bytes.copy_from_slice(Access::new(self.id, &mut stream, OperationKind::CopyTensor).bytes("host copy", tensor)?);
        Ok(())
    }

    fn enqueue(&self, mode: Mode, operation: &Operation<'_>) -> Result<(), Error> {
        operation.check()?;
        let mut stream = self.lock();
        let access = Access::new(self.id, &mut stream, operation.kind());
        let context = operators::Context {
            access,
            pool: &self.pool,
            mode,
            kernels: self.kernels,
        };
        operators::run(&context, operation)
    }

    fn synchronize(&self) -> Result<(), Error> {
        // Operators run inside `enqueue`; waiting for the lock waits for those of other threads.
        drop(self.lock());
        Ok(())
    }
}

fn check_length(tensor: &Tensor, found: usize) -> Result<(), Error> {
    let expected = tensor.byte_count();
    if expected == found {
        return Ok(());
    }
    Err(Error::SourceLength {
        name: "host copy".to_owned(),
        expected,
        found,
    })
}
