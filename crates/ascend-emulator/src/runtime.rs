//! `aclInit`, `aclrt*`: version, device, memory, streams, events.

use std::ffi::{c_char, c_void};
use std::ptr::null;

use crate::capture::Recorded;
use crate::machine::*;
use crate::memory::AllocationError;

const NO_DEVICE: i32 = 107001;
const REPEATED: i32 = 100002;
const INTERNAL: i32 = 500000;
const NOT_SUPPORTED: i32 = 207000;
const EVENT_CAPTURED: i32 = 107028;

#[unsafe(no_mangle)]
extern "C" fn aclInit(_config: *const c_char) -> i32 {
    let name = std::env::var("CACHALOT_ASCEND_EMULATOR").unwrap_or_default();
    let mut slot = lock();
    if slot.is_some() {
        return fail(REPEATED, "aclInit was called before");
    }
    let Some(chip) = Chip::named(&name) else {
        return fail(
            INTERNAL,
            "this is an emulator: set CACHALOT_ASCEND_EMULATOR to 910B3, 910C or 950PR to open it",
        );
    };
    *slot = Machine::new(chip);
    if slot.is_none() {
        return fail(OUT_OF_MEMORY, "the host refused to map the emulated memory");
    }
    eprintln!("*** ASCEND EMULATOR ({name}, emulated): this is NOT an Ascend device; its timings mean nothing ***");
    OK
}

#[unsafe(no_mangle)]
extern "C" fn aclFinalize() -> i32 {
    *lock() = None;
    OK
}

/// The last failure on this thread; reading clears it. The text lives until the next reading.
#[unsafe(no_mangle)]
extern "C" fn aclGetRecentErrMsg() -> *const c_char {
    thread_local!(static READ: std::cell::RefCell<Option<std::ffi::CString>> = const { std::cell::RefCell::new(None) });
    READ.with(|read| {
        *read.borrow_mut() = MESSAGE.take();
        read.borrow().as_ref().map_or(null(), |text| text.as_ptr())
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtGetSocName() -> *const c_char {
    lock().as_ref().map_or(null(), |machine| machine.chip.soc.as_ptr())
}

/// # Safety
/// `version` must hold 128 bytes, as the real function demands.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclsysGetVersionStr(_package: *const c_char, version: *mut c_char) -> i32 {
    let text = c"0.0.0-ascend-emulator";
    // SAFETY: shorter than the caller's 128 bytes.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), version, text.to_bytes_with_nul().len()) };
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetDeviceCount(count: *mut u32) -> i32 {
    // SAFETY: the C contract: a pointer to write to.
    unsafe { *count = 1 };
    OK
}

#[unsafe(no_mangle)]
extern "C" fn aclrtSetDevice(device: i32) -> i32 {
    if device != 0 {
        return fail(NO_DEVICE, format!("device {device} of 1"));
    }
    HAS_CONTEXT.set(lock().is_some());
    with(|_| OK)
}

#[unsafe(no_mangle)]
extern "C" fn aclrtResetDevice(_device: i32) -> i32 {
    HAS_CONTEXT.set(false);
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetMemInfo(_attribute: i32, free: *mut usize, total: *mut usize) -> i32 {
    // SAFETY: the C contract: pointers to write to.
    with(|machine| unsafe {
        (*free, *total) = machine.memory.free_and_total();
        OK
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtMalloc(address: *mut *mut c_void, size: usize, _policy: u32) -> i32 {
    with(|machine| {
        if machine.allocation_fails() {
            return fail(OUT_OF_MEMORY, "aclrtMalloc: injected fault");
        }
        match machine.memory.allocate(size) {
            // SAFETY: the C contract: a pointer to write to.
            Ok(found) => unsafe {
                *address = found as *mut c_void;
                OK
            },
            Err(AllocationError::Empty) => fail(PARAMETER, "aclrtMalloc: size 0"),
            Err(AllocationError::Full) => fail(OUT_OF_MEMORY, format!("aclrtMalloc: no {size} bytes left")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtFree(address: *mut c_void) -> i32 {
    with(|machine| match machine.memory.release(address as usize) {
        true => OK,
        false => fail(
            PARAMETER,
            "aclrtFree: not the start of a live allocation (double free?)",
        ),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtMallocHost(address: *mut *mut c_void, size: usize) -> i32 {
    with(|machine| {
        // SAFETY: a plain allocation; the C contract gives a pointer to write to.
        unsafe {
            let found = libc::malloc(size.max(1));
            if found.is_null() {
                return fail(OUT_OF_MEMORY, "aclrtMallocHost: the host has no memory");
            }
            machine.pinned.insert(found as usize, size);
            *address = found;
        }
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtFreeHost(address: *mut c_void) -> i32 {
    with(|machine| match machine.pinned.remove(&(address as usize)) {
        // SAFETY: it came from `malloc` above and leaves the table with this call.
        Some(_) => unsafe {
            libc::free(address);
            OK
        },
        None => fail(PARAMETER, "aclrtFreeHost: not from aclrtMallocHost"),
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtMemcpy(to: *mut c_void, room: usize, from: *const c_void, count: usize, _kind: i32) -> i32 {
    if count > room {
        return fail(PARAMETER, "aclrtMemcpy: count is larger than destMax");
    }
    with(|machine| match machine.refuse_while_capturing("aclrtMemcpy") {
        OK => match machine.copy(to as usize, from as usize, count) {
            true => OK,
            false => fail(PARAMETER, "aclrtMemcpy: the range leaves its allocation"),
        },
        code => code,
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtMemcpyAsync(
    to: *mut c_void,
    room: usize,
    from: *const c_void,
    count: usize,
    _kind: i32,
    stream: *mut c_void,
) -> i32 {
    if count > room {
        return fail(PARAMETER, "aclrtMemcpyAsync: count is larger than destMax");
    }
    with(|machine| {
        let (to, from, stream) = (to as usize, from as usize, stream as usize);
        let on_host = |address| !machine.memory.is_device(address);
        if on_host(to) && on_host(from) {
            return fail(NOT_SUPPORTED, "aclrtMemcpyAsync: both sides are host memory");
        }
        let pageable = |address| on_host(address) && !machine.is_pinned(address, count);
        let blocks = pageable(to) || pageable(from);
        if blocks {
            let code = machine.refuse_while_capturing("aclrtMemcpyAsync with pageable host memory");
            if code != OK {
                return code;
            }
        }
        let code = machine.enqueue(stream, Task::Copy { to, from, len: count });
        if code == OK && blocks {
            let end = machine.position(stream).unwrap_or(0);
            machine.run(stream, end);
        }
        code
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtCreateStream(stream: *mut *mut c_void) -> i32 {
    with(|machine| {
        let handle = machine.handle();
        machine.streams.insert(handle, Stream::default());
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *stream = handle as *mut c_void };
        OK
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn aclrtSynchronizeStream(stream: *mut c_void) -> i32 {
    with(|machine| {
        let stream = stream as usize;
        let Some(end) = machine.position(stream) else {
            return fail(BAD_STREAM, "the stream is unknown or destroyed");
        };
        let code = machine.refuse_captured(stream, "aclrtSynchronizeStream");
        if code != OK {
            return code;
        }
        machine.run(stream, end);
        machine
            .streams
            .get_mut(&stream)
            .map_or(OK, |stream| std::mem::take(&mut stream.error))
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtDestroyStream(stream: *mut c_void) -> i32 {
    let code = aclrtSynchronizeStream(stream);
    with(|machine| {
        machine.streams.remove(&(stream as usize));
        code
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtCreateEventExWithFlag(event: *mut *mut c_void, _flag: u32) -> i32 {
    with(|machine| {
        let handle = machine.handle();
        machine.events.insert(handle, None);
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *event = handle as *mut c_void };
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtDestroyEvent(event: *mut c_void) -> i32 {
    with(|machine| match machine.events.remove(&(event as usize)) {
        Some(_) => OK,
        None => fail(PARAMETER, "aclrtDestroyEvent: no such event"),
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtRecordEvent(event: *mut c_void, stream: *mut c_void) -> i32 {
    with(|machine| {
        let Some(position) = machine.position(stream as usize) else {
            return fail(BAD_STREAM, "the stream is unknown or destroyed");
        };
        let captured = machine.recorded_in_capture(stream as usize);
        match machine.events.get_mut(&(event as usize)) {
            Some(recorded) => {
                *recorded = Some(captured.unwrap_or(Recorded::Stream(stream as usize, position)));
                OK
            }
            None => fail(PARAMETER, "aclrtRecordEvent: no such event"),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtStreamWaitEvent(stream: *mut c_void, event: *mut c_void) -> i32 {
    with(|machine| match machine.events.get(&(event as usize)) {
        Some(&Some(Recorded::Captured {
            graph,
            stream: from,
            count,
        })) => machine.join_capture(stream as usize, graph, from, count),
        Some(&Some(Recorded::Stream(from, until))) => {
            machine.enqueue(stream as usize, Task::Wait { stream: from, until })
        }
        Some(None) => fail(PARAMETER, "aclrtStreamWaitEvent: the event was never recorded"),
        None => fail(PARAMETER, "aclrtStreamWaitEvent: no such event"),
    })
}

/// Waits for what was recorded, running its stream.
#[unsafe(no_mangle)]
extern "C" fn aclrtSynchronizeEvent(event: *mut c_void) -> i32 {
    with(|machine| match machine.events.get(&(event as usize)) {
        Some(&Some(Recorded::Stream(stream, until))) => {
            machine.run(stream, until);
            OK
        }
        Some(Some(Recorded::Captured { .. })) => {
            fail(EVENT_CAPTURED, "aclrtSynchronizeEvent: the event belongs to a capture")
        }
        Some(None) => OK,
        None => fail(PARAMETER, "aclrtSynchronizeEvent: no such event"),
    })
}

/// # Safety
/// `status` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtQueryEventStatus(event: *mut c_void, status: *mut i32) -> i32 {
    with(|machine| {
        let complete = match machine.events.get(&(event as usize)) {
            Some(&Some(Recorded::Stream(stream, until))) => {
                machine.streams.get(&stream).is_none_or(|stream| stream.done >= until)
            }
            Some(Some(Recorded::Captured { .. })) => {
                return fail(EVENT_CAPTURED, "aclrtQueryEventStatus: the event belongs to a capture");
            }
            Some(None) => true,
            None => return fail(PARAMETER, "aclrtQueryEventStatus: no such event"),
        };
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *status = i32::from(complete) };
        OK
    })
}

/// Runs every stream; the first error of one is returned.
#[unsafe(no_mangle)]
extern "C" fn aclrtSynchronizeDevice() -> i32 {
    with(|machine| {
        let code = machine.refuse_while_capturing("aclrtSynchronizeDevice");
        if code != OK {
            return code;
        }
        let mut first = OK;
        for handle in machine.streams.keys().copied().collect::<Vec<_>>() {
            let end = machine.position(handle).unwrap_or(0);
            machine.run(handle, end);
            let error = machine
                .streams
                .get_mut(&handle)
                .map_or(OK, |stream| std::mem::take(&mut stream.error));
            first = if first == OK { error } else { first };
        }
        first
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtMemset(address: *mut c_void, room: usize, value: i32, count: usize) -> i32 {
    with(|machine| {
        let code = machine.refuse_while_capturing("aclrtMemset");
        if code != OK {
            return code;
        }
        match machine.memory.range(address as usize, count).filter(|_| count <= room) {
            Some(bytes) => {
                bytes.fill(value as u8);
                OK
            }
            None => fail(PARAMETER, "aclrtMemset: the range leaves its allocation"),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclrtMemsetAsync(
    address: *mut c_void,
    room: usize,
    value: i32,
    count: usize,
    stream: *mut c_void,
) -> i32 {
    if count > room {
        return fail(PARAMETER, "aclrtMemsetAsync: count is larger than maxCount");
    }
    with(|machine| {
        machine.enqueue(
            stream as usize,
            Task::Set {
                address: address as usize,
                value: value as u8,
                len: count,
            },
        )
    })
}

/// # Safety
/// `value` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetDeviceInfo(_device: u32, attribute: i32, value: *mut i64) -> i32 {
    with(|machine| {
        let found = match attribute {
            101 | 102 => machine.chip.cube_cores,
            201 => 2 * machine.chip.cube_cores,
            301 => machine.memory.free_and_total().1 as i64,
            601 => i64::from(machine.chip.arch),
            _ => {
                return fail(
                    NOT_SUPPORTED,
                    format!("aclrtGetDeviceInfo: attribute {attribute} is not emulated"),
                );
            }
        };
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *value = found };
        OK
    })
}

/// # Safety
/// The pointers must point to numbers.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetVersion(major: *mut i32, minor: *mut i32, patch: *mut i32) -> i32 {
    // SAFETY: the C contract: pointers to write to.
    unsafe { (*major, *minor, *patch) = (1, 17, 0) };
    OK
}
