//! Arrays of floats and flags, lists of scalars, and what may be asked about descriptors or changed in them.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::machine::*;
use crate::opbase::destroyed;

const NULL: i32 = 161001;
const DESCRIPTOR: i32 = 561103;

/// Keeps the numbers, as an array that operators read.
///
/// # Safety
/// `numbers` must hold `count` numbers.
unsafe fn kept<T: Copy>(numbers: *const T, count: u64, number: impl Fn(T) -> f64) -> *mut c_void {
    if numbers.is_null() && count > 0 {
        return null_mut();
    }
    let Some(machine) = &mut *lock() else { return null_mut() };
    let copied = match count {
        0 => Vec::new(),
        // SAFETY: the caller's promise, and the pointer was checked.
        _ => unsafe { std::slice::from_raw_parts(numbers, count as usize) }
            .iter()
            .map(|&held| number(held))
            .collect(),
    };
    let handle = machine.handle();
    machine.reals.insert(handle, copied);
    handle as *mut c_void
}

/// # Safety
/// `numbers` must hold `count` numbers.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclCreateFloatArray(numbers: *const f32, count: u64) -> *mut c_void {
    // SAFETY: passed on from the caller.
    unsafe { kept(numbers, count, f64::from) }
}

/// # Safety
/// `flags` must hold `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclCreateBoolArray(flags: *const u8, count: u64) -> *mut c_void {
    // SAFETY: passed on from the caller.
    unsafe { kept(flags, count, |flag| f64::from(u8::from(flag != 0))) }
}

/// # Safety
/// `scalars` must hold `count` scalars.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclCreateScalarList(scalars: *const *const c_void, count: u64) -> *mut c_void {
    let known = lock()
        .as_ref()
        .map(|machine| machine.scalars.clone())
        .unwrap_or_default();
    // SAFETY: passed on from the caller.
    unsafe {
        kept(scalars, count, |scalar: *const c_void| {
            known.get(&(scalar as usize)).copied().unwrap_or(f64::NAN)
        })
    }
}

#[unsafe(no_mangle)]
extern "C" fn aclDestroyFloatArray(array: *const c_void) -> i32 {
    destroyed("aclDestroyFloatArray", |machine| {
        machine.reals.remove(&(array as usize)).is_some()
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclDestroyBoolArray(array: *const c_void) -> i32 {
    destroyed("aclDestroyBoolArray", |machine| {
        machine.reals.remove(&(array as usize)).is_some()
    })
}

#[unsafe(no_mangle)]
extern "C" fn aclDestroyScalarList(list: *const c_void) -> i32 {
    destroyed("aclDestroyScalarList", |machine| {
        machine.reals.remove(&(list as usize)).is_some()
    })
}

/// A copy of sizes that the caller releases with `delete[]`, which is `free` here.
///
/// # Safety
/// `dims` and `count` must be places to write to.
pub unsafe fn give_sizes(numbers: &[usize], dims: *mut *mut i64, count: *mut u64) -> i32 {
    // SAFETY: the allocation is as long as what is written; the caller promises the two places.
    unsafe {
        let copy = libc::malloc(8 * numbers.len().max(1)).cast::<i64>();
        if copy.is_null() {
            return fail(OUT_OF_MEMORY, "the host has no memory");
        }
        for (place, &number) in numbers.iter().enumerate() {
            copy.add(place).write(number as i64);
        }
        (*dims, *count) = (copy, numbers.len() as u64);
    }
    OK
}

/// Runs `body` with a live descriptor.
fn of_tensor(tensor: *const c_void, body: impl FnOnce(&mut crate::elements::Tensor) -> i32) -> i32 {
    let Some(machine) = &mut *lock() else {
        return fail(DESCRIPTOR, "nothing is initialised");
    };
    match machine.tensors.get_mut(&(tensor as usize)) {
        Some(found) => body(found),
        None => fail(DESCRIPTOR, "no such tensor descriptor, or destroyed before"),
    }
}

macro_rules! getters {
    ($($name:ident $field:ident;)*) => {$(
        /// # Safety
        /// The pointers must be places to write to.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(tensor: *const c_void, dims: *mut *mut i64, count: *mut u64) -> i32 {
            // SAFETY: passed on from the caller.
            of_tensor(tensor, |tensor| unsafe { give_sizes(&tensor.$field, dims, count) })
        }
    )*};
}

getters! {
    aclGetViewShape dims;
    aclGetStorageShape storage;
    aclGetViewStrides strides;
}

/// # Safety
/// `offset` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclGetViewOffset(tensor: *const c_void, offset: *mut i64) -> i32 {
    of_tensor(tensor, |tensor| {
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *offset = tensor.offset as i64 };
        OK
    })
}

/// # Safety
/// `format` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclGetFormat(tensor: *const c_void, format: *mut i32) -> i32 {
    of_tensor(tensor, |tensor| {
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *format = tensor.format };
        OK
    })
}

/// # Safety
/// `dtype` must point to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclGetDataType(tensor: *const c_void, dtype: *mut i32) -> i32 {
    of_tensor(tensor, |tensor| {
        // SAFETY: the C contract: a pointer to write to.
        unsafe { *dtype = tensor.dtype };
        OK
    })
}

/// # Safety
/// `address` must be a place for an address.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclGetRawTensorAddr(tensor: *const c_void, address: *mut *mut c_void) -> i32 {
    if address.is_null() {
        return fail(NULL, "aclGetRawTensorAddr: no place for the address");
    }
    of_tensor(tensor, |tensor| {
        // SAFETY: checked not to be null; the C contract.
        unsafe { *address = tensor.address as *mut c_void };
        OK
    })
}

/// Holds for first phases from now on.
#[unsafe(no_mangle)]
extern "C" fn aclSetRawTensorAddr(tensor: *mut c_void, address: *mut c_void) -> i32 {
    of_tensor(tensor, |tensor| {
        tensor.address = address as usize;
        OK
    })
}
