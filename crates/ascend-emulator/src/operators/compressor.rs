//! `aclnnCompressor`: every `ratio` tokens become one entry, weighed by a softmax over tokens for each channel.

use crate::elements::{BF16, F16, F32, I32, Tensor};
use crate::memory::Memory;
use crate::signature::{Arguments, Planned, Refusal, expect, kernel, operators};

/// The arguments, checked. A state row holds values, then gates, `parts · width` numbers each.
struct Compressor {
    x: Tensor,
    values: Tensor,
    gates: Tensor,
    state: Tensor,
    offsets: Tensor,
    table: Tensor,
    starts: Tensor,
    positions: Tensor,
    ratio: usize,
    parts: usize,
    out: Tensor,
}

impl Compressor {
    fn checked(arguments: &Arguments) -> Result<Self, Refusal> {
        arguments.absent(&[7])?;
        arguments.types(0, &[BF16, F16])?;
        arguments.types(3, &[F32])?;
        let [x, values, gates, state] = [
            arguments.tensor(0)?,
            arguments.tensor(1)?,
            arguments.tensor(2)?,
            arguments.tensor(3)?,
        ];
        let [offsets, table, starts, positions] = [
            arguments.tensor(4)?,
            arguments.tensor(5)?,
            arguments.tensor(6)?,
            arguments.tensor(8)?,
        ];
        let (out, again) = (arguments.tensor(13)?, arguments.tensor(14)?);
        let (ratio, parts) = (arguments.integer(9), arguments.integer(10));
        expect(
            matches!((ratio, parts), (4, 2) | (128, 1) | (2, 1)),
            "cmpRatio and coff must be 4 and 2, 128 and 1, or 2 and 1",
        )?;
        expect(arguments.integer(11) == 1, "cacheMode 1 is emulated")?;
        let (ratio, parts, width) = (ratio as usize, parts as usize, out.width());
        expect(
            x.dims.len() == 2 && out.dims.len() == 2 && out.dtype == x.dtype,
            "x must be [T, d], cmpKv [entries, D]",
        )?;
        expect(
            values.dims == [parts * width, x.dims[1]] && gates.dims == values.dims,
            "wkv and wgate must be [coff D, d]",
        )?;
        expect(
            values.dtype == x.dtype && gates.dtype == x.dtype,
            "wkv and wgate must be of the type of x",
        )?;
        expect(
            offsets.dims == [ratio, parts * width] && offsets.dtype == F32,
            "ape must be float [ratio, coff D]",
        )?;
        expect(
            state.dims.len() == 3 && state.dims[2] == 2 * parts * width,
            "stateCache must be [blocks, size, 2 coff D]",
        )?;
        expect(
            again.address == state.address && again.dims == state.dims,
            "stateCache must be passed again as output",
        )?;
        let all_int = [&table, &starts, &positions].iter().all(|tensor| tensor.dtype == I32);
        expect(
            all_int && table.dims.len() == 2 && starts.count() == positions.count() + 1,
            "lengths and block table must be int32",
        )?;
        expect(
            table.dims[0] == positions.count(),
            "the block table must have one row a sequence",
        )?;
        Ok(Self {
            x,
            values,
            gates,
            state,
            offsets,
            table,
            starts,
            positions,
            ratio,
            parts,
            out,
        })
    }

    /// The row of the state for a position; `None` where nothing is stored (block 0).
    fn row(&self, table: &[f64], sequence: usize, position: usize) -> Result<Option<usize>, String> {
        let (size, width) = (self.state.dims[1], self.table.width());
        let place = position / size.max(1);
        if place >= width {
            return Err(format!(
                "sequence {sequence}: position {position} is behind its block table"
            ));
        }
        let block = table[sequence * width + place];
        if !(0.0..self.state.dims[0] as f64).contains(&block) {
            return Err(format!("sequence {sequence}: block {block} of {}", self.state.dims[0]));
        }
        Ok((block > 0.0).then_some(block as usize * size + position % size))
    }

    fn project(x: &[f64], weights: &[f64]) -> Vec<f64> {
        let dot = |row: &[f64]| f64::from(row.iter().zip(x).fold(0_f32, |sum, (a, b)| sum + (a * b) as f32));
        weights.chunks_exact(x.len()).map(dot).collect()
    }

    fn run(&self, memory: &mut Memory) -> Result<(), String> {
        let (x, values, gates) = (
            self.x.load(memory)?,
            self.values.load(memory)?,
            self.gates.load(memory)?,
        );
        let (offsets, table) = (self.offsets.load(memory)?, self.table.load(memory)?);
        let (starts, positions) = (self.starts.load(memory)?, self.positions.load(memory)?);
        let mut state = self.state.load(memory)?;
        let (wide, row_len) = (self.parts * self.out.width(), 2 * self.parts * self.out.width());
        let mut entries = Vec::new();
        for (sequence, &start) in positions.iter().enumerate() {
            let (first, end) = (starts[sequence] as usize, starts[sequence + 1] as usize);
            if end < first || end > self.x.dims[0] {
                return Err(format!("sequence {sequence}: its tokens leave x"));
            }
            let begin = start as usize;
            let mut fresh = Vec::new();
            for token in first..end {
                let position = begin + token - first;
                let source = &x[token * self.x.dims[1]..][..self.x.dims[1]];
                let mut row = Self::project(source, &values);
                let offset = &offsets[position % self.ratio * wide..][..wide];
                row.extend(
                    Self::project(source, &gates)
                        .iter()
                        .zip(offset)
                        .map(|(gate, offset)| gate + offset),
                );
                if let Some(place) = self.row(&table, sequence, position)? {
                    let held = state[place * row_len..][..row_len].iter_mut().zip(&row);
                    held.for_each(|(to, from)| *to = f64::from(*from as f32));
                }
                fresh.push(row);
                if (position + 1).is_multiple_of(self.ratio) {
                    let find = |at: usize| match at.checked_sub(begin) {
                        Some(place) => Ok(fresh[place].clone()),
                        None => match self.row(&table, sequence, at)? {
                            Some(place) => Ok(state[place * row_len..][..row_len].to_vec()),
                            None => Err(format!(
                                "sequence {sequence}: position {at} is needed and was never stored"
                            )),
                        },
                    };
                    entries.extend(self.entry(position + 1 - self.ratio, find)?);
                }
            }
        }
        if entries.len() > self.out.count() {
            return Err("cmpKv has too few rows for the entries of this step".to_owned());
        }
        self.out.store(memory, &entries)?;
        self.state.store(memory, &state)
    }

    /// With two parts, the first half of the window before and the second half of this one.
    fn entry(&self, window: usize, find: impl Fn(usize) -> Result<Vec<f64>, String>) -> Result<Vec<f64>, String> {
        let (width, wide) = (self.out.width(), self.parts * self.out.width());
        let mut rows = Vec::new();
        if self.parts == 2 && window > 0 {
            for position in window - self.ratio..window {
                rows.push((find(position)?, 0));
            }
        }
        for position in window..window + self.ratio {
            rows.push((find(position)?, wide - width));
        }
        let channel = |column: usize| {
            let gate = |row: &(Vec<f64>, usize)| row.0[wide + row.1 + column];
            let most = rows.iter().map(gate).fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = rows.iter().map(|row| (gate(row) - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            rows.iter()
                .zip(&weights)
                .map(|(row, weight)| row.0[row.1 + column] * weight / sum)
                .sum()
        };
        Ok((0..width).map(channel).collect())
    }
}

fn compressor(arguments: &Arguments) -> Planned {
    if arguments.is_a2 {
        arguments.only_arch(3510)?;
    }
    let compressor = Compressor::checked(arguments)?;
    kernel(move |memory| compressor.run(memory))
}

operators! {
    aclnnCompressor aclnnCompressorGetWorkspaceSize(
        x: input, values: input, gates: input, state: in_place, offsets: input, table: optional, starts: optional,
        used: optional, positions: optional, ratio: int64, parts: int64, mode: int64, stride: int64,
        out: output, state_again: output
    ) => compressor;
}
