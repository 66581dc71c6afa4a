//! The page that answers whether Ascend can match others for V4, from predictions and published results.

use std::fmt::Write;

use crate::{
    Error,
    catalogue::{Catalogue, Chip, Status},
    fleet::{self, NoFleet},
    model::{self, Model},
    plan::{Goal, Point},
    units, validation,
};

const MODELS: [&str; 2] = ["deepseek-ai/DeepSeek-V4-Flash", "deepseek-ai/DeepSeek-V4-Pro"];
const ASCEND: [&str; 4] = ["910b3", "910c", "950pr", "950dt"];
const OTHERS: [&str; 6] = ["h20", "h800", "h200", "b200", "gb300", "mi355x"];
const CONTEXTS: [u64; 2] = [8192, 131_072];
/// Generated tokens a second that each user gets at least.
const FLOOR: f64 = 20.0;
/// Generated tokens a second that chips are counted for.
const TARGET: f64 = 1e6;
/// By how much an efficiency is varied to see what depends on it.
const VARIATION: f64 = 0.2;

struct Row<'a> {
    chip: &'a Chip,
    best: Result<Point, NoFleet>,
}

/// The page in Markdown.
///
/// # Errors
/// Those of looking up models and chips.
pub fn can_ascend_match(catalogue: &Catalogue) -> Result<String, Error> {
    let mut tables = String::new();
    let mut answers = String::new();
    for name in MODELS {
        let model = model::find(name)?;
        for context in CONTEXTS {
            let rows = rows(catalogue, &model, context)?;
            table(&mut tables, catalogue, &model, context, &rows);
            answers.push_str(&answer(&model, context, &rows));
        }
    }
    let mut text = HEAD.to_owned();
    text.push_str(&answers);
    text.push_str(READING);
    text.push_str(&tables);
    systems(&mut text, catalogue)?;
    target(&mut text, catalogue)?;
    let comparisons = validation::compare(catalogue)?;
    text.push_str("\n## What was published, and what the model says\n\nTokens a second and chip.\n\n");
    text.push_str(&validation::to_markdown(&comparisons));
    text.push_str(&validation::summary(&comparisons));
    uncertainty(&mut text, catalogue)?;
    Ok(text)
}

const HEAD: &str = "# Can Ascend match Nvidia for DeepSeek-V4?\n\nWritten by `cachalot plan --report \
docs/can-ascend-match.md`. All rates are predictions of the planner's time model unless a table says \"published\"; none \
was measured by this project. How far the model can be trusted is the subject of the last two sections.\n\n## In short\n\n";

const READING: &str = "\n## Chip by chip\n\nEach chip with the replica (at most 64 chips), batch and layout that give the \
most generated tokens a second and chip while every user gets at least 20 tokens a second; no drafting; weights as \
released, or INT8 (INT4 for experts if INT8 does not fit) where a chip has no FP8. Prefill is what chips of the same replica do when they do nothing \
else. `?` is unknown: the figure that it needs is not published. A power marked `s` is a chip's part of a system's \
power, or from a secondary source; others are of the chip alone. Costs are rental as reported (source E), only where \
there is such a report, for decoding alone.\n";

fn rows<'a>(catalogue: &'a Catalogue, model: &Model, context: u64) -> Result<Vec<Row<'a>>, Error> {
    let goal = Goal {
        context,
        ..Goal::default()
    };
    let names = ASCEND.into_iter().chain(OTHERS);
    names
        .map(|name| {
            let chip = catalogue.chip(name)?;
            let best = fleet::best(model, catalogue, chip, &goal, FLOOR)?;
            Ok(Row { chip, best })
        })
        .collect()
}

fn rate(rows: &[Row], id: &str) -> Option<f64> {
    let row = rows.iter().find(|row| row.chip.id == id)?;
    Some(row.best.as_ref().ok()?.tokens_per_second_per_chip)
}

fn answer(model: &Model, context: u64, rows: &[Row]) -> String {
    let mut parts = Vec::new();
    for id in ASCEND {
        let ratios: Vec<String> = ["h20", "h200", "b200"]
            .into_iter()
            .map(|other| match (rate(rows, id), rate(rows, other)) {
                (Some(own), Some(other_rate)) => format!("{:.2} {}", own / other_rate, other.to_uppercase()),
                _ => format!("? {}", other.to_uppercase()),
            })
            .collect();
        parts.push(format!(
            "one {} decodes like {}",
            id.to_uppercase(),
            ratios.join(" or ")
        ));
    }
    format!(
        "* {} at {}: {}.\n",
        short_name(model),
        tokens(context),
        parts.join("; ")
    )
}

fn short_name(model: &Model) -> &str {
    model.name.rsplit('/').next().unwrap_or(&model.name)
}

fn tokens(context: u64) -> String {
    format!("{}K", context / 1024)
}

fn table(text: &mut String, catalogue: &Catalogue, model: &Model, context: u64, rows: &[Row]) {
    let _ = write!(
        text,
        "\n### {}, {} of context\n\n| chip | weights | chips a replica | users a chip | decode tok/s a chip | tok/s a user \
         | prefill tok/s a chip | W a chip | decode tok/s/W | USD a million tokens | waits for |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        short_name(model),
        tokens(context)
    );
    for row in rows {
        let watts = fleet::watts_per_chip(catalogue, row.chip);
        let mark = if row.chip.power_w.status == Status::Vendor {
            ""
        } else {
            " s"
        };
        let power = watts.map_or("?".to_owned(), |watts| format!("{watts:.0}{mark}"));
        let point = match &row.best {
            Ok(point) => point,
            Err(reason) => {
                let _ = writeln!(text, "| {} | {reason} | | | | | | {power} | | | |", row.chip.name);
                continue;
            }
        };
        let chips = point.plan.replica_chips;
        let rate = point.tokens_per_second_per_chip;
        let prefill = point.plan.prefill_tokens_per_second().map(|rate| rate / chips as f64);
        let cost = row.chip.rent_usd_hour.value().map(|rent| rent / 3600.0 / rate * 1e6);
        let bound = point.plan.decode.as_ref().map_or("?", |decode| decode.bound().name());
        let _ = writeln!(
            text,
            "| {} | {} | {chips} | {} | {} | {} | {} | {power} | {} | {} | {bound} |",
            row.chip.name,
            point.plan.precision.name(),
            units::short(point.sequences as f64 / chips as f64),
            units::short(rate),
            units::short(point.tokens_per_second_per_user),
            number(prefill),
            number(watts.map(|watts| rate / watts)),
            number(cost),
        );
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or("?".to_owned(), units::short)
}

fn systems(text: &mut String, catalogue: &Catalogue) -> Result<(), Error> {
    text.push_str(
        "\n## System by system\n\nAll chips of a system as independent replicas, 8K of context, at least 20 tok/s a user, \
         3 % of the chips standing by.\n\n| system | chips | model | decode tok/s | kW | tok/s/W | price, million USD |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for system in &catalogue.systems {
        let chip = catalogue.chip(&system.chip)?;
        for name in MODELS {
            let model = model::find(name)?;
            let best = fleet::best(&model, catalogue, chip, &Goal::default(), FLOOR)?;
            let fleet = best
                .ok()
                .and_then(|point| fleet::of_chips(catalogue, chip, &point, system.chips));
            let rate = fleet.map(|fleet| fleet.tokens_per_second);
            let watts = system.power_kw.value().map(|power| power * 1e3);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                system.name,
                system.chips,
                short_name(&model),
                number(rate),
                number(watts.map(|watts| watts / 1e3)),
                number(rate.and_then(|rate| Some(rate / watts?))),
                number(system.price_usd.value().map(|price| price / 1e6)),
            );
        }
    }
    Ok(())
}

fn target(text: &mut String, catalogue: &Catalogue) -> Result<(), Error> {
    text.push_str(
        "\n## Chips for a million tokens a second\n\nGenerated tokens, 8K of context, at least 20 tok/s a user, spare chips \
         included, prefill not included.\n\n| chip | V4-Flash: chips | MW | V4-Pro: chips | MW |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for id in ASCEND.into_iter().chain(OTHERS) {
        let chip = catalogue.chip(id)?;
        let mut line = format!("| {} |", chip.name);
        for name in MODELS {
            match fleet::best(&model::find(name)?, catalogue, chip, &Goal::default(), FLOOR)? {
                Ok(point) => {
                    let fleet = fleet::for_target(catalogue, chip, &point, TARGET);
                    let _ = write!(line, " {} | {} |", fleet.chips, number(fleet.megawatts));
                }
                Err(reason) => {
                    let _ = write!(line, " {reason} | |");
                }
            }
        }
        let _ = writeln!(text, "{line}");
    }
    Ok(())
}

/// What a change of each efficiency of the Ascend family does to the best chip.
fn uncertainty(text: &mut String, catalogue: &Catalogue) -> Result<(), Error> {
    text.push_str(UNCERTAINTY);
    let model = model::find(MODELS[0])?;
    let rate = |catalogue: &Catalogue, id: &str| -> Result<Option<f64>, Error> {
        let best = fleet::best(&model, catalogue, catalogue.chip(id)?, &Goal::default(), FLOOR)?;
        Ok(best.ok().map(|point| point.tokens_per_second_per_chip))
    };
    text.push_str("\n| efficiency of Ascend 20 % worse | 910C | 950DT |\n| --- | --- | --- |\n");
    for (name, worsen) in [
        (
            "memory",
            (|efficiency| efficiency.memory *= 1.0 - VARIATION) as fn(&mut crate::catalogue::Efficiency),
        ),
        ("arithmetic", |efficiency| efficiency.compute *= 1.0 - VARIATION),
        ("links", |efficiency| efficiency.link *= 1.0 - VARIATION),
        ("time for each kernel", |efficiency| {
            efficiency.launch_us *= 1.0 + VARIATION
        }),
    ] {
        let mut worse = catalogue.clone();
        for family in worse.families.iter_mut().filter(|family| family.id == "ascend") {
            worsen(&mut family.efficiency);
        }
        let mut line = format!("| {name} |");
        for id in ["910c", "950dt"] {
            let change = rate(&worse, id)?
                .zip(rate(catalogue, id)?)
                .map(|(after, before)| after / before - 1.0);
            let change = change.map_or("?".to_owned(), |change| format!("{:.0} %", 100.0 * change));
            let _ = write!(line, " {change} |");
        }
        let _ = writeln!(text, "{line}");
    }
    Ok(())
}

const UNCERTAINTY: &str = "
## Where the uncertainty lies

* Figures of chips: the bandwidth of the 910B and the BF16 rate of the 950 are from secondary sources; a 950DT's \
bandwidth is 4 TB/s by its maker and 5.2 TB/s by a configuration file; power of 910C and 950DT and prices of all Ascend \
chips are not published. What needs them is `?` above.
* Published results on the 950DT are bounds: offline, with forced balance of experts and a fixed acceptance of drafts.
* No published result of V4 on an NVIDIA or AMD accelerator is among those compared here: their rates for V4 rest on \
results of V3 and R1 on Hopper. Efficiencies of Blackwell and of MI355X are taken to be those of Hopper.
* Links are taken as published in both directions together; networks beyond them are the usual ones of the reference \
server.
* The model overlaps nothing and balances experts perfectly. The first makes it slow, the second fast.

Predicted throughput of V4-Flash at 8K when one efficiency of the Ascend family is worse by a fifth:
";
