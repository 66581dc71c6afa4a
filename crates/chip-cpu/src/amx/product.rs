//! Lists of products on the tile unit.

use std::cell::RefCell;

use super::{
    Amx,
    activations::{Packing, TILE_WIDTH},
    narrow,
    tile::Tiles,
    weights::AnyWeights,
    wide,
};
use crate::{
    division::{Division, Run},
    pool::Pool,
    product::Product,
};

/// Computes rows of a product with other kernels.
pub(crate) type Other<'a> = &'a (dyn Fn(&Product<'_>, usize, usize) + Sync);

/// What a list needs besides the list. Kept, so that a step allocates nothing.
#[derive(Default)]
struct Workspace {
    division: Division,
    plans: Vec<Plan>,
    /// What is packed: a product and a tile of its activation columns.
    pieces: Vec<[usize; 2]>,
    packed: Vec<CacheLine>,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct CacheLine(#[expect(dead_code, reason = "written and read as bytes")] [u8; 64]);

/// How a product is computed.
#[derive(Clone, Copy)]
enum Plan {
    /// Sums stay in tiles.
    Narrow(Packing),
    /// Decoded panels of some rows.
    Wide(Packing, usize),
    /// Other kernels.
    Other,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
    /// A panel and its sums.
    static PANEL: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn run(amx: Amx, pool: &Pool, products: &[Product<'_>], other: Other<'_>) {
    WORKSPACE.with_borrow_mut(|workspace| workspace.run(amx, pool, products, other));
}

impl Workspace {
    fn run(&mut self, amx: Amx, pool: &Pool, products: &[Product<'_>], other: Other<'_>) {
        self.plan(products, pool.thread_count());
        self.pack(amx, pool, products);
        let runs = products
            .iter()
            .zip(&self.plans)
            .map(|(product, plan)| plan.run(product));
        let work_count = products
            .iter()
            .map(|product| product.row_count * product.matrix.columns * product.x_count)
            .sum();
        self.division.divide(runs, pool.thread_count());
        let (plans, packed) = (&self.plans, self.packed.as_ptr() as usize);
        self.division.run(
            pool,
            work_count,
            || Worker {
                amx,
                tiles: None,
                scratch: narrow::Scratch::default(),
            },
            |worker, [index, block], next| {
                let (product, plan) = (&products[index], &plans[index]);
                let ahead = next.map_or(&[][..], |[index, block]| plans[index].codes(&products[index], block));
                let rows = plan.rows(product, block);
                let activations = |packing: &Packing| (packed + packing.offset) as *const u8;
                // SAFETY: `pack` made the activations.
                unsafe {
                    match plan {
                        Plan::Narrow(packing) => worker.narrow(product, rows, packing, activations(packing), ahead),
                        Plan::Wide(packing, _) => worker.wide(product, rows, packing, activations(packing)),
                        Plan::Other => other(product, rows[0], rows[1]),
                    }
                }
            },
        );
    }

    fn plan(&mut self, products: &[Product<'_>], thread_count: usize) {
        self.plans.clear();
        let mut byte_count: usize = 0;
        for (index, product) in products.iter().enumerate() {
            let rows = product.first_row..product.first_row + product.row_count;
            assert!(rows.end <= product.matrix.rows, "weight rows in range");
            let x_end = product
                .x_count
                .checked_sub(1)
                .map(|last| last * product.x_stride + product.matrix.columns);
            assert!(
                x_end.is_none_or(|end| end <= product.x.len()),
                "activation rows in range"
            );
            let weights = AnyWeights::new(product.matrix).filter(|_| product.x_count * product.matrix.columns > 0);
            let Some(weights) = weights else {
                self.plans.push(Plan::Other);
                continue;
            };
            let mut packing = Packing::new(product, weights.order(), byte_count);
            let before = index
                .checked_sub(1)
                .map(|before| (&products[before], self.plans[before].packing()));
            match before {
                Some((before, Some(shared)))
                    if before.has_same_activations(product) && shared.order == packing.order =>
                {
                    packing.offset = shared.offset;
                }
                _ => byte_count += packing.byte_count().next_multiple_of(64),
            }
            self.plans.push(if packing.tile_count > narrow::TILE_COUNT_MAX {
                Plan::Wide(packing, wide::block_row_count(product.row_count, thread_count))
            } else {
                Plan::Narrow(packing)
            });
        }
        let line_count = byte_count.div_ceil(64);
        if self.packed.len() < line_count {
            self.packed.resize(line_count, CacheLine([0; 64]));
        }
    }

    fn pack(&mut self, _: Amx, pool: &Pool, products: &[Product<'_>]) {
        let buffer = self.packed.as_mut_ptr() as usize;
        self.pieces.clear();
        let (mut packed_end, mut work_count) = (0, 0);
        for (index, plan) in self.plans.iter().enumerate() {
            let Some(packing) = plan.packing() else { continue };
            if packing.offset < packed_end {
                continue;
            }
            packed_end = packing.offset + packing.byte_count();
            self.pieces.extend((0..packing.tile_count).map(|tile| [index, tile]));
            // Packing moves a value where a product multiplies many.
            work_count += 4 * products[index].matrix.columns * packing.width * packing.tile_count;
        }
        let (pieces, plans) = (&self.pieces, &self.plans);
        pool.run(pieces.len(), work_count / pieces.len().max(1), &|piece| {
            let [index, tile] = pieces[piece];
            let packing = plans[index].packing().expect("listed above");
            let out = buffer + packing.offset + tile * packing.depth * packing.tile_byte_count();
            // SAFETY: `Amx` proves the features; the activations are in range; the buffer holds all packings and every
            // tile is written by one call.
            unsafe { packing.pack(&products[index], tile, out as *mut u8) };
        });
    }
}

impl Plan {
    fn packing(&self) -> Option<Packing> {
        match self {
            Plan::Narrow(packing) | Plan::Wide(packing, _) => Some(*packing),
            Plan::Other => None,
        }
    }

    fn block_row_count(&self) -> usize {
        match self {
            Plan::Narrow(_) => narrow::BLOCK_ROW_COUNT,
            Plan::Wide(_, count) => *count,
            Plan::Other => crate::product::BLOCK_ROW_COUNT,
        }
    }

    fn run(&self, product: &Product<'_>) -> Run {
        /// Activation columns that a core multiplies in the time in which memory gives it one byte.
        const COLUMNS_PER_BYTE: usize = 115;
        let byte_count = product.matrix.format.row_byte_count(product.matrix.columns);
        let row_cost = byte_count + product.matrix.columns * product.x_count / COLUMNS_PER_BYTE;
        Run {
            block_count: product.row_count.div_ceil(self.block_row_count()),
            block_cost: row_cost * self.block_row_count(),
        }
    }

    /// First row of a block within the product, and rows.
    fn rows(&self, product: &Product<'_>, block: usize) -> [usize; 2] {
        let first = block * self.block_row_count();
        [first, self.block_row_count().min(product.row_count - first)]
    }

    /// The codes of a block.
    fn codes<'a>(&self, product: &Product<'a>, block: usize) -> &'a [u8] {
        let [first, count] = self.rows(product, block);
        let byte_count = product.matrix.format.row_byte_count(product.matrix.columns);
        let start = (product.first_row + first) * byte_count;
        &product.matrix.weights[start..start + count * byte_count]
    }
}

/// What a thread keeps from block to block.
struct Worker {
    amx: Amx,
    /// Configured for this width.
    tiles: Option<(usize, Tiles)>,
    scratch: narrow::Scratch,
}

impl Worker {
    fn configure(&mut self, width: usize) {
        if !matches!(&self.tiles, Some((configured, _)) if *configured == width) {
            // Released before they are configured again.
            self.tiles = None;
            self.tiles = Some((width, Tiles::new(self.amx, &narrow::shapes(width))));
        }
    }

    /// # Safety
    /// The activations are packed as `packing` says; the rows are inside the product.
    unsafe fn narrow(
        &mut self,
        product: &Product<'_>,
        rows: [usize; 2],
        packing: &Packing,
        activations: *const u8,
        ahead: &[u8],
    ) {
        self.configure(packing.width);
        let scratch = &mut self.scratch;
        // SAFETY: `Amx` proves the features, tiles are configured.
        unsafe {
            match weights(product) {
                AnyWeights::Bf16(weights) => {
                    narrow::multiply(weights, product, rows, packing, activations, ahead, scratch);
                }
                AnyWeights::Fp8(weights) => {
                    narrow::multiply(weights, product, rows, packing, activations, ahead, scratch);
                }
                AnyWeights::Fp4(weights) => {
                    narrow::multiply(weights, product, rows, packing, activations, ahead, scratch);
                }
            }
        }
    }

    /// # Safety
    /// As [`Worker::narrow`].
    unsafe fn wide(&mut self, product: &Product<'_>, rows: [usize; 2], packing: &Packing, activations: *const u8) {
        self.configure(TILE_WIDTH);
        PANEL.with_borrow_mut(|panel| {
            panel.resize(wide::SCRATCH_BYTE_COUNT / size_of::<CacheLine>(), CacheLine([0; 64]));
            let scratch = panel.as_mut_ptr().cast();
            // SAFETY: `Amx` proves the features, tiles are configured.
            unsafe {
                match weights(product) {
                    AnyWeights::Bf16(weights) => wide::multiply(weights, product, rows, packing, activations, scratch),
                    AnyWeights::Fp8(weights) => wide::multiply(weights, product, rows, packing, activations, scratch),
                    AnyWeights::Fp4(weights) => wide::multiply(weights, product, rows, packing, activations, scratch),
                }
            }
        });
    }
}

/// The weights of a product that the tile unit can take.
fn weights<'a>(product: &Product<'a>) -> AnyWeights<'a> {
    AnyWeights::new(product.matrix).expect("planned for other kernels otherwise")
}
