//! The measurements.

use std::{collections::BTreeMap, time::Instant};

use cachalot_chip::{
    Chip as _, ChipTransfer as _, Cost, ExpertTraffic,
    profile::{Label, ProfiledChip, Record},
};
use cachalot_model::{Chunk, Model, Outputs, Sequence, StateOptions, StatePool};
use cachalot_planner::{engine, step::Work};

use super::results::{CostPerToken, DiskShare, OperatorShare, Phase, Point, Results, Skipped};
use crate::{error::Error, interrupt::Cooperation, machine, memory, numbers, progress::LateBar};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub phase: Phase,
    pub tokens: usize,
    pub batch: usize,
}

pub struct Bench<'a> {
    pub model: &'a Model,
    /// The same model as the planner sees it.
    pub planned: &'a cachalot_planner::model::Model,
    pub chip: &'a ProfiledChip,
    pub seed: u64,
    /// Rows of a prefill step.
    pub chunk: usize,
    pub repetitions: usize,
    pub steps: Option<usize>,
    /// After so long a measurement is not repeated again.
    pub seconds: f64,
    /// Tokens that a sequence may have.
    pub context: usize,
    pub cooperation: &'a Cooperation,
}

/// Rates of the repetitions, and the operators of one.
struct Measured {
    steps: usize,
    rates: Rates,
    operators: BTreeMap<Label, Record>,
    /// Tokens of the repetition that was recorded.
    recorded_tokens: usize,
    /// Tokens of everything.
    token_count: usize,
    /// What the timed repetitions of decoding read from disk, and their tokens.
    streamed: Option<(ExpertTraffic, usize)>,
}

/// Tokens a second of repetitions, those that waited for the disk apart: weights that the system has taken out of memory
/// since the warm-up say nothing about the machine, unless all repetitions are so.
#[derive(Default)]
struct Rates {
    warm: Vec<f64>,
    cold: Vec<f64>,
}

impl Rates {
    fn push(&mut self, rate: f64, fault_count: u64) {
        match fault_count {
            0 => self.warm.push(rate),
            _ => self.cold.push(rate),
        }
    }

    /// The rates that count, and whether they waited for the disk.
    fn counting(self) -> (Vec<f64>, bool) {
        match self.warm.is_empty() {
            false => (self.warm, false),
            true => (self.cold, true),
        }
    }
}

/// How long a repetition of decoding takes, if a step is not longer.
const REPETITION_SECONDS: f64 = 0.5;
const STEPS_MIN: usize = 4;
const STEPS_MAX: usize = 64;
/// A pass over a prompt that takes longer is counted while it is timed: counting adds microseconds to an operator.
const COUNTED_APART_SECONDS: f64 = 3.0;
/// Part of the available memory that state may take.
const MEMORY_PART: f64 = 0.8;

impl Bench<'_> {
    /// Measures everything into `results`, as far as Ctrl-C allows.
    pub fn measure_all(&self, wanted: &[Wanted], results: &mut Results) -> Result<(), Error> {
        self.warm_up()?;
        let bar = LateBar::counting("measuring", "repetitions");
        let total = (wanted.len() * self.repetitions) as u64;
        for (index, wanted) in wanted.iter().enumerate() {
            let done = (index * self.repetitions) as u64;
            bar.set(done, total);
            let Wanted { phase, tokens, batch } = *wanted;
            if let Some(reason) = self.obstacle(wanted) {
                results.skipped.push(Skipped {
                    phase,
                    tokens,
                    batch,
                    reason,
                });
                continue;
            }
            let progress = |repetition: usize| bar.set(done + repetition as u64, total);
            let before = self.chip.expert_traffic();
            let measured = match phase {
                Phase::Prefill => self.prefill(tokens, &progress)?,
                Phase::Decode => self.decode(tokens, batch, &progress)?,
            };
            let predicted = self.predict(wanted, measured.steps, results);
            let token_count = measured.token_count;
            let streamed = measured.streamed;
            let mut point = point(wanted, measured, predicted, results);
            point.disk = streamed.and_then(|(traffic, tokens)| self.disk_share(&traffic, tokens, &point, results));
            if let (Some(before), Some(after)) = (before, self.chip.expert_traffic()) {
                point.experts = Some(memory::as_json(&after.since(&before), token_count));
            }
            results.points.push(point);
        }
        Ok(())
    }

    /// What a token may take beside what was read for it.
    fn disk_share(
        &self,
        traffic: &ExpertTraffic,
        tokens: usize,
        point: &Point,
        results: &Results,
    ) -> Option<DiskShare> {
        let disk = results.ceilings.disk.as_ref()?;
        let bytes_per_token = traffic.bytes_read as f64 / tokens as f64;
        let rows = self.model.config().vocab_size().to_string();
        let is_head = |weight: &String| weight.split(' ').nth(1) == Some(&rows);
        let heads = point
            .operators
            .iter()
            .filter(|operator| operator.weight.as_ref().is_some_and(is_head));
        let head_bytes: u64 = heads.map(|operator| operator.weight_bytes).sum();
        let head_bytes_per_token = head_bytes as f64 / (point.steps * point.batch) as f64;
        let streaming = bytes_per_token / disk.best + head_bytes_per_token / results.ceilings.read_bytes_per_second;
        Some(DiskShare {
            bytes_per_token,
            hit_share: traffic.hit_count as f64 / (traffic.request_count as f64).max(1.0),
            floor_seconds_per_token: streaming.max(point.floor_seconds_per_token),
        })
    }

    /// Looks at all weights once if they fit into memory: scales are checked and pages come from the disk at first use.
    fn warm_up(&self) -> Result<(), Error> {
        let token_count = self.chunk.min(self.context);
        let mut pool = self.pool(token_count, 1)?;
        let mut sequence = pool.new_sequence()?;
        self.step(&mut pool, &mut [&mut sequence], &self.tokens(0, token_count))
    }

    /// Why a measurement cannot be made.
    fn obstacle(&self, wanted: &Wanted) -> Option<String> {
        let tokens = wanted.tokens
            + if wanted.phase == Phase::Decode {
                self.steps_max()
            } else {
                0
            };
        if tokens > self.context {
            return Some(format!(
                "it needs {} tokens, the context has {}",
                numbers::grouped(tokens as u64),
                numbers::grouped(self.context as u64)
            ));
        }
        let pool = self.pool(1, 1).ok()?;
        let sequence = pool.tail_bytes_per_sequence() as f64 + pool.entry_bytes_per_token() * tokens as f64;
        let needed = wanted.batch as f64 * sequence;
        let available = machine::available_bytes()? as f64;
        (needed > MEMORY_PART * available).then(|| {
            format!(
                "its state needs {}, {} of memory are free",
                numbers::bytes(needed as u64),
                numbers::bytes(available as u64)
            )
        })
    }

    /// Tokens a second that the planner expects.
    fn predict(&self, wanted: &Wanted, steps: usize, results: &Results) -> f64 {
        let tokens = wanted.tokens as f64;
        let work = match wanted.phase {
            Phase::Prefill => Work::Prefill {
                tokens: tokens.min(self.chunk as f64),
                prompt: tokens,
            },
            Phase::Decode => Work::Decode {
                sequences: wanted.batch as f64,
                context: tokens + steps as f64 / 2.0,
            },
        };
        let ceilings = engine::Ceilings {
            read_bytes_per_second: results.ceilings.read_bytes_per_second,
            operations_per_second: results.ceilings.operations_per_second,
        };
        let step = engine::predict(self.planned, ceilings, engine::family().efficiency, work);
        step.map_or(f64::NAN, |step| step.tokens_per_second())
    }

    /// Tokens by which a repetition of decoding makes a sequence longer, at most.
    pub fn steps_max(&self) -> usize {
        // One more is fed before the clock starts.
        self.steps.unwrap_or(STEPS_MAX) + 1
    }

    /// Memory for `batch` sequences of `tokens`, and for a copy of each that grows by the steps of a repetition.
    fn pool(&self, tokens: usize, batch: usize) -> Result<StatePool, Error> {
        // Copies share pages with their originals; what they write is on pages of their own.
        let own = self.steps_max() + 1024;
        Ok(self.model.new_state(&StateOptions {
            sequence_count_max: 2 * batch,
            token_count_max: Some((tokens + own) * batch),
            step_row_count_max: self.chunk.max(batch),
            ..StateOptions::default()
        })?)
    }

    /// Random tokens: the `stream`-th `count`.
    fn tokens(&self, stream: u64, count: usize) -> Vec<u32> {
        let vocabulary = self.model.config().vocab_size() as f64;
        let numbers = 0..count as u64;
        let draw = |number| cachalot_engine::uniform(self.seed, stream << 32 | number);
        numbers.map(|number| (draw(number) * vocabulary) as u32).collect()
    }

    /// Feeds one token to each sequence, or all tokens to the only one, and waits for the last row's logits.
    fn step(&self, pool: &mut StatePool, sequences: &mut [&mut Sequence], tokens: &[u32]) -> Result<(), Error> {
        let each = tokens.len() / sequences.len();
        let mut chunks: Vec<Chunk<'_>> = sequences
            .iter_mut()
            .zip(tokens.chunks(each))
            .map(|(sequence, tokens)| Chunk {
                sequence,
                tokens,
                outputs: Outputs::Last,
            })
            .collect();
        if let Some(logits) = self.model.step(pool, &mut chunks)? {
            self.chip.read_f32(&logits)?;
        }
        self.chip.synchronize()?;
        match self.cooperation.is_raised() {
            true => Err(Error::interrupted()),
            false => Ok(()),
        }
    }

    fn prefill(&self, token_count: usize, progress: &dyn Fn(usize)) -> Result<Measured, Error> {
        let mut pool = self.pool(token_count, 1)?;
        let mut pass_count = 0;
        let mut pass = |index: usize| -> Result<f64, Error> {
            let tokens = self.tokens(index as u64, token_count);
            pass_count += 1;
            let started = Instant::now();
            let mut sequence = pool.new_sequence()?;
            for chunk in tokens.chunks(self.chunk) {
                self.step(&mut pool, &mut [&mut sequence], chunk)?;
            }
            Ok(started.elapsed().as_secs_f64())
        };
        let (started, mut rates) = (Instant::now(), Rates::default());
        let mut operators = BTreeMap::new();
        // The first pass is counted, and timed only if it is long.
        for repetition in 0..=self.repetitions {
            let is_counted = repetition == 0;
            if is_counted {
                self.chip.start();
            }
            let faults = machine::major_fault_count();
            let seconds = pass(repetition)?;
            if is_counted {
                operators = self.chip.finish();
            }
            if !is_counted || seconds > COUNTED_APART_SECONDS {
                rates.push(token_count as f64 / seconds, machine::major_fault_count() - faults);
                if started.elapsed().as_secs_f64() >= self.seconds {
                    break;
                }
            }
            progress(repetition);
        }
        Ok(Measured {
            steps: token_count.div_ceil(self.chunk),
            token_count: token_count * pass_count,
            rates,
            operators,
            recorded_tokens: token_count,
            streamed: None,
        })
    }

    fn decode(&self, context: usize, batch: usize, progress: &dyn Fn(usize)) -> Result<Measured, Error> {
        let mut pool = self.pool(context, batch)?;
        let originals = (0..batch as u64)
            .map(|index| match context {
                0 => pool.new_sequence(),
                _ => pool.new_generated_sequence(context, self.seed.wrapping_add(index)),
            })
            .collect::<Result<Vec<Sequence>, _>>()?;
        // Every repetition starts at the same context.
        let mut repetition = |index: usize, steps: usize, is_recorded: bool| -> Result<f64, Error> {
            let copies = originals.iter().map(|original| pool.copy_sequence(original));
            let mut copies = copies.collect::<Result<Vec<Sequence>, _>>()?;
            let mut copies: Vec<&mut Sequence> = copies.iter_mut().collect();
            let tokens = self.tokens(index as u64, (steps + 1) * batch);
            // The first write into shared pages copies them.
            let (first, rest) = tokens.split_at(batch);
            self.step(&mut pool, &mut copies, first)?;
            if is_recorded {
                self.chip.start();
            }
            let started = Instant::now();
            for tokens in rest.chunks(batch) {
                self.step(&mut pool, &mut copies, tokens)?;
            }
            Ok(started.elapsed().as_secs_f64() / steps as f64)
        };
        let seconds = repetition(0, 2, false)?;
        let steps = self.steps.unwrap_or_else(|| {
            let steps = (REPETITION_SECONDS / seconds) as usize;
            steps.clamp(STEPS_MIN, STEPS_MAX)
        });
        let (started, mut rates) = (Instant::now(), Rates::default());
        let before = self.chip.expert_traffic();
        for index in 0..self.repetitions {
            let faults = machine::major_fault_count();
            let seconds = repetition(index + 1, steps, false)?;
            let fault_count = machine::major_fault_count() - faults;
            // Experts from disk are what such a measurement is about.
            rates.push(batch as f64 / seconds, if before.is_some() { 0 } else { fault_count });
            progress(index + 1);
            if started.elapsed().as_secs_f64() >= self.seconds {
                break;
            }
        }
        let after = self.chip.expert_traffic();
        let recorded = repetition(self.repetitions + 1, steps, true);
        let operators = self.chip.finish();
        recorded?;
        let repetition_count = rates.warm.len() + rates.cold.len();
        // Each repetition feeds one token more than it times.
        let streamed_tokens = repetition_count * (steps + 1) * batch;
        let streamed = before.zip(after);
        let step_count = 3 + (repetition_count + 1) * (steps + 1);
        Ok(Measured {
            steps,
            token_count: batch * step_count,
            rates,
            operators,
            recorded_tokens: batch * steps,
            streamed: streamed.map(|(before, after)| (after.since(&before), streamed_tokens)),
        })
    }
}

fn point(wanted: &Wanted, measured: Measured, predicted: f64, results: &Results) -> Point {
    let discarded = measured.rates.cold.len();
    let (rates, waited_for_disk) = measured.rates.counting();
    let mut sorted = rates.clone();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let tokens_per_second = match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    };
    let tokens = measured.recorded_tokens as f64;
    let mut sum = Cost::default();
    let mut floor_seconds = 0.0;
    for record in measured.operators.values() {
        sum += record.cost;
        let cost = record.cost;
        let bytes = (cost.weight_bytes + cost.state_bytes) as f64;
        floor_seconds += results.ceilings.floor_seconds(bytes, cost.multiply_adds as f64);
    }
    let cost_per_token = CostPerToken {
        weight_bytes: sum.weight_bytes as f64 / tokens,
        state_bytes: sum.state_bytes as f64 / tokens,
        row_bytes: sum.row_bytes as f64 / tokens,
        multiply_adds: sum.multiply_adds as f64 / tokens,
    };
    let bytes_per_second = cost_per_token.memory_bytes() * tokens_per_second;
    let operations_per_second = 2.0 * cost_per_token.multiply_adds * tokens_per_second;
    Point {
        phase: wanted.phase,
        tokens: wanted.tokens,
        batch: wanted.batch,
        steps: measured.steps,
        generated_state: wanted.phase == Phase::Decode && wanted.tokens > 0,
        rates,
        discarded: if waited_for_disk { 0 } else { discarded },
        waited_for_disk,
        tokens_per_second,
        cost_per_token,
        bytes_per_second,
        operations_per_second,
        bandwidth_fraction: bytes_per_second / results.ceilings.read_bytes_per_second,
        arithmetic_fraction: operations_per_second / results.ceilings.operations_per_second,
        floor_seconds_per_token: floor_seconds / tokens,
        predicted_tokens_per_second: predicted,
        experts: None,
        disk: None,
        operators: shares(&measured.operators),
    }
}

/// Longest first.
fn shares(operators: &BTreeMap<Label, Record>) -> Vec<OperatorShare> {
    let shares = operators.iter().map(|(label, record)| OperatorShare {
        operator: label.kind.to_string(),
        weight: label.weight.clone(),
        calls: record.call_count,
        seconds: record.time.as_secs_f64(),
        weight_bytes: record.cost.weight_bytes,
        state_bytes: record.cost.state_bytes,
        row_bytes: record.cost.row_bytes,
        multiply_adds: record.cost.multiply_adds,
    });
    let mut shares: Vec<OperatorShare> = shares.collect();
    shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    shares
}
