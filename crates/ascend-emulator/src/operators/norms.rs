//! Norms joined with additions and quantisation, counts, and the change of a weight's format.

use std::ffi::c_void;

use crate::elements::{BF16, F16, F32, I8, I32, I64, Tensor, bits, round_to};
use crate::machine::{OK, fail, with};
use crate::operators::rows::quantise_row;
use crate::signature::{Arguments, Planned, Refusal, expect, kernel, operators};

const FLOATS: &[i32] = &[F32, F16, BF16];
const ND: i64 = 2;
const FRACTAL_NZ: i32 = 29;

/// x / sqrt(mean(x²) + epsilon) · gamma in f32, and the factor.
fn normed(row: &[f64], gamma: &[f64], epsilon: f32) -> (Vec<f64>, f64) {
    let squares: f32 = row.iter().map(|&value| value as f32 * value as f32).sum();
    let factor = 1.0 / (squares / row.len() as f32 + epsilon).sqrt();
    let out = row
        .iter()
        .zip(gamma)
        .map(|(&value, &gain)| f64::from(value as f32 * factor * gain as f32));
    (out.collect(), f64::from(factor))
}

fn check_gamma(x: &Tensor, gamma: &Tensor) -> Result<(), Refusal> {
    expect(
        gamma.dims == [x.width()] && [x.dtype, F32].contains(&gamma.dtype),
        "gamma must be as long as the last axis of x, of its type or float",
    )
}

fn is_row_factor(factor: &Tensor, x: &Tensor) -> bool {
    factor.dtype == F32 && factor.count() * x.width() == x.count()
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    a.dims == b.dims && a.dtype == b.dtype
}

/// The sum, rounded to the type of x as it is written, is what is normed.
fn sums(a: &[f64], b: &[f64], dtype: i32) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| round_to(a + b, dtype)).collect()
}

fn add_norm(arguments: &Arguments) -> Planned {
    arguments.types(0, FLOATS)?;
    let [x1, x2, gamma] = [arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(2)?];
    let [y, rstd, x] = [arguments.tensor(4)?, arguments.tensor(5)?, arguments.tensor(6)?];
    check_gamma(&x1, &gamma)?;
    expect(
        same(&x1, &x2) && same(&x1, &y) && same(&x1, &x),
        "x1, x2, y and x must have one shape and type",
    )?;
    expect(is_row_factor(&rstd, &x1), "rstd must be float, one number a row")?;
    let epsilon = arguments.real(3) as f32;
    kernel(move |memory| {
        let gains = gamma.load(memory)?;
        let added = sums(&x1.load(memory)?, &x2.load(memory)?, x1.dtype);
        let (rows, factors): (Vec<Vec<f64>>, Vec<f64>) = added
            .chunks_exact(x1.width())
            .map(|row| normed(row, &gains, epsilon))
            .unzip();
        y.store(memory, &rows.concat())?;
        rstd.store(memory, &factors)?;
        x.store(memory, &added)
    })
}

/// What both quantising norms share: int8 rows of the norm, times `smooth` and plus `beta` where given.
struct Quantised {
    gamma: Tensor,
    smooth: Option<Tensor>,
    beta: Option<Tensor>,
    epsilon: f32,
    y: Tensor,
    scale: Tensor,
}

impl Quantised {
    fn checked(self, x: &Tensor) -> Result<Self, Refusal> {
        check_gamma(x, &self.gamma)?;
        let fits = |part: &Option<Tensor>| part.as_ref().is_none_or(|part| part.dims == [x.width()]);
        expect(
            fits(&self.smooth) && fits(&self.beta),
            "smoothScales and beta must be as long as gamma",
        )?;
        expect(
            self.y.dims == x.dims && self.y.dtype == I8,
            "y must be int8 of the shape of x",
        )?;
        expect(is_row_factor(&self.scale, x), "scale must be float, one number a row")?;
        Ok(self)
    }

    fn write(&self, memory: &mut crate::memory::Memory, values: &[f64]) -> Result<(), String> {
        let gains = self.gamma.load(memory)?;
        let smooth = self.smooth.as_ref().map(|smooth| smooth.load(memory)).transpose()?;
        let beta = self.beta.as_ref().map(|beta| beta.load(memory)).transpose()?;
        let (mut out, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks_exact(gains.len()) {
            let (mut row, _) = normed(row, &gains, self.epsilon);
            if let Some(beta) = &beta {
                row.iter_mut().zip(beta).for_each(|(value, beta)| *value += beta);
            }
            if let Some(smooth) = &smooth {
                row.iter_mut().zip(smooth).for_each(|(value, smooth)| *value *= smooth);
            }
            let (quantised, scale) = quantise_row(&row);
            out.extend(quantised);
            scales.push(scale);
        }
        self.y.store(memory, &out)?;
        self.scale.store(memory, &scales)
    }
}

fn norm_quant(arguments: &Arguments) -> Planned {
    arguments.only_arch(2201)?;
    arguments.types(0, &[F16, BF16])?;
    expect(arguments.integer(5) == 2, "dstType 2 (int8) is emulated")?;
    let x = arguments.tensor(0)?;
    let quantised = Quantised {
        gamma: arguments.tensor(1)?,
        smooth: arguments.optional(2),
        beta: arguments.optional(3),
        epsilon: arguments.real(4) as f32,
        y: arguments.tensor(6)?,
        scale: arguments.tensor(7)?,
    }
    .checked(&x)?;
    kernel(move |memory| {
        let values = x.load(memory)?;
        quantised.write(memory, &values)
    })
}

/// The custom package's form: a second output only with a second smoothing, which is not emulated.
fn custom_norm_quant(arguments: &Arguments) -> Planned {
    arguments.types(0, &[F16, BF16])?;
    arguments.absent(&[3])?;
    expect(arguments.integer(7) == 2, "dst_type 2 (int8) is emulated")?;
    let x = arguments.tensor(0)?;
    let quantised = Quantised {
        gamma: arguments.tensor(1)?,
        smooth: arguments.optional(2),
        beta: arguments.optional(4),
        epsilon: arguments.real(5) as f32,
        y: arguments.tensor(8)?,
        scale: arguments.tensor(10)?,
    }
    .checked(&x)?;
    kernel(move |memory| {
        let values = x.load(memory)?;
        quantised.write(memory, &values)
    })
}

fn add_norm_quant(arguments: &Arguments) -> Planned {
    arguments.types(0, &[F16, BF16])?;
    arguments.absent(&[4])?;
    let (x1, x2, x) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(10)?);
    expect(
        same(&x1, &x2) && same(&x1, &x),
        "x1, x2 and x must have one shape and type",
    )?;
    let quantised = Quantised {
        gamma: arguments.tensor(2)?,
        smooth: arguments.optional(3),
        beta: arguments.optional(5),
        epsilon: arguments.real(6) as f32,
        y: arguments.tensor(8)?,
        scale: arguments.tensor(11)?,
    }
    .checked(&x1)?;
    kernel(move |memory| {
        let added = sums(&x1.load(memory)?, &x2.load(memory)?, x1.dtype);
        x.store(memory, &added)?;
        quantised.write(memory, &added)
    })
}

/// How often each number occurs, or the sum of its weights.
fn bincount(arguments: &Arguments) -> Planned {
    arguments.types(0, &[I32, I64])?;
    let (x, weights, y) = (arguments.tensor(0)?, arguments.optional(1), arguments.tensor(3)?);
    expect(
        weights.as_ref().is_none_or(|weights| weights.dims == x.dims) && x.dims.len() == 1,
        "self must have one axis, and weights its shape",
    )?;
    expect(
        y.dims.len() == 1 && y.count() as i64 >= arguments.integer(2),
        "out must have minlength elements or more",
    )?;
    expect(
        weights.is_some() || [I32, I64].contains(&y.dtype),
        "counts must be int32 or int64",
    )?;
    kernel(move |memory| {
        let numbers = x.load(memory)?;
        let weights = match &weights {
            Some(weights) => weights.load(memory)?,
            None => vec![1.0; numbers.len()],
        };
        let mut out = vec![0.0; y.count()];
        for (&number, weight) in numbers.iter().zip(weights) {
            if !(0.0..out.len() as f64).contains(&number) {
                return Err(format!("number {number} of {}", out.len()));
            }
            out[number as usize] += weight;
        }
        y.store(memory, &out)
    })
}

fn format_cast(arguments: &Arguments) -> Planned {
    let (source, target) = (arguments.tensor(0)?, arguments.tensor(1)?);
    expect(
        source.dims == target.dims && source.dtype == target.dtype,
        "both tensors must have one shape and type",
    )?;
    kernel(move |memory| {
        let values = source.load(memory)?;
        target.store(memory, &values)
    })
}

/// The storage that a weight takes in another format; the sizes are released with `free`.
///
/// # Safety
/// The last three pointers must be places to write to.
#[unsafe(no_mangle)]
unsafe extern "C" fn aclnnNpuFormatCastCalculateSizeAndFormat(
    source: *const c_void,
    format: i32,
    _additional_type: i32,
    dims: *mut *mut i64,
    count: *mut u64,
    actual: *mut i32,
) -> i32 {
    let mut shape = Vec::new();
    let code = with(|machine| {
        let Some(source) = machine.tensors.get(&(source as usize)) else {
            return fail(561103, "aclnnNpuFormatCastCalculateSizeAndFormat: no such tensor");
        };
        let rank = source.dims.len();
        shape = match (format, bits(source.dtype)) {
            (FRACTAL_NZ, Some(bits)) if rank >= 2 => {
                let (rows, columns) = (source.dims[rank - 2], source.dims[rank - 1]);
                let width = 256 / bits;
                [
                    &source.dims[..rank - 2],
                    &[columns.div_ceil(width), rows.div_ceil(16), 16, width],
                ]
                .concat()
            }
            (format, Some(_)) if i64::from(format) == ND => source.dims.clone(),
            _ => return fail(161002, format!("aclnnNpuFormatCast: format {format} is not emulated")),
        };
        OK
    });
    if code == OK {
        // SAFETY: passed on from the caller.
        unsafe {
            *actual = format;
            return crate::arrays::give_sizes(&shape, dims, count);
        }
    }
    code
}

operators! {
    aclnnAddRmsNorm aclnnAddRmsNormGetWorkspaceSize(
        x1: input, x2: input, gamma: input, epsilon: real, y: output, rstd: output, x: output
    ) => add_norm;
    aclnnRmsNormDynamicQuant aclnnRmsNormDynamicQuantGetWorkspaceSize(
        x: input, gamma: input, smooth: optional, beta: optional, epsilon: real, dtype: int64, y: output, scale: output
    ) => norm_quant;
    custom_aclnnRmsNormDynamicQuant custom_aclnnRmsNormDynamicQuantGetWorkspaceSize(
        x: input, gamma: input, smooth: optional, smooth2: optional, beta: optional, epsilon: real, mask: array,
        dtype: int64, y: output, y2: optional_output, scale: output, scale2: optional_output
    ) => custom_norm_quant;
    aclnnAddRmsNormDynamicQuantV2 aclnnAddRmsNormDynamicQuantV2GetWorkspaceSize(
        x1: input, x2: input, gamma: input, smooth: optional, smooth2: optional, beta: optional, epsilon: real,
        mask: array, y: output, y2: optional_output, x: output, scale: output, scale2: optional_output
    ) => add_norm_quant;
    aclnnBincount aclnnBincountGetWorkspaceSize(x: input, weights: optional, least: int64, out: output) => bincount;
    aclnnNpuFormatCast aclnnNpuFormatCastGetWorkspaceSize(source: input, target: output) => format_cast;
}
