//! The emulated device: chip, streams, events, descriptors, executors.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::capture::{Graph, Recorded};
use crate::elements::Tensor;
use crate::memory::{Memory, POISON};

pub const OK: i32 = 0;
pub const PARAMETER: i32 = 107000;
pub const NO_CONTEXT: i32 = 107002;
pub const BAD_STREAM: i32 = 107003;
pub const OUT_OF_MEMORY: i32 = 207001;
pub const KERNEL_EXCEPTION: i32 = 507015;
const COLLECTIVE_FAILED: i32 = 507904;

/// Name by which `aclrtGetSocName` calls it, memory, room for reads behind a buffer.
pub struct Chip {
    pub soc: &'static std::ffi::CStr,
    pub hbm_bytes: usize,
    pub over_read_bytes: usize,
    pub arch: u32,
    pub cube_cores: i64,
}

const GIB: usize = 1 << 30;

impl Chip {
    pub fn named(name: &str) -> Option<Self> {
        let (soc, gib, over_read_bytes, arch, cube_cores) = match name {
            "910B3" => (c"Ascend910B3", 64, 32, 2201, 20),
            "910C" => (c"Ascend910_9392", 64, 32, 2201, 24),
            "950PR" => (c"Ascend950PR_9599", 128, 0, 3510, 36),
            _ => return None,
        };
        let wanted = std::env::var("CACHALOT_ASCEND_EMULATOR_HBM_BYTES")
            .ok()
            .and_then(|text| text.parse().ok());
        let hbm_bytes = wanted.unwrap_or(gib * GIB);
        Some(Self {
            soc,
            hbm_bytes,
            over_read_bytes,
            arch,
            cube_cores,
        })
    }
}

/// The checked work between the two phases.
pub struct Executor {
    pub operator: &'static str,
    pub descriptors: Vec<usize>,
    pub workspace_bytes: usize,
    pub kernel: Kernel,
    pub repeatable: bool,
}

/// Runs once for each launch and once for each replay of a graph.
pub type Kernel = Arc<dyn Fn(&mut Memory) -> Result<(), String> + Send + Sync>;

#[derive(Clone)]
pub enum Task {
    Kernel(&'static str, Kernel),
    Copy { to: usize, from: usize, len: usize },
    Poison { address: usize, len: usize },
    Set { address: usize, value: u8, len: usize },
    Wait { stream: usize, until: u64 },
    Replay(Arc<Vec<Task>>),
}

#[derive(Default)]
pub struct Stream {
    pub tasks: VecDeque<Task>,
    pub done: u64,
    pub error: i32,
    /// The graph that records this stream's tasks.
    pub capture: Option<usize>,
}

pub struct Machine {
    pub chip: Chip,
    pub memory: Memory,
    pub pinned: HashMap<usize, usize>,
    pub tensors: HashMap<usize, Tensor>,
    pub executors: HashMap<usize, Executor>,
    pub streams: HashMap<usize, Stream>,
    pub events: HashMap<usize, Option<Recorded>>,
    pub graphs: HashMap<usize, Graph>,
    pub scalars: HashMap<usize, f64>,
    pub arrays: HashMap<usize, Vec<i64>>,
    /// Arrays of floats or flags, lists of scalars.
    pub reals: HashMap<usize, Vec<f64>>,
    pub lists: HashMap<usize, Vec<usize>>,
    /// What `aclrtSetSysParamOpt` set.
    pub options: HashMap<i32, i64>,
    /// Whether streams run at once instead of as late as possible.
    pub eager: bool,
    pub allocations: u64,
    pub launches: u64,
    next_handle: usize,
}

static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);

thread_local! {
    pub static HAS_CONTEXT: Cell<bool> = const { Cell::new(false) };
    pub static MESSAGE: RefCell<Option<CString>> = const { RefCell::new(None) };
}

pub fn lock() -> MutexGuard<'static, Option<Machine>> {
    MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Keeps the text for `aclGetRecentErrMsg` and returns the code.
pub fn fail(code: i32, text: impl Into<String>) -> i32 {
    let text = format!("[ascend-emulator] E{code}: {}", text.into());
    MESSAGE.with(|slot| *slot.borrow_mut() = CString::new(text).ok());
    code
}

/// Runs `body` with the machine, for calls that need a context on this thread.
pub fn with(body: impl FnOnce(&mut Machine) -> i32) -> i32 {
    match (&mut *lock(), HAS_CONTEXT.get()) {
        (Some(machine), true) => body(machine),
        _ => fail(
            NO_CONTEXT,
            "no context on this thread: call aclInit, then aclrtSetDevice on each thread",
        ),
    }
}

/// Whether this is the call that `variable` tells to fail.
fn is_fault(variable: &str, number: u64) -> bool {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()) == Some(number)
}

impl Machine {
    pub fn new(chip: Chip) -> Option<Self> {
        let memory = Memory::new(chip.hbm_bytes, chip.over_read_bytes)?;
        Some(Self {
            chip,
            memory,
            pinned: HashMap::new(),
            tensors: HashMap::new(),
            executors: HashMap::new(),
            // The null stream is the default one.
            streams: HashMap::from([(0, Stream::default())]),
            events: HashMap::new(),
            graphs: HashMap::new(),
            scalars: HashMap::new(),
            arrays: HashMap::new(),
            reals: HashMap::new(),
            options: HashMap::new(),
            lists: HashMap::new(),
            eager: std::env::var("CACHALOT_ASCEND_EMULATOR_STREAMS").is_ok_and(|mode| mode == "eager"),
            allocations: 0,
            launches: 0,
            next_handle: 0,
        })
    }

    /// A number that is no address: following it is a segmentation fault.
    pub fn handle(&mut self) -> usize {
        self.next_handle += 1;
        self.next_handle << 4
    }

    pub fn allocation_fails(&mut self) -> bool {
        self.allocations += 1;
        is_fault("CACHALOT_ASCEND_EMULATOR_FAIL_ALLOCATION", self.allocations)
    }

    pub fn enqueue(&mut self, handle: usize, task: Task) -> i32 {
        let Some(stream) = self.streams.get_mut(&handle) else {
            return fail(BAD_STREAM, "the stream is unknown or destroyed");
        };
        if let Some(graph) = stream.capture {
            if let Some(graph) = self.graphs.get_mut(&graph) {
                graph.record(handle, task);
            }
            return OK;
        }
        stream.tasks.push_back(task);
        if self.eager {
            let end = self.position(handle).unwrap_or(0);
            self.run(handle, end);
        }
        OK
    }

    /// Tasks given to the stream so far.
    pub fn position(&self, stream: usize) -> Option<u64> {
        self.streams
            .get(&stream)
            .map(|stream| stream.done + stream.tasks.len() as u64)
    }

    /// Runs the stream, and by its waits others, until it has done `until` tasks.
    pub fn run(&mut self, handle: usize, until: u64) {
        while let Some(stream) = self.streams.get_mut(&handle).filter(|stream| stream.done < until) {
            let Some(task) = stream.tasks.pop_front() else { return };
            let failed = self.execute(&task).err();
            if let Some(stream) = self.streams.get_mut(&handle) {
                stream.done += 1;
                if let Some(text) = failed {
                    let collective = text.starts_with("Hccl");
                    stream.error = fail(
                        if collective {
                            COLLECTIVE_FAILED
                        } else {
                            KERNEL_EXCEPTION
                        },
                        text,
                    );
                }
            }
        }
    }

    fn execute(&mut self, task: &Task) -> Result<(), String> {
        match *task {
            Task::Wait { stream, until } => {
                self.run(stream, until);
                Ok(())
            }
            Task::Copy { to, from, len } => match self.copy(to, from, len) {
                true => Ok(()),
                false => Err("copy: memory was freed".to_owned()),
            },
            Task::Set { address, value, len } => {
                self.memory
                    .range(address, len)
                    .ok_or("memset: memory was freed")?
                    .fill(value);
                Ok(())
            }
            Task::Poison { address, len } => {
                let bytes = self
                    .memory
                    .range(address, len)
                    .ok_or("the workspace was freed before the operator ran")?;
                bytes.fill(POISON);
                Ok(())
            }
            Task::Replay(ref tasks) => tasks.iter().try_for_each(|task| self.execute(task)),
            Task::Kernel(name, ref kernel) => {
                self.launches += 1;
                if is_fault("CACHALOT_ASCEND_EMULATOR_FAIL_LAUNCH", self.launches) {
                    return Err(format!("{name}: injected fault"));
                }
                kernel(&mut self.memory).map_err(|text| format!("{name}: {text}"))
            }
        }
    }

    /// False when a device range is not inside a live allocation.
    pub fn copy(&mut self, to: usize, from: usize, len: usize) -> bool {
        let mut buffer = vec![0_u8; len];
        if self.memory.is_device(from) {
            let Some(bytes) = self.memory.range(from, len) else {
                return false;
            };
            buffer.copy_from_slice(bytes);
        } else {
            // SAFETY: a host address that the caller of the C interface vouches for.
            unsafe { std::ptr::copy_nonoverlapping(from as *const u8, buffer.as_mut_ptr(), len) };
        }
        if self.memory.is_device(to) {
            let Some(bytes) = self.memory.range(to, len) else {
                return false;
            };
            bytes.copy_from_slice(&buffer);
        } else {
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), to as *mut u8, len) };
        }
        true
    }

    /// Whether the host range is inside memory from `aclrtMallocHost`.
    pub fn is_pinned(&self, address: usize, len: usize) -> bool {
        self.pinned
            .iter()
            .any(|(&start, &size)| address >= start && address + len <= start + size)
    }
}
