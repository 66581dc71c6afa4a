//! Rotary embedding.

use cachalot_chip::{Error, Rope, RopeAngles, RopeDirection, RopeHalves};

use super::Context;
use crate::vector::rotate_pairs;

pub(super) fn angles(context: &Context<'_>, operation: &RopeAngles<'_>) -> Result<(), Error> {
    let positions = context.access.i32("positions", operation.positions)?;
    let frequencies = context.access.f32("frequencies", operation.frequencies)?;
    let out = context.access.f32_mut("out", operation.out)?;
    context
        .pool
        .for_each_chunk(out, 2 * frequencies.len(), 64 * frequencies.len(), |row, out| {
            write_angles(positions[row], frequencies, out);
        });
    Ok(())
}

/// `(cos, sin)` pairs of one position. The angle is a product of two `f32`, its functions are taken in `f64`.
pub(super) fn write_angles(position: i32, frequencies: &[f32], out: &mut [f32]) {
    for (pair, frequency) in out.as_chunks_mut::<2>().0.iter_mut().zip(frequencies) {
        let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
        *pair = [cos as f32, sin as f32];
    }
}

pub(super) fn rope(context: &Context<'_>, operation: &Rope<'_>) -> Result<(), Error> {
    let [head_count, width] = [operation.x.shape()[1], operation.x.shape()[2]];
    let angles = context.access.f32("angles", operation.angles)?;
    let angle_count = 2 * operation.angles.shape()[1];
    let x = context.access.f32_mut("x", operation.x)?;
    context
        .pool
        .for_each_chunk(x, head_count * width, 2 * head_count * angle_count, |row, x| {
            let angles = &angles[row * angle_count..][..angle_count];
            for head in x.chunks_exact_mut(width) {
                let tail = &mut head[width - angle_count..];
                rotate(tail, angles, operation.direction);
                context.round(tail);
            }
        });
    Ok(())
}

pub(super) fn halves(context: &Context<'_>, operation: &RopeHalves<'_>) -> Result<(), Error> {
    let [head_count, width] = [operation.x.shape()[1], operation.x.shape()[2]];
    let angles = context.access.f32("angles", operation.angles)?;
    let angle_count = 2 * operation.angles.shape()[1];
    let x = context.access.f32_mut("x", operation.x)?;
    context
        .pool
        .for_each_chunk(x, head_count * width, 2 * head_count * angle_count, |row, x| {
            let angles = &angles[row * angle_count..][..angle_count];
            for head in x.chunks_exact_mut(width) {
                rotate_halves(&mut head[..angle_count], angles);
                context.round(&mut head[..angle_count]);
            }
        });
    Ok(())
}

/// Rotates the pairs `(c, c + half)` by `(cos, sin)` pairs.
pub(super) fn rotate_halves(channels: &mut [f32], angles: &[f32]) {
    let (left, right) = channels.split_at_mut(channels.len() / 2);
    for ((a, b), [cos, sin]) in left.iter_mut().zip(right).zip(angles.as_chunks::<2>().0) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// Rotates adjacent pairs by `(cos, sin)` pairs.
pub(super) fn rotate(tail: &mut [f32], angles: &[f32], direction: RopeDirection) {
    let sign = if direction == RopeDirection::Forward { 1.0 } else { -1.0 };
    rotate_pairs(tail, angles, sign);
}
