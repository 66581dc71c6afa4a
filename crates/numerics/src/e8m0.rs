//! E8M0 ("UE8M0"): a power of two from 2^-127 to 2^127, safetensors name `F8_E8M0`.

/// The code that stands for NaN.
pub const NAN: u8 = 255;

/// The value of a code: `2^(code - 127)`; 255 is NaN. Exact (code 0 is the subnormal 2^-127).
#[inline]
pub const fn decode(code: u8) -> f32 {
    match code {
        NAN => f32::NAN,
        0 => f32::from_bits(1 << 22),
        _ => f32::from_bits((code as u32) << 23),
    }
}

/// The code of the smallest power of two that is not below `value`.
///
/// Works on the bits, as the reference does: the exponent field, plus one if the mantissa is not zero.
/// `value` must be positive and finite; anything above 2^127 gives the largest code, 254.
#[inline]
pub const fn encode_ceil(value: f32) -> u8 {
    let bits = value.to_bits() & 0x7FFF_FFFF;
    let exponent = bits >> 23;
    if exponent == 0 {
        // Subnormal: 2^-127 is the bit 1 << 22.
        return (bits > 1 << 22) as u8;
    }
    let code = exponent + (bits & 0x7F_FFFF != 0) as u32;
    if code > 254 { 254 } else { code as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_powers_of_two() {
        for code in 0..255u8 {
            assert_eq!(decode(code) as f64, 2f64.powi(code as i32 - 127));
            assert_eq!(encode_ceil(decode(code)), code);
        }
        assert!(decode(NAN).is_nan());
    }

    #[test]
    fn encoding_rounds_up() {
        assert_eq!(encode_ceil(1.0), 127);
        assert_eq!(encode_ceil(f32::from_bits(1.0f32.to_bits() + 1)), 128);
        assert_eq!(encode_ceil(0.75), 127);
        assert_eq!(encode_ceil(f32::MAX), 254);
    }
}
