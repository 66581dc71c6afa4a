use crate::Tensor;

/// Which sequence and position each row of a ragged step belongs to. All tensors are `I32`.
///
/// The rows of one sequence are adjacent and their positions ascend by one; sequences follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// `[rows]`: absolute position of each row in its sequence, from 0.
    pub positions: &'a Tensor,
    /// `[rows]`: index of the row's sequence among the sequences of this step.
    pub sequences: &'a Tensor,
    /// `[sequences + 1]`: first row of each sequence, then the row count.
    pub first_rows: &'a Tensor,
    /// `[sequences]`: the slot that holds the sequence's tails.
    pub slots: &'a Tensor,
}

impl Rows<'_> {
    /// Rows in this step.
    pub fn row_count(&self) -> usize {
        self.positions.element_count()
    }

    /// Sequences in this step.
    pub fn sequence_count(&self) -> usize {
        self.slots.element_count()
    }

    /// The tensors with their names.
    pub fn tensors(&self) -> [(&'static str, &Tensor); 4] {
        [
            ("positions", self.positions),
            ("sequences", self.sequences),
            ("first_rows", self.first_rows),
            ("slots", self.slots),
        ]
    }
}

/// How a KV row or an index key is packed into bytes.
///
/// A row has `width` channels, the last `tail` of which are rotary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowFormat {
    /// Plain `f32`: the reference.
    F32,
    /// Plain bf16.
    Bf16,
    /// KV rows of V4: channels before the tail as e4m3 in groups of 64 with E8M0 scales, the tail as bf16.
    /// Layout: codes, tail, scales padded with zeros to a multiple of 8 bytes. 584 bytes for 512 channels.
    Fp8Tail,
    /// Index keys of V4: Hadamard-rotated, rounded to bf16, e2m1 in groups of 32 with E8M0 scales.
    /// Layout: codes, scales. 68 bytes for 128 channels.
    Fp4Hadamard,
    /// Window rows of V4.1: all channels as e4m3 in groups of 32 with E8M0 scales.
    /// Layout: codes, scales. 528 bytes for 512 channels.
    Fp8,
    /// Index keys of V4.1: e2m1 in groups of 32 with E8M0 scales, not rotated.
    /// Layout: codes, scales. 68 bytes for 128 channels.
    Fp4,
    /// Entries of V4.1: e2m1 in groups of 16 with e4m3 scales.
    /// Layout: codes, scales. 288 bytes for 512 channels.
    Fp4Fine,
}

impl RowFormat {
    /// Channels that share a scale in [`RowFormat::Fp8Tail`].
    pub const FP8_GROUP: usize = 64;
    /// Channels that share a scale in [`RowFormat::Fp8`].
    pub const FP8_SMALL_GROUP: usize = 32;
    /// Channels that share a scale in [`RowFormat::Fp4Hadamard`] and [`RowFormat::Fp4`].
    pub const FP4_GROUP: usize = 32;
    /// Channels that share a scale in [`RowFormat::Fp4Fine`].
    pub const FP4_FINE_GROUP: usize = 16;

    /// Bytes of a row of `width` channels with a rotary tail of `tail` channels.
    pub const fn byte_count(self, width: usize, tail: usize) -> usize {
        match self {
            RowFormat::F32 => 4 * width,
            RowFormat::Bf16 => 2 * width,
            RowFormat::Fp8Tail => {
                let plain = width - tail;
                plain + 2 * tail + plain.div_ceil(RowFormat::FP8_GROUP).next_multiple_of(8)
            }
            RowFormat::Fp8 => width + width.div_ceil(RowFormat::FP8_SMALL_GROUP),
            RowFormat::Fp4Fine => width.div_ceil(2) + width.div_ceil(RowFormat::FP4_FINE_GROUP),
            RowFormat::Fp4Hadamard | RowFormat::Fp4 => width.div_ceil(2) + width.div_ceil(RowFormat::FP4_GROUP),
        }
    }
}

/// Compressed entries of many sequences in pages.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    /// `U8 [pages, entries of a page, row bytes]`.
    pub pool: &'a Tensor,
    /// `I32 [sequences, pages of a sequence]`: the page that holds entry `j` of a sequence is number
    /// `j / (entries of a page)`. Places beyond a sequence's length are not read.
    pub page_table: &'a Tensor,
    /// How an entry is packed.
    pub format: RowFormat,
    /// Channels of an entry.
    pub width: usize,
    /// Rotary channels at the end of an entry.
    pub tail: usize,
    /// Tokens of an entry (4 or 128).
    pub ratio: usize,
}

impl Entries<'_> {
    /// Entries of a page.
    pub fn page_entry_count(&self) -> usize {
        self.pool.shape()[1]
    }

    /// The tensors with their names.
    pub fn tensors(&self) -> [(&'static str, &Tensor); 2] {
        [("pool", self.pool), ("page_table", self.page_table)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_rows_have_the_published_sizes() {
        assert_eq!(RowFormat::Fp8Tail.byte_count(512, 64), 584);
        assert_eq!(RowFormat::Fp4Hadamard.byte_count(128, 64), 68);
        assert_eq!(RowFormat::Fp8.byte_count(512, 64), 528);
        assert_eq!(RowFormat::Fp4.byte_count(128, 64), 68);
        assert_eq!(RowFormat::Fp4Fine.byte_count(512, 64), 288);
    }
}
