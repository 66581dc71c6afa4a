//! Rows packed for the window and the entry pools.

use cachalot_chip::{Entries, Error, PackRows, RowFormat};
use cachalot_numerics::{bf16, e2m1, e4m3, e8m0, hadamard, quantise};

use super::Context;
use crate::kernels::Chosen;

pub(super) fn pack_rows(context: &Context<'_>, operation: &PackRows<'_>) -> Result<(), Error> {
    let [row_count, width] = [operation.x.shape()[0], operation.x.shape()[1]];
    let x = context.access.f32("x", operation.x)?;
    let out = context.access.bytes_mut("out", operation.out)?;
    let packing = Packing {
        format: operation.format,
        width,
        tail: operation.tail,
    };
    let row_byte_count = out.len() / row_count.max(1);
    context.pool.for_each_chunk(out, row_byte_count, 8 * width, |row, out| {
        packing.pack(&x[row * width..][..width], out);
    });
    Ok(())
}

/// One row format with its dimensions.
#[derive(Clone, Copy)]
pub(crate) struct Packing {
    pub format: RowFormat,
    pub width: usize,
    pub tail: usize,
}

impl Packing {
    pub fn of(entries: &Entries<'_>) -> Self {
        Packing {
            format: entries.format,
            width: entries.width,
            tail: entries.tail,
        }
    }

    pub fn row_byte_count(&self) -> usize {
        self.format.byte_count(self.width, self.tail)
    }

    /// Packs `values` (`width` long) into `out` (a row's bytes).
    pub fn pack(&self, values: &[f32], out: &mut [u8]) {
        match self.format {
            RowFormat::F32 => {
                for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *bytes = value.to_le_bytes();
                }
            }
            RowFormat::Bf16 => pack_bf16(values, out),
            RowFormat::Fp8Tail => {
                let (plain, tail) = values.split_at(self.width - self.tail);
                let (codes, rest) = out.split_at_mut(plain.len());
                let (tail_bytes, scales) = rest.split_at_mut(2 * self.tail);
                quantise::encode_fp8(plain, RowFormat::FP8_GROUP, codes, scales);
                pack_bf16(tail, tail_bytes);
            }
            RowFormat::Fp4Hadamard => {
                let mut rotated = values.to_vec();
                rotate_index_row(&mut rotated);
                let (codes, scales) = out.split_at_mut(self.width.div_ceil(2));
                quantise::encode_fp4(&rotated, RowFormat::FP4_GROUP, codes, scales);
            }
            RowFormat::Fp8 => {
                let (codes, scales) = out.split_at_mut(self.width);
                quantise::encode_fp8(values, RowFormat::FP8_SMALL_GROUP, codes, scales);
            }
            RowFormat::Fp4 => {
                let (codes, scales) = out.split_at_mut(self.width.div_ceil(2));
                quantise::encode_fp4(values, RowFormat::FP4_GROUP, codes, scales);
            }
            RowFormat::Fp4Fine => {
                let (codes, scales) = out.split_at_mut(self.width.div_ceil(2));
                quantise::encode_fp4_fine(values, RowFormat::FP4_FINE_GROUP, codes, scales);
            }
        }
    }

    /// Unpacks a row into `out` (`width` long). Exact.
    pub fn unpack(&self, kernels: Chosen, row: &[u8], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = kernels.avx2()
            && avx2.unpack(self, row, out)
        {
            return;
        }
        #[cfg(not(target_arch = "x86_64"))]
        let Chosen {} = kernels;
        self.unpack_portable(row, out);
    }

    fn unpack_portable(&self, row: &[u8], out: &mut [f32]) {
        match self.format {
            RowFormat::F32 => {
                for (value, bytes) in out.iter_mut().zip(row.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            RowFormat::Bf16 => unpack_bf16(row, out),
            RowFormat::Fp8Tail => {
                let (plain, tail) = out.split_at_mut(self.width - self.tail);
                let (codes, rest) = row.split_at(plain.len());
                let (tail_bytes, scales) = rest.split_at(2 * self.tail);
                let groups = plain
                    .chunks_mut(RowFormat::FP8_GROUP)
                    .zip(codes.chunks(RowFormat::FP8_GROUP));
                for ((values, codes), scale) in groups.zip(scales) {
                    let scale = e8m0::decode(*scale);
                    for (value, code) in values.iter_mut().zip(codes) {
                        *value = e4m3::decode(*code) * scale;
                    }
                }
                unpack_bf16(tail_bytes, tail);
            }
            RowFormat::Fp8 => {
                let (codes, scales) = row.split_at(self.width);
                let groups = out
                    .chunks_mut(RowFormat::FP8_SMALL_GROUP)
                    .zip(codes.chunks(RowFormat::FP8_SMALL_GROUP));
                for ((values, codes), scale) in groups.zip(scales) {
                    let scale = e8m0::decode(*scale);
                    for (value, code) in values.iter_mut().zip(codes) {
                        *value = e4m3::decode(*code) * scale;
                    }
                }
            }
            RowFormat::Fp4Hadamard | RowFormat::Fp4 => self.unpack_fp4(row, RowFormat::FP4_GROUP, e8m0::decode, out),
            RowFormat::Fp4Fine => self.unpack_fp4(row, RowFormat::FP4_FINE_GROUP, e4m3::decode, out),
        }
    }
}

impl Packing {
    fn unpack_fp4(&self, row: &[u8], group: usize, decode_scale: fn(u8) -> f32, out: &mut [f32]) {
        let (codes, scales) = row.split_at(self.width.div_ceil(2));
        let groups = out.chunks_mut(group).zip(codes.chunks(group / 2));
        for ((values, codes), scale) in groups.zip(scales) {
            let scale = decode_scale(*scale);
            for (pair, byte) in values.chunks_mut(2).zip(codes) {
                for (value, decoded) in pair.iter_mut().zip(e2m1::decode_pair(*byte)) {
                    *value = decoded * scale;
                }
            }
        }
    }
}

/// The Hadamard rotation of index queries and keys, rounded to bf16.
pub(super) fn rotate_index_row(values: &mut [f32]) {
    hadamard::transform(values);
    values.iter_mut().for_each(|value| *value = bf16::round(*value));
}

fn pack_bf16(values: &[f32], out: &mut [u8]) {
    for (bytes, value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
        *bytes = bf16::encode(*value).to_le_bytes();
    }
}

fn unpack_bf16(row: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(row.as_chunks::<2>().0) {
        *value = bf16::decode(u16::from_le_bytes(*bytes));
    }
}

/// The entries of one sequence, found through its row of the page table.
pub(crate) struct EntryReader<'a> {
    pub packing: Packing,
    pool: &'a [u8],
    pages: &'a [i32],
    page_entry_count: usize,
}

impl<'a> EntryReader<'a> {
    /// `pool` and `page_table` are the bytes and values of `entries`.
    pub fn new(entries: &Entries<'_>, pool: &'a [u8], page_table: &'a [i32], sequence: usize) -> Self {
        let page_count = entries.page_table.shape()[1];
        EntryReader {
            packing: Packing::of(entries),
            pool,
            pages: &page_table[sequence * page_count..][..page_count],
            page_entry_count: entries.page_entry_count(),
        }
    }

    /// Checks that the first `count` entries lie in the pool; else the offending page number.
    pub fn check(&self, count: usize) -> Result<(), i32> {
        let page_byte_count = self.page_entry_count * self.packing.row_byte_count();
        let page_count = self.pool.len() / page_byte_count.max(1);
        for index in 0..count.div_ceil(self.page_entry_count) {
            let page = self.pages.get(index).copied().unwrap_or(-1);
            if usize::try_from(page).map_or(true, |page| page >= page_count) {
                return Err(page);
            }
        }
        Ok(())
    }

    /// The packed bytes of an entry that [`EntryReader::check`] covered.
    pub fn row(&self, index: usize) -> &'a [u8] {
        &self.pool[self.byte_offset(index)..][..self.packing.row_byte_count()]
    }

    /// Where an entry that [`EntryReader::check`] covered starts in the pool.
    pub fn byte_offset(&self, index: usize) -> usize {
        let page = self.pages[index / self.page_entry_count] as usize;
        (page * self.page_entry_count + index % self.page_entry_count) * self.packing.row_byte_count()
    }
}
