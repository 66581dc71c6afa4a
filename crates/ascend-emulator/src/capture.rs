//! Graphs: `aclmdlRICapture*` records what a stream, and those that join it, are given; `aclmdlRIExecuteAsync` replays.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;
use std::thread::ThreadId;

use crate::machine::*;

const UNJOINED: i32 = 107025;
const STREAM_CAPTURED: i32 = 107027;
const NOT_CAPTURING: i32 = 107029;
const CONFLICT: i32 = 107032;
const WRONG_THREAD: i32 = 107038;
const BLOCKING: i32 = 107041;
const INVALIDATED: i32 = 507903;
const RELAXED: i32 = 2;

/// What an event stands for.
#[derive(Clone, Copy)]
pub enum Recorded {
    /// A stream's first so many tasks.
    Stream(usize, u64),
    /// The first `count` tasks that `stream` gave to a graph under capture.
    Captured { graph: usize, stream: usize, count: u64 },
}

/// A graph under capture or ready to run.
pub struct Graph {
    origin: usize,
    thread: ThreadId,
    mode: i32,
    active: bool,
    invalidated: bool,
    tasks: Vec<Task>,
    ready: Arc<Vec<Task>>,
    /// For each stream but the origin that joined: tasks given, tasks that another stream waited for.
    joined: HashMap<usize, (u64, Option<u64>)>,
}

impl Graph {
    pub fn record(&mut self, stream: usize, task: Task) {
        self.tasks.push(task);
        if let Some((given, _)) = self.joined.get_mut(&stream) {
            *given += 1;
        }
    }
}

impl Machine {
    fn invalidate(&mut self, graph: usize) {
        if let Some(graph) = self.graphs.get_mut(&graph) {
            graph.invalidated = true;
        }
    }

    /// A call that blocks: refused while a capture that is not relaxed is open.
    pub fn refuse_while_capturing(&mut self, function: &str) -> i32 {
        let open = self
            .graphs
            .iter()
            .find(|(_, graph)| graph.active && graph.mode != RELAXED)
            .map(|(&handle, _)| handle);
        match open {
            Some(graph) => {
                self.invalidate(graph);
                fail(BLOCKING, format!("{function}: not while a graph is captured"))
            }
            None => OK,
        }
    }

    /// A call that would wait for a stream under capture.
    pub fn refuse_captured(&mut self, stream: usize, function: &str) -> i32 {
        match self.streams.get(&stream).and_then(|stream| stream.capture) {
            Some(graph) => {
                self.invalidate(graph);
                fail(STREAM_CAPTURED, format!("{function}: the stream is being captured"))
            }
            None => self.refuse_while_capturing(function),
        }
    }

    /// What an event recorded on this stream stands for, when the stream is captured.
    pub fn recorded_in_capture(&self, stream: usize) -> Option<Recorded> {
        let graph = self.streams.get(&stream)?.capture?;
        let count = self
            .graphs
            .get(&graph)?
            .joined
            .get(&stream)
            .map_or(0, |joined| joined.0);
        Some(Recorded::Captured { graph, stream, count })
    }

    /// `stream` waits for an event of a capture: it joins the capture, and what `from` gave so far is joined back.
    pub fn join_capture(&mut self, stream: usize, handle: usize, from: usize, count: u64) -> i32 {
        let Some(graph) = self.graphs.get_mut(&handle).filter(|graph| graph.active) else {
            return fail(NOT_CAPTURING, "aclrtStreamWaitEvent: the event's capture has ended");
        };
        let Some(waiting) = self.streams.get_mut(&stream) else {
            return fail(BAD_STREAM, "the stream is unknown or destroyed");
        };
        if waiting.capture.is_some_and(|other| other != handle) {
            return fail(CONFLICT, "aclrtStreamWaitEvent: the stream belongs to another capture");
        }
        waiting.capture = Some(handle);
        if stream != graph.origin {
            graph.joined.entry(stream).or_insert((0, None));
        }
        if let Some((_, waited)) = graph.joined.get_mut(&from).filter(|_| stream != from) {
            *waited = (*waited).max(Some(count));
        }
        OK
    }
}

#[unsafe(no_mangle)]
extern "C" fn aclmdlRICaptureBegin(stream: *mut c_void, mode: i32) -> i32 {
    with(|machine| {
        let (origin, handle) = (stream as usize, machine.handle());
        let Some(stream) = machine.streams.get_mut(&origin).filter(|_| origin != 0) else {
            return fail(BAD_STREAM, "aclmdlRICaptureBegin: an explicit stream is needed");
        };
        if stream.capture.is_some() {
            return fail(CONFLICT, "aclmdlRICaptureBegin: the stream is being captured");
        }
        stream.capture = Some(handle);
        let thread = std::thread::current().id();
        let (tasks, ready, joined) = (Vec::new(), Arc::default(), HashMap::new());
        machine.graphs.insert(
            handle,
            Graph {
                origin,
                thread,
                mode,
                active: true,
                invalidated: false,
                tasks,
                ready,
                joined,
            },
        );
        OK
    })
}

/// # Safety
/// `graph` must be a place for a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclmdlRICaptureEnd(stream: *mut c_void, graph: *mut *mut c_void) -> i32 {
    with(|machine| {
        let Some(handle) = machine
            .streams
            .get(&(stream as usize))
            .and_then(|stream| stream.capture)
        else {
            return fail(NOT_CAPTURING, "aclmdlRICaptureEnd: the stream is not captured");
        };
        let Some(found) = machine.graphs.get_mut(&handle) else {
            return fail(NOT_CAPTURING, "aclmdlRICaptureEnd: no such capture");
        };
        if found.origin != stream as usize {
            return fail(107036, "aclmdlRICaptureEnd: the capture began on another stream");
        }
        if found.mode != RELAXED && found.thread != std::thread::current().id() {
            return fail(WRONG_THREAD, "aclmdlRICaptureEnd: the capture began on another thread");
        }
        found.active = false;
        found.ready = Arc::new(std::mem::take(&mut found.tasks));
        let code = match () {
            () if found.invalidated => fail(INVALIDATED, "aclmdlRICaptureEnd: a forbidden call spoiled the capture"),
            () if found.joined.values().any(|&(given, waited)| waited != Some(given)) => fail(
                UNJOINED,
                "aclmdlRICaptureEnd: a stream joined the capture and was not joined back",
            ),
            () => OK,
        };
        for stream in machine
            .streams
            .values_mut()
            .filter(|stream| stream.capture == Some(handle))
        {
            stream.capture = None;
        }
        if code == OK {
            // SAFETY: the C contract: a pointer to write to.
            unsafe { *graph = handle as *mut c_void };
        } else {
            machine.graphs.remove(&handle);
        }
        code
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclmdlRIExecuteAsync(graph: *mut c_void, stream: *mut c_void) -> i32 {
    with(
        |machine| match machine.graphs.get(&(graph as usize)).filter(|graph| !graph.active) {
            Some(graph) => {
                let tasks = Arc::clone(&graph.ready);
                machine.enqueue(stream as usize, Task::Replay(tasks))
            }
            None => fail(PARAMETER, "aclmdlRIExecuteAsync: no such graph"),
        },
    )
}

#[unsafe(no_mangle)]
extern "C" fn aclmdlRIDestroy(graph: *mut c_void) -> i32 {
    with(|machine| match machine.graphs.remove(&(graph as usize)) {
        Some(_) => OK,
        None => fail(PARAMETER, "aclmdlRIDestroy: no such graph"),
    })
}

/// # Safety
/// The pointers must be places for a status and a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclmdlRICaptureGetInfo(stream: *mut c_void, status: *mut i32, graph: *mut *mut c_void) -> i32 {
    with(|machine| {
        let Some(stream) = machine.streams.get(&(stream as usize)) else {
            return fail(BAD_STREAM, "the stream is unknown or destroyed");
        };
        let found = stream
            .capture
            .and_then(|handle| Some((handle, machine.graphs.get(&handle)?)));
        let (state, handle) = found.map_or((0, 0), |(handle, graph)| (1 + i32::from(graph.invalidated), handle));
        // SAFETY: the C contract: pointers to write to.
        unsafe { (*status, *graph) = (state, handle as *mut c_void) };
        OK
    })
}
