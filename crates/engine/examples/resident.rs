//! A resident engine for paired timings: loads a checkpoint once, then answers requests on standard input.
//!
//! ```text
//! resident FOLDER [THREADS]
//! pp N        feeds N random tokens into an empty sequence
//! tg N [D]    feeds N random tokens one by one at depth D (default 16)
//! ```
//!
//! Each is answered by `RESULT <tokens per second> <wall seconds> <CPU seconds>`. `tools/peers` talks to other engines
//! in the same words.

use std::{
    error::Error,
    io::{BufRead, Write, stdin, stdout},
    path::Path,
    sync::Arc,
    time::Instant,
};

use cachalot_checkpoint::Checkpoint;
use cachalot_chip::ChipTransfer;
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_engine::uniform;
use cachalot_model::{Chunk, Model, ModelOptions, Outputs, Sequence, StateOptions, StatePool};

/// Rows of a prefill step: the micro-batch of the peer.
const STEP_ROW_COUNT: usize = 512;
/// Tokens that a request may reach.
const CONTEXT: usize = 16 * 1024;

struct Resident {
    model: Model,
    pool: StatePool,
    drawn: u64,
}

impl Resident {
    fn open(folder: &Path, threads: Option<usize>) -> Result<Self, Box<dyn Error>> {
        let mut options = CpuOptions::default();
        options.threads = threads.unwrap_or(options.threads);
        let chip = Arc::new(CpuChip::new(options));
        let checkpoint = Checkpoint::open(folder)?;
        let model = Model::load(&checkpoint, chip, ModelOptions::default(), &mut |_, _| {})?;
        let pool = model.new_state(&StateOptions {
            sequence_count_max: 1,
            token_count_max: Some(CONTEXT.min(model.config().context())),
            step_row_count_max: STEP_ROW_COUNT,
            ..StateOptions::default()
        })?;
        Ok(Resident { model, pool, drawn: 0 })
    }

    /// Feeds random tokens, so that experts differ from token to token, and reads the logits of each step's last row.
    fn feed(&mut self, sequence: &mut Sequence, mut count: usize, step: usize) -> Result<(), Box<dyn Error>> {
        let vocabulary = self.model.config().vocab_size() as f64;
        while count > 0 {
            let rows = count.min(step);
            let tokens: Vec<u32> = (0..rows)
                .map(|_| {
                    self.drawn += 1;
                    (uniform(1, self.drawn) * vocabulary) as u32
                })
                .collect();
            let chunk = Chunk {
                sequence: &mut *sequence,
                tokens: &tokens,
                outputs: Outputs::Last,
            };
            let logits = self.model.step(&mut self.pool, &mut [chunk])?.ok_or("no logits")?;
            self.model.chip().read_f32(&logits)?;
            count -= rows;
        }
        Ok(())
    }

    fn answer(&mut self, request: &str) -> Result<String, Box<dyn Error>> {
        let words: Vec<&str> = request.split_whitespace().collect();
        let (kind, count) = (
            words.first().ok_or("an empty request")?,
            words.get(1).ok_or("no count")?,
        );
        let count: usize = count.parse()?;
        let depth: usize = words.get(2).map_or(Ok(16), |word| word.parse())?;
        let mut sequence = self.pool.new_sequence()?;
        let step = match *kind {
            "pp" => STEP_ROW_COUNT,
            "tg" => {
                self.feed(&mut sequence, depth, STEP_ROW_COUNT)?;
                1
            }
            _ => return Err(format!("unknown request {kind:?}: pp or tg").into()),
        };
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        self.feed(&mut sequence, count, step)?;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        Ok(format!("RESULT {:.4} {wall:.4} {cpu:.4}", count as f64 / wall))
    }
}

/// Processor time of this process, in the kernel's ticks of 10 ms.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().ok_or("no fields")?.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: resident FOLDER [THREADS]")?;
    let threads = arguments.next().map(|text| text.parse()).transpose()?;
    let mut resident = Resident::open(Path::new(&folder), threads)?;
    // Touches every expert, so that no request pays for mapping the file.
    resident.answer("pp 2048")?;
    println!("READY");
    for line in stdin().lock().lines() {
        println!("{}", resident.answer(&line?)?);
        stdout().flush()?;
    }
    Ok(())
}
