//! Which experts are in memory, on their way, or wanted: everything that the cache decides, without a thread or a read.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use cachalot_chip::{Error, ExpertTraffic};

use super::{
    heat::Heat,
    layout::{Layout, Resident},
    slot::{Slot, SlotPool},
};

/// Bytes that one thread reads at a time.
pub(crate) const PIECE_BYTE_COUNT: usize = 2 << 20;

/// Where an expert is.
#[derive(Debug)]
pub(super) enum Stage {
    /// In its file only.
    Absent,
    /// Waits for a reader.
    Queued,
    /// Is being read.
    Reading,
    /// In memory.
    Ready(Arc<Resident>),
    /// Somebody waits for it and it could not be read.
    Failed(Error),
}

/// One expert.
#[derive(Debug)]
pub(super) struct Entry {
    pub layout: Arc<Layout>,
    pub layer: usize,
    pub stage: Stage,
    /// Operators that wait for it or compute on it.
    pub wanted_count: usize,
    /// Was announced and has not been asked for yet.
    pub is_expected: bool,
    /// Is in memory because it was announced, and has not been asked for yet.
    pub was_read_ahead: bool,
    pub heat: Heat,
}

/// The experts of one layer are neighbours among the entries.
#[derive(Debug)]
pub(super) struct Layer {
    pub first: usize,
    pub count: usize,
    /// Rows seen.
    pub clock: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub entries: Vec<Entry>,
    pub layers: Vec<Layer>,
    pub slot_bytes: usize,
    /// Experts of a row in the last operator.
    pub choice_count: usize,
    pub traffic: ExpertTraffic,
    pub is_stopped: bool,
    slots: Arc<SlotPool>,
    residents: Vec<usize>,
    /// To be read: what operators wait for, and what was announced.
    wanted: VecDeque<usize>,
    ahead: VecDeque<usize>,
    expected_count: usize,
    jobs: Vec<Job>,
    open_piece_count: usize,
    busy_since: Option<Instant>,
    read_time: Duration,
}

/// An expert that is being read.
#[derive(Debug)]
pub(super) struct Job {
    pub expert: usize,
    pub layout: Arc<Layout>,
    pub slot: Slot,
    pub error: Option<Error>,
    next_run: usize,
    next_byte: usize,
    open_piece_count: usize,
}

/// A share of a [`Job`] for one thread.
#[derive(Debug)]
pub(super) struct Piece {
    pub expert: usize,
    pub layout: Arc<Layout>,
    pub run: usize,
    /// First byte, counted from the run's.
    pub first_byte: usize,
    pub byte_count: usize,
    /// Where it goes. The slot lives as long as its job, which lives until all its pieces are finished.
    pub out: PieceMemory,
}

/// Memory of a slot that belongs to one piece alone.
#[derive(Debug)]
pub(super) struct PieceMemory(pub *mut u8);

// SAFETY: the memory is written by the thread that holds the piece and by nobody else.
unsafe impl Send for PieceMemory {}

impl State {
    /// Adds a layer's experts and returns the number of the first.
    pub fn add_layer(&mut self, layouts: Vec<Layout>) -> usize {
        let (first, layer) = (self.entries.len(), self.layers.len());
        self.layers.push(Layer {
            first,
            count: layouts.len(),
            clock: 0,
        });
        for layout in layouts {
            self.slot_bytes = self.slot_bytes.max(layout.slot_bytes);
            self.entries.push(Entry {
                layout: Arc::new(layout),
                layer,
                stage: Stage::Absent,
                wanted_count: 0,
                is_expected: false,
                was_read_ahead: false,
                heat: Heat::COLD,
            });
        }
        first
    }

    /// An operator asks for `experts` of a layer, each with the rows that chose it. They stay in memory, once there,
    /// until [`State::let_go`].
    pub fn want(&mut self, experts: &[(usize, usize)], row_count: usize) {
        let Some((first, _)) = experts.first() else { return };
        let layer = self.entries[*first].layer;
        self.layers[layer].clock += row_count as u64;
        let clock = self.layers[layer].clock;
        for (expert, use_count) in experts {
            let entry = &mut self.entries[*expert];
            entry.heat = entry.heat.used(*use_count, clock);
            entry.wanted_count += 1;
            self.traffic.request_count += 1;
            let was_read_ahead = std::mem::take(&mut entry.was_read_ahead);
            match entry.stage {
                Stage::Ready(_) if !was_read_ahead => self.traffic.hit_count += 1,
                Stage::Ready(_) | Stage::Reading => self.traffic.expected_count += 1,
                Stage::Queued => {
                    self.traffic.expected_count += 1;
                    self.ahead.retain(|other| other != expert);
                    self.wanted.push_back(*expert);
                }
                Stage::Absent | Stage::Failed(_) => {
                    entry.stage = Stage::Queued;
                    self.wanted.push_back(*expert);
                }
            }
        }
        self.forget_expectations(layer);
    }

    /// What was announced for a layer whose operator runs has been asked for, or will not be.
    fn forget_expectations(&mut self, layer: usize) {
        let Layer { first, count, .. } = self.layers[layer];
        for expert in first..first + count {
            let entry = &mut self.entries[expert];
            if !std::mem::take(&mut entry.is_expected) {
                continue;
            }
            self.expected_count -= 1;
            if entry.wanted_count == 0 && matches!(entry.stage, Stage::Queued) {
                entry.stage = Stage::Absent;
                self.ahead.retain(|other| *other != expert);
            }
        }
    }

    /// Experts that will be asked for: read if there is room, kept if they are there. At most `count_max` experts are
    /// announced at a time.
    pub fn expect(&mut self, experts: impl IntoIterator<Item = usize>, count_max: usize) {
        for expert in experts {
            if self.expected_count >= count_max {
                return;
            }
            let entry = &mut self.entries[expert];
            if entry.is_expected || entry.wanted_count > 0 {
                continue;
            }
            if let Stage::Absent | Stage::Failed(_) = entry.stage {
                entry.stage = Stage::Queued;
                self.ahead.push_back(expert);
            }
            entry.is_expected = true;
            self.expected_count += 1;
        }
    }

    /// An operator is done with an expert, or waits for it no more.
    pub fn let_go(&mut self, expert: usize) {
        let entry = &mut self.entries[expert];
        entry.wanted_count -= 1;
        if entry.wanted_count == 0 && matches!(entry.stage, Stage::Queued | Stage::Failed(_)) {
            entry.stage = Stage::Absent;
            self.wanted.retain(|other| *other != expert);
        }
    }

    /// The next thing to read, if there is something to read and room for it; `slot_count` is what memory allows now.
    pub fn next_piece(&mut self, slot_count: usize) -> Option<Piece> {
        loop {
            if let Some(piece) = self.jobs.iter_mut().find_map(Job::next_piece) {
                self.open_piece_count += 1;
                self.busy_since.get_or_insert_with(Instant::now);
                return Some(piece);
            }
            self.start_job(slot_count)?;
        }
    }

    /// Whether something waits to be read.
    pub fn has_work(&self) -> bool {
        !(self.wanted.is_empty() && self.ahead.is_empty()) || self.jobs.iter().any(Job::has_pieces)
    }

    /// Takes the next expert from a queue and gives it a slot; none if nothing is queued or nothing can give way.
    fn start_job(&mut self, slot_count: usize) -> Option<()> {
        if let Some(expert) = self.wanted.front().copied() {
            let slot = self.take_slot(slot_count, true)?;
            self.wanted.pop_front();
            self.begin(expert, slot);
            return Some(());
        }
        let expert = self.ahead.pop_front()?;
        match self.take_slot(slot_count, false) {
            Some(slot) => self.begin(expert, slot),
            None => self.entries[expert].stage = Stage::Absent,
        }
        Some(())
    }

    fn begin(&mut self, expert: usize, slot: Result<Slot, Error>) {
        match slot {
            Ok(slot) => {
                self.entries[expert].stage = Stage::Reading;
                self.jobs.push(Job {
                    expert,
                    layout: Arc::clone(&self.entries[expert].layout),
                    slot,
                    error: None,
                    next_run: 0,
                    next_byte: 0,
                    open_piece_count: 0,
                });
            }
            Err(error) => self.land(expert, Err(error)),
        }
    }

    /// A free slot, or that of the coldest expert that nobody computes on. Announced experts give way only if
    /// `is_wanted`, and last.
    fn take_slot(&mut self, slot_count: usize, is_wanted: bool) -> Option<Result<Slot, Error>> {
        loop {
            match self.slots.take(self.slot_bytes, slot_count) {
                Ok(Some(slot)) => return Some(Ok(slot)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            let victim = self.coldest(|entry| !entry.is_expected);
            let victim = victim.or_else(|| is_wanted.then(|| self.coldest(|_| true)).flatten())?;
            self.evict(victim);
        }
    }

    /// Position among the residents.
    fn coldest(&self, may_go: impl Fn(&Entry) -> bool) -> Option<usize> {
        let residents = self.residents.iter().enumerate();
        residents
            .map(|(position, expert)| (position, &self.entries[*expert]))
            .filter(|(_, entry)| entry.wanted_count == 0 && may_go(entry))
            .min_by(|(_, a), (_, b)| a.heat.total_cmp(&b.heat))
            .map(|(position, _)| position)
    }

    fn evict(&mut self, position: usize) {
        let expert = self.residents.swap_remove(position);
        self.entries[expert].stage = Stage::Absent;
    }

    /// Gives up what no longer fits.
    pub fn shrink(&mut self, slot_count: usize) {
        while self.slots.taken_count() > slot_count {
            match self.coldest(|_| true) {
                Some(position) => self.evict(position),
                // The rest is in use and goes later.
                None => break,
            }
        }
        self.slots.shrink(slot_count);
    }

    /// A piece was read, or not. Returns its job if that was the last piece.
    pub fn finish_piece(&mut self, piece: &Piece, result: Result<(), Error>) -> Option<Job> {
        self.open_piece_count -= 1;
        if self.open_piece_count == 0
            && let Some(since) = self.busy_since.take()
        {
            self.read_time += since.elapsed();
        }
        if result.is_ok() {
            self.traffic.bytes_read += piece.byte_count as u64;
        }
        let position = self.jobs.iter().position(|job| job.expert == piece.expert);
        let position = position.expect("a job stays until its last piece is finished");
        let job = &mut self.jobs[position];
        job.open_piece_count -= 1;
        job.error = job.error.take().or(result.err());
        let is_over = job.open_piece_count == 0 && (job.error.is_some() || job.next_run == job.layout.runs.len());
        is_over.then(|| self.jobs.remove(position))
    }

    /// An expert has been read, or not. A failure is kept for those who wait for the expert; nobody else hears of it.
    pub fn land(&mut self, expert: usize, result: Result<Arc<Resident>, Error>) {
        let entry = &mut self.entries[expert];
        entry.stage = match result {
            Ok(resident) => {
                self.residents.push(expert);
                entry.was_read_ahead = entry.wanted_count == 0;
                self.traffic.read_count += 1;
                Stage::Ready(resident)
            }
            Err(error) if entry.wanted_count > 0 => Stage::Failed(error),
            Err(_) => Stage::Absent,
        };
    }

    /// The counters as of now.
    pub fn traffic(&self, slot_count: usize) -> ExpertTraffic {
        let open = self.busy_since.map_or(Duration::ZERO, |since| since.elapsed());
        ExpertTraffic {
            read_seconds: (self.read_time + open).as_secs_f64(),
            resident_count: self.residents.len(),
            slot_count: slot_count.min(self.entries.len()),
            expert_count: self.entries.len(),
            slot_bytes: self.slot_bytes,
            ..self.traffic
        }
    }
}

impl Job {
    fn has_pieces(&self) -> bool {
        self.error.is_none() && self.next_run < self.layout.runs.len()
    }

    fn next_piece(&mut self) -> Option<Piece> {
        if !self.has_pieces() {
            return None;
        }
        let run = &self.layout.runs[self.next_run];
        let (index, first_byte) = (self.next_run, self.next_byte);
        let byte_count = PIECE_BYTE_COUNT.min(run.byte_count - first_byte);
        let start = run.slot_offset + first_byte;
        // SAFETY: runs and pieces of a job do not overlap, and the slot is neither dropped nor read before the job's
        // last piece is finished.
        let out = unsafe { self.slot.bytes_mut(start..start + byte_count) };
        let out = PieceMemory(out.as_mut_ptr());
        self.next_byte += byte_count;
        if self.next_byte >= run.byte_count {
            (self.next_run, self.next_byte) = (self.next_run + 1, 0);
        }
        self.open_piece_count += 1;
        Some(Piece {
            expert: self.expert,
            layout: Arc::clone(&self.layout),
            run: index,
            first_byte,
            byte_count,
            out,
        })
    }
}
