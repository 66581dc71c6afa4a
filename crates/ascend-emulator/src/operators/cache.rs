//! Writes into caches and reads from them by slot, block table or index.

use crate::elements::{BF16, F16, F32, I8, I32, I64, Tensor};
use crate::signature::{Arguments, Planned, Refusal, expect, kernel, operators};

const ROW_TYPES: &[i32] = &[F32, F16, BF16, I8];

/// One row of the first two axes, taken as one: `[blocks, size, ..]`.
fn slot_view(cache: &Tensor, slot: usize) -> Tensor {
    let mut row = cache.clone();
    row.offset += slot / cache.dims[1] * cache.strides[0] + slot % cache.dims[1] * cache.strides[1];
    row.dims.drain(..2);
    row.strides.drain(..2);
    row
}

fn check_rows(rows: &Tensor, cache: &Tensor, slots: &Tensor) -> Result<(), Refusal> {
    expect(
        cache.dims.len() == 4 && rows.dims.len() == 3 && rows.dims[1..] == cache.dims[2..],
        "rows must be [tokens, heads, width], their cache [blocks, size, heads, width]",
    )?;
    expect(rows.dtype == cache.dtype, "rows must be of the cache's type")?;
    expect(
        slots.dims == [rows.dims[0]] && [I32, I64].contains(&slots.dtype),
        "slotMapping must be int32 or int64, one number a token",
    )
}

/// Rows of key, and of value where given, go to the slots of their caches; -1 skips a token.
fn scatter_paged(arguments: &Arguments) -> Planned {
    arguments.types(0, ROW_TYPES)?;
    arguments.absent(&[5, 6, 7])?;
    expect(
        ["", "Norm"].contains(&arguments.text(8)) && ["", "None"].contains(&arguments.text(9)),
        "cacheMode \"Norm\" and scatterMode \"None\" are emulated",
    )?;
    expect(
        arguments.array(10).is_empty() && arguments.array(11).is_empty(),
        "strides and offsets are not emulated",
    )?;
    let slots = arguments.tensor(2)?;
    let mut pairs = vec![(arguments.tensor(0)?, arguments.tensor(1)?)];
    match (arguments.optional(3), arguments.optional(4)) {
        (Some(rows), Some(cache)) => pairs.push((rows, cache)),
        (None, None) => {}
        _ => return Err("value and valueCache belong together".into()),
    }
    pairs
        .iter()
        .try_for_each(|(rows, cache)| check_rows(rows, cache, &slots))?;
    kernel(move |memory| {
        let slots = slots.load(memory)?;
        for (rows, cache) in &pairs {
            let values = rows.load(memory)?;
            let total = cache.dims[0] * cache.dims[1];
            for (&slot, row) in slots.iter().zip(values.chunks(rows.dims[1] * rows.dims[2])) {
                if slot == -1.0 {
                    continue;
                }
                if !(0.0..total as f64).contains(&slot) {
                    return Err(format!("slot {slot} of {total}"));
                }
                slot_view(cache, slot as usize).store(memory, row)?;
            }
        }
        Ok(())
    })
}

/// The rows of each sequence by its block table, one sequence after the other.
fn gather_paged(arguments: &Arguments) -> Planned {
    arguments.types(0, ROW_TYPES)?;
    arguments.absent(&[6])?;
    expect(
        ["", "Norm"].contains(&arguments.text(7)),
        "cacheMode \"Norm\" is emulated",
    )?;
    let (table, lengths) = (arguments.tensor(2)?, arguments.tensor(3)?);
    expect(
        table.dtype == I32 && table.dims.len() == 2 && lengths.dtype == I32,
        "block tables and lengths must be int32",
    )?;
    let pairs = [(0, 4), (1, 5)].map(|(cache, rows)| Ok((arguments.tensor(cache)?, arguments.tensor(rows)?)));
    let pairs = pairs.into_iter().collect::<Result<Vec<_>, Refusal>>()?;
    for (cache, rows) in &pairs {
        expect(
            cache.dims.len() == 4
                && rows.dims.len() == 3
                && rows.dims[1..] == cache.dims[2..]
                && rows.dtype == cache.dtype,
            "caches must be [blocks, size, heads, width], their rows [tokens, heads, width]",
        )?;
    }
    let cumulative = arguments.integer(8) != 0;
    expect(
        lengths.count() == table.dims[0] + usize::from(cumulative),
        "seqLens must have one number a sequence, or one more when they are sums",
    )?;
    kernel(move |memory| {
        let (table_values, lengths) = (table.load(memory)?, lengths.load(memory)?);
        let lengths = match cumulative {
            true => lengths.windows(2).map(|pair| pair[1] - pair[0]).collect(),
            false => lengths,
        };
        for (cache, rows) in &pairs {
            let mut out = Vec::new();
            for (sequence, &length) in lengths.iter().enumerate() {
                for position in 0..length as usize {
                    let place = position / cache.dims[1];
                    let block = table_values[sequence * table.width()..][..table.width()]
                        .get(place)
                        .filter(|block| (0.0..cache.dims[0] as f64).contains(*block))
                        .ok_or_else(|| format!("sequence {sequence}: position {position} has no block"))?;
                    let slot = *block as usize * cache.dims[1] + position % cache.dims[1];
                    out.extend(slot_view(cache, slot).load(memory)?);
                }
            }
            if out.len() > rows.count() {
                return Err("the rows of all sequences do not fit".to_owned());
            }
            rows.store(memory, &out)?;
        }
        Ok(())
    })
}

/// self[indices[0], indices[1], ..] = values, or += with `accumulate`; indices of equal shapes for the first axes.
fn index_put(arguments: &Arguments) -> Planned {
    let (target, indices, values) = (arguments.tensor(0)?, arguments.list(1), arguments.tensor(2)?);
    let axes = indices.len();
    expect(
        axes > 0 && axes <= target.dims.len(),
        "indices must name one axis or more",
    )?;
    let equal = indices
        .iter()
        .all(|index| index.dims == indices[0].dims && [I32, I64].contains(&index.dtype));
    expect(equal, "indices must be int32 or int64, of equal shapes")?;
    let shape = [&indices[0].dims[..], &target.dims[axes..]].concat();
    expect(
        values.dims == shape && values.dtype == target.dtype,
        "values must be of self's type, and as many as indexed",
    )?;
    let adds = arguments.integer(3) != 0;
    kernel(move |memory| {
        let places = indices
            .iter()
            .map(|index| index.load(memory))
            .collect::<Result<Vec<_>, _>>()?;
        let values = values.load(memory)?;
        let inner: usize = target.dims[axes..].iter().product();
        for (number, fresh) in values.chunks(inner.max(1)).enumerate() {
            let mut row = target.clone();
            for (axis, places) in places.iter().enumerate() {
                let (place, limit) = (places[number], target.dims[axis] as f64);
                let place = if place < 0.0 { place + limit } else { place };
                if !(0.0..limit).contains(&place) {
                    return Err(format!("index {place} of {limit}"));
                }
                row.offset += place as usize * target.strides[axis];
            }
            row.dims.drain(..axes);
            row.strides.drain(..axes);
            let sums: Vec<f64> = match adds {
                true => row
                    .load(memory)?
                    .iter()
                    .zip(fresh)
                    .map(|(held, add)| held + add)
                    .collect(),
                false => fresh.to_vec(),
            };
            row.store(memory, &sums)?;
        }
        Ok(())
    })
}

operators! {
    aclnnScatterPaKvCache aclnnScatterPaKvCacheGetWorkspaceSize(
        key: input, key_cache: in_place, slots: input, value: optional, value_cache: optional_in_place,
        lengths: optional, offsets: optional, sequences: optional, cache_mode: text, scatter_mode: text,
        strides: array, starts: array
    ) => scatter_paged;
    aclnnGatherPaKvCache aclnnGatherPaKvCacheGetWorkspaceSize(
        key_cache: input, value_cache: input, table: input, lengths: input, key: in_place, value: in_place,
        offset: optional, cache_mode: text, cumulative: flag
    ) => gather_paged;
    aclnnIndexPutImpl aclnnIndexPutImplGetWorkspaceSize(
        target: in_place, indices: list, values: input, accumulate: flag, without_checks: flag
    ) => index_put;
}
