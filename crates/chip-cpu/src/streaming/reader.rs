//! Threads that read experts.
//!
//! Blocking reads on a few threads keep a disk busy: pieces are megabytes, so a system call costs nothing beside its read,
//! and they need nothing that a container may forbid. io_uring was not tried.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use cachalot_chip::Error;

use super::{Shared, state::Job, state::Piece};
use crate::memory::CHIP_NAME;

/// Reads under way at a time.
pub(crate) const READER_COUNT: usize = 4;

/// Starts the threads.
///
/// # Errors
/// [`Error::Device`] if the system gives none at all.
pub(super) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
    let mut threads = Vec::new();
    for index in 0..READER_COUNT {
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new().name(format!("cachalot-read-{index}"));
        match thread.spawn(move || work(&shared)) {
            Ok(thread) => threads.push(thread),
            Err(error) if threads.is_empty() => return Err(device_error(format!("cannot start a reader: {error}"))),
            Err(_) => break,
        }
    }
    Ok(threads)
}

fn work(shared: &Shared) {
    loop {
        let piece = {
            let mut state = shared.lock();
            loop {
                if state.is_stopped {
                    return;
                }
                let slot_count = shared.slot_count(&state);
                if let Some(piece) = state.next_piece(slot_count) {
                    if state.has_work() {
                        shared.work.notify_one();
                    }
                    break piece;
                }
                state = shared.wait_for_work(state);
            }
        };
        let result = contained(|| read(&piece));
        let job = shared.lock().finish_piece(&piece, result);
        let Some(job) = job else { continue };
        let expert = job.expert;
        let result = contained(|| finish(job));
        shared.lock().land(expert, result);
        shared.arrived.notify_all();
    }
}

fn read(piece: &Piece) -> Result<(), Error> {
    let run = &piece.layout.runs[piece.run];
    // SAFETY: the job of the piece keeps the memory, which belongs to this piece alone.
    let buffer = unsafe { std::slice::from_raw_parts_mut(piece.out.0, piece.byte_count) };
    let needed = run.needed.saturating_sub(piece.first_byte).min(piece.byte_count);
    let tensor = &piece.layout.parts[run.part].name;
    run.file
        .read(tensor, run.start + piece.first_byte as u64, buffer, needed)
}

fn finish(job: Job) -> Result<Arc<super::Resident>, Error> {
    match job.error {
        Some(error) => Err(error),
        None => Ok(Arc::new(job.layout.resident(job.slot)?)),
    }
}

/// Nobody may wait for a thread that has panicked.
fn contained<T>(body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let outcome = catch_unwind(AssertUnwindSafe(body));
    outcome.unwrap_or_else(|_| Err(device_error("a reader panicked".to_owned())))
}

fn device_error(message: String) -> Error {
    Error::Device {
        chip: CHIP_NAME.to_owned(),
        message,
    }
}
