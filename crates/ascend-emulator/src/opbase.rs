//! Descriptors (`aclCreate*`, `aclDestroy*`), executors and the second phase of operators.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::elements::{BF16, BOOL, F32, F64, I8, I32, I64, Tensor};
use crate::machine::*;

const RUNTIME_FAILURE: i32 = 361001;
const EXECUTOR: i32 = 561101;
const DESCRIPTOR: i32 = 561103;
const NULL: i32 = 161001;
const MAX_RANK: u64 = 8;

/// The numbers of a C array as sizes; `None` for null or negative ones.
///
/// # Safety
/// `numbers` must be null or hold `count` numbers.
unsafe fn sizes(numbers: *const i64, count: u64) -> Option<Vec<usize>> {
    if numbers.is_null() || count > MAX_RANK {
        return None;
    }
    // SAFETY: the caller's promise.
    let numbers = unsafe { std::slice::from_raw_parts(numbers, count as usize) };
    numbers.iter().map(|&number| usize::try_from(number).ok()).collect()
}

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
    storage: *const i64,
    storage_rank: u64,
    address: *mut c_void,
) -> *mut c_void {
    // SAFETY: passed on from the caller.
    let read = unsafe { (sizes(dims, rank), sizes(strides, rank), sizes(storage, storage_rank)) };
    let ((Some(dims), strides, storage), Ok(offset)) = (read, usize::try_from(offset)) else {
        return null_mut();
    };
    if dims
        .iter()
        .try_fold(8_usize, |product, &dim| product.checked_mul(dim))
        .is_none()
    {
        return null_mut();
    }
    let strides = strides.unwrap_or_else(|| (0..dims.len()).map(|axis| dims[axis + 1..].iter().product()).collect());
    let storage = storage.unwrap_or_else(|| dims.clone());
    let Some(machine) = &mut *lock() else { return null_mut() };
    let handle = machine.handle();
    machine.tensors.insert(
        handle,
        Tensor {
            dims,
            strides,
            offset,
            storage,
            dtype,
            format,
            address: address as usize,
        },
    );
    handle as *mut c_void
}

/// # Safety
/// `value` must point to one number of the type.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclCreateScalar(value: *const c_void, dtype: i32) -> *mut c_void {
    if value.is_null() {
        return null_mut();
    }
    // SAFETY: the caller's promise.
    let number = unsafe {
        match dtype {
            F32 => f64::from(value.cast::<f32>().read_unaligned()),
            F64 => value.cast::<f64>().read_unaligned(),
            I32 => f64::from(value.cast::<i32>().read_unaligned()),
            I64 => value.cast::<i64>().read_unaligned() as f64,
            I8 => f64::from(value.cast::<i8>().read_unaligned()),
            BOOL => f64::from(value.cast::<u8>().read_unaligned()),
            BF16 => f64::from(f32::from_bits(u32::from(value.cast::<u16>().read_unaligned()) << 16)),
            _ => return null_mut(),
        }
    };
    let Some(machine) = &mut *lock() else { return null_mut() };
    let handle = machine.handle();
    machine.scalars.insert(handle, number);
    handle as *mut c_void
}

/// # Safety
/// `numbers` must hold `count` numbers.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclCreateIntArray(numbers: *const i64, count: u64) -> *mut c_void {
    if numbers.is_null() && count > 0 {
        return null_mut();
    }
    let Some(machine) = &mut *lock() else { return null_mut() };
    let copied = match count {
        0 => Vec::new(),
        // SAFETY: the caller's promise, and the pointer was checked.
        _ => unsafe { std::slice::from_raw_parts(numbers, count as usize) }.to_vec(),
    };
    let handle = machine.handle();
    machine.arrays.insert(handle, copied);
    handle as *mut c_void
}

/// # Safety
/// `tensors` must hold `count` descriptors.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclCreateTensorList(tensors: *const *const c_void, count: u64) -> *mut c_void {
    if tensors.is_null() || count == 0 {
        return null_mut();
    }
    let Some(machine) = &mut *lock() else { return null_mut() };
    // SAFETY: the caller's promise.
    let members = unsafe { std::slice::from_raw_parts(tensors, count as usize) };
    let members = members.iter().map(|&tensor| tensor as usize).collect();
    let handle = machine.handle();
    machine.lists.insert(handle, members);
    handle as *mut c_void
}

#[unsafe(no_mangle)]
extern "C" fn aclDestroyTensor(tensor: *const c_void) -> i32 {
    destroyed("aclDestroyTensor", |machine| {
        machine.tensors.remove(&(tensor as usize)).is_some()
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclDestroyScalar(scalar: *const c_void) -> i32 {
    destroyed("aclDestroyScalar", |machine| {
        machine.scalars.remove(&(scalar as usize)).is_some()
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclDestroyIntArray(array: *const c_void) -> i32 {
    destroyed("aclDestroyIntArray", |machine| {
        machine.arrays.remove(&(array as usize)).is_some()
    })
}

/// Destroys its tensors too: the list owns them.
#[unsafe(no_mangle)]
extern "C" fn aclDestroyTensorList(list: *const c_void) -> i32 {
    destroyed("aclDestroyTensorList", |machine| {
        let Some(members) = machine.lists.remove(&(list as usize)) else {
            return false;
        };
        members.iter().all(|member| machine.tensors.remove(member).is_some())
    })
}

pub fn destroyed(function: &str, remove: impl FnOnce(&mut Machine) -> bool) -> i32 {
    let Some(machine) = &mut *lock() else {
        return fail(DESCRIPTOR, format!("{function}: nothing is initialised"));
    };
    if remove(machine) {
        OK
    } else {
        fail(
            DESCRIPTOR,
            format!("{function}: no such descriptor, or destroyed before"),
        )
    }
}

#[unsafe(no_mangle)]
extern "C" fn aclnnInit(_config: *const std::ffi::c_char) -> i32 {
    OK
}

#[unsafe(no_mangle)]
extern "C" fn aclnnFinalize() -> i32 {
    OK
}

#[unsafe(no_mangle)]
extern "C" fn aclSetAclOpExecutorRepeatable(executor: *mut c_void) -> i32 {
    with(|machine| match machine.executors.get_mut(&(executor as usize)) {
        Some(found) => {
            found.repeatable = true;
            OK
        }
        None => fail(
            EXECUTOR,
            "aclSetAclOpExecutorRepeatable: the executor is unknown or was used before",
        ),
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclDestroyAclOpExecutor(executor: *mut c_void) -> i32 {
    with(|machine| match machine.executors.remove(&(executor as usize)) {
        Some(_) => OK,
        None => fail(
            EXECUTOR,
            "aclDestroyAclOpExecutor: the executor is unknown or was used before",
        ),
    })
}

/// The second phase of `operator`: checks executor, descriptors and workspace, then enqueues.
pub fn launch(operator: &'static str, workspace: usize, bytes: u64, executor: usize, stream: usize) -> i32 {
    with(|machine| {
        if !machine.streams.contains_key(&stream) {
            return fail(
                RUNTIME_FAILURE,
                format!("{operator}: the stream is unknown or destroyed"),
            );
        }
        if executor == 0 {
            return fail(NULL, format!("{operator}: no executor"));
        }
        let Some(found) = machine.executors.get(&executor) else {
            return fail(
                EXECUTOR,
                format!("{operator}: the executor is unknown or was used before"),
            );
        };
        if found.operator != operator {
            return fail(EXECUTOR, format!("{operator}: the executor is of {}", found.operator));
        }
        let (kernel, need, repeatable) = (found.kernel.clone(), found.workspace_bytes, found.repeatable);
        let lives = |handle: &usize| machine.tensors.contains_key(handle) || machine.lists.contains_key(handle);
        let all_live = repeatable || found.descriptors.iter().all(lives);
        if !repeatable {
            machine.executors.remove(&executor);
        }
        if !all_live {
            return fail(
                DESCRIPTOR,
                format!("{operator}: a tensor was destroyed before the second phase"),
            );
        }
        if (bytes as usize) < need || machine.memory.range(workspace, need).is_none() {
            return fail(
                RUNTIME_FAILURE,
                format!("{operator}: the workspace must be {need} bytes of device memory"),
            );
        }
        match machine.enqueue(stream, Task::Kernel(operator, kernel)) {
            OK => machine.enqueue(
                stream,
                Task::Poison {
                    address: workspace,
                    len: need,
                },
            ),
            code => code,
        }
    })
}
