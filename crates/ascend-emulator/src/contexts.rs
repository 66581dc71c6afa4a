//! Contexts, peers and the questions that programs ask about a device before they use it.

use std::ffi::{c_char, c_void};

use crate::machine::*;

const NO_DEVICE: i32 = 107001;
const NOT_SUPPORTED: i32 = 207000;
const DEFAULT_CONTEXT: usize = 8;
/// Of no use to the emulator: the mode that the real chips run in, infinities and NaN kept.
const INFINITIES_KEPT: i32 = 1;

/// # Safety
/// `context` must be a place for a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetCurrentContext(context: *mut *mut c_void) -> i32 {
    with(|_| {
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *context = DEFAULT_CONTEXT as *mut c_void };
        OK
    })
}

/// # Safety
/// `context` must be a place for a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtCreateContext(context: *mut *mut c_void, device: i32) -> i32 {
    if device != 0 {
        return fail(NO_DEVICE, format!("device {device} of 1"));
    }
    HAS_CONTEXT.set(lock().is_some());
    // SAFETY: passed on from the caller.
    unsafe { aclrtGetCurrentContext(context) }
}

#[unsafe(no_mangle)]
extern "C" fn aclrtDestroyContext(context: *mut c_void) -> i32 {
    if context as usize != DEFAULT_CONTEXT {
        return fail(PARAMETER, "aclrtDestroyContext: no such context");
    }
    HAS_CONTEXT.set(false);
    OK
}

#[unsafe(no_mangle)]
extern "C" fn aclrtSetCurrentContext(context: *mut c_void) -> i32 {
    if context as usize != DEFAULT_CONTEXT {
        return fail(PARAMETER, "aclrtSetCurrentContext: no such context");
    }
    HAS_CONTEXT.set(lock().is_some());
    with(|_| OK)
}

/// # Safety
/// `stream` must be a place for a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtCtxGetCurrentDefaultStream(stream: *mut *mut c_void) -> i32 {
    with(|machine| {
        machine.streams.entry(0).or_default();
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *stream = std::ptr::null_mut() };
        OK
    })
}

/// # Safety
/// `can` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtDeviceCanAccessPeer(can: *mut i32, _device: i32, _peer: i32) -> i32 {
    // SAFETY: the C contract: a pointer to write to.
    unsafe { *can = 0 };
    OK
}

#[unsafe(no_mangle)]
extern "C" fn aclrtDeviceEnablePeerAccess(peer: i32, _flags: u32) -> i32 {
    fail(NO_DEVICE, format!("aclrtDeviceEnablePeerAccess: device {peer} of 1"))
}

/// # Safety
/// `process` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtDeviceGetBareTgid(process: *mut i32) -> i32 {
    // SAFETY: the C contract: a pointer to write to.
    unsafe { *process = std::process::id() as i32 };
    OK
}

/// The older question: 0 matrix cores, 1 vector cores.
///
/// # Safety
/// `value` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclGetDeviceCapability(_device: u32, information: i32, value: *mut i64) -> i32 {
    with(|machine| {
        let found = match information {
            0 => machine.chip.cube_cores,
            1 => 2 * machine.chip.cube_cores,
            _ => {
                return fail(
                    NOT_SUPPORTED,
                    format!("aclGetDeviceCapability: {information} is not emulated"),
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
unsafe extern "C" fn aclrtDeviceGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) -> i32 {
    // SAFETY: the C contract: pointers to write to.
    unsafe { (*least, *greatest) = (7, 0) };
    OK
}

/// # Safety
/// `mode` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetDeviceSatMode(mode: *mut i32) -> i32 {
    // SAFETY: the C contract: a pointer to write to.
    unsafe { *mode = INFINITIES_KEPT };
    OK
}

#[unsafe(no_mangle)]
extern "C" fn aclrtSetDeviceSatMode(mode: i32) -> i32 {
    match mode {
        INFINITIES_KEPT => OK,
        _ => fail(NOT_SUPPORTED, "aclrtSetDeviceSatMode: saturation is not emulated"),
    }
}

/// Kept and without effect: the emulator computes the same way each time.
#[unsafe(no_mangle)]
extern "C" fn aclrtSetSysParamOpt(option: i32, value: i64) -> i32 {
    with(|machine| {
        machine.options.insert(option, value);
        OK
    })
}

/// # Safety
/// `value` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetSysParamOpt(option: i32, value: *mut i64) -> i32 {
    with(|machine| {
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *value = machine.options.get(&option).copied().unwrap_or(0) };
        OK
    })
}

/// Accepted and without effect: emulated work cannot hang.
#[unsafe(no_mangle)]
extern "C" fn aclrtSetOpWaitTimeout(_seconds: u32) -> i32 {
    OK
}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn aclrtSetOpExecuteTimeOut(_seconds: u32) -> i32 {
    OK
}

/// Called for by programs that want to be told of device errors; the emulator tells them at the next wait.
#[unsafe(no_mangle)]
extern "C" fn aclrtSetExceptionInfoCallback(_callback: *mut c_void) -> i32 {
    OK
}

/// The times of emulated work mean nothing: always refused.
#[unsafe(no_mangle)]
extern "C" fn aclrtEventElapsedTime(_milliseconds: *mut f32, _start: *mut c_void, _end: *mut c_void) -> i32 {
    fail(NOT_SUPPORTED, "aclrtEventElapsedTime: an emulator measures nothing")
}

/// Events of this kind cannot be reset, as on hardware.
#[unsafe(no_mangle)]
extern "C" fn aclrtResetEvent(_event: *mut c_void, _stream: *mut c_void) -> i32 {
    fail(
        NOT_SUPPORTED,
        "aclrtResetEvent: not for events of aclrtCreateEventExWithFlag",
    )
}

/// # Safety
/// `number` must point to a number; `package` may be anything.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclsysGetVersionNum(_package: *const c_char, number: *mut i32) -> i32 {
    // SAFETY: the C contract: a pointer to write to.
    unsafe { *number = 0 };
    OK
}
