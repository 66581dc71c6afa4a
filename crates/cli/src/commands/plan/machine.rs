//! This machine as a chip: what the system says, and what the kernels that will run reach.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cachalot_chip::{Chip as _, Linear, LinearRounding, Matrix, MatrixSource, Mode, Tensor};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_numerics::{Dtype, MatrixFormat};
use cachalot_planner::{
    catalogue::{Chip, Efficiency, Family, Figure},
    model::{Model, Part, Stored},
};

/// Weights of a measurement come in turns from this much memory, beyond most caches.
const FOOTPRINT_BYTES: usize = 96 << 20;
/// How long each of the measurements takes at most, once started.
const TIME: Duration = Duration::from_millis(300);
/// Name of the family whose efficiency is in the measured figures already.
const FAMILY: &str = "measured here";

/// This machine, and the family that its figures belong to. Without `probe` its speeds are unknown.
pub fn detect(model: &Model, probe: bool) -> (Chip, Family) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut chip = Chip::of_machine(&format!("this machine ({threads} threads)"), FAMILY);
    if let Some(bytes) = crate::machine::memory_bytes() {
        chip.memory_gb = Figure::measured(bytes as f64 / 1e9, "system");
    }
    let mut efficiency = Efficiency::MEASURED;
    if probe && let Some(rates) = Rates::measure() {
        chip.bandwidth_tb_s = Figure::measured(rates.effective_bandwidth(model) / 1e12, "probe");
        chip.bf16_tflops = Figure::measured(rates.operations_per_second / 1e12, "probe");
        efficiency.launch_us = rates.launch_seconds * 1e6;
    }
    let family = Family {
        id: FAMILY.to_owned(),
        covers: "rates of this program's own kernels".to_owned(),
        efficiency,
    };
    (chip, family)
}

/// Free bytes of the disk of the current folder.
pub fn disk_bytes() -> Option<u64> {
    cachalot_checkpoint::available_bytes(Path::new("."))
}

/// What the kernels reach with one row, in bytes of weights a second, and with many, in operations a second.
struct Rates {
    fp8: f64,
    fp4: f64,
    bf16: f64,
    operations_per_second: f64,
    launch_seconds: f64,
}

impl Rates {
    fn measure() -> Option<Rates> {
        let chip = CpuChip::new(CpuOptions::default());
        // Bytes that are ordinary numbers in every format.
        let memory = Bytes::from(
            (0..FOOTPRINT_BYTES)
                .map(|index| 0x28 + (index % 23) as u8)
                .collect::<Vec<u8>>(),
        );
        let bytes_per_second = |format, rows, columns| {
            let matrices = matrices(&chip, &memory, format, rows, columns)?;
            let seconds = seconds_per_product(&chip, &matrices, 1)?;
            Some(format.byte_count(rows, columns) as f64 / seconds)
        };
        let many = matrices(&chip, &memory, MatrixFormat::FP4, 1024, 2048)?;
        let many_rows = 32;
        let seconds = seconds_per_product(&chip, &many[..1], many_rows)?;
        // About half of the operators of a small model are too small for more than one thread.
        let tiny = matrices(&chip, &memory, MatrixFormat::F32, 16, 16)?;
        let small = matrices(&chip, &memory, MatrixFormat::F32, 192, 192)?;
        let launch_seconds =
            (seconds_per_product(&chip, &tiny[..1], 1)? + seconds_per_product(&chip, &small[..1], 1)?) / 2.0;
        Some(Rates {
            fp8: bytes_per_second(MatrixFormat::FP8, 4096, 2048)?,
            fp4: bytes_per_second(MatrixFormat::FP4, 2048, 4096)?,
            bf16: bytes_per_second(MatrixFormat::Bf16, 4096, 2048)?,
            operations_per_second: 2.0 * 1024.0 * 2048.0 * many_rows as f64 / seconds,
            launch_seconds,
        })
    }

    /// Bytes a second over what a token reads of a model, each format at its own rate.
    fn effective_bandwidth(&self, model: &Model) -> f64 {
        let (mut bytes, mut seconds) = (0.0, 0.0);
        for weight in &model.weights {
            let part = match weight.part {
                Part::RoutedExperts => model.experts.active as f64 / model.experts.count as f64,
                Part::Embedding | Part::EngramTables | Part::Vision | Part::Stages | Part::StageExperts => continue,
                _ => 1.0,
            };
            let rate = match weight.stored {
                Stored::Fp8 { .. } => self.fp8,
                Stored::Fp4 => self.fp4,
                _ => self.bf16,
            };
            let read = part * weight.bytes() as f64;
            bytes += read;
            seconds += read / rate;
        }
        bytes / seconds
    }
}

/// Matrices side by side in the same memory; scales are shared.
fn matrices(chip: &CpuChip, memory: &Bytes, format: MatrixFormat, rows: usize, columns: usize) -> Option<Vec<Matrix>> {
    let weight_bytes = rows * format.row_byte_count(columns);
    let scales = Bytes::from(vec![120; format.byte_count(rows, columns) - weight_bytes]);
    let matrices = (0..memory.len() / weight_bytes).take(64).map(|index| {
        let source = MatrixSource {
            name: "probe".to_owned(),
            rows,
            columns,
            format,
            weights: memory.slice(index * weight_bytes..(index + 1) * weight_bytes),
            scales: scales.clone(),
        };
        chip.load_matrix(source).ok()
    });
    matrices.collect()
}

/// Seconds of a product with `row_count` rows: the mean over all matrices in turns. The best would promise what a
/// machine with other programs does not keep.
fn seconds_per_product(chip: &CpuChip, matrices: &[Matrix], row_count: usize) -> Option<f64> {
    let (rows, columns) = (matrices[0].rows(), matrices[0].columns());
    let x = chip.allocate(Dtype::F32, &[row_count, columns]).ok()?;
    let out = chip.allocate(Dtype::F32, &[row_count, rows]).ok()?;
    let values: Vec<u8> = (0..row_count * columns)
        .flat_map(|index| ((index % 17) as f32 - 8.0).to_le_bytes())
        .collect();
    chip.write(&x, &values).ok()?;
    // The first product checks scales and wakes threads.
    multiply(chip, &matrices[0], &x, &out)?;
    chip.synchronize().ok()?;
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        multiply(chip, &matrices[count % matrices.len()], &x, &out)?;
        chip.synchronize().ok()?;
        count += 1;
    }
    Some(start.elapsed().as_secs_f64() / count as f64)
}

fn multiply(chip: &CpuChip, weight: &Matrix, x: &Tensor, out: &Tensor) -> Option<()> {
    let linear = Linear {
        x,
        weight,
        rounding: LinearRounding::F32,
        out,
    };
    chip.enqueue(Mode::Fast, &linear.into()).ok()
}
