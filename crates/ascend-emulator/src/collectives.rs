//! HCCL among processes of one host. Rank 0 collects what each rank sends, compares the calls and hands all of it to all;
//! each rank takes what is its own. A rank that is gone or calls something else fails the call on every rank.

use std::collections::HashMap;
use std::ffi::c_void;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::elements::{BF16, F16, F32, F64, I8, I32, I64, Tensor, U8, round_to};
use crate::machine::*;
use crate::memory::Memory;

const BAD_PARAMETER: i32 = 1;
const BAD_POINTER: i32 = 2;
const TIMEOUT: i32 = 9;
const REMOTE: i32 = 21;
const ROOT_BYTES: usize = 4108;
const MAX_FRAME_BYTES: u64 = 1 << 32;
/// What stands before a frame that tells why a call failed.
const COMPLAINT: u64 = u64::MAX;

/// One rank's connections: rank 0 has one to each other rank, in their order, the others have one to rank 0.
struct Communicator {
    rank: usize,
    size: usize,
    peers: Vec<UnixStream>,
    calls: u64,
    is_broken: bool,
}

type Shared = Arc<Mutex<Communicator>>;

static LISTENERS: Mutex<Vec<(String, UnixListener)>> = Mutex::new(Vec::new());
static COMMUNICATORS: Mutex<Option<HashMap<usize, Shared>>> = Mutex::new(None);

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How long a rank waits for the others.
fn patience() -> Duration {
    let seconds = std::env::var("CACHALOT_ASCEND_EMULATOR_TIMEOUT_S").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(30))
}

fn send(peer: &mut UnixStream, frame: &[u8]) -> std::io::Result<()> {
    peer.write_all(&(frame.len() as u64).to_le_bytes())?;
    peer.write_all(frame)
}

/// A frame, or why there is none.
fn receive(peer: &mut UnixStream) -> Result<Vec<u8>, String> {
    let gone = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock => "did not call within the time".to_owned(),
        _ => "is gone".to_owned(),
    };
    let mut head = [0; 8];
    peer.read_exact(&mut head).map_err(gone)?;
    let len = u64::from_le_bytes(head);
    if len == COMPLAINT {
        let text = receive(peer)?;
        return Err(String::from_utf8_lossy(&text).into_owned());
    }
    if len > MAX_FRAME_BYTES {
        return Err("sent a frame too long".to_owned());
    }
    let mut frame = vec![0; len as usize];
    peer.read_exact(&mut frame).map_err(gone)?;
    Ok(frame)
}

impl Communicator {
    /// Gives `payload` and takes what every rank gave, in their order. All must make the same `call`.
    fn exchange(&mut self, call: &str, payload: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        if self.is_broken {
            return Err("the communicator failed before".to_owned());
        }
        self.calls += 1;
        let lost = std::env::var("CACHALOT_ASCEND_EMULATOR_LOSE_RANK_AT")
            .ok()
            .and_then(|text| text.parse().ok());
        if lost == Some(self.calls) {
            self.peers.clear();
            self.is_broken = true;
            return Err("injected fault: this rank left".to_owned());
        }
        let done = if self.rank == 0 {
            self.collect(call, payload)
        } else {
            self.follow(call, payload)
        };
        if done.is_err() {
            // Closing tells the others.
            self.is_broken = true;
            self.peers.clear();
        }
        done
    }

    fn collect(&mut self, call: &str, payload: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut all = vec![payload.to_vec()];
        let gathered = self.peers.iter_mut().enumerate().try_for_each(|(index, peer)| {
            let rank = index + 1;
            let other = receive(peer).map_err(|why| format!("rank {rank} {why}"))?;
            if other != call.as_bytes() {
                let other = String::from_utf8_lossy(&other);
                return Err(format!(
                    "ranks disagree: rank 0 calls {call}, rank {rank} calls {other}"
                ));
            }
            all.push(receive(peer).map_err(|why| format!("rank {rank} {why}"))?);
            Ok(())
        });
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let sent = match &gathered {
                Ok(()) => all.iter().try_for_each(|part| send(peer, part)),
                Err(why) => peer
                    .write_all(&COMPLAINT.to_le_bytes())
                    .and_then(|()| send(peer, why.as_bytes())),
            };
            if sent.is_err() && gathered.is_ok() {
                return Err(format!("rank {} is gone", index + 1));
            }
        }
        gathered.map(|()| all)
    }

    fn follow(&mut self, call: &str, payload: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let size = self.size;
        let hub = self.peers.first_mut().ok_or("rank 0 is gone")?;
        send(hub, call.as_bytes())
            .and_then(|()| send(hub, payload))
            .map_err(|_| "rank 0 is gone")?;
        let told = |why: String| match why.starts_with("is gone") || why.starts_with("did not") {
            true => format!("rank 0 {why}"),
            false => why,
        };
        (0..size).map(|_| receive(hub).map_err(told)).collect()
    }
}

fn connect(path: &str, size: usize, rank: usize) -> Result<Communicator, (i32, String)> {
    let timeout = |text: String| (TIMEOUT, text);
    let end = Instant::now() + patience();
    let mut peers = Vec::new();
    if rank == 0 {
        let mut listeners = held(&LISTENERS);
        let place = listeners.iter().position(|(name, _)| name == path).ok_or((
            BAD_PARAMETER,
            "the root information is not of this process's rank 0".to_owned(),
        ))?;
        let (_, listener) = listeners.remove(place);
        let mut found: Vec<Option<UnixStream>> = (1..size).map(|_| None).collect();
        while found.iter().any(Option::is_none) {
            match listener.accept() {
                Ok((mut peer, _)) => {
                    peer.set_nonblocking(false)
                        .map_err(|error| timeout(error.to_string()))?;
                    peer.set_read_timeout(Some(patience()))
                        .map_err(|error| timeout(error.to_string()))?;
                    let frame = receive(&mut peer).map_err(timeout)?;
                    let number = frame
                        .first_chunk::<8>()
                        .map(|bytes| u64::from_le_bytes(*bytes) as usize);
                    match number.and_then(|rank| found.get_mut(rank.checked_sub(1)?)) {
                        Some(slot @ None) => *slot = Some(peer),
                        _ => return Err((BAD_PARAMETER, "two processes have one rank, or one has none".to_owned())),
                    }
                }
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => return Err(timeout("not all ranks came within the time".to_owned())),
            }
        }
        // The name is of no use once all are connected.
        let _ = std::fs::remove_file(path);
        peers.extend(found.into_iter().flatten());
    } else {
        let mut peer = loop {
            match UnixStream::connect(path) {
                Ok(peer) => break peer,
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => return Err(timeout("rank 0 did not come within the time".to_owned())),
            }
        };
        peer.set_read_timeout(Some(patience()))
            .map_err(|error| timeout(error.to_string()))?;
        send(&mut peer, &(rank as u64).to_le_bytes()).map_err(|_| (REMOTE, "rank 0 is gone".to_owned()))?;
        peers.push(peer);
    }
    Ok(Communicator {
        rank,
        size,
        peers,
        calls: 0,
        is_broken: false,
    })
}

/// # Safety
/// `root` must hold 4108 bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn HcclGetRootInfo(root: *mut u8) -> i32 {
    if root.is_null() {
        return fail(BAD_POINTER, "HcclGetRootInfo: null");
    }
    let mut listeners = held(&LISTENERS);
    let number = listeners.len();
    let name = format!("ascend-emulator-{}-{number}-{:p}.sock", std::process::id(), root);
    let path = std::env::temp_dir().join(name).to_string_lossy().into_owned();
    let Ok(listener) = UnixListener::bind(&path) else {
        return fail(BAD_PARAMETER, format!("HcclGetRootInfo: cannot listen at {path}"));
    };
    if listener.set_nonblocking(true).is_err() || path.len() >= ROOT_BYTES {
        return fail(BAD_PARAMETER, format!("HcclGetRootInfo: cannot listen at {path}"));
    }
    // SAFETY: the caller's promise, and the path is shorter.
    unsafe {
        std::ptr::write_bytes(root, 0, ROOT_BYTES);
        std::ptr::copy_nonoverlapping(path.as_ptr(), root, path.len());
    }
    listeners.push((path, listener));
    OK
}

/// # Safety
/// `root` must hold 4108 bytes that `HcclGetRootInfo` wrote, `communicator` be a place for a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn HcclCommInitRootInfo(
    size: u32,
    root: *const u8,
    rank: u32,
    communicator: *mut *mut c_void,
) -> i32 {
    if root.is_null() || communicator.is_null() {
        return fail(BAD_POINTER, "HcclCommInitRootInfo: null");
    }
    if rank >= size {
        return fail(BAD_PARAMETER, format!("HcclCommInitRootInfo: rank {rank} of {size}"));
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(root, ROOT_BYTES) };
    let path = String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    match connect(&path, size as usize, rank as usize) {
        Ok(made) => {
            let shared = Arc::new(Mutex::new(made));
            let handle = Arc::as_ptr(&shared) as usize;
            held(&COMMUNICATORS).get_or_insert_default().insert(handle, shared);
            // SAFETY: checked not to be null; the C contract.
            unsafe { *communicator = handle as *mut c_void };
            OK
        }
        Err((code, text)) => fail(code, format!("HcclCommInitRootInfo: {text}")),
    }
}

fn found(communicator: *mut c_void) -> Option<Shared> {
    held(&COMMUNICATORS).as_ref()?.get(&(communicator as usize)).cloned()
}

#[unsafe(no_mangle)]
extern "C" fn HcclCommDestroy(communicator: *mut c_void) -> i32 {
    match held(&COMMUNICATORS)
        .as_mut()
        .and_then(|all| all.remove(&(communicator as usize)))
    {
        Some(_) => OK,
        None => fail(BAD_PARAMETER, "HcclCommDestroy: no such communicator"),
    }
}

macro_rules! questions {
    ($($name:ident $field:ident;)*) => {$(
        /// # Safety
        /// `number` must point to a number.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(communicator: *mut c_void, number: *mut u32) -> i32 {
            let Some(found) = found(communicator) else {
                return fail(BAD_PARAMETER, concat!(stringify!($name), ": no such communicator"));
            };
            // SAFETY: the C contract: a pointer to write to.
            unsafe { *number = held(&found).$field as u32 };
            OK
        }
    )*};
}

questions! {
    HcclGetRankSize size;
    HcclGetRankId rank;
}

/// # Safety
/// `result` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn HcclGetCommAsyncError(communicator: *mut c_void, result: *mut i32) -> i32 {
    let Some(found) = found(communicator) else {
        return fail(BAD_PARAMETER, "HcclGetCommAsyncError: no such communicator");
    };
    // SAFETY: the C contract: a pointer to write to.
    unsafe { *result = if held(&found).is_broken { REMOTE } else { OK } };
    OK
}

/// The element type of an operator tensor for HCCL's number of it.
fn element(dtype: i32) -> Option<i32> {
    Some(match dtype {
        0 => I8,
        2 => I32,
        3 => F16,
        4 => F32,
        5 => I64,
        7 => U8,
        10 => F64,
        11 => BF16,
        _ => return None,
    })
}

fn flat(address: usize, count: usize, dtype: i32) -> Tensor {
    Tensor {
        dims: vec![count],
        strides: vec![1],
        offset: 0,
        storage: vec![count],
        dtype,
        format: 2,
        address,
    }
}

fn bytes_of(memory: &mut Memory, address: usize, len: usize) -> Result<Vec<u8>, String> {
    let bytes = memory.range(address, len).ok_or("a buffer was freed or is too small")?;
    Ok(bytes.to_vec())
}

fn put(memory: &mut Memory, address: usize, bytes: &[u8]) -> Result<(), String> {
    memory
        .range(address, bytes.len())
        .ok_or("a buffer was freed or is too small")?
        .copy_from_slice(bytes);
    Ok(())
}

/// What one collective does with the communicator and the memory of this rank.
type Body = Box<dyn Fn(&mut Communicator, &mut Memory, &str) -> Result<(), String> + Send + Sync>;

fn enqueue(name: &'static str, call: String, communicator: *mut c_void, stream: *mut c_void, body: Body) -> i32 {
    let Some(shared) = found(communicator) else {
        return fail(BAD_PARAMETER, format!("{name}: no such communicator"));
    };
    let kernel: Kernel = Arc::new(move |memory: &mut Memory| body(&mut held(&shared), memory, &call));
    with(|machine| machine.enqueue(stream as usize, Task::Kernel(name, kernel)))
}

fn reduce(parts: &[Vec<f64>], operation: i32, dtype: i32) -> Vec<f64> {
    let step = |a: f64, b: f64| match operation {
        0 => round_to(a + b, dtype),
        1 => round_to(a * b, dtype),
        2 => a.max(b),
        _ => a.min(b),
    };
    (0..parts[0].len())
        .map(|place| {
            parts
                .iter()
                .skip(1)
                .fold(parts[0][place], |sum, part| step(sum, part[place]))
        })
        .collect()
}

/// The numbers in a rank's bytes, in the order in which this run adds them: that of the ranks, or with
/// `CACHALOT_ASCEND_EMULATOR_SHUFFLE` another one for each call.
fn numbers(parts: &[Vec<u8>], dtype: i32, call: u64) -> Vec<Vec<f64>> {
    let mut all: Vec<Vec<f64>> = parts.iter().map(|part| crate::elements::decode(part, dtype)).collect();
    if std::env::var_os("CACHALOT_ASCEND_EMULATOR_SHUFFLE").is_some() {
        let size = all.len();
        all.rotate_left(call as usize % size);
    }
    all
}

#[unsafe(no_mangle)]
extern "C" fn HcclAllReduce(
    from: *mut c_void,
    to: *mut c_void,
    count: u64,
    dtype: i32,
    operation: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> i32 {
    reduced(
        "HcclAllReduce",
        (from, to),
        count,
        (dtype, operation),
        communicator,
        stream,
        false,
    )
}

/// `count` numbers arrive at each rank: rank r takes the r-th part of the sums.
#[unsafe(no_mangle)]
extern "C" fn HcclReduceScatter(
    from: *mut c_void,
    to: *mut c_void,
    count: u64,
    dtype: i32,
    operation: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> i32 {
    reduced(
        "HcclReduceScatter",
        (from, to),
        count,
        (dtype, operation),
        communicator,
        stream,
        true,
    )
}

fn reduced(
    name: &'static str,
    (from, to): (*mut c_void, *mut c_void),
    count: u64,
    (dtype, operation): (i32, i32),
    communicator: *mut c_void,
    stream: *mut c_void,
    scatters: bool,
) -> i32 {
    let Some(held_as) = element(dtype).filter(|_| (0..=3).contains(&operation)) else {
        return fail(
            BAD_PARAMETER,
            format!("{name}: data type {dtype} or operation {operation} is not emulated"),
        );
    };
    let (from, to, count) = (from as usize, to as usize, count as usize);
    let call = format!("{name} of {count} numbers of type {dtype}, operation {operation}");
    let body: Body = Box::new(move |communicator, memory, call| {
        let parts = if scatters { communicator.size } else { 1 };
        let len = flat(from, count * parts, held_as)
            .extent()
            .ok_or("the count overflows")?;
        let sent = bytes_of(memory, from, len)?;
        let all = communicator.exchange(call, &sent)?;
        let sums = reduce(&numbers(&all, held_as, communicator.calls), operation, held_as);
        let first = if scatters { communicator.rank * count } else { 0 };
        flat(to, count, held_as).store(memory, &sums[first..first + count])
    });
    enqueue(name, call, communicator, stream, body)
}

#[unsafe(no_mangle)]
extern "C" fn HcclAllGather(
    from: *mut c_void,
    to: *mut c_void,
    count: u64,
    dtype: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> i32 {
    let Some(held_as) = element(dtype) else {
        return fail(
            BAD_PARAMETER,
            format!("HcclAllGather: data type {dtype} is not emulated"),
        );
    };
    let (from, to, count) = (from as usize, to as usize, count as usize);
    let call = format!("HcclAllGather of {count} numbers of type {dtype}");
    let body: Body = Box::new(move |communicator, memory, call| {
        let len = flat(from, count, held_as).extent().ok_or("the count overflows")?;
        let sent = bytes_of(memory, from, len)?;
        let all = communicator.exchange(call, &sent)?;
        put(memory, to, &all.concat())
    });
    enqueue("HcclAllGather", call, communicator, stream, body)
}

#[unsafe(no_mangle)]
extern "C" fn HcclBroadcast(
    buffer: *mut c_void,
    count: u64,
    dtype: i32,
    root: u32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> i32 {
    let Some(held_as) = element(dtype) else {
        return fail(
            BAD_PARAMETER,
            format!("HcclBroadcast: data type {dtype} is not emulated"),
        );
    };
    let (buffer, count) = (buffer as usize, count as usize);
    let call = format!("HcclBroadcast of {count} numbers of type {dtype} from rank {root}");
    let body: Body = Box::new(move |communicator, memory, call| {
        let len = flat(buffer, count, held_as).extent().ok_or("the count overflows")?;
        let is_root = communicator.rank == root as usize;
        let sent = if is_root {
            bytes_of(memory, buffer, len)?
        } else {
            Vec::new()
        };
        let all = communicator.exchange(call, &sent)?;
        let given = all.get(root as usize).ok_or("no rank has the root's number")?;
        put(memory, buffer, given)
    });
    enqueue("HcclBroadcast", call, communicator, stream, body)
}

/// Rank r's s-th part goes to rank s as its r-th.
///
/// # Safety
/// The four arrays must hold one number a rank.
#[unsafe(no_mangle)]
unsafe extern "C" fn HcclAlltoAllV(
    from: *const c_void,
    send_counts: *const u64,
    send_places: *const u64,
    send_type: i32,
    to: *const c_void,
    receive_counts: *const u64,
    receive_places: *const u64,
    receive_type: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> i32 {
    let (Some(held_as), Some(shared)) = (element(send_type), found(communicator)) else {
        return fail(
            BAD_PARAMETER,
            "HcclAlltoAllV: no such communicator, or the data type is not emulated",
        );
    };
    if send_type != receive_type {
        return fail(BAD_PARAMETER, "HcclAlltoAllV: types must be equal");
    }
    let arrays = [send_counts, send_places, receive_counts, receive_places];
    if arrays.iter().any(|array| array.is_null()) {
        return fail(BAD_POINTER, "HcclAlltoAllV: null");
    }
    let size = held(&shared).size;
    let copied = |array: *const u64| -> Vec<usize> {
        // SAFETY: the caller's promise, checked not to be null.
        let numbers = unsafe { std::slice::from_raw_parts(array, size) };
        numbers.iter().map(|&number| number as usize).collect()
    };
    let [counts, places, wanted, targets] = arrays.map(copied);
    let (from, to) = (from as usize, to as usize);
    let width = flat(0, 1, held_as).extent().unwrap_or(1);
    let body: Body = Box::new(move |communicator, memory, call| {
        let mut sent: Vec<u8> = counts.iter().flat_map(|&count| (count as u64).to_le_bytes()).collect();
        for (&count, &place) in counts.iter().zip(&places) {
            sent.extend(bytes_of(memory, from + place * width, count * width)?);
        }
        let all = communicator.exchange(call, &sent)?;
        for (rank, part) in all.iter().enumerate() {
            let (heads, rest) = part.split_at_checked(8 * size).ok_or("a rank sent too little")?;
            let theirs = crate::elements::decode(heads, I64);
            let start = theirs[..communicator.rank].iter().sum::<f64>() as usize;
            let count = theirs[communicator.rank] as usize;
            if count != wanted[rank] {
                return Err(format!(
                    "rank {rank} sends {count} numbers where {} are expected",
                    wanted[rank]
                ));
            }
            let mine = rest
                .get(start * width..(start + count) * width)
                .ok_or("a rank sent too little")?;
            if count > 0 {
                put(memory, to + targets[rank] * width, mine)?;
            }
        }
        Ok(())
    });
    enqueue(
        "HcclAlltoAllV",
        format!("HcclAlltoAllV of type {send_type}"),
        communicator,
        stream,
        body,
    )
}

#[unsafe(no_mangle)]
extern "C" fn HcclBarrier(communicator: *mut c_void, stream: *mut c_void) -> i32 {
    let body: Body = Box::new(|communicator, _, call| communicator.exchange(call, &[]).map(|_| ()));
    enqueue("HcclBarrier", "HcclBarrier".to_owned(), communicator, stream, body)
}
