use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use cachalot_chip::{
    Chip, Description, Error, Evidence, Expected, ExpertMatrices, ExpertSource, ExpertTraffic, Matrix, MatrixSource,
    Mode, Operation, OperationKind, Support, Tensor, TensorSource,
};
use cachalot_numerics::Dtype;

use crate::{
    access::Access,
    account::Account,
    ceiling::Rate,
    kernels::Kernels,
    memory::{CHIP_NAME, ChipId, CpuBuffer, CpuMatrix},
    operators,
    pool::Pool,
    streaming::{self, ExpertCache},
};

/// Settings of a [`CpuChip`].
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// Threads that compute. Default: the cores available to this process.
    pub threads: usize,
    /// Kernels of [`Mode::Fast`]. Default: the best that the processor has. [`Mode::Reference`] and
    /// [`Mode::Official`] always run portable code.
    pub kernels: Kernels,
    /// Memory for weights, tensors and experts together. Default: no limit, and weights stay mapped. With a limit, routed
    /// experts are read from their files when they are needed and kept in what weights and tensors leave. What operators
    /// need while they run is not counted.
    pub memory_bytes_max: Option<u64>,
}

impl Default for CpuOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        CpuOptions {
            threads,
            kernels: Kernels::detect(),
            memory_bytes_max: None,
        }
    }
}

/// The CPU.
pub struct CpuChip {
    id: ChipId,
    pool: Pool,
    kernels: Kernels,
    account: Arc<Account>,
    experts: ExpertCache,
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
        let account = Arc::new(Account::new(options.memory_bytes_max));
        CpuChip {
            id: ChipId::new(),
            pool: Pool::new(options.threads),
            kernels,
            experts: ExpertCache::new(Arc::clone(&account)),
            account,
            stream: Mutex::new(()),
        }
    }

    /// The kernels in use.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Says that the memory limit suffices for what has been loaded and allocated and for `expert_count_min` experts at
    /// once: to be asked when a model and its states are complete.
    ///
    /// # Errors
    /// [`Error::MemoryLimit`], with the smallest limit that suffices.
    pub fn check_memory(&self, expert_count_min: usize) -> Result<(), Error> {
        self.experts.check(expert_count_min)
    }

    /// Bytes a second that the files of streamed experts give to the cache's readers, measured for about `time`; none if
    /// no expert is in a file.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Read`].
    pub fn disk_ceiling(&self, time: Duration) -> Result<Option<Rate>, Error> {
        self.experts.disk_ceiling(time)
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
            // Other processors compile and run the portable code; nobody has reported one yet.
            evidence: if cfg!(target_arch = "x86_64") {
                Evidence::Measured
            } else {
                Evidence::Unmeasured
            },
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
        let buffer = CpuBuffer::allocate(self.id, &self.account, byte_count)?;
        self.experts.shrink();
        Ok(self.tensor(buffer, dtype, shape))
    }

    fn load(&self, source: TensorSource) -> Result<Tensor, Error> {
        self.account.add_weights(source.data.len());
        Ok(self.tensor(CpuBuffer::load(self.id, &source)?, source.dtype, &source.shape))
    }

    fn load_matrix(&self, source: MatrixSource) -> Result<Matrix, Error> {
        self.account.add_weights(source.weights.len() + source.scales.len());
        let matrix = CpuMatrix::load(source)?;
        let (rows, columns, format) = (matrix.rows, matrix.columns, matrix.format);
        Ok(Matrix::new(Arc::new(matrix), rows, columns, format))
    }

    fn load_experts(&self, sources: Vec<ExpertSource>) -> Result<Vec<ExpertMatrices>, Error> {
        let sources = match self.account.limit() {
            None => sources,
            Some(_) => match self.experts.load(sources)? {
                Ok(experts) => return Ok(experts),
                Err(sources) => sources,
            },
        };
        sources.into_iter().map(|source| source.load(self)).collect()
    }

    fn expect_experts(&self, experts: &[ExpertMatrices], expected: Expected<'_>) {
        if !streaming::is_streamed(experts) {
            return;
        }
        let mut stream = self.lock();
        let access = Access::new(self.id, &mut stream, OperationKind::Experts);
        operators::expect_experts(&access, experts, expected);
    }

    fn expert_traffic(&self) -> Option<ExpertTraffic> {
        self.experts.traffic()
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
