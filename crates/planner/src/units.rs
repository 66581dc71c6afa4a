//! Numbers as people write them, and as they like to read them.

use crate::Error;

/// A number of tokens: `4096`, `128k` (x 1,024), `1M` (x 1,048,576), `100,000`.
///
/// # Errors
/// [`Error::Unit`] for anything else, for zero and for more than 2^40.
pub fn tokens(text: &str) -> Result<u64, Error> {
    let expected = "a number of tokens above 0, such as 4096, 128k or 1M";
    let units = [("k", 1024.0), ("m", 1_048_576.0), ("", 1.0)];
    whole(text, &units, expected)
}

/// A plain count or rate: `256`, `100k` (x 1,000), `2M`, `100,000`.
///
/// # Errors
/// [`Error::Unit`] for anything else, for zero and for more than 2^40.
pub fn count(text: &str) -> Result<u64, Error> {
    let expected = "a number above 0, such as 16, 100,000, 100k or 2M";
    let units = [("k", 1e3), ("m", 1e6), ("", 1.0)];
    whole(text, &units, expected)
}

/// Bytes: `64GB` (10^9), `64 GiB` (2^30), `512M`, `1.5 TB`, `4096 bytes`. Zero and numbers without a unit are no amounts.
///
/// # Errors
/// [`Error::Unit`] for anything else and for more than 2^60.
///
/// ```
/// use cachalot_planner::units;
/// assert_eq!(units::bytes("64GB")?, 64_000_000_000);
/// assert_eq!(units::bytes("64 GiB")?, 68_719_476_736);
/// # Ok::<(), cachalot_planner::Error>(())
/// ```
pub fn bytes(text: &str) -> Result<u64, Error> {
    let expected = "an amount of memory with its unit, such as 64GB, 64 GiB or 1.5 TB";
    let mut units = vec![("b", 1.0), ("byte", 1.0), ("bytes", 1.0)];
    for (power, letter) in [
        ["k", "kb", "kib"],
        ["m", "mb", "mib"],
        ["g", "gb", "gib"],
        ["t", "tb", "tib"],
    ]
    .iter()
    .enumerate()
    {
        let power = power as i32 + 1;
        units.push((letter[0], 1e3_f64.powi(power)));
        units.push((letter[1], 1e3_f64.powi(power)));
        units.push((letter[2], 1024_f64.powi(power)));
    }
    let value = number(text, &units, expected)?;
    match value {
        value if (1.0..=2f64.powi(60)).contains(&value) => Ok(value.round() as u64),
        _ => Err(unit_error(text, expected)),
    }
}

/// A price or a rate: `2.5`, `1,000`.
///
/// # Errors
/// [`Error::Unit`] for what is no finite number above 0.
pub fn positive(text: &str) -> Result<f64, Error> {
    let expected = "a number above 0, such as 2.5";
    match number(text, &[("", 1.0)], expected)? {
        value if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err(unit_error(text, expected)),
    }
}

fn whole(text: &str, units: &[(&str, f64)], expected: &'static str) -> Result<u64, Error> {
    let value = number(text, units, expected)?;
    match value.round() {
        value if (1.0..=2f64.powi(40)).contains(&value) => Ok(value as u64),
        _ => Err(unit_error(text, expected)),
    }
}

fn number(text: &str, units: &[(&str, f64)], expected: &'static str) -> Result<f64, Error> {
    let error = || unit_error(text, expected);
    let plain: String = text.trim().replace([',', '_'], "").to_lowercase();
    let digits_end = plain
        .find(|character: char| !(character.is_ascii_digit() || character == '.'))
        .unwrap_or(plain.len());
    let (digits, unit) = plain.split_at(digits_end);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    let value: f64 = digits.parse().map_err(|_| error())?;
    Ok(value * factor)
}

fn unit_error(text: &str, expected: &'static str) -> Error {
    let text = text.chars().take(60).collect();
    Error::Unit { text, expected }
}

/// A number in three digits: `9.7`, `1,656`, `0.042`, `73.7k`, `2.1M`.
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        m if !m.is_finite() => "unknown".to_owned(),
        m if m >= 1e6 => format!("{}M", significant(value / 1e6)),
        m if m >= 1e5 => format!("{}k", significant(value / 1e3)),
        m if m >= 999.5 && value < 0.0 => format!("-{}", grouped(m.round() as u64)),
        m if m >= 999.5 => grouped(m.round() as u64),
        _ => significant(value),
    }
}

/// Bytes in three digits and decimal units: `160 GB`.
pub fn short_bytes(bytes: f64) -> String {
    let (mut value, mut index) = (bytes, 0);
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    while value.abs() >= 999.5 && index + 1 < units.len() {
        value /= 1e3;
        index += 1;
    }
    format!("{} {}", significant(value), units[index])
}

/// Seconds as `12.3 ms`, `1.20 s`.
pub fn short_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{} us", significant(s * 1e6)),
        s if s < 1.0 => format!("{} ms", significant(s * 1e3)),
        s => format!("{} s", significant(s)),
    }
}

fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        m if m >= 99.95 || m == 0.0 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// `1048576` as `1,048,576`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The `count` names that are spelled most like `wanted`, nearest first.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, count: usize) -> String {
    let mut names = cachalot_checkpoint::published::nearest_of(wanted, names);
    names.truncate(count);
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_parse_as_people_write_them() {
        for (text, value) in [
            ("128k", 131_072),
            ("1M", 1_048_576),
            ("4096", 4096),
            (" 1.5K ", 1536),
            ("100,000", 100_000),
        ] {
            assert_eq!(tokens(text).unwrap(), value, "{text}");
        }
        assert_eq!(count("100k").unwrap(), 100_000);
        for (text, value) in [
            ("64GB", 64_000_000_000),
            ("64 GiB", 68_719_476_736),
            ("64g", 64_000_000_000),
            ("1.5 TB", 1_500_000_000_000),
            ("512 MiB", 536_870_912),
            ("4096 bytes", 4096),
        ] {
            assert_eq!(bytes(text).unwrap(), value, "{text}");
        }
        for text in [
            "",
            "k",
            "0",
            "-1",
            "1.2.3k",
            "12 parsecs",
            "1e400",
            "999999999999999999999T",
            "NaN",
            "６４GB",
        ] {
            assert!(tokens(text).is_err(), "{text}");
            assert!(bytes(text).is_err() && positive(text).is_err(), "{text}");
        }
        // Gigabytes or bytes? Nobody knows.
        assert!(bytes("64").is_err() && bytes("0GB").is_err());
        assert_eq!(positive("2.5").unwrap(), 2.5);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (9.7, "9.70"),
            (1656.0, "1,656"),
            (73_700.0, "73,700"),
            (2.1e6, "2.10M"),
            (0.042, "0.042"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(short_bytes(159_609_485_896.0), "160 GB");
        assert_eq!(short_seconds(0.0066), "6.60 ms");
    }
}
