//! The largest of many values, without sorting them.

use std::cell::RefCell;

/// Leading bits of a value's order that a first pass counts.
const DIGIT_BITS: u32 = 11;

#[derive(Default)]
struct Scratch {
    counts: Vec<u32>,
    candidates: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Writes the indices of the `chosen.len()` largest values in ascending order; ties go to the lower index.
///
/// -0 ties with 0. NaN comes first, where it is seen in the result.
///
/// # Panics
/// If there are fewer values.
pub(super) fn largest(values: &[f32], chosen: &mut [i32]) {
    assert!(
        chosen.len() <= values.len(),
        "{} of {} values",
        chosen.len(),
        values.len()
    );
    if chosen.is_empty() {
        return;
    }
    let (threshold, mut tie_count) = SCRATCH.with_borrow_mut(|scratch| threshold(values, chosen.len(), scratch));
    let mut places = chosen.iter_mut();
    // Blocks without a hit are many and are passed over eight or sixteen values at a time.
    for (block, values) in values.chunks(16).enumerate() {
        if !values
            .iter()
            .fold(false, |found, value| found | (order(*value) >= threshold))
        {
            continue;
        }
        for (index, value) in values.iter().enumerate() {
            let order = order(*value);
            let is_tie = order == threshold && tie_count > 0;
            if order > threshold || is_tie {
                tie_count -= usize::from(is_tie);
                *places.next().expect("as many as were counted") = (16 * block + index) as i32;
            }
        }
    }
}

/// The order of the `count`-th largest value, and how many values of this order are among the largest.
fn threshold(values: &[f32], count: usize, scratch: &mut Scratch) -> (u32, usize) {
    const SHIFT: u32 = u32::BITS - DIGIT_BITS;
    let Scratch { counts, candidates } = scratch;
    counts.clear();
    counts.resize(1 << DIGIT_BITS, 0);
    values
        .iter()
        .for_each(|value| counts[(order(*value) >> SHIFT) as usize] += 1);
    let (mut digit, mut above) = (counts.len() - 1, 0);
    while above + (counts[digit] as usize) < count {
        above += counts[digit] as usize;
        digit -= 1;
    }
    candidates.clear();
    let orders = values.iter().map(|value| order(*value));
    candidates.extend(orders.filter(|order| (order >> SHIFT) as usize == digit));
    let place = count - above - 1;
    let (larger, threshold, _) = candidates.select_nth_unstable_by(place, |a, b| b.cmp(a));
    let larger_count = larger.iter().filter(|order| **order > *threshold).count();
    (*threshold, count - above - larger_count)
}

/// Numbers in the order of the values, by `f32::total_cmp`.
#[inline(always)]
fn order(value: f32) -> u32 {
    // Adding zero makes a zero of -0.
    let bits = (value + 0.0).to_bits() as i32;
    (bits ^ ((bits >> 31) & i32::MAX)) as u32 ^ (1 << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        let mut chosen = [0; 4];
        largest(&[0.0, 1.0, -0.0, 0.0, 1.0, 0.0], &mut chosen);
        assert_eq!(chosen, [0, 1, 2, 4]);
        largest(&[-1.0, f32::NAN, -2.0, f32::INFINITY, -1.0, -1.0], &mut chosen);
        assert_eq!(chosen, [0, 1, 3, 4]);
    }

    #[test]
    fn the_same_as_sorting() {
        // Few different values, so that most thresholds are ties; and many.
        for modulus in [7u64, 100_003] {
            let values: Vec<f32> = (0..5000u64)
                .map(|i| (i * i * 7919 % modulus) as f32 - modulus as f32 / 2.0)
                .collect();
            let mut sorted: Vec<usize> = (0..values.len()).collect();
            sorted.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
            for count in [1, 2, 512, 4999, 5000] {
                let mut expected: Vec<i32> = sorted[..count].iter().map(|index| *index as i32).collect();
                expected.sort_unstable();
                let mut chosen = vec![0; count];
                largest(&values, &mut chosen);
                assert_eq!(chosen, expected, "{count} of {modulus}");
            }
        }
    }
}
