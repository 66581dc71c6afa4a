//! Speed of the fast kernels at the shapes of V4-Flash, beside what this machine can do at most.
//!
//! `cargo bench -p cachalot-chip-cpu` prints the best of several runs; other programs on the machine only lower them.
//! An argument runs only the lines whose name contains it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cachalot_chip::{Chip, ChipTransfer, Linear, LinearRounding, Matrix, MatrixSource, Mode, Tensor};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_numerics::{Dtype, MatrixFormat, bf16, e4m3};

/// Weights of a measurement of memory speed are taken in turns from this much memory, beyond all caches of one core.
const FOOTPRINT_BYTES: usize = 400 << 20;
/// How long each line is measured.
const TIME: Duration = Duration::from_millis(1500);

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let options = CpuOptions::default();
    let chip = CpuChip::new(options);
    println!("{}", chip.description().details);
    let ceilings = Ceilings::measure(options.threads);
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
    ];
    for (name, format, rows, columns) in shapes {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let bench = Bench::new(&chip, format, rows, columns);
        for x_count in [1, 2, 4] {
            bench.report(name, x_count, &ceilings);
        }
        for x_count in [64, 512] {
            // Part of the rows: a run that is longer than a time slice is never undisturbed on a shared machine.
            let rows = rows.min(FLOPS_MAX / 2 / columns / x_count / 32 * 32);
            Bench::new(&chip, format, rows, columns).report(&format!("  {rows} rows of it"), x_count, &ceilings);
        }
    }
}

/// Largest product that is timed with many activation rows.
const FLOPS_MAX: usize = 300_000_000;

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
    fn measure(threads: usize) -> Self {
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
        let seconds = best_seconds(1, |_| on_threads(threads, |_| multiply_add(1 << 20) as u64));
        flops += threads as f64 * f64::from(1 << 20) * FLOPS_PER_ROUND;
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

fn multiply_add(rounds: usize) -> f32 {
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
