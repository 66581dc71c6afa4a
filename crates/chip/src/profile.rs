//! A chip that can be asked where the time goes.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cachalot_numerics::{Dtype, MatrixFormat};

use crate::{
    Chip, Cost, Description, Error, Expected, ExpertMatrices, ExpertSource, ExpertTraffic, Matrix, MatrixSource, Mode,
    Operation, OperationKind, Support, Tensor, TensorSource,
};

/// Another chip, whose operators can be timed and counted one by one.
///
/// While it does not record it only forwards, at the price of one load for each operator. While it records it waits for
/// every operator, so a step takes somewhat longer than without.
pub struct ProfiledChip {
    chip: Arc<dyn Chip>,
    recording: AtomicBool,
    records: Mutex<BTreeMap<Label, Record>>,
}

/// What the calls of one operator are gathered under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// The operator.
    pub kind: OperationKind,
    /// Format and shape of its weight, for operators that have one: `FP8 1024 x 4096`.
    pub weight: Option<String>,
}

/// The calls of one operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// How many.
    pub call_count: u64,
    /// Time of all of them.
    pub time: Duration,
    /// What all of them had to move and compute.
    pub cost: Cost,
}

impl ProfiledChip {
    /// Wraps a chip; nothing is recorded yet.
    pub fn new(chip: Arc<dyn Chip>) -> Self {
        ProfiledChip {
            chip,
            recording: AtomicBool::new(false),
            records: Mutex::default(),
        }
    }

    /// Starts from nothing.
    pub fn start(&self) {
        self.records().clear();
        self.recording.store(true, Ordering::Relaxed);
    }

    /// Ends recording and gives what was recorded.
    pub fn finish(&self) -> BTreeMap<Label, Record> {
        self.recording.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.records())
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<Label, Record>> {
        // Sums are complete after every statement.
        self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn enqueue_recorded(&self, mode: Mode, operation: &Operation<'_>) -> Result<(), Error> {
        self.chip.synchronize()?;
        let started = Instant::now();
        self.chip.enqueue(mode, operation)?;
        self.chip.synchronize()?;
        let time = started.elapsed();
        let cost = operation.cost(&*self.chip)?;
        let mut records = self.records();
        let record = records.entry(Label::of(operation)).or_default();
        record.call_count += 1;
        record.time += time;
        record.cost += cost;
        Ok(())
    }
}

impl Label {
    fn of(operation: &Operation<'_>) -> Label {
        let weight = match operation {
            Operation::Linear(linear) => Some(linear.weight),
            Operation::GroupedLinear(linear) => Some(linear.weight),
            Operation::Experts(experts) => experts.experts.first().map(|expert| &expert.w1),
            _ => None,
        };
        let weight = weight.map(|matrix| {
            let format = match matrix.format() {
                MatrixFormat::F32 => "F32".to_owned(),
                MatrixFormat::Bf16 => "BF16".to_owned(),
                MatrixFormat::Fp8Block { .. } => "FP8".to_owned(),
                MatrixFormat::Fp4Group { .. } => "FP4".to_owned(),
                other => other.to_string(),
            };
            format!("{format} {} x {}", matrix.rows(), matrix.columns())
        });
        Label {
            kind: operation.kind(),
            weight,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.weight {
            None => self.kind.fmt(formatter),
            Some(weight) => write!(formatter, "{}, {weight}", self.kind),
        }
    }
}

impl Chip for ProfiledChip {
    fn description(&self) -> Description {
        self.chip.description()
    }

    fn support(&self, kind: OperationKind, mode: Mode) -> Support {
        self.chip.support(kind, mode)
    }

    fn allocate(&self, dtype: Dtype, shape: &[usize]) -> Result<Tensor, Error> {
        self.chip.allocate(dtype, shape)
    }

    fn load(&self, source: TensorSource) -> Result<Tensor, Error> {
        self.chip.load(source)
    }

    fn load_matrix(&self, source: MatrixSource) -> Result<Matrix, Error> {
        self.chip.load_matrix(source)
    }

    fn load_experts(&self, sources: Vec<ExpertSource>) -> Result<Vec<ExpertMatrices>, Error> {
        self.chip.load_experts(sources)
    }

    fn expect_experts(&self, experts: &[ExpertMatrices], expected: Expected<'_>) {
        self.chip.expect_experts(experts, expected);
    }

    fn expert_traffic(&self) -> Option<ExpertTraffic> {
        self.chip.expert_traffic()
    }

    fn write(&self, tensor: &Tensor, bytes: &[u8]) -> Result<(), Error> {
        self.chip.write(tensor, bytes)
    }

    fn read(&self, tensor: &Tensor, bytes: &mut [u8]) -> Result<(), Error> {
        self.chip.read(tensor, bytes)
    }

    fn enqueue(&self, mode: Mode, operation: &Operation<'_>) -> Result<(), Error> {
        match self.recording.load(Ordering::Relaxed) {
            false => self.chip.enqueue(mode, operation),
            true => self.enqueue_recorded(mode, operation),
        }
    }

    fn synchronize(&self) -> Result<(), Error> {
        self.chip.synchronize()
    }
}
