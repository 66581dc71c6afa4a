//! Names the misuse when a program follows a device address: on hardware too it would die there, with less to read.

use std::ffi::c_void;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

static START: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);
const TEXT: &[u8] = b"[ascend-emulator] the host dereferenced a device address: copy it with aclrtMemcpy first\n";

/// Watches the device's addresses from now on; a length of 0 ends it.
pub fn watch(start: usize, len: usize) {
    static INSTALLED: Once = Once::new();
    START.store(start, Ordering::SeqCst);
    LEN.store(len, Ordering::SeqCst);
    INSTALLED.call_once(|| {
        // SAFETY: the handler has the signature SA_SIGINFO asks for and calls only async-signal-safe functions.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
        }
    });
}

extern "C" fn on_fault(_signal: i32, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid `info`; write and signal are async-signal-safe.
    unsafe {
        let address = (*info).si_addr() as usize;
        if address.wrapping_sub(START.load(Ordering::SeqCst)) < LEN.load(Ordering::SeqCst) {
            libc::write(2, TEXT.as_ptr().cast(), TEXT.len());
        }
        // The access repeats on return and ends the program as it would without the emulator.
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
    }
}
