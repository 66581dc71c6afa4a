//! FP4 e2m1. Two codes share a byte: the even element is the low nibble.

/// The largest value.
pub const MAX: f32 = 6.0;

/// Values of the 16 codes.
pub const VALUES: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// The value of a code; only the low four bits count. Exact.
#[inline]
pub const fn decode(code: u8) -> f32 {
    VALUES[(code & 15) as usize]
}

/// The nearest code, ties to the even code, clamped to ±6. NaN becomes 6 with its sign.
#[inline]
pub fn encode(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 8 } else { 0 };
    let magnitude = value.abs();
    // Borders between neighbours; a tie goes to the even code, so the comparison alternates.
    let code = match magnitude {
        m if m <= 0.25 => 0,
        m if m < 0.75 => 1,
        m if m <= 1.25 => 2,
        m if m < 1.75 => 3,
        m if m <= 2.5 => 4,
        m if m < 3.5 => 5,
        m if m <= 5.0 => 6,
        _ => 7,
    };
    sign | code
}

/// `value` rounded to e2m1 and back.
#[inline]
pub fn round(value: f32) -> f32 {
    decode(encode(value))
}

/// The two values of a packed byte: element `2b`, then element `2b + 1`.
#[inline]
pub const fn decode_pair(byte: u8) -> [f32; 2] {
    [decode(byte & 15), decode(byte >> 4)]
}

/// Packs two values into a byte, the first in the low nibble.
#[inline]
pub fn encode_pair(even: f32, odd: f32) -> u8 {
    encode(even) | (encode(odd) << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in 0..16u8 {
            assert_eq!(encode(decode(code)), code);
        }
    }

    #[test]
    fn ties_go_to_the_even_code() {
        for code in 0..7u8 {
            let middle = (decode(code) + decode(code + 1)) / 2.0;
            let even = if code % 2 == 0 { code } else { code + 1 };
            assert_eq!(encode(middle), even);
            assert_eq!(encode(-middle), even | 8);
        }
        assert_eq!(encode(100.0), 7);
    }

    #[test]
    fn the_even_element_is_the_low_nibble() {
        assert_eq!(encode_pair(0.5, -6.0), 0xF1);
        assert_eq!(decode_pair(0xF1), [0.5, -6.0]);
    }
}
