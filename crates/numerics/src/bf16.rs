//! bfloat16: the upper half of an `f32`.

/// The value of a bf16 code. Exact.
#[inline]
pub const fn decode(code: u16) -> f32 {
    f32::from_bits((code as u32) << 16)
}

/// The nearest bf16 code, ties to even; NaN stays NaN (quiet), values beyond the range become infinite.
#[inline]
pub const fn encode(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7FFF_FFFF > 0x7F80_0000 {
        return ((bits >> 16) | 0x40) as u16;
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

/// `value` rounded to bf16 and back.
#[inline]
pub const fn round(value: f32) -> f32 {
    decode(encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in 0..=u16::MAX {
            let value = decode(code);
            if value.is_nan() {
                assert!(decode(encode(value)).is_nan());
            } else {
                assert_eq!(encode(value), code);
            }
        }
    }

    #[test]
    fn ties_go_to_the_even_code() {
        assert_eq!(encode(f32::from_bits(0x3F80_8000)), 0x3F80);
        assert_eq!(encode(f32::from_bits(0x3F81_8000)), 0x3F82);
        assert_eq!(encode(f32::from_bits(0x3F80_8001)), 0x3F81);
        assert_eq!(encode(f32::MAX), 0x7F80);
    }
}
