//! Further spellings of runtime calls, and questions about streams.

use std::ffi::c_void;

use crate::machine::*;
use crate::runtime::{aclrtCreateEventExWithFlag, aclrtCreateStream, aclrtMalloc, aclrtSynchronizeStream};

/// # Safety
/// `device` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetDevice(device: *mut i32) -> i32 {
    with(|_| {
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *device = 0 };
        OK
    })
}

/// # Safety
/// As for `aclrtCreateStream`.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtCreateStreamWithConfig(stream: *mut *mut c_void, _priority: u32, _flag: u32) -> i32 {
    // SAFETY: passed on from the caller.
    unsafe { aclrtCreateStream(stream) }
}

/// # Safety
/// As for `aclrtCreateEventExWithFlag`.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtCreateEventWithFlag(event: *mut *mut c_void, flag: u32) -> i32 {
    // SAFETY: passed on from the caller.
    unsafe { aclrtCreateEventExWithFlag(event, flag) }
}

/// # Safety
/// As for `aclrtMalloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtMallocAlign32(address: *mut *mut c_void, size: usize, policy: u32) -> i32 {
    // SAFETY: passed on from the caller.
    unsafe { aclrtMalloc(address, size, policy) }
}

/// The wait ends at once or with the work: emulated work cannot hang.
#[unsafe(no_mangle)]
extern "C" fn aclrtSynchronizeStreamWithTimeout(stream: *mut c_void, _timeout: i32) -> i32 {
    aclrtSynchronizeStream(stream)
}

/// Writes 0 when the stream has nothing left to do, 1 otherwise.
///
/// # Safety
/// `status` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtStreamQuery(stream: *mut c_void, status: *mut i32) -> i32 {
    with(|machine| {
        let handle = stream as usize;
        let Some(waiting) = machine.streams.get(&handle).map(|stream| !stream.tasks.is_empty()) else {
            return fail(BAD_STREAM, "the stream is unknown or destroyed");
        };
        let code = machine.refuse_captured(handle, "aclrtStreamQuery");
        if code == OK {
            // SAFETY: the C contract: a pointer to write to.
            unsafe { *status = i32::from(waiting) };
        }
        code
    })
}
