//! Speed of the fast kernels at the shapes of V4-Flash, beside what this machine can do at most.
//!
//! `cargo bench -p cachalot-chip-cpu` prints the best of several runs; other programs on the machine only lower them.
//! An argument that is the name of a kernel set (`avx2`) takes these instead of the best; another one runs only the lines
//! whose name contains it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cachalot_chip::{
    AttendEntries, Attention, Chip, ChipTransfer, Entries, HyperMix, HyperPost, Linear, LinearRounding, Matrix,
    MatrixSource, Mode, Operation, RowFormat, Rows, SelectEntries, Tensor,
};
use cachalot_chip_cpu::{CpuChip, CpuOptions, Kernels};
use cachalot_numerics::{Dtype, IntegerWidth, MatrixFormat, bf16, e4m3};

/// Weights of a measurement of memory speed are taken in turns from this much memory, beyond all caches of one core.
const FOOTPRINT_BYTES: usize = 400 << 20;
/// How long each line is measured.
const TIME: Duration = Duration::from_millis(1500);

fn main() {
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let (sets, filters): (Vec<_>, Vec<_>) = arguments.partition(|argument| argument.parse::<Kernels>().is_ok());
    let filter = filters.into_iter().next();
    let mut options = CpuOptions::default();
    if let Some(kernels) = sets.first().and_then(|name| name.parse::<Kernels>().ok()) {
        assert!(kernels.is_available(), "this machine cannot run the kernels {kernels}");
        options.kernels = kernels;
    }
    let chip = CpuChip::new(options);
    println!("{}", chip.description().details);
    let ceilings = Ceilings::measure(options.threads, options.kernels);
    println!(
        "ceilings: streaming read {:.1} GB/s, f32 multiply-add {:.1} GFLOP/s\n",
        ceilings.gigabytes_per_second, ceilings.gigaflops_per_second
    );
    println!(
        "{:32} {:>5} {:>10} {:>8} {:>8}  of ceiling",
        "product", "rows", "time", "GB/s", "GFLOP/s"
    );
    let shapes = [
        ("FP8 wq_b 32768x1024", MatrixFormat::FP8, 32768, 1024),
        ("FP8 wq_a 1024x4096", MatrixFormat::FP8, 1024, 4096),
        ("FP4 expert w1 2048x4096", MatrixFormat::FP4, 2048, 4096),
        ("FP4 expert w2 4096x2048", MatrixFormat::FP4, 4096, 2048),
        ("BF16 head 4096x4096 (a part)", MatrixFormat::Bf16, 4096, 4096),
        ("F32 4096x4096", MatrixFormat::F32, 4096, 4096),
        (
            "int4 wq_b 32768x1024",
            MatrixFormat::Integer(IntegerWidth::Int4),
            32768,
            1024,
        ),
        (
            "int4 wq_a 1024x4096",
            MatrixFormat::Integer(IntegerWidth::Int4),
            1024,
            4096,
        ),
        (
            "int6 wq_b 32768x1024",
            MatrixFormat::Integer(IntegerWidth::Int6),
            32768,
            1024,
        ),
        (
            "int8 head 4096x4096 (a part)",
            MatrixFormat::Integer(IntegerWidth::Int8),
            4096,
            4096,
        ),
    ];
    for (name, format, rows, columns) in shapes {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let bench = Bench::new(&chip, format, rows, columns);
        for x_count in [1, 8, 12] {
            bench.report(name, x_count, &ceilings);
        }
        for x_count in [64, 512] {
            // Part of the rows: a run that is longer than a time slice is never undisturbed on a shared machine.
            let rows = rows.min(FLOPS_MAX / 2 / columns / x_count / 32 * 32);
            Bench::new(&chip, format, rows, columns).report(&format!("  {rows} rows of it"), x_count, &ceilings);
        }
    }
    if filter.is_none_or(|filter| "sequence".contains(filter.as_str())) {
        println!("\none sequence at position 8192");
        for row_count in [1, 8] {
            report_attention(&chip, row_count, 8192, &ceilings);
            report_hyper(&chip, row_count, &ceilings);
        }
    }
}

/// Largest product that is timed with many activation rows.
const FLOPS_MAX: usize = 300_000_000;

/// Dimensions of V4-Flash.
const HEADS: usize = 64;
const WIDTH: usize = 512;
const TAIL: usize = 64;
const WINDOW: usize = 128;
const CHOSEN: usize = 512;
const INDEX_HEADS: usize = 64;
const INDEX_WIDTH: usize = 128;
const RATIO: usize = 4;
const STREAMS: usize = 4;
const HIDDEN: usize = 4096;

/// One layer's indexer and attention for `row_count` rows of one sequence at `position`.
fn report_attention(chip: &CpuChip, row_count: usize, position: usize, ceilings: &Ceilings) {
    let entry_count = (position + row_count) / RATIO;
    let positions: Vec<i32> = (position..position + row_count).map(|p| p as i32).collect();
    let [positions, sequences] = [positions, vec![0; row_count]].map(|values| i32s(chip, &[row_count], &values));
    let (first_rows, slots) = (i32s(chip, &[2], &[0, row_count as i32]), i32s(chip, &[1], &[0]));
    let rows = Rows {
        positions: &positions,
        sequences: &sequences,
        first_rows: &first_rows,
        slots: &slots,
    };
    let page_table = i32s(chip, &[1, 1], &[0]);
    let in_pool = |pool, format, width| Entries {
        pool,
        page_table: &page_table,
        format,
        width,
        tail: TAIL,
        ratio: RATIO,
    };
    let keys = u8s(chip, &[1, entry_count, 68]);
    let selected = chip.allocate(Dtype::I32, &[row_count, CHOSEN]).expect("memory");
    let select = SelectEntries {
        rows,
        query: &f32s(chip, &[row_count, INDEX_HEADS, INDEX_WIDTH]),
        weights: &f32s(chip, &[row_count, INDEX_HEADS]),
        scale: 0.01,
        keys: in_pool(&keys, RowFormat::Fp4Hadamard, INDEX_WIDTH),
        selected: &selected,
    };
    let flops = 2.0 * (row_count * entry_count * INDEX_HEADS * INDEX_WIDTH) as f64;
    report_operator(
        chip,
        "indexer, 64 heads of 128",
        row_count,
        flops,
        &select.into(),
        ceilings,
    );
    let entries = u8s(chip, &[1, entry_count, 584]);
    let attention = Attention {
        rows,
        query: &f32s(chip, &[row_count, HEADS, WIDTH]),
        fresh: &u8s(chip, &[row_count, 584]),
        tail: &u8s(chip, &[1, WINDOW, 584]),
        format: RowFormat::Fp8Tail,
        rotary: TAIL,
        window: WINDOW,
        entries: Some(AttendEntries {
            entries: in_pool(&entries, RowFormat::Fp8Tail, WIDTH),
            selected: Some(&selected),
        }),
        sink: &f32s(chip, &[HEADS]),
        scale: 0.04,
        out: &f32s(chip, &[row_count, HEADS, WIDTH]),
    };
    let flops = 4.0 * (row_count * HEADS * WIDTH * (WINDOW + CHOSEN.min(entry_count))) as f64;
    report_operator(
        chip,
        "attention, 128 + 512 keys",
        row_count,
        flops,
        &attention.into(),
        ceilings,
    );
}

/// The hyper-connection around one block.
fn report_hyper(chip: &CpuChip, row_count: usize, ceilings: &Ceilings) {
    let mixes = (2 + STREAMS) * STREAMS;
    let streams = f32s(chip, &[row_count, STREAMS, HIDDEN]);
    let (input, post) = (f32s(chip, &[row_count, HIDDEN]), f32s(chip, &[row_count, STREAMS]));
    let comb = f32s(chip, &[row_count, STREAMS, STREAMS]);
    let mix = HyperMix {
        streams: &streams,
        function: &f32s(chip, &[mixes, STREAMS * HIDDEN]),
        scale: &f32s(chip, &[3]),
        base: &f32s(chip, &[mixes]),
        sinkhorn_iterations: 20,
        epsilon: 1e-6,
        norm_epsilon: 1e-6,
        input: &input,
        post: &post,
        comb: &comb,
    };
    let flops = 2.0 * (row_count * STREAMS * HIDDEN * (mixes + 2)) as f64;
    report_operator(chip, "hyper-connection mix", row_count, flops, &mix.into(), ceilings);
    let hyper_post = HyperPost {
        y: &input,
        post: &post,
        comb: &comb,
        streams: &streams,
    };
    let flops = 2.0 * (row_count * STREAMS * HIDDEN * (STREAMS + 1)) as f64;
    report_operator(
        chip,
        "hyper-connection post",
        row_count,
        flops,
        &hyper_post.into(),
        ceilings,
    );
}

fn f32s(chip: &CpuChip, shape: &[usize]) -> Tensor {
    let tensor = chip.allocate(Dtype::F32, shape).expect("memory");
    let values: Vec<f32> = (0..tensor.element_count())
        .map(|i| (i % 17) as f32 / 8.0 - 1.0)
        .collect();
    chip.write_f32(&tensor, &values).expect("the shape fits");
    tensor
}

fn i32s(chip: &CpuChip, shape: &[usize], values: &[i32]) -> Tensor {
    let tensor = chip.allocate(Dtype::I32, shape).expect("memory");
    chip.write_i32(&tensor, values).expect("the shape fits");
    tensor
}

fn u8s(chip: &CpuChip, shape: &[usize]) -> Tensor {
    let tensor = chip.allocate(Dtype::U8, shape).expect("memory");
    chip.write(&tensor, &vec![0x38; tensor.byte_count()])
        .expect("the shape fits");
    tensor
}

fn report_operator(
    chip: &CpuChip,
    name: &str,
    row_count: usize,
    flops: f64,
    operation: &Operation<'_>,
    ceilings: &Ceilings,
) {
    let seconds = best_seconds(1, |_| chip.enqueue(Mode::Fast, operation).expect("a sound operator"));
    let computed = flops / seconds / 1e9;
    println!(
        "{name:32} {row_count:5} {:7.3} ms {:8} {computed:8.1}  {:3.0} % of multiply-add",
        seconds * 1e3,
        "",
        100.0 * computed / ceilings.gigaflops_per_second
    );
}

struct Bench<'a> {
    chip: &'a CpuChip,
    /// Copies, so that a product finds its weights in memory and not in a cache.
    matrices: Vec<Matrix>,
    byte_count: usize,
}

impl<'a> Bench<'a> {
    fn new(chip: &'a CpuChip, format: MatrixFormat, rows: usize, columns: usize) -> Self {
        let weight_byte_count = rows * format.row_byte_count(columns);
        let byte_count = format.byte_count(rows, columns);
        let source = || MatrixSource {
            name: "bench".to_owned(),
            rows,
            columns,
            format,
            weights: weights(format, weight_byte_count),
            // A scale far from one in every format, and one that each format has.
            scales: Bytes::from(vec![120; byte_count - weight_byte_count]),
        };
        let count = FOOTPRINT_BYTES.div_ceil(byte_count);
        let matrices = (0..count).map(|_| chip.load_matrix(source()).expect("a sound matrix"));
        Bench {
            chip,
            matrices: matrices.collect(),
            byte_count,
        }
    }

    fn report(&self, name: &str, x_count: usize, ceilings: &Ceilings) {
        let (rows, columns) = (self.matrices[0].rows(), self.matrices[0].columns());
        let x = self.chip.allocate(Dtype::F32, &[x_count, columns]).expect("memory");
        let out = self.chip.allocate(Dtype::F32, &[x_count, rows]).expect("memory");
        let values: Vec<f32> = (0..x_count * columns).map(|index| (index % 17) as f32 - 8.0).collect();
        self.chip.write_f32(&x, &values).expect("the shape fits");
        let seconds = best_seconds(self.matrices.len(), |index| {
            self.multiply(&self.matrices[index], &x, &out)
        });
        let flops = 2.0 * (rows * columns * x_count) as f64;
        let (read, computed) = (self.byte_count as f64 / seconds / 1e9, flops / seconds / 1e9);
        println!(
            "{name:32} {x_count:5} {:7.3} ms {read:8.2} {computed:8.1}  {:3.0} % of bandwidth, {:3.0} % of multiply-add",
            seconds * 1e3,
            100.0 * read / ceilings.gigabytes_per_second,
            100.0 * computed / ceilings.gigaflops_per_second
        );
    }

    fn multiply(&self, weight: &Matrix, x: &Tensor, out: &Tensor) {
        let linear = Linear {
            x,
            weight,
            rounding: LinearRounding::F32,
            out,
        };
        self.chip.enqueue(Mode::Fast, &linear.into()).expect("a sound product");
    }
}

/// Ordinary values. Subnormal ones would measure the processor's microcode.
fn weights(format: MatrixFormat, byte_count: usize) -> Bytes {
    let values = (0..byte_count).map(|index| (index * 37 % 113) as f32 / 64.0 + 0.01);
    match format {
        MatrixFormat::F32 => values.take(byte_count / 4).flat_map(f32::to_le_bytes).collect(),
        MatrixFormat::Bf16 => values
            .take(byte_count / 2)
            .flat_map(|value| bf16::encode(value).to_le_bytes())
            .collect(),
        MatrixFormat::Fp8Block { .. } => values.map(e4m3::encode).collect(),
        _ => (0..byte_count).map(|index| (index * 37 % 256) as u8).collect(),
    }
}

/// Best time of `run(0)`, `run(1)`, ... in turns, once through all before the clock starts.
fn best_seconds(count: usize, run: impl Fn(usize)) -> f64 {
    (0..count).for_each(&run);
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    for index in (0..count).cycle() {
        let before = Instant::now();
        run(index);
        best = best.min(before.elapsed().as_secs_f64());
        if start.elapsed() > TIME {
            break;
        }
    }
    best
}

/// What all threads together can do.
struct Ceilings {
    gigabytes_per_second: f64,
    gigaflops_per_second: f64,
}

impl Ceilings {
    fn measure(threads: usize, kernels: Kernels) -> Self {
        let memory = vec![1u64; FOOTPRINT_BYTES / 8];
        // Windows of the size of a large matrix, as the products read them.
        let windows: Vec<&[u64]> = memory.chunks_exact((32 << 20) / 8).collect();
        let seconds = best_seconds(windows.len(), |index| {
            on_threads(threads, |thread| {
                let part = windows[index].len() / threads;
                read_all(&windows[index][thread * part..][..part])
            });
        });
        let gigabytes_per_second = (32 << 20) as f64 / seconds / 1e9;
        let mut flops = 0.0;
        let is_wide = kernels >= Kernels::Avx512;
        let seconds = best_seconds(1, |_| on_threads(threads, |_| multiply_add(1 << 20, is_wide) as u64));
        flops += threads as f64 * f64::from(1 << 20) * FLOPS_PER_ROUND * if is_wide { 2.0 } else { 1.0 };
        Ceilings {
            gigabytes_per_second,
            gigaflops_per_second: flops / seconds / 1e9,
        }
    }
}

fn on_threads(threads: usize, work: impl Fn(usize) -> u64 + Sync) {
    std::thread::scope(|scope| {
        for thread in 1..threads {
            let work = &work;
            scope.spawn(move || black_box(work(thread)));
        }
        black_box(work(0));
    });
}

fn read_all(values: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { read_all_avx2(values) };
    }
    values.iter().fold(0, |sum, value| sum ^ value)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_all_avx2(values: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    for block in values.as_chunks::<32>().0 {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane ^= value;
        }
    }
    lanes.iter().fold(0, |sum, lane| sum ^ lane)
}

/// Twelve sums of eight lanes, two operations each.
const FLOPS_PER_ROUND: f64 = 12.0 * 8.0 * 2.0;

/// `is_wide`: with vectors of 16 lanes, which the processor has.
fn multiply_add(rounds: usize, is_wide: bool) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_wide && is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512.
        return unsafe { multiply_add_avx512(rounds) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    assert!(!is_wide, "this processor has no AVX-512");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe { multiply_add_avx2(rounds) };
    }
    let mut sums = [0.0f32; 96];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = *sum * 0.5 + 1.0;
        }
    }
    sums.iter().sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_add_avx2(rounds: usize) -> f32 {
    use std::arch::x86_64::{_mm256_add_ps, _mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps};
    let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(1.0)));
    let mut sums = [_mm256_set1_ps(0.0); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    _mm256_cvtss_f32(
        sums.into_iter()
            .reduce(|a, b| _mm256_add_ps(a, b))
            .expect("twelve sums"),
    )
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn multiply_add_avx512(rounds: usize) -> f32 {
    use std::arch::x86_64::{_mm512_add_ps, _mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps};
    let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(1.0)));
    let mut sums = [_mm512_set1_ps(0.0); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    _mm512_reduce_add_ps(
        sums.into_iter()
            .reduce(|a, b| _mm512_add_ps(a, b))
            .expect("twelve sums"),
    )
}
