//! Attention over a window and over compressed entries, the choice of entries, rotation and cache writes.

use crate::elements::{BF16, F16, F32, I32, I64, Tensor, round_to};
use crate::memory::Memory;
use crate::signature::{Arguments, Planned, Refusal, expect, kernel, operators};

const METADATA_WORDS: usize = 1024;
const METADATA_MARK: f64 = 51_897.0;

/// Rows of a paged cache `[blocks, block size, 1, width]`.
struct Pages {
    rows: Vec<f64>,
    table: Vec<f64>,
    blocks: usize,
    block_size: usize,
    width: usize,
    blocks_per_sequence: usize,
}

impl Pages {
    fn load(memory: &mut Memory, cache: &Tensor, table: &Tensor) -> Result<Self, String> {
        let (blocks, block_size, width) = (cache.dims[0], cache.dims[1], cache.width());
        let (rows, blocks_per_sequence) = (cache.load(memory)?, table.width());
        Ok(Self {
            rows,
            table: table.load(memory)?,
            blocks,
            block_size,
            width,
            blocks_per_sequence,
        })
    }

    fn row(&self, sequence: usize, position: usize) -> Result<&[f64], String> {
        let place = position / self.block_size;
        if place >= self.blocks_per_sequence {
            return Err(format!(
                "sequence {sequence}: position {position} is behind its block table"
            ));
        }
        let block = self.table[sequence * self.blocks_per_sequence + place];
        if !(0.0..self.blocks as f64).contains(&block) {
            return Err(format!("sequence {sequence}: block {block} of {}", self.blocks));
        }
        let row = block as usize * self.block_size + position % self.block_size;
        Ok(&self.rows[row * self.width..][..self.width])
    }
}

fn check_pages(arguments: &Arguments, cache: &Tensor, table: &Tensor, width: usize) -> Result<(), Refusal> {
    expect(
        cache.dims.len() == 4 && cache.dims[2] == 1 && cache.dims[3] == width,
        "a cache must be [blocks, size, 1, width]",
    )?;
    expect(
        cache.dtype == BF16 || cache.dtype == F16,
        "a cache must be bf16 or float16",
    )?;
    let multiple = cache.dims[1] > 0 && cache.dims[1].is_multiple_of(16);
    expect(
        arguments.arch == 3510 || multiple,
        "block sizes must be multiples of 16 on this chip",
    )?;
    expect(
        table.dims.len() == 2 && table.dtype == I32,
        "a block table must be int32 [sequences, blocks]",
    )
}

/// Compressed entries that query `index` of `queries` may see.
fn visible(entries: f64, residual: f64, ratio: f64, queries: usize, index: usize) -> usize {
    ((entries * ratio + residual - queries as f64 + index as f64 + 1.0) / ratio)
        .floor()
        .clamp(0.0, entries) as usize
}

fn check_modes(arguments: &Arguments, ratio: usize) -> Result<(), Refusal> {
    expect(
        [1, 4, 128].contains(&arguments.integer(ratio)),
        "cmpRatio must be 1, 4 or 128",
    )?;
    let modes = [1, 2, 3, 4].map(|step| arguments.integer(ratio + step));
    expect(
        modes == [4, 3, 127, 0],
        "mask modes must be 4 and 3, the window 127 and 0",
    )?;
    expect(
        arguments.text(ratio + 5) == "TND" && arguments.text(ratio + 6) == "PA_BBND",
        "layouts TND and PA_BBND are emulated",
    )
}

/// What the metadata must agree about with the attention that reads it.
fn fingerprint(ratio: f64, queries: &[f64], window: &[f64], entries: &[f64]) -> [f64; 5] {
    let sum = |values: &[f64]| {
        values
            .iter()
            .enumerate()
            .map(|(place, value)| (place + 1) as f64 * value)
            .sum::<f64>()
            % 1e9
    };
    [METADATA_MARK, ratio, sum(queries), sum(window), sum(entries)]
}

fn metadata(arguments: &Arguments) -> Planned {
    check_modes(arguments, 18)?;
    let (starts, window, entries) = (arguments.tensor(0)?, arguments.tensor(4)?, arguments.optional(5));
    let (y, ratio) = (arguments.tensor(27)?, arguments.real(18));
    expect(
        y.dtype == I32 && y.dims == [METADATA_WORDS],
        "metadata must be int32 [1024]",
    )?;
    expect(
        (arguments.integer(26) != 0) == entries.is_some(),
        "hasCmpKv and sequsedCmpKv belong together",
    )?;
    write_fingerprint(ratio, starts, window, entries, None, y)
}

/// The custom package's form, which knows the lengths alone.
fn custom_metadata(arguments: &Arguments) -> Planned {
    let (starts, lengths, y) = (arguments.tensor(0)?, arguments.tensor(4)?, arguments.tensor(22)?);
    let ratio = arguments.integer(13);
    expect([1, 4, 128].contains(&ratio), "cmp_ratio must be 1, 4 or 128")?;
    expect(
        y.dtype == I32 && y.dims == [METADATA_WORDS],
        "metadata must be int32 [1024]",
    )?;
    let compressed = (arguments.integer(21) != 0).then_some(ratio as f64);
    write_fingerprint(ratio as f64, starts, lengths, None, compressed, y)
}

fn write_fingerprint(
    ratio: f64,
    starts: Tensor,
    window: Tensor,
    entries: Option<Tensor>,
    from_lengths: Option<f64>,
    y: Tensor,
) -> Planned {
    kernel(move |memory| {
        let (starts, window) = (starts.load(memory)?, window.load(memory)?);
        let entries = match (&entries, from_lengths) {
            (Some(entries), _) => entries.load(memory)?,
            (None, Some(ratio)) => window.iter().map(|length| (length / ratio).floor()).collect(),
            (None, None) => Vec::new(),
        };
        let mut words = vec![0.0; METADATA_WORDS];
        words[..5].copy_from_slice(&fingerprint(ratio, &starts, &window, &entries));
        y.store(memory, &words)
    })
}

/// The arguments of one attention call, checked.
struct Attention {
    q: Tensor,
    window: (Tensor, Tensor),
    /// Cache, block table, and entries of each sequence: without, each full window of the length is one.
    compressed: Option<(Tensor, Tensor, Option<Tensor>)>,
    chosen: Option<Tensor>,
    residual: Option<Tensor>,
    starts: Tensor,
    lengths: Tensor,
    sinks: Tensor,
    metadata: Option<Tensor>,
    scale: f64,
    ratio: f64,
    out: Tensor,
}

fn check_heads(arguments: &Arguments, q: &Tensor, out: &Tensor) -> Result<(), Refusal> {
    expect(
        q.dims.len() == 3 && q.width() == 512 && out.dims == q.dims && out.dtype == q.dtype,
        "q and attnOut must be [T, H, 512]",
    )?;
    expect(
        arguments.arch == 2201 || q.dims[1] > 1,
        "this chip does not take one head",
    )
}

fn check_chosen(q: &Tensor, chosen: &Option<Tensor>) -> Result<(), Refusal> {
    if let Some(chosen) = chosen {
        let fits = chosen.dims.len() == 3 && chosen.dims[..2] == [q.dims[0], 1] && chosen.dtype == I32;
        expect(
            fits && [512, 1024].contains(&chosen.width()),
            "cmpSparseIndices must be int32 [T, 1, 512 or 1024]",
        )?;
    }
    Ok(())
}

fn check_lengths(q: &Tensor, starts: &Tensor, lengths: &Tensor, sinks: &Tensor) -> Result<(), Refusal> {
    expect(starts.dtype == I32 && lengths.dtype == I32, "lengths must be int32")?;
    expect(
        starts.count() == lengths.count() + 1,
        "cuSeqlensQ must have one number more than sequsedOriKv",
    )?;
    expect(
        sinks.dtype == F32 && sinks.dims == [q.dims[1]],
        "sinks must be float [H]",
    )
}

impl Attention {
    fn checked(arguments: &Arguments) -> Result<Self, Refusal> {
        arguments.absent(&[3, 8, 9, 10, 14, 15])?;
        arguments.types(0, &[BF16, F16])?;
        check_modes(arguments, 19)?;
        let (q, out) = (arguments.tensor(0)?, arguments.tensor(28)?);
        check_heads(arguments, &q, &out)?;
        let window = (arguments.tensor(1)?, arguments.tensor(5)?);
        check_pages(arguments, &window.0, &window.1, 512)?;
        let compressed = match arguments.optional(2) {
            Some(cache) => Some((cache, arguments.tensor(6)?, Some(arguments.tensor(12)?))),
            None => None,
        };
        if let Some((cache, table, _)) = &compressed {
            check_pages(arguments, cache, table, 512)?;
        }
        let chosen = arguments.optional(4);
        check_chosen(&q, &chosen)?;
        let (starts, lengths, sinks) = (arguments.tensor(7)?, arguments.tensor(11)?, arguments.tensor(16)?);
        check_lengths(&q, &starts, &lengths, &sinks)?;
        let (residual, metadata) = (arguments.optional(13), arguments.optional(17));
        let (scale, ratio) = (arguments.real(18), arguments.real(19));
        Ok(Self {
            q,
            window,
            compressed,
            chosen,
            residual,
            starts,
            lengths,
            sinks,
            metadata,
            scale,
            ratio,
            out,
        })
    }

    /// The custom package's form: entries follow from the lengths, strides of 0 are the caches' own.
    fn checked_custom(arguments: &Arguments) -> Result<Self, Refusal> {
        arguments.absent(&[3, 8, 9, 10])?;
        arguments.types(0, &[BF16, F16])?;
        let ratio = arguments.integer(15);
        expect([1, 4, 128].contains(&ratio), "cmp_ratio must be 1, 4 or 128")?;
        let modes = [16, 17, 20, 21].map(|index| arguments.integer(index));
        expect(
            modes == [4, 3, 127, 0],
            "mask modes must be 4 and 3, the window 127 and 0",
        )?;
        expect(
            arguments.text(22) == "TND" && arguments.text(23).starts_with("PA_"),
            "layouts TND and PA_* are emulated",
        )?;
        let (q, out) = (arguments.tensor(0)?, arguments.tensor(25)?);
        check_heads(arguments, &q, &out)?;
        let window = (arguments.tensor(1)?, arguments.tensor(5)?);
        check_pages(arguments, &window.0, &window.1, 512)?;
        let compressed = match arguments.optional(2) {
            Some(cache) => Some((cache, arguments.tensor(6)?, None)),
            None => None,
        };
        if let Some((cache, table, _)) = &compressed {
            check_pages(arguments, cache, table, 512)?;
        }
        for (index, cache) in [(18, Some(&window.0)), (19, compressed.as_ref().map(|found| &found.0))] {
            let stride = cache.map_or(0, |cache| cache.strides[0] as i64);
            expect(
                [0, stride].contains(&arguments.integer(index)),
                "a cache's stride must be 0 or that of its blocks",
            )?;
        }
        let chosen = arguments.optional(4);
        check_chosen(&q, &chosen)?;
        let (starts, lengths, sinks) = (arguments.tensor(7)?, arguments.tensor(11)?, arguments.tensor(12)?);
        check_lengths(&q, &starts, &lengths, &sinks)?;
        Ok(Self {
            q,
            window,
            compressed,
            chosen,
            residual: None,
            starts,
            lengths,
            sinks,
            metadata: arguments.optional(13),
            scale: arguments.real(14),
            ratio: ratio as f64,
            out,
        })
    }

    fn run(&self, memory: &mut Memory) -> Result<(), String> {
        let (q, sinks) = (self.q.load(memory)?, self.sinks.load(memory)?);
        let (starts, lengths) = (self.starts.load(memory)?, self.lengths.load(memory)?);
        let window = Pages::load(memory, &self.window.0, &self.window.1)?;
        let mut residual = self
            .residual
            .as_ref()
            .map(|residual| residual.load(memory))
            .transpose()?;
        let compressed = match &self.compressed {
            Some((cache, table, Some(entries))) => Some((Pages::load(memory, cache, table)?, entries.load(memory)?)),
            Some((cache, table, None)) => {
                residual = Some(lengths.iter().map(|length| length % self.ratio).collect());
                let entries = lengths.iter().map(|length| (length / self.ratio).floor()).collect();
                Some((Pages::load(memory, cache, table)?, entries))
            }
            None => None,
        };
        let chosen = self.chosen.as_ref().map(|chosen| chosen.load(memory)).transpose()?;
        if let Some(metadata) = &self.metadata {
            let entries = compressed.as_ref().map_or(&[][..], |(_, entries)| entries);
            if metadata.load(memory)?[..5] != fingerprint(self.ratio, &starts, &lengths, entries) {
                return Err("the metadata was made for other lengths or another ratio".to_owned());
            }
        }
        let mut out = vec![0.0; q.len()];
        for (sequence, &length) in lengths.iter().enumerate() {
            let (first, end) = (starts[sequence] as usize, starts[sequence + 1] as usize);
            if end < first || end > self.q.dims[0] || ((end - first) as f64) > length {
                return Err(format!("sequence {sequence}: its queries leave q or its length"));
            }
            for token in first..end {
                let position = length as usize - (end - token);
                let mut keys = Vec::new();
                for place in position.saturating_sub(127)..=position {
                    keys.push(window.row(sequence, place)?);
                }
                if let Some((pages, entries)) = &compressed {
                    let left = residual.as_ref().map_or(0.0, |residual| residual[sequence]);
                    let count = visible(entries[sequence], left, self.ratio, end - first, token - first);
                    match &chosen {
                        Some(chosen) => {
                            let width = chosen.len() / self.q.dims[0];
                            let indices = chosen[token * width..][..width]
                                .iter()
                                .take_while(|&&index| index >= 0.0);
                            for &index in indices.filter(|&&index| index < count as f64) {
                                keys.push(pages.row(sequence, index as usize)?);
                            }
                        }
                        None => {
                            (0..count).try_for_each(|index| pages.row(sequence, index).map(|row| keys.push(row)))?
                        }
                    }
                }
                for (head, &sink) in sinks.iter().enumerate() {
                    let at = (token * sinks.len() + head) * 512;
                    attend(&q[at..at + 512], &keys, sink, self.scale, &mut out[at..at + 512]);
                }
            }
        }
        self.out.store(memory, &out)
    }
}

/// Softmax with the sink as one more key without value; probabilities are bf16 before they meet the values.
fn attend(q: &[f64], keys: &[&[f64]], sink: f64, scale: f64, out: &mut [f64]) {
    let dot = |key: &&[f64]| q.iter().zip(*key).map(|(a, b)| a * b).sum::<f64>() * scale;
    let scores: Vec<f64> = keys.iter().map(dot).collect();
    let most = scores.iter().copied().fold(sink, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum = weights.iter().sum::<f64>() + (sink - most).exp();
    for (weight, key) in weights.iter().zip(keys) {
        let weight = round_to(*weight, BF16);
        out.iter_mut().zip(*key).for_each(|(to, value)| *to += weight * value);
    }
    out.iter_mut().for_each(|value| *value /= sum);
}

fn custom_attention(arguments: &Arguments) -> Planned {
    let attention = Attention::checked_custom(arguments)?;
    kernel(move |memory| attention.run(memory))
}

fn attention(arguments: &Arguments) -> Planned {
    let attention = Attention::checked(arguments)?;
    kernel(move |memory| attention.run(memory))
}

/// For each query the entries with the largest Σ w · max(0, q · k), lower index first among equals, then -1.
fn indexer(arguments: &Arguments) -> Planned {
    arguments.absent(&[4, 5, 9])?;
    let (q, cache, weights) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(2)?);
    let (starts, entries, residual) = (arguments.tensor(3)?, arguments.tensor(6)?, arguments.optional(7));
    let (table, y) = (arguments.tensor(8)?, arguments.tensor(18)?);
    arguments.types(0, &[BF16, F16])?;
    expect(q.dims.len() == 3 && q.width() == 128, "q must be [T, heads, 128]")?;
    expect(
        weights.dtype == F32 && weights.dims == q.dims[..2],
        "w must be float [T, heads]",
    )?;
    check_pages(arguments, &cache, &table, 128)?;
    expect(cache.dims[1] <= 1024, "block sizes must not exceed 1024")?;
    let (topk, ratio, metadata) = (arguments.integer(11), arguments.real(16), arguments.optional(10));
    expect(
        metadata
            .as_ref()
            .is_none_or(|metadata| metadata.dims == [METADATA_WORDS] && metadata.dtype == I32),
        "metadata must be int32 [1024]",
    )?;
    expect([512, 1024].contains(&topk), "topk must be 512 or 1024")?;
    expect(
        arguments.integer(15) == 3 && [1.0, 4.0, 128.0].contains(&ratio),
        "maskMode must be 3, cmpRatio 1, 4 or 128",
    )?;
    expect(
        arguments.text(13) == "TND" && arguments.text(14) == "PA_BBND",
        "layouts TND and PA_BBND are emulated",
    )?;
    expect(arguments.integer(17) == 0, "returnValue 0 is emulated")?;
    expect(
        y.dtype == I32 && y.dims == [q.dims[0], 1, topk as usize],
        "sparseIndices must be int32 [T, 1, topk]",
    )?;
    expect(
        starts.count() == entries.count() + 1 && starts.dtype == I32 && entries.dtype == I32,
        "lengths must be int32, one a sequence",
    )?;
    kernel(move |memory| {
        let (values, weights, heads) = (q.load(memory)?, weights.load(memory)?, q.dims[1]);
        let (starts, entries) = (starts.load(memory)?, entries.load(memory)?);
        let residual = residual.as_ref().map(|residual| residual.load(memory)).transpose()?;
        if let Some(metadata) = &metadata
            && metadata.load(memory)?[..5] != fingerprint(ratio, &starts, &entries, &[])
        {
            return Err("the metadata was made for other lengths or another ratio".to_owned());
        }
        let pages = Pages::load(memory, &cache, &table)?;
        let mut out = vec![-1.0; y.count()];
        for (sequence, &entries) in entries.iter().enumerate() {
            let (first, end) = (starts[sequence] as usize, starts[sequence + 1] as usize);
            if end < first || end > q.dims[0] {
                return Err(format!("sequence {sequence}: its queries leave q"));
            }
            for token in first..end {
                let left = residual.as_ref().map_or(0.0, |residual| residual[sequence]);
                let mut scores = Vec::new();
                for index in 0..visible(entries, left, ratio, end - first, token - first) {
                    let key = pages.row(sequence, index)?;
                    let head_score = |head: usize| {
                        let q = &values[(token * heads + head) * 128..][..128];
                        weights[token * heads + head] * q.iter().zip(key).map(|(a, b)| a * b).sum::<f64>().max(0.0)
                    };
                    scores.push((index, (0..heads).map(head_score).sum::<f64>() as f32));
                }
                scores.sort_by(|a, b| b.1.total_cmp(&a.1));
                let places = out[token * topk as usize..][..topk as usize].iter_mut();
                places.zip(scores).for_each(|(place, (index, _))| *place = index as f64);
            }
        }
        y.store(memory, &out)
    })
}

fn indexer_metadata(arguments: &Arguments) -> Planned {
    let (starts, entries, y) = (arguments.tensor(0)?, arguments.tensor(3)?, arguments.tensor(16)?);
    expect(
        y.dtype == I32 && y.dims == [METADATA_WORDS],
        "metadata must be int32 [1024]",
    )?;
    write_fingerprint(arguments.real(15), starts, entries, None, None, y)
}

/// Mode 1: neighbours 2i and 2i + 1 of a slice of the last axis are rotated; the tables hold every value twice.
fn rotate(arguments: &Arguments) -> Planned {
    arguments.types(0, &[BF16, F16, F32])?;
    let (mut x, cos, sin) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(2)?);
    expect(arguments.integer(3) == 1, "rotary_mode 1 is emulated")?;
    let (start, end) = match arguments.array(4)[..] {
        [start, end] if 0 <= start && start < end && end as usize <= x.width() => (start as usize, end as usize),
        _ => return Err("partialSlice must be {start, end} inside the last axis".into()),
    };
    let width = end - start;
    expect(
        x.dims.len() == 4 && width.is_multiple_of(2),
        "x must have four axes and the slice an even length",
    )?;
    let table = [&[x.dims[0]][..], &[1, 1, width]].concat();
    expect(
        cos.dims == table && sin.dims == table && x.dims[1] == 1,
        "cos and sin must be [B, 1, 1, slice], x [B, 1, N, D]",
    )?;
    expect(
        cos.dtype == sin.dtype && [x.dtype, F32].contains(&cos.dtype),
        "cos and sin must be of the type of x, or float",
    )?;
    x.offset += start * x.strides[3];
    x.dims[3] = width;
    kernel(move |memory| {
        let (mut values, cos, sin) = (x.load(memory)?, cos.load(memory)?, sin.load(memory)?);
        let rows_per_token = x.dims[2];
        for (row, pairs) in values.chunks_exact_mut(width).enumerate() {
            let token = row / rows_per_token * width;
            for (pair, numbers) in pairs.chunks_exact_mut(2).enumerate() {
                let (place, even, odd) = (token + 2 * pair, numbers[0], numbers[1]);
                numbers[0] = even * cos[place] - odd * sin[place];
                numbers[1] = odd * cos[place + 1] + even * sin[place + 1];
            }
        }
        x.store(memory, &values)
    })
}

/// Rows of `updates` replace the rows of the first axis that `indices` `[n, 1]` name.
fn scatter(arguments: &Arguments) -> Planned {
    let (target, indices, updates) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(2)?);
    expect(
        [I32, I64].contains(&indices.dtype) && indices.dims.len() == 2 && indices.width() == 1,
        "indices must be [n, 1], int32 or int64",
    )?;
    let shape = [&indices.dims[..1], &target.dims[1..]].concat();
    expect(
        updates.dims == shape && updates.dtype == target.dtype,
        "updates must be [n, ..] of the type of var",
    )?;
    kernel(move |memory| {
        let (indices, values) = (indices.load(memory)?, updates.load(memory)?);
        let mut row = target.clone();
        row.dims[0] = 1;
        for (&index, values) in indices.iter().zip(values.chunks(row.count().max(1))) {
            if !(0.0..target.dims[0] as f64).contains(&index) {
                return Err(format!("index {index} of {} rows", target.dims[0]));
            }
            row.offset = target.offset + index as usize * target.strides[0];
            row.store(memory, values)?;
        }
        Ok(())
    })
}

operators! {
    aclnnSparseFlashMla aclnnSparseFlashMlaGetWorkspaceSize(
        q: input, window: optional, compressed: optional, window_indices: optional, chosen: optional,
        window_table: optional, table: optional, starts: optional, starts_window: optional, starts_compressed: optional,
        used_q: optional, lengths: optional, entries: optional, residual: optional, window_topk: optional, topk: optional,
        sinks: optional, meta: optional, scale: real, ratio: int64, window_mask: int64, mask: int64, left: int64,
        right: int64, layout_q: text, layout_kv: text, value_mode: int64, returns_lse: flag,
        out: output, lse: optional_output
    ) => attention;
    aclnnSparseFlashMlaMetadata aclnnSparseFlashMlaMetadataGetWorkspaceSize(
        starts: optional, starts_window: optional, starts_compressed: optional, used_q: optional, lengths: optional,
        entries: optional, residual: optional, window_topk_length: optional, topk_length: optional, heads: int64,
        kv_heads: int64, width: int64, batch: int64, most_q: int64, most_window: int64, most_compressed: int64,
        window_topk: int64, topk: int64, ratio: int64, window_mask: int64, mask: int64, left: int64, right: int64,
        layout_q: text, layout_kv: text, has_window: flag, has_compressed: flag, out: output
    ) => metadata;
    aclnnLightningIndexerV2 aclnnLightningIndexerV2GetWorkspaceSize(
        q: input, k: input, weights: input, starts: optional, starts_k: optional, used_q: optional, entries: optional,
        residual: optional, table: optional, offset: optional, meta: optional, topk: int64, most_q: int64, layout_q: text,
        layout_k: text, mask: int64, ratio: int64, returns_values: int64, indices: output, values: optional_output
    ) => indexer;
    aclnnLightningIndexerV2Metadata aclnnLightningIndexerV2MetadataGetWorkspaceSize(
        starts: optional, starts_k: optional, used_q: optional, entries: optional, residual: optional, heads: int64,
        heads_k: int64, width: int64, topk: int64, batch: int64, most_q: int64, most_k: int64, layout_q: text,
        layout_k: text, mask: int64, ratio: int64, out: output
    ) => indexer_metadata;
    custom_aclnnSparseAttnSharedkv custom_aclnnSparseAttnSharedkvGetWorkspaceSize(
        q: input, window: optional, compressed: optional, window_indices: optional, chosen: optional,
        window_table: optional, table: optional, starts: optional, starts_window: optional, starts_compressed: optional,
        used_q: optional, lengths: optional, sinks: optional, meta: optional, scale: real, ratio: int64,
        window_mask: int64, mask: int64, window_stride: int64, stride: int64, left: int64, right: int64,
        layout_q: text, layout_kv: text, returns_lse: flag, out: output, lse: optional_output
    ) => custom_attention;
    custom_aclnnSparseAttnSharedkvMetadata custom_aclnnSparseAttnSharedkvMetadataGetWorkspaceSize(
        starts: optional, starts_window: optional, starts_compressed: optional, used_q: optional, lengths: optional,
        heads: int64, kv_heads: int64, width: int64, batch: int64, most_q: int64, most_kv: int64, window_topk: int64,
        topk: int64, ratio: int64, window_mask: int64, mask: int64, left: int64, right: int64, layout_q: text,
        layout_kv: text, has_window: flag, has_compressed: flag, out: output
    ) => custom_metadata;
    custom_aclnnInplacePartialRotaryMul custom_aclnnInplacePartialRotaryMulGetWorkspaceSize(
        x: in_place, cos: input, sin: input, mode: int64, range: array
    ) => rotate;
    aclnnInplacePartialRotaryMul aclnnInplacePartialRotaryMulGetWorkspaceSize(
        x: in_place, cos: input, sin: input, mode: int64, range: array
    ) => rotate;
    aclnnScatterNdUpdate aclnnScatterNdUpdateGetWorkspaceSize(target: in_place, indices: input, updates: input) => scatter;
}
