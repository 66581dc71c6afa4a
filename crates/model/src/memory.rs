//! The two kinds of memory that a family keeps of sequences, as whoever copies, saves and restores sequences sees them.

use cachalot_chip::{Chip, RowFormat, Tensor};
use cachalot_numerics::Dtype;

use crate::{Error, pages::PAGE_TOKEN_COUNT};

/// All memory of sequences: tails by slot, pools by page. Layers that share memory list it once.
#[derive(Default)]
pub(crate) struct StateTensors {
    pub tails: Vec<Tail>,
    pub pools: Vec<Pool>,
    /// Bytes for each slot of what nobody copies or saves: a drafter does without.
    pub private_byte_count: usize,
}

/// The last rows of each sequence, in a ring: the row of position `p` is `p` modulo the ring's length.
pub(crate) struct Tail {
    /// `[slots, ring rows, row width]`, in elements of the row's type or bytes.
    pub ring: Tensor,
    pub layout: RowLayout,
    pub reach: Reach,
}

/// Entries in pages, each for a number of tokens that divides a page's.
pub(crate) struct Pool {
    /// `U8 [pages, entries of a page, row bytes]`.
    pub entries: Tensor,
    pub layout: RowLayout,
}

/// Which rows of a tail later steps may read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    /// A window of this many positions, the next one included.
    Window(usize),
    /// Those of the compression window that is still open, and of the complete ones before it that overlap it.
    Open { ratio: usize, overlapped: usize },
}

/// How the rows of a tensor are packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowLayout {
    pub format: RowFormat,
    pub width: usize,
    pub tail: usize,
}

/// Allocates the memory that a family asks for.
pub(crate) struct StateBuilder<'a> {
    pub chip: &'a dyn Chip,
    pub slot_count: usize,
    page_count: usize,
    pub rollback_count_max: usize,
    /// Tokens that the model's drafter may guess at once; 0 if it needs no memory.
    pub draft_count_max: usize,
    tensors: StateTensors,
}

impl<'a> StateBuilder<'a> {
    pub fn new(chip: &'a dyn Chip, slot_count: usize, page_count: usize, rollback_count_max: usize) -> Self {
        StateBuilder {
            chip,
            slot_count,
            page_count,
            rollback_count_max,
            draft_count_max: 0,
            tensors: StateTensors::default(),
        }
    }

    /// Rings of packed rows, `U8 [slots, ring rows, row bytes]`, long enough for `reach` after any roll-back.
    pub fn packed_tail(&mut self, reach: Reach, layout: RowLayout) -> Result<Tensor, Error> {
        self.tail(reach, layout, Dtype::U8, layout.byte_count())
    }

    /// Rings of plain rows, `F32 [slots, ring rows, width]`, long enough for `reach` after any roll-back.
    pub fn f32_tail(&mut self, reach: Reach, width: usize) -> Result<Tensor, Error> {
        self.tail(reach, RowLayout::f32(width), Dtype::F32, width)
    }

    /// Rings of single integers, `I32 [slots, ring rows, 1]`, long enough for `reach` after any roll-back.
    pub fn i32_tail(&mut self, reach: Reach) -> Result<Tensor, Error> {
        // Of four bytes each, as `f32`.
        self.tail(reach, RowLayout::f32(1), Dtype::I32, 1)
    }

    /// Pages with an entry for each `ratio` tokens, `U8 [pages, entries of a page, row bytes]`.
    pub fn pool(&mut self, ratio: usize, layout: RowLayout) -> Result<Tensor, Error> {
        let shape = [self.page_count, PAGE_TOKEN_COUNT / ratio, layout.byte_count()];
        let entries = self.chip.allocate(Dtype::U8, &shape)?;
        self.tensors.pools.push(Pool {
            entries: entries.clone(),
            layout,
        });
        Ok(entries)
    }

    /// Takes note of a tensor with a part for each slot that sequences can do without.
    pub fn note_private(&mut self, tensor: &Tensor) {
        self.tensors.private_byte_count += tensor.byte_count() / self.slot_count;
    }

    pub fn finish(self) -> StateTensors {
        self.tensors
    }

    fn tail(&mut self, reach: Reach, layout: RowLayout, dtype: Dtype, width: usize) -> Result<Tensor, Error> {
        let row_count = reach.row_count() + self.rollback_count_max;
        let ring = self.chip.allocate(dtype, &[self.slot_count, row_count, width])?;
        self.tensors.tails.push(Tail {
            ring: ring.clone(),
            layout,
            reach,
        });
        Ok(ring)
    }
}

impl Reach {
    /// Rows that a ring must hold.
    fn row_count(self) -> usize {
        match self {
            Reach::Window(count) => count,
            Reach::Open { ratio, overlapped } => (1 + overlapped) * ratio,
        }
    }

    /// The first position whose row steps after `length` tokens may read.
    pub fn first(self, length: usize) -> usize {
        match self {
            Reach::Window(count) => length.saturating_sub(count - 1),
            Reach::Open { ratio, overlapped } => (length - length % ratio).saturating_sub(overlapped * ratio),
        }
    }
}

impl Pool {
    /// Tokens of an entry.
    #[cfg(test)]
    pub fn ratio(&self) -> usize {
        PAGE_TOKEN_COUNT / self.entries.shape()[1]
    }

    /// Bytes of a page.
    pub fn page_byte_count(&self) -> usize {
        self.entries.byte_count() / self.entries.shape()[0]
    }
}

impl RowLayout {
    pub fn f32(width: usize) -> Self {
        RowLayout {
            format: RowFormat::F32,
            width,
            tail: 0,
        }
    }

    pub fn byte_count(self) -> usize {
        self.format.byte_count(self.width, self.tail)
    }
}
