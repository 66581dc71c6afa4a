//! FP8 e4m3 ("fn": no infinities, one NaN for each sign), safetensors name `F8_E4M3`.

/// The largest finite value.
pub const MAX: f32 = 448.0;

/// Values of all 256 codes; 0x7F and 0xFF are NaN.
pub const VALUES: [f32; 256] = values();

const fn values() -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = value_of(code as u8);
        code += 1;
    }
    table
}

const fn value_of(code: u8) -> f32 {
    let sign = ((code as u32) & 0x80) << 24;
    let exponent = ((code >> 3) & 15) as u32;
    let mantissa = (code & 7) as u32;
    if exponent == 15 && mantissa == 7 {
        return f32::NAN;
    }
    if exponent == 0 {
        // Subnormal: mantissa / 8 * 2^-6.
        let magnitude = mantissa as f32 * (1.0 / 512.0);
        return f32::from_bits(magnitude.to_bits() | sign);
    }
    f32::from_bits(sign | ((exponent + 120) << 23) | (mantissa << 20))
}

/// The value of a code. Exact.
#[inline]
pub const fn decode(code: u8) -> f32 {
    VALUES[code as usize]
}

/// The nearest code, ties to the even code, clamped to ±448; NaN becomes 0x7F with the sign kept.
#[inline]
pub fn encode(value: f32) -> u8 {
    let bits = value.to_bits();
    let sign = ((bits >> 24) & 0x80) as u8;
    let magnitude = f32::from_bits(bits & 0x7FFF_FFFF);
    if magnitude.is_nan() {
        return sign | 0x7F;
    }
    if magnitude >= MAX {
        return sign | 0x7E;
    }
    if magnitude < f32::from_bits((127 - 6) << 23) {
        // Below 2^-6 codes are spaced 2^-9 apart; code 8 is 2^-6 itself, so rounding up carries over rightly.
        return sign | (magnitude * 512.0).round_ties_even() as u8;
    }
    // Round the mantissa to 3 bits, to nearest even; a carry runs into the exponent as it should.
    let magnitude_bits = magnitude.to_bits();
    let rounded = magnitude_bits + 0x7_FFFF + ((magnitude_bits >> 20) & 1);
    let code = (rounded >> 20) - (120 << 3);
    sign | (code.min(0x7E) as u8)
}

/// `value` rounded to e4m3 and back.
#[inline]
pub fn round(value: f32) -> f32 {
    decode(encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in 0..=255u8 {
            if code & 0x7F == 0x7F {
                assert!(decode(code).is_nan());
            } else {
                assert_eq!(encode(decode(code)), code, "code {code:#x}");
            }
        }
    }

    #[test]
    fn encoding_picks_the_nearest_code_and_the_even_one_on_ties() {
        for code in 0..0x7Eu8 {
            let (low, high) = (decode(code), decode(code + 1));
            let middle = (low + high) / 2.0;
            let even = if code % 2 == 0 { code } else { code + 1 };
            assert_eq!(encode(middle), even, "tie above code {code:#x}");
            assert_eq!(encode(f32::from_bits(middle.to_bits() - 1)), code);
            assert_eq!(encode(f32::from_bits(middle.to_bits() + 1)), code + 1);
            assert_eq!(encode(-middle), even | 0x80);
        }
        assert_eq!(encode(449.0), 0x7E);
        assert_eq!(encode(f32::NEG_INFINITY), 0xFE);
    }
}
