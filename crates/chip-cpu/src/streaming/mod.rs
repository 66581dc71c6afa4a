//! Routed experts that are read from their files when they are needed.
//!
//! | module | holds |
//! | --- | --- |
//! | this | [`ExpertCache`]: loading, announcing, asking for experts |
//! | `state` | who is in memory, who is next, who gives way: all decisions, under one lock |
//! | `heat` | how much an expert is worth its memory |
//! | `reader`, `file` | threads that read; files opened for direct reads |
//! | `layout`, `slot` | where an expert lies in its files and in memory; that memory |
//!
//! An operator says which experts it needs ([`ExpertCache::want`]) and gets them as they arrive. Those that are in memory
//! come first, so reading and computing overlap, and a step may need more experts than fit at once: what has been
//! computed on can give way to what is still to come.

mod file;
mod heat;
mod layout;
mod reader;
mod slot;
mod state;

use std::{
    any::Any,
    ops::Deref,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cachalot_chip::{Buffer, Error, ExpertMatrices, ExpertSource, ExpertTraffic, FileRange, Matrix};

use crate::{
    account::Account,
    ceiling::{self, Rate},
    memory::CHIP_NAME,
};
pub(crate) use file::{BLOCK, DirectFile};
use layout::Layout;
pub(crate) use layout::Resident;
pub(crate) use reader::READER_COUNT;
pub(crate) use state::PIECE_BYTE_COUNT;
use state::{Stage, State};

/// Experts that an operator gets at a time: enough to keep all threads busy, few enough that the next can be read.
const BATCH_EXPERT_COUNT_MAX: usize = 16;

/// Experts in files, some of them in memory.
#[derive(Debug)]
pub(crate) struct ExpertCache {
    shared: Arc<Shared>,
    files: Mutex<Vec<Arc<DirectFile>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    account: Arc<Account>,
    /// There may be something to read, or room for it.
    work: Condvar,
    /// An expert has arrived, or failed to.
    arrived: Condvar,
}

/// What stands behind a [`Matrix`] of an expert in a file.
#[derive(Debug)]
struct StreamedMatrix {
    shared: Arc<Shared>,
    expert: usize,
}

impl Buffer for StreamedMatrix {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Experts that an operator waits for.
pub(crate) struct Arrivals {
    shared: Arc<Shared>,
    /// Place in the operator's list, and expert.
    waiting: Vec<(usize, usize)>,
}

/// An expert that stays in memory until this is dropped.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    expert: usize,
    resident: Option<Arc<Resident>>,
}

impl ExpertCache {
    /// A cache without experts. It may use what `account` leaves.
    pub fn new(account: Arc<Account>) -> Self {
        ExpertCache {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                account,
                work: Condvar::new(),
                arrived: Condvar::new(),
            }),
            files: Mutex::default(),
            readers: Mutex::default(),
        }
    }

    /// Notes where the experts of a layer lie and opens their files. Nothing is read. Gives `sources` back if they do not
    /// come from files.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::SourceLength`], [`Error::Device`].
    pub fn load(&self, sources: Vec<ExpertSource>) -> Result<Result<Vec<ExpertMatrices>, Vec<ExpertSource>>, Error> {
        if sources.is_empty() || sources.iter().any(|source| source.places.is_none()) {
            return Ok(Err(sources));
        }
        let mut layouts = Vec::with_capacity(sources.len());
        for mut source in sources {
            let places = source.places.take().expect("was just looked at");
            layouts.push(Layout::new(source, places, |range, tensor| self.open(range, tensor))?);
        }
        let mut readers = lock(&self.readers);
        if readers.is_empty() {
            *readers = reader::start(&self.shared)?;
        }
        let shapes: Vec<_> = layouts
            .iter()
            .map(|layout| [0, 1, 2].map(|i| (layout.parts[i].rows, layout.parts[i].columns, layout.parts[i].format)))
            .collect();
        let first = self.shared.lock().add_layer(layouts);
        let experts = shapes.into_iter().enumerate().map(|(index, shapes)| {
            let [w1, w2, w3] = shapes.map(|(rows, columns, format)| {
                let matrix = StreamedMatrix {
                    shared: Arc::clone(&self.shared),
                    expert: first + index,
                };
                Matrix::new(Arc::new(matrix), rows, columns, format)
            });
            ExpertMatrices { w1, w2, w3 }
        });
        Ok(Ok(experts.collect()))
    }

    /// Counters; none if no expert is in a file.
    pub fn traffic(&self) -> Option<ExpertTraffic> {
        let state = self.shared.lock();
        let is_direct = lock(&self.files).iter().all(|file| file.is_direct());
        let traffic = state.traffic(self.shared.slot_count(&state));
        (traffic.expert_count > 0).then_some(ExpertTraffic { is_direct, ..traffic })
    }

    /// What the experts' files give at most; none if no expert is in a file.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Read`].
    pub fn disk_ceiling(&self, time: Duration) -> Result<Option<Rate>, Error> {
        let files = lock(&self.files).clone();
        ceiling::disk(&files, time)
    }

    /// Gives memory back after something else was allocated.
    pub fn shrink(&self) {
        let mut state = self.shared.lock();
        if state.entries.is_empty() {
            return;
        }
        let slot_count = self.shared.slot_count(&state);
        state.shrink(slot_count);
    }

    /// Says that `slot_count_min` experts fit at once.
    ///
    /// # Errors
    /// [`Error::MemoryLimit`] if they do not.
    pub fn check(&self, slot_count_min: usize) -> Result<(), Error> {
        let slot_bytes = self.shared.lock().slot_bytes as u64;
        let account = &self.shared.account;
        let slot_bytes_min = slot_bytes * slot_count_min as u64;
        match account.limit() {
            Some(limit_bytes) if account.left() < slot_bytes_min => Err(Error::MemoryLimit {
                limit_bytes,
                weight_bytes: account.weights(),
                state_bytes: account.tensors(),
                slot_count_min,
                slot_bytes_min,
                needed_bytes: account.weights() + account.tensors() + slot_bytes_min,
            }),
            _ => Ok(()),
        }
    }

    /// The file of a range, opened once.
    fn open(&self, range: &FileRange, tensor: &str) -> Result<Arc<DirectFile>, Error> {
        let mut files = lock(&self.files);
        if let Some(file) = files.iter().find(|file| Arc::ptr_eq(file.stored(), &range.file)) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(DirectFile::open(Arc::clone(&range.file), tensor)?);
        files.push(Arc::clone(&file));
        Ok(file)
    }
}

impl Drop for ExpertCache {
    fn drop(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.work.notify_all();
        for reader in lock(&self.readers).drain(..) {
            // A reader contains its panics; there is nobody to tell of one here.
            let _ = reader.join();
        }
    }
}

/// Whether the experts of an operator are in files.
pub(crate) fn is_streamed(experts: &[ExpertMatrices]) -> bool {
    experts.first().is_some_and(|expert| streamed(&expert.w1).is_some())
}

/// Asks for experts, each given by its place among `experts` and the number of rows that chose it; `row_count` rows
/// chose `choice_count` each.
///
/// # Errors
/// [`Error::ForeignTensor`] if an expert is not in a file of this chip.
pub(crate) fn want(
    experts: &[ExpertMatrices],
    chosen: impl Iterator<Item = (usize, usize)>,
    row_count: usize,
    choice_count: usize,
) -> Result<Arrivals, Error> {
    let foreign = || Error::ForeignTensor {
        chip: CHIP_NAME.to_owned(),
    };
    let shared = Arc::clone(&streamed(&experts[0].w1).ok_or_else(foreign)?.shared);
    let mut uses = Vec::new();
    for (place, use_count) in chosen {
        let matrix = streamed(&experts[place].w1).filter(|matrix| Arc::ptr_eq(&matrix.shared, &shared));
        uses.push((matrix.ok_or_else(foreign)?.expert, use_count));
    }
    let waiting = uses.iter().enumerate().map(|(place, (expert, _))| (place, *expert));
    let arrivals = Arrivals {
        waiting: waiting.collect(),
        shared: Arc::clone(&shared),
    };
    let mut state = shared.lock();
    state.choice_count = choice_count;
    state.want(&uses, row_count);
    shared.wake_readers(state);
    Ok(arrivals)
}

/// Announces experts by their places. `is_certain` says that an operator will ask for them next.
pub(crate) fn expect(experts: &[ExpertMatrices], chosen: impl Iterator<Item = usize>, is_certain: bool) {
    let Some(first) = experts.first().and_then(|expert| streamed(&expert.w1)) else {
        return;
    };
    let shared = &first.shared;
    let chosen = chosen.filter_map(|place| Some(streamed(&experts.get(place)?.w1)?.expert));
    let mut state = shared.lock();
    let slot_count = shared.slot_count(&state);
    // What is asked for last must not crowd out what is asked for first.
    state.expect(chosen, if is_certain { slot_count } else { slot_count / 2 });
    shared.wake_readers(state);
}

/// Announces those experts that a step of `row_count` rows will more likely use than not, by their heat.
pub(crate) fn expect_likely(experts: &[ExpertMatrices], row_count: usize) {
    /// A few rows choose few experts, and those that are chosen by half of all rows are in memory anyway.
    const ROW_COUNT_MIN: usize = 8;
    let Some(first) = experts.first().and_then(|expert| streamed(&expert.w1)) else {
        return;
    };
    if row_count < ROW_COUNT_MIN {
        return;
    }
    let shared = &first.shared;
    let mut state = shared.lock();
    let layer = &state.layers[state.entries[first.expert].layer];
    let (clock, choice_count) = (layer.clock, state.choice_count);
    let likely: Vec<usize> = (layer.first..layer.first + layer.count)
        .filter(|expert| {
            let heat = state.entries[*expert].heat;
            heat.use_probability(clock, row_count, choice_count, layer.count) > 0.5
        })
        .collect();
    let count_max = shared.slot_count(&state) / 4;
    state.expect(likely, count_max);
    shared.wake_readers(state);
}

fn streamed(matrix: &Matrix) -> Option<&StreamedMatrix> {
    matrix.buffer().as_any().downcast_ref()
}

impl Arrivals {
    /// The experts that have arrived since the last call, each with its place among those asked for; empty when all have
    /// been handed out. Waits if none has arrived.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::BadScale`], [`Error::BadWeight`], [`Error::OutOfMemory`] for the first that failed.
    pub fn next(&mut self) -> Result<Vec<(usize, Lease)>, Error> {
        let mut batch = Vec::new();
        if self.waiting.is_empty() {
            return Ok(batch);
        }
        let mut state = self.shared.lock();
        let mut waiting_since = None;
        loop {
            let mut failure = None;
            self.waiting
                .retain(|(place, expert)| match &state.entries[*expert].stage {
                    Stage::Ready(resident) if batch.len() < BATCH_EXPERT_COUNT_MAX => {
                        let lease = Lease {
                            shared: Arc::clone(&self.shared),
                            expert: *expert,
                            resident: Some(Arc::clone(resident)),
                        };
                        batch.push((*place, lease));
                        false
                    }
                    Stage::Failed(error) => {
                        failure.get_or_insert_with(|| error.clone());
                        true
                    }
                    _ => true,
                });
            if failure.is_some() || !batch.is_empty() {
                let waited = waiting_since.map_or(0.0, |since: Instant| since.elapsed().as_secs_f64());
                state.traffic.wait_seconds += waited;
                // Leases lock the state when they are dropped.
                drop(state);
                return failure.map_or(Ok(batch), Err);
            }
            waiting_since.get_or_insert_with(Instant::now);
            state = wait(&self.shared.arrived, state);
        }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        for (_, expert) in &self.waiting {
            state.let_go(*expert);
        }
        self.shared.wake_readers(state);
    }
}

impl Deref for Lease {
    type Target = Resident;

    fn deref(&self) -> &Resident {
        self.resident.as_ref().expect("only a drop takes it")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // First, so that whoever is told that the expert may give way finds its slot free.
        self.resident = None;
        let mut state = self.shared.lock();
        state.let_go(self.expert);
        self.shared.wake_readers(state);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends an access after which there may be more to read, or more room.
    fn wake_readers(&self, state: MutexGuard<'_, State>) {
        let has_work = state.has_work();
        drop(state);
        if has_work {
            self.work.notify_all();
        }
    }

    fn wait_for_work<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        wait(&self.work, state)
    }

    /// Experts that may be in memory now: at least one, because an operator that has begun must come to its end.
    fn slot_count(&self, state: &State) -> usize {
        let count = self.account.left() / state.slot_bytes.max(1) as u64;
        (count as usize).clamp(1, state.entries.len().max(1))
    }
}

/// A panic elsewhere leaves counters behind, which are whole at every point where the lock is released.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn wait<'s, T>(condition: &Condvar, guard: MutexGuard<'s, T>) -> MutexGuard<'s, T> {
    condition.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
}
