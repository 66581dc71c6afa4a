//! The two C functions of each operator, made from one line per operator, and what all first phases check.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use crate::elements::{FIRST_950, Tensor};
use crate::machine::*;

const NULL: i32 = 161001;
const BAD_PARAMETER: i32 = 161002;
/// No kernel for this chip or data type.
const NO_KERNEL: i32 = 561003;
const WORKSPACE_BYTES: usize = 512;

/// Why a first phase says no.
pub struct Refusal {
    code: i32,
    text: String,
}

impl<T: Into<String>> From<T> for Refusal {
    fn from(text: T) -> Self {
        Self {
            code: BAD_PARAMETER,
            text: text.into(),
        }
    }
}

pub type Planned = Result<Kernel, Refusal>;

/// What an argument is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Input,
    Optional,
    Output,
    OptionalOutput,
    InPlace,
    OptionalInPlace,
}

/// An argument as the caller passed it.
pub enum Raw {
    Tensor(Role, usize),
    List(Role, usize),
    Scalar(usize),
    Array(usize),
    Text(*const c_char),
    Integer(i64),
    Real(f64),
}

/// An argument with its descriptor followed.
pub enum Value {
    Absent,
    Tensor(Tensor),
    List(Vec<Tensor>),
    Array(Vec<i64>),
    Text(String),
    Integer(i64),
    Real(f64),
}

/// The arguments of one call in the order of the signature.
pub struct Arguments {
    pub values: Vec<Value>,
    pub arch: u32,
    /// Chips of the A2 family lack some kernels that the A3's have.
    pub is_a2: bool,
}

impl Arguments {
    pub fn tensor(&self, index: usize) -> Result<Tensor, Refusal> {
        self.optional(index)
            .ok_or_else(|| format!("argument {index} is missing").into())
    }
    pub fn optional(&self, index: usize) -> Option<Tensor> {
        match &self.values[index] {
            Value::Tensor(tensor) => Some(tensor.clone()),
            _ => None,
        }
    }
    pub fn list(&self, index: usize) -> Vec<Tensor> {
        match &self.values[index] {
            Value::List(tensors) => tensors.clone(),
            _ => Vec::new(),
        }
    }
    pub fn array(&self, index: usize) -> Vec<i64> {
        match &self.values[index] {
            Value::Array(numbers) => numbers.clone(),
            _ => Vec::new(),
        }
    }
    pub fn integer(&self, index: usize) -> i64 {
        match self.values[index] {
            Value::Integer(number) => number,
            Value::Real(number) => number as i64,
            _ => 0,
        }
    }
    pub fn real(&self, index: usize) -> f64 {
        match self.values[index] {
            Value::Real(number) => number,
            Value::Integer(number) => number as f64,
            _ => 0.0,
        }
    }
    pub fn text(&self, index: usize) -> &str {
        match &self.values[index] {
            Value::Text(text) => text,
            _ => "",
        }
    }
    /// An axis that may count from the end.
    pub fn axis(&self, index: usize, rank: usize) -> Result<usize, Refusal> {
        let axis = self.integer(index);
        let found = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(found)
            .ok()
            .filter(|&axis| axis < rank)
            .ok_or_else(|| format!("axis {axis} of {rank}").into())
    }
    /// The argument must be absent: the emulator (or the chip) has no such form.
    pub fn absent(&self, indices: &[usize]) -> Result<(), Refusal> {
        match indices
            .iter()
            .find(|&&index| matches!(&self.values[index], Value::Tensor(_) | Value::List(_)))
        {
            Some(index) => Err(format!("argument {index} must be null in the emulated forms").into()),
            None => Ok(()),
        }
    }
    /// The tensor's type must be one of `allowed`.
    pub fn types(&self, index: usize, allowed: &[i32]) -> Result<(), Refusal> {
        match self.optional(index) {
            Some(tensor) if !allowed.contains(&tensor.dtype) => {
                Err(format!("argument {index}: data type {} is none of {allowed:?}", tensor.dtype).into())
            }
            _ => Ok(()),
        }
    }
    pub fn only_arch(&self, arch: u32) -> Result<(), Refusal> {
        match self.arch == arch {
            true => Ok(()),
            false => Err(Refusal {
                code: NO_KERNEL,
                text: format!("no kernel for architecture {}", self.arch),
            }),
        }
    }
}

/// `Ok` when `holds`.
pub fn expect(holds: bool, text: &str) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(text.into()) }
}

pub fn kernel(body: impl Fn(&mut crate::memory::Memory) -> Result<(), String> + Send + Sync + 'static) -> Planned {
    Ok(Arc::new(body))
}

/// The first phase.
pub fn prepare(
    operator: &'static str,
    raw: Vec<Raw>,
    plan: fn(&Arguments) -> Planned,
    workspace: *mut u64,
    executor: *mut *mut c_void,
) -> i32 {
    with(|machine| {
        if workspace.is_null() || executor.is_null() {
            return fail(
                NULL,
                format!("{operator}: no place for the workspace's size or the executor"),
            );
        }
        if std::env::var("CACHALOT_ASCEND_EMULATOR_WITHOUT")
            .is_ok_and(|names| names.split(',').any(|name| name == operator))
        {
            return fail(NO_KERNEL, format!("{operator}: no kernel found (injected fault)"));
        }
        let made = resolve(machine, &raw).and_then(|(values, used)| {
            let kernel = plan(&Arguments {
                values,
                arch: machine.chip.arch,
                is_a2: machine.chip.soc == c"Ascend910B3",
            })?;
            Ok((kernel, used))
        });
        let (kernel, descriptors) = match made {
            Ok(made) => made,
            Err(Refusal { code, text }) => return fail(code, format!("{operator}: {text}")),
        };
        let handle = machine.handle();
        let made = Executor {
            operator,
            descriptors,
            workspace_bytes: WORKSPACE_BYTES,
            kernel,
            repeatable: false,
        };
        machine.executors.insert(handle, made);
        // SAFETY: checked not to be null; the C contract gives pointers to write to.
        unsafe {
            *workspace = WORKSPACE_BYTES as u64;
            *executor = handle as *mut c_void;
        }
        OK
    })
}

type Resolved = (Vec<Value>, Vec<usize>);

fn resolve(machine: &mut Machine, raw: &[Raw]) -> Result<Resolved, Refusal> {
    let (mut values, mut used, mut spans) = (Vec::new(), Vec::new(), Vec::new());
    for (index, argument) in raw.iter().enumerate() {
        let null = || Refusal {
            code: NULL,
            text: format!("argument {index} is null"),
        };
        values.push(match *argument {
            Raw::Tensor(Role::Optional | Role::OptionalOutput | Role::OptionalInPlace, 0)
            | Raw::List(Role::Optional | Role::OptionalOutput, 0) => Value::Absent,
            Raw::Tensor(_, 0) | Raw::List(_, 0) | Raw::Scalar(0) => return Err(null()),
            // Clients pass a tensor without elements for an argument that is left out.
            Raw::Tensor(Role::Optional, handle)
                if machine
                    .tensors
                    .get(&handle)
                    .is_some_and(|tensor| tensor.dims.contains(&0)) =>
            {
                Value::Absent
            }
            Raw::Tensor(role, handle) => {
                used.push(handle);
                let tensor = follow(machine, index, handle)?;
                spans.push((index, role, tensor.clone()));
                Value::Tensor(tensor)
            }
            Raw::List(role, handle) => {
                used.push(handle);
                let members = machine
                    .lists
                    .get(&handle)
                    .cloned()
                    .ok_or_else(|| format!("argument {index} is no tensor list"))?;
                let tensors = members
                    .iter()
                    .map(|&member| follow(machine, index, member))
                    .collect::<Result<Vec<_>, _>>()?;
                spans.extend(tensors.iter().map(|tensor| (index, role, tensor.clone())));
                Value::List(tensors)
            }
            Raw::Scalar(handle) => Value::Real(
                *machine
                    .scalars
                    .get(&handle)
                    .ok_or_else(|| format!("argument {index} is no scalar"))?,
            ),
            Raw::Array(0) => Value::Absent,
            Raw::Array(handle) => Value::Array(
                machine
                    .arrays
                    .get(&handle)
                    .cloned()
                    // Flags are as good as numbers.
                    .or_else(|| Some(machine.reals.get(&handle)?.iter().map(|&real| real as i64).collect()))
                    .ok_or_else(|| format!("argument {index} is no array"))?,
            ),
            Raw::Text(text) if text.is_null() => Value::Absent,
            // SAFETY: the C contract: a text that ends with 0.
            Raw::Text(text) => Value::Text(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()),
            Raw::Integer(number) => Value::Integer(number),
            Raw::Real(number) => Value::Real(number),
        });
    }
    overlaps(&spans)?;
    Ok((values, used))
}

/// The descriptor, and whether its memory can be what it says on this chip.
fn follow(machine: &mut Machine, index: usize, handle: usize) -> Result<Tensor, Refusal> {
    let tensor = machine
        .tensors
        .get(&handle)
        .cloned()
        .ok_or_else(|| format!("argument {index}: the tensor was destroyed"))?;
    if tensor.dtype >= FIRST_950 && machine.chip.arch == 2201 {
        return Err(format!(
            "argument {index}: data type {} does not exist on this chip",
            tensor.dtype
        )
        .into());
    }
    if let Some(flaw) = tensor.flaw() {
        return Err(format!("argument {index}: {flaw}").into());
    }
    let extent = tensor
        .extent()
        .ok_or_else(|| format!("argument {index}: the view overflows"))?;
    if extent > 0 && machine.memory.range(tensor.address, extent).is_none() {
        return Err(format!("argument {index}: the view leaves device memory that is allocated").into());
    }
    Ok(tensor)
}

/// Outputs must not lie on other arguments; an in-place argument is both.
fn overlaps(spans: &[(usize, Role, Tensor)]) -> Result<(), Refusal> {
    let written = |role| {
        matches!(
            role,
            Role::Output | Role::OptionalOutput | Role::InPlace | Role::OptionalInPlace
        )
    };
    let ends = |tensor: &Tensor| {
        (
            tensor.address + tensor.lead(),
            tensor.address + tensor.extent().unwrap_or(0),
        )
    };
    for (position, (index, role, output)) in spans.iter().enumerate().filter(|(_, span)| written(span.1)) {
        let (start, end) = ends(output);
        for (other, other_role, tensor) in &spans[..position] {
            let (other_start, other_end) = ends(tensor);
            // A state that is passed again as its own output is one in-place argument named twice.
            let is_same =
                *other_role == Role::InPlace && *role == Role::Output && (start, end) == (other_start, other_end);
            if start < other_end && other_start < end && !is_same {
                return Err(format!("output argument {index} overlaps argument {other}").into());
            }
        }
        for (other, other_role, tensor) in &spans[position + 1..] {
            let (other_start, other_end) = ends(tensor);
            if !written(*other_role) && start < other_end && other_start < end {
                return Err(format!("output argument {index} overlaps argument {other}").into());
            }
        }
    }
    Ok(())
}

/// The C type of one kind of argument.
macro_rules! c_type {
    (int8) => { i8 };
    (int32) => { i32 };
    (int64) => { i64 };
    (real) => { f64 };
    (real32) => { f32 };
    (flag) => { bool };
    (text) => { *const std::ffi::c_char };
    ($descriptor:ident) => { *const std::ffi::c_void };
}

/// The argument in the form that `prepare` takes.
macro_rules! raw {
    (input $value:ident) => {
        $crate::signature::Raw::Tensor($crate::signature::Role::Input, $value as usize)
    };
    (optional $value:ident) => {
        $crate::signature::Raw::Tensor($crate::signature::Role::Optional, $value as usize)
    };
    (output $value:ident) => {
        $crate::signature::Raw::Tensor($crate::signature::Role::Output, $value as usize)
    };
    (optional_output $value:ident) => {
        $crate::signature::Raw::Tensor($crate::signature::Role::OptionalOutput, $value as usize)
    };
    (in_place $value:ident) => {
        $crate::signature::Raw::Tensor($crate::signature::Role::InPlace, $value as usize)
    };
    (optional_in_place $value:ident) => {
        $crate::signature::Raw::Tensor($crate::signature::Role::OptionalInPlace, $value as usize)
    };
    (list $value:ident) => {
        $crate::signature::Raw::List($crate::signature::Role::Input, $value as usize)
    };
    (optional_list $value:ident) => {
        $crate::signature::Raw::List($crate::signature::Role::Optional, $value as usize)
    };
    (output_list $value:ident) => {
        $crate::signature::Raw::List($crate::signature::Role::Output, $value as usize)
    };
    (optional_output_list $value:ident) => {
        $crate::signature::Raw::List($crate::signature::Role::OptionalOutput, $value as usize)
    };
    (scalar $value:ident) => {
        $crate::signature::Raw::Scalar($value as usize)
    };
    (array $value:ident) => {
        $crate::signature::Raw::Array($value as usize)
    };
    (text $value:ident) => {
        $crate::signature::Raw::Text($value)
    };
    (real $value:ident) => {
        $crate::signature::Raw::Real($value)
    };
    (real32 $value:ident) => {
        $crate::signature::Raw::Real(f64::from($value))
    };
    ($integer:ident $value:ident) => {
        $crate::signature::Raw::Integer(i64::from($value))
    };
}

/// `name, first phase's name (argument: kind, …) => plan;` for each operator; the module's `NAMES` lists them.
macro_rules! operators {
    ($($name:ident $first:ident ($($argument:ident: $kind:ident),*) => $plan:expr;)*) => {
    $(
        #[unsafe(no_mangle)]
        extern "C" fn $first(
            $($argument: $crate::signature::c_type!($kind),)*
            workspace: *mut u64,
            executor: *mut *mut std::ffi::c_void,
        ) -> i32 {
            let raw = vec![$($crate::signature::raw!($kind $argument)),*];
            $crate::signature::prepare(stringify!($name), raw, $plan, workspace, executor)
        }

        #[unsafe(no_mangle)]
        extern "C" fn $name(
            workspace: *mut std::ffi::c_void,
            bytes: u64,
            executor: *mut std::ffi::c_void,
            stream: *mut std::ffi::c_void,
        ) -> i32 {
            $crate::opbase::launch(stringify!($name), workspace as usize, bytes, executor as usize, stream as usize)
        }
    )*

        /// The operators of this module.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

pub(crate) use {c_type, operators, raw};
