//! Plans for people.

use cachalot_planner::{
    catalogue::{Catalogue, Chip, Operand},
    fleet::{self, Fleet, NoFleet},
    model::Model,
    plan::{Goal, Machine, Plan},
    svg::{Plot, Scale, Series},
    time::{StepTime, Unknown},
    units::{grouped, short, short_bytes, short_seconds},
};

use super::{Compared, speed_of_user};
use crate::table::table;

/// `is_unmeasured`: this machine, without its probe.
pub fn plan(
    model: &Model,
    machine: Machine,
    goal: &Goal,
    plan: &Plan,
    remedies: &[String],
    is_unmeasured: bool,
) -> String {
    let chip = machine.chip;
    let mut text = format!(
        "{} on {}{}: {} tokens of context, {} at a time\n",
        model.name,
        if machine.chips == 1 {
            String::new()
        } else {
            format!("{} x ", grouped(machine.chips))
        },
        chip.name,
        grouped(goal.context),
        if goal.users == 1 {
            "one user".to_owned()
        } else {
            format!("{} users", grouped(goal.users))
        }
    );
    text.push_str(&format!(
        "Released weights {}; here {} in {} of {}, {} for experts, {} for each copy of the rest\n",
        short_bytes(model.bytes() as f64),
        plan.precision.name(),
        counted(plan.replicas, "replica"),
        counted(plan.replica_chips, "chip"),
        counted(plan.layout.devices, "device"),
        plan.layout.tensor,
    ));
    text.push_str(&memory(model, plan));
    text.push_str(&verdict(plan, remedies));
    if !plan.fits() && plan.memory.is_some() {
        return text.trim_end().to_owned();
    }
    if is_unmeasured && plan.decode.is_err() {
        text.push_str("\nSpeed unknown: this machine was not measured; leave out --no-probe for a prediction");
        return text;
    }
    text.push_str(&step("A step of decoding", &plan.decode));
    let watts = fleet::watts_per_chip(machine.catalogue, chip).map(|watts| watts * machine.chips as f64);
    let rate = plan.decode_tokens_per_second();
    let cost = rate
        .zip(chip.rent_usd_hour.value())
        .map(|(rate, rent)| rent * machine.chips as f64 / 3600.0 / rate * 1e6);
    text.push_str(&format!(
        "\nPredicted: decode {} tok/s ({} a user, {} a chip), prefill {} tok/s, {} tok/s/W, {} USD a million tokens\n",
        number(rate),
        number(speed_of_user(plan, goal)),
        number(rate.map(|rate| rate / machine.chips as f64)),
        number(plan.prefill_tokens_per_second()),
        number(rate.zip(watts).map(|(rate, watts)| rate / watts)),
        number(cost),
    ));
    text.trim_end().to_owned()
}

/// Whether the released files would fit on the disk of the current folder.
pub fn disk(model: &Model, free_bytes: u64) -> String {
    let room = if model.bytes() <= free_bytes {
        ""
    } else {
        ", which is not enough"
    };
    format!(
        "\nA download needs {}; the disk here has {} free{room}",
        short_bytes(model.bytes() as f64),
        short_bytes(free_bytes as f64)
    )
}

fn memory(model: &Model, plan: &Plan) -> String {
    let Some(memory) = &plan.memory else {
        return "Memory of the chip: unknown\n".to_owned();
    };
    let mut rows = vec![vec!["routed experts".to_owned(), short_bytes(memory.experts)]];
    rows.extend(
        memory
            .dense
            .iter()
            .map(|(part, bytes)| vec![part.name().to_owned(), short_bytes(*bytes)]),
    );
    let format = plan.precision.kv_format();
    for (name, bytes) in [
        (
            format!("keys and entries, {} bytes a token", model.kv_bytes_per_token(format)),
            memory.kv,
        ),
        ("windows and open rows".to_owned(), memory.fixed),
        ("snapshots".to_owned(), memory.snapshots),
        ("workspace (estimated)".to_owned(), memory.workspace),
        ("all".to_owned(), memory.total()),
        (
            "offered, after what drivers or the system take".to_owned(),
            memory.available,
        ),
    ] {
        rows.push(vec![name, short_bytes(bytes)]);
    }
    format!("\n{}", table(&["memory of each device", ""], &rows))
}

fn verdict(plan: &Plan, remedies: &[String]) -> String {
    let Some(memory) = &plan.memory else {
        return String::new();
    };
    if !plan.fits() {
        let list = remedies
            .iter()
            .map(|remedy| format!("\n  {remedy}"))
            .collect::<String>();
        return format!("\nDoes not fit. Each of these alone would make it fit:{list}\n");
    }
    let experts = match memory.fits() {
        true => String::new(),
        false => format!(
            "Experts do not all fit and come from slower memory; {:.0} % of their uses find them in memory.\n",
            100.0 * plan.hit_rate
        ),
    };
    format!(
        "\nFits. {experts}At most {} users at this context, or {} tokens for these users.\n",
        plan.sequences_max.map_or("?".to_owned(), |count| short(count as f64)),
        plan.context_max.map_or("?".to_owned(), grouped),
    )
}

fn step(title: &str, step: &Result<StepTime, Unknown>) -> String {
    let step = match step {
        Ok(step) => step,
        Err(unknown) => {
            return format!(
                "\nSpeed unknown: {} not known for this chip\n",
                unknown.figures.join(", ")
            );
        }
    };
    let rows: Vec<Vec<String>> = step
        .operators
        .iter()
        .filter(|operator| operator.seconds > 0.0)
        .map(|operator| {
            let cost = &operator.cost;
            let operations: f64 = cost.operations.iter().map(|(_, count)| count).sum();
            vec![
                cost.class.name().to_owned(),
                short_seconds(operator.seconds),
                short_bytes(cost.bytes + cost.slow_bytes),
                short(operations / 1e9),
                short_bytes(cost.link_bytes + cost.network_bytes),
                operator.bound.name().to_owned(),
            ]
        })
        .collect();
    let heads = ["operators", "time", "memory", "GFLOP", "link", "waits for"];
    let total = short_seconds(step.seconds);
    format!(
        "\n{title} takes {total}, mostly for {}:\n{}",
        step.bound().name(),
        table(&heads, &rows)
    )
}

pub fn comparison(model: &Model, goal: &Goal, target: u64, floor: f64, compared: &[Compared]) -> String {
    let rows: Vec<Vec<String>> = compared
        .iter()
        .map(|compared| match &compared.best {
            Err(reason) => vec![compared.chip.name.clone(), reason.to_string()],
            Ok((point, fleet)) => {
                let mut row = vec![compared.chip.name.clone(), point.plan.precision.name().to_owned()];
                row.extend(fleet_columns(fleet));
                row
            }
        })
        .collect();
    let mut heads = vec!["chip", "weights"];
    heads.extend(FLEET_HEADS);
    format!(
        "{} at {} tokens of context: {} generated tok/s, at least {} a user, predicted\n\n{}\nPrefill and its chips come \
         on top. 3 % of the chips stand by. ? is unknown.",
        model.name,
        grouped(goal.context),
        short(target as f64),
        short(floor),
        table(&heads, &rows)
    )
}

pub fn fleets(model: &Model, goal: &Goal, chip: &Chip, fleets: &Result<Vec<Fleet>, NoFleet>) -> String {
    let fleets = match fleets {
        Ok(fleets) => fleets,
        Err(reason) => return format!("{} on {}: {reason}", model.name, chip.name),
    };
    let rows: Vec<Vec<String>> = fleets.iter().map(fleet_columns).collect();
    format!(
        "{} on {}, {} tokens of context, predicted\n\n{}\nA fleet is independent replicas; {:.0} % of the chips stand by. \
         Power is that of the chips, or of whole systems where only that is published. ? is unknown.",
        model.name,
        chip.name,
        grouped(goal.context),
        table(&FLEET_HEADS, &rows),
        100.0 * fleet::SPARE_PART
    )
}

const FLEET_HEADS: [&str; 9] = [
    "chips",
    "replicas",
    "of chips",
    "tok/s",
    "a chip",
    "a user",
    "MW",
    "USD/h",
    "waits for",
];

fn fleet_columns(fleet: &Fleet) -> Vec<String> {
    vec![
        grouped(fleet.chips),
        grouped(fleet.replicas),
        fleet.replica_chips.to_string(),
        short(fleet.tokens_per_second),
        short(fleet.tokens_per_second_per_chip),
        short(fleet.tokens_per_second_per_user),
        number(fleet.megawatts),
        number(fleet.usd_per_hour),
        fleet.bound.name().to_owned(),
    ]
}

/// Operators of a decoding step by operations a byte, under what the chip could do.
pub fn roofline(catalogue: &Catalogue, chip: &Chip, plan: &Plan) -> Plot {
    let mut series = Vec::new();
    if let (Some(bandwidth), Some(rate)) = (chip.bandwidth(), chip.rate(Operand::Fp8)) {
        let efficiency = catalogue.efficiency(chip);
        for (name, memory, compute) in [
            ("roof", 1.0, 1.0),
            ("roof with efficiency", efficiency.memory, efficiency.compute),
        ] {
            let (bandwidth, rate) = (bandwidth * memory, rate * compute);
            let ridge = rate / bandwidth;
            let points = vec![
                (0.1, 0.1 * bandwidth / 1e12),
                (ridge, rate / 1e12),
                (ridge * 100.0, rate / 1e12),
            ];
            series.push(Series {
                name: name.to_owned(),
                points,
                joined: true,
            });
        }
    }
    for operator in plan.decode.iter().flat_map(|step| &step.operators) {
        let operations: f64 = operator.cost.operations.iter().map(|(_, count)| count).sum();
        series.push(Series {
            name: operator.cost.class.name().to_owned(),
            points: vec![(operations / operator.cost.bytes, operations / operator.seconds / 1e12)],
            joined: false,
        });
    }
    series.retain(|series| series.points.iter().any(|(x, y)| x.is_finite() && *x > 0.0 && *y > 0.0));
    Plot {
        title: format!("A step of decoding on {}, predicted", chip.name),
        x: "operations a byte of memory".to_owned(),
        y: "10^12 operations a second".to_owned(),
        scale: Scale::Logarithmic,
        series,
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn number(value: Option<f64>) -> String {
    value.map_or("?".to_owned(), short)
}
