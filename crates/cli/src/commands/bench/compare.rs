//! Two runs beside each other.

use cachalot_planner::units::short;

use super::results::{Point, Results};
use crate::{table::table, terminal};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";

/// Every point that both runs have, and what else changed between them.
pub fn report(old: &Results, new: &Results) -> String {
    let pairs: Vec<(&Point, &Point)> = new
        .points
        .iter()
        .filter_map(|point| Some((old.points.iter().find(|other| other.is_like(point))?, point)))
        .collect();
    let rows: Vec<Vec<String>> = pairs
        .iter()
        .map(|(old, new)| {
            vec![
                new.name(),
                short(old.tokens_per_second),
                short(new.tokens_per_second),
                format!("{:.2}", new.tokens_per_second / old.tokens_per_second),
                change(old, new).to_owned(),
            ]
        })
        .collect();
    let mut text = format!(
        "\nCompared with the earlier run, tok/s:\n{}",
        table(&["", "then", "now", "ratio", ""], &rows)
    );
    if terminal::output_has_colours() {
        text = text.replace(FASTER, &format!("{GREEN}{FASTER}{}", terminal::RESET));
        text = text.replace(SLOWER, &format!("{RED}{SLOWER}{}", terminal::RESET));
    }
    let released = "released".to_owned();
    let [old_dense, new_dense] = [old, new].map(|results| results.dense.as_ref().unwrap_or(&released));
    for (what, then, now) in [
        ("model", &old.model, &new.model),
        ("mode", &old.mode, &new.mode),
        ("keys", &old.kv, &new.kv),
        ("dense part", old_dense, new_dense),
        ("chip", &old.chip, &new.chip),
        ("version", &old.version, &new.version),
    ] {
        if then != now {
            text.push_str(&format!("{what}: {then}, now {now}\n"));
        }
    }
    let (then, now) = (old.ceilings.read_bytes_per_second, new.ceilings.read_bytes_per_second);
    text.push_str(&format!(
        "streaming reads: {} then, {} now, ratio {:.2}\nfaster, slower: no repetition of one run is in the range of the \
         other's\n",
        short(then / 1e9),
        short(now / 1e9),
        now / then
    ));
    text.trim_end().to_owned()
}

const FASTER: &str = "faster";
const SLOWER: &str = "slower";

/// Whether the repetitions of one run all lie beyond those of the other.
fn change(old: &Point, new: &Point) -> &'static str {
    let (then, now) = (old.spread(), new.spread());
    match () {
        () if now.0 > then.1 => FASTER,
        () if now.1 < then.0 => SLOWER,
        () => "",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::results::Phase, *};

    fn point(rates: &[f64]) -> Point {
        serde_json::from_value(serde_json::json!({
            "phase": Phase::Decode, "tokens": 0, "batch": 1, "steps": 4, "generated_state": false, "rates": rates,
            "discarded": 0, "waited_for_disk": false,
            "tokens_per_second": rates[rates.len() / 2],
            "cost_per_token": { "weight_bytes": 1.0, "state_bytes": 0.0, "row_bytes": 0.0, "multiply_adds": 1.0 },
            "bytes_per_second": 1.0, "operations_per_second": 1.0, "bandwidth_fraction": 0.1,
            "arithmetic_fraction": 0.1, "floor_seconds_per_token": 0.1,
            "predicted_tokens_per_second": 1.0, "operators": [],
        }))
        .expect("a point")
    }

    #[test]
    fn only_what_lies_apart_has_changed() {
        let then = point(&[9.0, 10.0, 11.0]);
        for (rates, expected) in [
            ([11.5, 12.0, 13.0], FASTER),
            ([10.5, 12.0, 13.0], ""),
            ([8.0, 8.5, 9.5], ""),
            ([7.0, 8.0, 8.9], SLOWER),
        ] {
            assert_eq!(change(&then, &point(&rates)), expected, "{rates:?}");
        }
    }
}
