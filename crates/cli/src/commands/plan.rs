//! `cachalot plan`: what fits, how fast, how many chips and at what cost, from arithmetic.

mod json;
mod machine;
mod text;

use std::{fs, path::PathBuf};

use cachalot_planner::{
    catalogue::{self, Catalogue, Chip, Figure},
    engine,
    fleet::{self, Fleet, NoFleet},
    model::{self, Model},
    plan::{self, Goal, Machine, Plan, Point},
    precision::Precision,
    report,
    step::Speculation,
    svg::{self, Series},
    units,
};
use clap::{ArgGroup, Args};

use crate::{
    error::Error,
    location::{self, Known},
};

/// Generated tokens a second that `--compare` counts chips for.
const TARGET_TPS: u64 = 100_000;
/// Chips of a fleet that `--fleet` goes through.
const FLEET_CHIPS: [u64; 9] = [8, 64, 384, 1024, 8192, 32_768, 100_000, 250_000, 500_000];

/// Tell what fits, how fast, how many chips and at what cost.
///
/// Without --chip, plans for this machine and measures its memory for a second or two; with --chip, for any number of
/// a chip in the catalogue. All speeds are predictions; what nobody has published stays unknown.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").args(["chip", "compare", "fleet", "report", "show_chips"]))]
pub struct PlanArguments {
    /// Name of a model, such as deepseek-ai/DeepSeek-V4-Flash, or a folder [default: the built-in model]
    #[arg(value_name = "MODEL")]
    model: Option<String>,

    #[arg(long, value_name = "CHIP", help = format!("Chip to plan for: {}", chip_ids()))]
    chip: Option<String>,

    /// How many of them [default: as few as the model fits on]
    #[arg(long, value_name = "COUNT", value_parser = units::count)]
    count: Option<u64>,

    /// Tokens of each sequence, such as 8k or 1M
    #[arg(long, value_name = "TOKENS", default_value = "8k", value_parser = units::tokens)]
    context: u64,

    /// Sequences at the same time
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = units::count)]
    users: u64,

    /// Formats of the weights: released, w8a8, w4a8, q4, q2 or bf16 [default: what suits the chip]
    #[arg(long, value_name = "FORMAT", value_parser = precision)]
    weights: Option<Precision>,

    /// Tokens drafted for each step
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    drafts: u64,

    /// Tokens that a step with drafts yields on average [default: 1 + 0.5 for each draft]
    #[arg(long, value_name = "NUMBER", requires = "drafts")]
    tokens_per_step: Option<f64>,

    /// Part of the uses of experts found in memory where not all fit [default: the part that fits]
    #[arg(long, value_name = "0..1")]
    hit_rate: Option<f64>,

    /// Bytes a second of the RAM or SSD that experts may stay in, such as 7GB
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    slow_memory: Option<u64>,

    /// Memory of this machine or of a chip, such as 64GB or 64 GiB [default: what is there]
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    memory: Option<u64>,

    /// Price of a chip for an hour, US dollars
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true, value_parser = units::positive)]
    rent: Option<f64>,

    /// Compare chips, separated by commas
    #[arg(long, value_name = "CHIPS", value_delimiter = ',')]
    compare: Vec<String>,

    /// Generated tokens a second to count chips for, in --compare and --fleet, such as 100000 or 100k [default: 100k; a
    /// sweep without it shows fleets of all sizes]
    #[arg(long, value_name = "RATE", value_parser = units::count)]
    target_tps: Option<u64>,

    /// Generated tokens a second that each user gets at least, in --compare and --fleet
    #[arg(long, value_name = "RATE", default_value = "20", allow_negative_numbers = true, value_parser = units::positive)]
    user_tps: f64,

    /// Sweep a chip from a node to hundreds of thousands
    #[arg(long, value_name = "CHIP")]
    fleet: Option<String>,

    /// More chips and systems, TOML
    #[arg(long, value_name = "FILE")]
    chips: Vec<PathBuf>,

    /// Print the catalogue
    #[arg(long)]
    show_chips: bool,

    /// Plot throughput against speed of a user
    #[arg(long, value_name = "OUT.svg")]
    plot: Option<PathBuf>,

    /// Plot the operators of a step under the roofs of the chip
    #[arg(long, value_name = "OUT.svg", conflicts_with_all = ["compare", "fleet", "report"])]
    roofline: Option<PathBuf>,

    /// Write the page that compares Ascend with other chips
    #[arg(long, value_name = "OUT.md")]
    report: Option<PathBuf>,

    /// Do not measure this machine; speeds on it are then unknown
    #[arg(long)]
    no_probe: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Ids of the catalogue, for the help.
fn chip_ids() -> String {
    let catalogue = Catalogue::built_in();
    let ids: Vec<&str> = catalogue.chips.iter().map(|chip| chip.id.as_str()).collect();
    ids.join(", ")
}

fn precision(name: &str) -> Result<Precision, String> {
    let names = Precision::ALL.map(Precision::name).join(", ");
    Precision::by_name(name).ok_or_else(|| format!("expected one of {names}"))
}

pub fn run(arguments: &PlanArguments) -> Result<(), Error> {
    let mut catalogue = Catalogue::built_in();
    for path in &arguments.chips {
        catalogue.extend_from(path)?;
    }
    if arguments.show_chips {
        return super::print(catalogue::BUILT_IN.trim_end());
    }
    if let Some(path) = &arguments.report {
        return write(path, &report::can_ascend_match(&catalogue)?);
    }
    let model = find_model(arguments.model.as_deref())?;
    let goal = goal(arguments);
    goal.check(&model)?;
    if let Some(name) = &arguments.fleet {
        return sweep(arguments, &catalogue, &model, &goal, name);
    }
    if !arguments.compare.is_empty() {
        return compare(arguments, &catalogue, &model, &goal);
    }
    let mut chip = match &arguments.chip {
        Some(name) => catalogue.chip(name)?.clone(),
        None => {
            catalogue.families.push(engine::family());
            machine::detect(!arguments.no_probe)
        }
    };
    override_figures(&mut chip, arguments);
    single(arguments, &catalogue, &model, &goal, &chip)
}

/// By name, by folder, or nothing for the built-in model.
fn find_model(name: Option<&str>) -> Result<Model, Error> {
    if let Some(name) = name {
        match model::find(name) {
            Ok(model) => return Ok(model),
            Err(error @ cachalot_planner::Error::ModelUnknown { .. }) => {
                // A model in the cache of the hub has no folder of that name here.
                return match location::look_up(Some(name)) {
                    Ok(Known::Here(location)) => {
                        let checkpoint = location.open()?;
                        Ok(model::from_config(location.name(), checkpoint.config())?)
                    }
                    _ => Err(error.into()),
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
    let checkpoint = crate::built_in::open()?;
    Ok(model::from_config(crate::built_in::NAME, checkpoint.config())?)
}

fn goal(arguments: &PlanArguments) -> Goal {
    let drafts = arguments.drafts;
    Goal {
        context: arguments.context,
        users: arguments.users,
        precision: arguments.weights,
        speculation: Speculation {
            drafts,
            tokens_per_step: arguments.tokens_per_step.unwrap_or(1.0 + 0.5 * drafts as f64),
        },
        hit_rate: arguments.hit_rate,
        slow_bytes_per_second: arguments.slow_memory.map(|rate| rate as f64),
    }
}

fn override_figures(chip: &mut Chip, arguments: &PlanArguments) {
    if let Some(bytes) = arguments.memory {
        chip.memory_gb = Figure::measured(bytes as f64 / 1e9, "given");
    }
    if let Some(rent) = arguments.rent {
        chip.rent_usd_hour = Figure::measured(rent, "given");
    }
}

fn single(
    arguments: &PlanArguments,
    catalogue: &Catalogue,
    model: &Model,
    goal: &Goal,
    chip: &Chip,
) -> Result<(), Error> {
    let mut machine = Machine {
        catalogue,
        chip,
        chips: arguments.count.unwrap_or(1),
    };
    if arguments.count.is_none() && arguments.chip.is_some() {
        machine.chips = plan::chips_needed(model, machine, goal)?.unwrap_or(1);
    }
    let found = plan::plan(model, machine, goal)?;
    let remedies = plan::remedies(model, machine, goal)?;
    if let Some(path) = &arguments.roofline {
        write(path, &svg::render(&text::roofline(catalogue, chip, &found)))?;
    }
    if let Some(path) = &arguments.plot {
        let points = plan::curve(model, machine, goal)?;
        write(
            path,
            &svg::render(&throughput_plot(model, goal, vec![series(chip, &points)])),
        )?;
    }
    let disk_bytes = arguments.chip.is_none().then(machine::disk_bytes).flatten();
    if arguments.json {
        let mut value = json::plan(model, machine, goal, &found, &remedies);
        value["free_disk_bytes"] = serde_json::json!(disk_bytes);
        super::print_json(&value)?;
        return refuse_what_does_not_fit(&found, &remedies);
    }
    let disk = disk_bytes.map_or(String::new(), |bytes| text::disk(model, bytes));
    super::print(&format!(
        "{}{disk}",
        text::plan(model, machine, goal, &found, &remedies, arguments.no_probe)
    ))?;
    refuse_what_does_not_fit(&found, &remedies)
}

/// Scripts ask with the exit code.
fn refuse_what_does_not_fit(found: &Plan, remedies: &[String]) -> Result<(), Error> {
    match remedies.first() {
        Some(remedy) if !found.fits() && found.memory.is_some() => Err(Error::NothingFits { remedy: remedy.clone() }),
        _ => Ok(()),
    }
}

/// Why a chip serves nothing, with what to change.
fn no_fleet(model: &Model, chip: &Chip, goal: &Goal, reason: &NoFleet) -> Error {
    let remedy = match reason {
        NoFleet::Unknown(figures) => format!("give {} of {} in a file for --chips", figures.join(", "), chip.id),
        NoFleet::TooSmall => format!(
            "--weights q4 or a shorter --context than {} for {}",
            goal.context, model.name
        ),
        NoFleet::TooSlow => "a lower --user-tps".to_owned(),
    };
    Error::NothingFits { remedy }
}

/// A chip and the best way to serve on it.
struct Compared {
    chip: Chip,
    best: Result<(Point, Fleet), NoFleet>,
}

fn compare(arguments: &PlanArguments, catalogue: &Catalogue, model: &Model, goal: &Goal) -> Result<(), Error> {
    let target = arguments.target_tps.unwrap_or(TARGET_TPS);
    let mut compared = Vec::new();
    let mut lines = Vec::new();
    for name in &arguments.compare {
        let mut chip = catalogue.chip(name)?.clone();
        override_figures(&mut chip, arguments);
        let best = fleet::best(model, catalogue, &chip, goal, arguments.user_tps)?;
        if arguments.plot.is_some() {
            let machine = Machine {
                catalogue,
                chip: &chip,
                chips: fleet::REPLICA_CHIPS_MAX,
            };
            lines.push(series(&chip, &plan::curve(model, machine, goal)?));
        }
        let best = best.map(|point| {
            let fleet = fleet::for_target(catalogue, &chip, &point, target as f64);
            (point, fleet)
        });
        compared.push(Compared { chip, best });
    }
    if let Some(path) = &arguments.plot {
        write(path, &svg::render(&throughput_plot(model, goal, lines)))?;
    }
    match arguments.json {
        true => super::print_json(&json::comparison(model, goal, &compared))?,
        false => super::print(&text::comparison(model, goal, target, arguments.user_tps, &compared))?,
    }
    // One chip that serves is an answer.
    match compared
        .iter()
        .find_map(|compared| Some((compared, compared.best.as_ref().err()?)))
    {
        Some((first, reason)) if compared.iter().all(|compared| compared.best.is_err()) => {
            Err(no_fleet(model, &first.chip, goal, reason))
        }
        _ => Ok(()),
    }
}

fn sweep(
    arguments: &PlanArguments,
    catalogue: &Catalogue,
    model: &Model,
    goal: &Goal,
    name: &str,
) -> Result<(), Error> {
    let mut chip = catalogue.chip(name)?.clone();
    override_figures(&mut chip, arguments);
    let best = fleet::best(model, catalogue, &chip, goal, arguments.user_tps)?;
    let counts = match arguments.count {
        Some(count) => vec![count],
        None => FLEET_CHIPS.to_vec(),
    };
    let replica_chips = best.as_ref().map_or(0, |point| point.plan.replica_chips);
    let fleets = best.map(|point| match arguments.target_tps {
        Some(target) => vec![fleet::for_target(catalogue, &chip, &point, target as f64)],
        None => {
            let fleets = counts.iter();
            fleets
                .filter_map(|chips| fleet::of_chips(catalogue, &chip, &point, *chips))
                .collect()
        }
    });
    match arguments.json {
        true => super::print_json(&json::fleets(model, goal, &chip, &fleets))?,
        false => super::print(&text::fleets(model, goal, &chip, &fleets))?,
    }
    match &fleets {
        Ok(fleets) if fleets.is_empty() => Err(Error::NothingFits {
            remedy: format!("--count {replica_chips}, one replica"),
        }),
        Ok(_) => Ok(()),
        Err(reason) => Err(no_fleet(model, &chip, goal, reason)),
    }
}

fn series(chip: &Chip, points: &[Point]) -> Series {
    Series {
        name: chip.name.clone(),
        points: points
            .iter()
            .map(|point| (point.tokens_per_second_per_user, point.tokens_per_second_per_chip))
            .collect(),
        joined: true,
    }
}

fn throughput_plot(model: &Model, goal: &Goal, series: Vec<Series>) -> svg::Plot {
    svg::Plot {
        title: format!("{}, {} tokens of context, predicted", model.name, goal.context),
        x: "tokens a second of one user".to_owned(),
        y: "tokens a second and chip".to_owned(),
        scale: svg::Scale::Logarithmic,
        series,
    }
}

fn write(path: &std::path::Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// Tokens a second of one of the goal's users.
fn speed_of_user(plan: &Plan, goal: &Goal) -> Option<f64> {
    let decode = plan.decode.as_ref().ok()?;
    let sequences = (goal.users as f64 / plan.replicas as f64).max(1.0);
    Some(decode.tokens_per_second() / sequences)
}
