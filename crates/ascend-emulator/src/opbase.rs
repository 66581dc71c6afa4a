//! Tensor descriptors and the second phase of operators.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::machine::*;

pub const F32: i32 = 0;
pub const BF16: i32 = 27;
pub const RUNTIME_FAILURE: i32 = 361001;
const EXECUTOR: i32 = 561101;
const DESCRIPTOR: i32 = 561103;

/// Null for arguments that the real function refuses too.
///
/// # Safety
/// The arrays must hold as many numbers as said.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclCreateTensor(
    dims: *const i64,
    rank: u64,
    dtype: i32,
    strides: *const i64,
    offset: i64,
    format: i32,
    _storage: *const i64,
    _storage_rank: u64,
    address: *mut c_void,
) -> *mut c_void {
    if dims.is_null() || rank == 0 || rank > 8 {
        return null_mut();
    }
    // SAFETY: the caller's arrays, `rank` numbers each; null strides mean contiguous.
    let (dims, strides) = unsafe {
        let dims = std::slice::from_raw_parts(dims, rank as usize);
        (dims, (!strides.is_null()).then(|| std::slice::from_raw_parts(strides, rank as usize)))
    };
    let Some(dims) = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<Vec<_>>>() else {
        return null_mut();
    };
    let Some(_) = dims.iter().try_fold(8_usize, |product, &dim| product.checked_mul(dim)) else {
        return null_mut();
    };
    let mut expected = 1;
    let mut contiguous = offset == 0;
    for axis in (0..dims.len()).rev() {
        contiguous &= strides.is_none_or(|strides| strides[axis] == expected);
        expected *= dims[axis] as i64;
    }
    let Some(machine) = &mut *lock() else { return null_mut() };
    let handle = machine.handle();
    machine.tensors.insert(handle, Tensor { dims, dtype, format, contiguous, address: address as usize });
    handle as *mut c_void
}

#[unsafe(no_mangle)]
extern "C" fn aclDestroyTensor(tensor: *const c_void) -> i32 {
    with(|machine| match machine.tensors.remove(&(tensor as usize)) {
        Some(_) => OK,
        None => fail(DESCRIPTOR, "aclDestroyTensor: no such tensor"),
    })
}

/// The second phase of `operator`: checks executor, descriptors and workspace, then enqueues.
pub fn launch(operator: &'static str, workspace: usize, bytes: u64, executor: usize, stream: usize) -> i32 {
    with(|machine| {
        if !machine.streams.contains_key(&stream) {
            return fail(RUNTIME_FAILURE, format!("{operator}: the stream is unknown or destroyed"));
        }
        let Some(found) = machine.executors.remove(&executor) else {
            return fail(EXECUTOR, format!("{operator}: the executor is unknown or was used before"));
        };
        if found.operator != operator {
            return fail(EXECUTOR, format!("{operator}: the executor is of {}", found.operator));
        }
        if !found.descriptors.iter().all(|handle| machine.tensors.contains_key(handle)) {
            return fail(DESCRIPTOR, format!("{operator}: a tensor was destroyed before the second phase"));
        }
        let need = found.workspace_bytes;
        if (bytes as usize) < need || machine.memory.range(workspace, need).is_none() {
            return fail(RUNTIME_FAILURE, format!("{operator}: the workspace must be {need} bytes of device memory"));
        }
        machine.enqueue(stream, Task::Kernel(operator, found.kernel));
        machine.enqueue(stream, Task::Poison { address: workspace, len: need })
    })
}
