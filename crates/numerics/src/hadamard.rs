//! The orthonormal Walsh-Hadamard transform in Sylvester order.

/// Transforms `values` in place and multiplies by `len^-0.5`. No signs are flipped.
///
/// # Panics
/// If the length is not a power of two.
pub fn transform(values: &mut [f32]) {
    let count = values.len();
    assert!(
        count.is_power_of_two(),
        "the Hadamard transform needs a power-of-two length, got {count}"
    );
    let mut half = 1;
    while half < count {
        for block in values.chunks_exact_mut(2 * half) {
            let (left, right) = block.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let factor = (count as f32).sqrt().recip();
    values.iter_mut().for_each(|value| *value *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforming_twice_gives_the_input_back() {
        let input: Vec<f32> = (0..128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let mut output = input.clone();
        transform(&mut output);
        transform(&mut output);
        for (a, b) in input.iter().zip(&output) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn entry_signs_follow_sylvester() {
        // Column j of H_n is the transform of unit vector j: sign (-1)^popcount(i & j).
        for j in [0usize, 1, 5, 127] {
            let mut unit = vec![0.0f32; 128];
            unit[j] = 1.0;
            transform(&mut unit);
            for (i, value) in unit.iter().enumerate() {
                let sign = if (i & j).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                assert!((value - sign * 128f32.powf(-0.5)).abs() < 1e-7);
            }
        }
    }
}
