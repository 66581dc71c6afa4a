//! How numbers are read and written.

/// `8k`, `1M` or a plain number; `k` is 1,024 and `M` 1,048,576.
pub fn parse_token_count(text: &str) -> Result<usize, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    let count = digits.parse::<usize>().ok().and_then(|count| count.checked_mul(factor));
    match count {
        Some(count) if count > 0 => Ok(count),
        _ => Err("expected a number of tokens above 0, such as 4096, 8k or 1M".to_owned()),
    }
}

/// `8GiB`, `6.5 GB`, `512M` or a plain number; `K`, `M`, `G` and `T` alone are binary, with `B` decimal, with `iB` binary.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes above 0, such as 8GiB, 6.5GB or 512MiB".to_owned();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let (letter, base) = match unit.as_bytes() {
        [] | [b'b'] => (b'-', 1.0),
        [letter] | [letter, b'i', b'b'] => (*letter, 1024.0),
        [letter, b'b'] => (*letter, 1000.0),
        _ => return Err(wrong()),
    };
    let power = b"-kmgt".iter().position(|known| *known == letter).ok_or_else(wrong)?;
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number * f64::powi(base, power as i32);
    match (1.0..1e18).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(wrong()),
    }
}

/// Bytes in three digits: `159.6 GB`. Decimal units.
pub fn bytes(bytes: u64) -> String {
    with_unit(bytes as f64, &["bytes", "kB", "MB", "GB", "TB", "PB"])
}

/// Parameters in three digits: `284 B`.
pub fn parameters(count: u64) -> String {
    with_unit(count as f64, &["", "k", "M", "B", "T", "P"])
}

/// `1048576` as `1,048,576`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds for people: `12 ms`, `3.4 s`, `2 min 5 s`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{:.0} min {:.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
    }
}

fn with_unit(mut value: f64, units: &[&str]) -> String {
    let mut index = 0;
    while value >= 999.5 && index + 1 < units.len() {
        value /= 1000.0;
        index += 1;
    }
    let decimals = match value {
        _ if index == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", units[index]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts() {
        for (text, count) in [("1", 1), ("8k", 8192), ("128K", 131_072), ("1M", 1_048_576)] {
            assert_eq!(parse_token_count(text), Ok(count));
        }
        for text in [
            "",
            "k",
            "0",
            "-1",
            "1.5k",
            "8kk",
            "99999999999999999999",
            "18446744073709551615k",
        ] {
            assert!(parse_token_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn byte_counts() {
        for (text, count) in [
            ("1", 1),
            ("512b", 512),
            ("8GiB", 8 << 30),
            ("8g", 8 << 30),
            ("6.5 GB", 6_500_000_000),
            ("1.5MiB", 3 << 19),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(count), "{text}");
        }
        for text in [
            "",
            "GiB",
            "0",
            "0.1",
            "-1",
            "8Gi",
            "8XB",
            "8GiBB",
            "1e9",
            "1.2.3",
            "99999999TB",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (number, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.00 kB"),
            (999_600, "1.00 MB"),
            (159_617_149_040, "160 GB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(parameters(3_740_000), "3.74 M");
        assert_eq!(grouped(1_048_576), "1,048,576");
        assert_eq!(grouped(12), "12");
        assert_eq!(seconds(0.0124), "12 ms");
        assert_eq!(seconds(125.9), "2 min 5 s");
    }
}
