//! The operators: first phases with their tables, and their arithmetic (sums in f32, results rounded once).

use std::ffi::c_void;

use crate::machine::*;
use crate::memory::Memory;
use crate::opbase::{BF16, F32, launch};

const NULL: i32 = 161001;
const BAD_PARAMETER: i32 = 161002;
const ND: i32 = 2;
const WORKSPACE_BYTES: usize = 512;
/// The first number of the types that only the 950 knows.
const FIRST_950_DTYPE: i32 = 34;

fn load(memory: &mut Memory, tensor: &Tensor) -> Result<Vec<f32>, String> {
    let bytes = memory.range(tensor.address, tensor.bytes()).ok_or("a tensor's memory was freed or is too small")?;
    Ok(match tensor.dtype {
        BF16 => bytes
            .chunks_exact(2)
            .map(|pair| f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16))
            .collect(),
        _ => bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect(),
    })
}

/// Round to nearest, ties to even.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

fn store(memory: &mut Memory, tensor: &Tensor, values: &[f32]) -> Result<(), String> {
    let bytes = memory.range(tensor.address, tensor.bytes()).ok_or("an output's memory was freed or is too small")?;
    match tensor.dtype {
        BF16 => bytes.chunks_exact_mut(2).zip(values).for_each(|(to, &value)| to.copy_from_slice(&bf16(value).to_le_bytes())),
        _ => bytes.chunks_exact_mut(4).zip(values).for_each(|(to, &value)| to.copy_from_slice(&value.to_le_bytes())),
    }
    Ok(())
}

/// Descriptors of one call, inputs first.
struct Call {
    operator: &'static str,
    handles: Vec<usize>,
    outputs: usize,
}

type Plan = fn(&[Tensor], f64) -> Result<Kernel, String>;

impl Call {
    /// The first phase: checks what all operators share, then what `plan` asks of the shapes.
    fn prepare(self, attribute: f64, plan: Plan, workspace: *mut u64, executor: *mut *mut c_void) -> i32 {
        let operator = self.operator;
        with(|machine| {
            if workspace.is_null() || executor.is_null() || self.handles.contains(&0) {
                return fail(NULL, format!("{operator}: a null argument"));
            }
            let found = self.handles.iter().map(|handle| machine.tensors.get(handle).cloned()).collect();
            let Some(tensors): Option<Vec<Tensor>> = found else {
                return fail(BAD_PARAMETER, format!("{operator}: a tensor was destroyed"));
            };
            let planned = self.check(machine, &tensors).and_then(|()| plan(&tensors, attribute));
            let kernel = match planned {
                Ok(kernel) => kernel,
                Err(text) => return fail(BAD_PARAMETER, format!("{operator}: {text}")),
            };
            let handle = machine.handle();
            let descriptors = self.handles;
            let made = Executor { operator, descriptors, workspace_bytes: WORKSPACE_BYTES, kernel };
            machine.executors.insert(handle, made);
            // SAFETY: checked not to be null; the C contract gives pointers to write to.
            unsafe {
                *workspace = WORKSPACE_BYTES as u64;
                *executor = handle as *mut c_void;
            }
            OK
        })
    }

    fn check(&self, machine: &mut Machine, tensors: &[Tensor]) -> Result<(), String> {
        for (index, tensor) in tensors.iter().enumerate() {
            if tensor.dtype >= FIRST_950_DTYPE && machine.chip.arch == 2201 {
                return Err(format!("argument {index}: data type {} does not exist on this chip", tensor.dtype));
            }
            if tensor.dtype != F32 && tensor.dtype != BF16 {
                return Err(format!("argument {index}: data type {} is none of float, bf16", tensor.dtype));
            }
            if tensor.format != ND || !tensor.contiguous {
                return Err(format!("argument {index}: the emulator takes contiguous ND tensors only"));
            }
            if !tensor.address.is_multiple_of(32) {
                return Err(format!("argument {index}: the address is not aligned to 32 bytes"));
            }
            if machine.memory.range(tensor.address, tensor.bytes()).is_none() {
                return Err(format!("argument {index}: the view leaves device memory that is allocated"));
            }
        }
        let first_output = tensors.len() - self.outputs;
        for (index, output) in tensors.iter().enumerate().skip(first_output) {
            let overlaps = |other: &Tensor| {
                output.address < other.address + other.bytes() && other.address < output.address + output.bytes()
            };
            if let Some(other) = tensors[..index].iter().position(overlaps) {
                return Err(format!("output argument {index} overlaps argument {other}"));
            }
        }
        Ok(())
    }
}

fn expect(holds: bool, text: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(text.to_owned()) }
}

/// y = x / sqrt(mean(x²) + epsilon) · gamma over the last axis; rstd is the f32 factor of each row.
fn plan_rms_norm(tensors: &[Tensor], epsilon: f64) -> Result<Kernel, String> {
    let [x, gamma, y, rstd] = <[Tensor; 4]>::try_from(tensors.to_vec()).map_err(|_| "four tensors")?;
    let width = x.dims[x.dims.len() - 1];
    expect(width > 0 && gamma.dims == [width], "gamma must be as long as the last axis of x")?;
    expect(y.dims == x.dims && y.dtype == x.dtype, "y must have the shape and type of x")?;
    expect(rstd.dtype == F32 && rstd.count() * width == x.count(), "rstd must be float, one number a row")?;
    Ok(Box::new(move |memory| {
        let (values, scales) = (load(memory, &x)?, load(memory, &gamma)?);
        let mut factors = Vec::new();
        let mut out = Vec::with_capacity(values.len());
        for row in values.chunks_exact(width) {
            let mean = row.iter().map(|value| value * value).sum::<f32>() / width as f32;
            let factor = 1.0 / (mean + epsilon as f32).sqrt();
            out.extend(row.iter().zip(&scales).map(|(value, scale)| value * factor * scale));
            factors.push(factor);
        }
        store(memory, &y, &out)?;
        store(memory, &rstd, &factors)
    }))
}

/// out[m, n] = Σ self[m, k] · mat2[k, n].
fn plan_mm(tensors: &[Tensor], _: f64) -> Result<Kernel, String> {
    let [left, right, out] = <[Tensor; 3]>::try_from(tensors.to_vec()).map_err(|_| "three tensors")?;
    let ([m, k], [k2, n]) = (&left.dims[..], &right.dims[..]) else { return Err("self and mat2 must be matrices".to_owned()) };
    let (m, k, n) = (*m, *k, *n);
    expect(k == *k2 && out.dims == [m, n], "shapes must be [m, k], [k, n], [m, n]")?;
    expect(left.dtype == right.dtype && left.dtype == out.dtype, "types must be equal")?;
    Ok(Box::new(move |memory| {
        let (a, b) = (load(memory, &left)?, load(memory, &right)?);
        let mut sums = vec![0_f32; m * n];
        for row in 0..m {
            for inner in 0..k {
                let factor = a[row * k + inner];
                let sums = &mut sums[row * n..(row + 1) * n];
                sums.iter_mut().zip(&b[inner * n..(inner + 1) * n]).for_each(|(sum, value)| *sum += factor * value);
            }
        }
        store(memory, &out, &sums)
    }))
}

/// out = silu(first half) · second half, halves of the last axis.
fn plan_swi_glu(tensors: &[Tensor], dim: f64) -> Result<Kernel, String> {
    let [x, out] = <[Tensor; 2]>::try_from(tensors.to_vec()).map_err(|_| "two tensors")?;
    let rank = x.dims.len();
    let width = x.dims[rank - 1];
    expect(dim == -1.0 || dim == rank as f64 - 1.0, "the emulator splits the last axis only")?;
    expect(width > 0 && width.is_multiple_of(2), "the last axis of x must be even")?;
    let halved = [&x.dims[..rank - 1], &[width / 2]].concat();
    expect(out.dims == halved && out.dtype == x.dtype, "out must be half of x, of its type")?;
    Ok(Box::new(move |memory| {
        let values = load(memory, &x)?;
        let mut result = Vec::with_capacity(values.len() / 2);
        for row in values.chunks_exact(width) {
            let (gate, up) = row.split_at(width / 2);
            result.extend(gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up));
        }
        store(memory, &out, &result)
    }))
}

type Handle = *const c_void;

#[unsafe(no_mangle)]
extern "C" fn aclnnRmsNormGetWorkspaceSize(
    x: Handle,
    gamma: Handle,
    epsilon: f64,
    y: Handle,
    rstd: Handle,
    workspace: *mut u64,
    executor: *mut *mut c_void,
) -> i32 {
    let handles = [x, gamma, y, rstd].map(|handle| handle as usize).to_vec();
    Call { operator: "aclnnRmsNorm", handles, outputs: 2 }.prepare(epsilon, plan_rms_norm, workspace, executor)
}

#[unsafe(no_mangle)]
extern "C" fn aclnnMmGetWorkspaceSize(
    left: Handle,
    right: Handle,
    out: Handle,
    _cube_math_type: i8,
    workspace: *mut u64,
    executor: *mut *mut c_void,
) -> i32 {
    let handles = [left, right, out].map(|handle| handle as usize).to_vec();
    Call { operator: "aclnnMm", handles, outputs: 1 }.prepare(0.0, plan_mm, workspace, executor)
}

#[unsafe(no_mangle)]
extern "C" fn aclnnSwiGluGetWorkspaceSize(
    x: Handle,
    dim: i64,
    out: Handle,
    workspace: *mut u64,
    executor: *mut *mut c_void,
) -> i32 {
    let handles = [x, out].map(|handle| handle as usize).to_vec();
    Call { operator: "aclnnSwiGlu", handles, outputs: 1 }.prepare(dim as f64, plan_swi_glu, workspace, executor)
}

macro_rules! second_phase {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(workspace: *mut c_void, bytes: u64, executor: *mut c_void, stream: *mut c_void) -> i32 {
            launch(stringify!($name), workspace as usize, bytes, executor as usize, stream as usize)
        }
    )*};
}

second_phase!(aclnnRmsNorm aclnnMm aclnnSwiGlu);
