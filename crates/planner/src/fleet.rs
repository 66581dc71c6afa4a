//! Many chips: how many for a target, and what so many give.
//!
//! A fleet is a number of equal, independent replicas; nothing is sent between them. Of all chips a part
//! ([`SPARE_PART`]) stands by for failures. Chips that do not fill a replica do nothing. Power is that of the chips,
//! or of the whole system where only that is published.

use crate::{
    Error,
    catalogue::{Catalogue, Chip},
    model::Model,
    plan::{self, Goal, Machine, Point},
    time::Bound,
};

/// Part of the chips of a fleet that stands by.
pub const SPARE_PART: f64 = 0.03;
/// Chips of the largest replica that is tried.
pub const REPLICA_CHIPS_MAX: u64 = 64;

/// What serves a target, or what a number of chips serves.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Id of the chip.
    pub chip: String,
    /// Chips, the spare ones included.
    pub chips: u64,
    /// Chips of a replica.
    pub replica_chips: u64,
    /// Replicas at work.
    pub replicas: u64,
    /// Generated tokens a second.
    pub tokens_per_second: f64,
    /// Generated tokens a second and chip at work.
    pub tokens_per_second_per_chip: f64,
    /// Generated tokens a second of one user.
    pub tokens_per_second_per_user: f64,
    /// Prompt tokens a second and chip, by chips that do nothing else; `None` if unknown.
    pub prefill_per_chip: Option<f64>,
    /// Megawatts; `None` if unknown.
    pub megawatts: Option<f64>,
    /// US dollars an hour; `None` if unknown.
    pub usd_per_hour: Option<f64>,
    /// What decoding waits for.
    pub bound: Bound,
}

/// Why a chip serves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFleet {
    /// Figures that nobody has published.
    Unknown(Vec<&'static str>),
    /// The model does not fit on [`REPLICA_CHIPS_MAX`] chips.
    TooSmall,
    /// No batch gives users the demanded speed.
    TooSlow,
}

impl std::fmt::Display for NoFleet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            NoFleet::Unknown(figures) => write!(formatter, "unknown: {} not published", figures.join(", ")),
            NoFleet::TooSmall => write!(formatter, "does not fit on {REPLICA_CHIPS_MAX} chips"),
            NoFleet::TooSlow => formatter.write_str("never so fast for a user"),
        }
    }
}

/// The best way to serve on a chip when each user gets at least `floor` tokens a second.
///
/// # Errors
/// As [`plan::plan`].
pub fn best(
    model: &Model,
    catalogue: &Catalogue,
    chip: &Chip,
    goal: &Goal,
    floor: f64,
) -> Result<Result<Point, NoFleet>, Error> {
    let machine = Machine {
        catalogue,
        chip,
        chips: REPLICA_CHIPS_MAX,
    };
    let points = plan::curve(model, machine, goal)?;
    if let Some(point) = plan::best_point(&points, floor) {
        return Ok(Ok(point.clone()));
    }
    if !points.is_empty() {
        return Ok(Err(NoFleet::TooSlow));
    }
    let tried = plan::plan(model, machine, goal)?;
    Ok(Err(match (&tried.memory, &tried.decode) {
        (None, _) => NoFleet::Unknown(vec!["memory_gb"]),
        (_, Err(unknown)) => NoFleet::Unknown(unknown.figures.clone()),
        _ => NoFleet::TooSmall,
    }))
}

/// Chips of a kind for a target rate of generated tokens.
pub fn for_target(catalogue: &Catalogue, chip: &Chip, point: &Point, target: f64) -> Fleet {
    let replica = point.plan.replica_chips;
    let replicas = (target / (point.tokens_per_second_per_chip * replica as f64))
        .ceil()
        .max(1.0) as u64;
    let chips = ((replicas * replica) as f64 / (1.0 - SPARE_PART)).ceil() as u64;
    fleet(catalogue, chip, point, chips, replicas)
}

/// What a number of chips serves; `None` if they are too few for one replica.
pub fn of_chips(catalogue: &Catalogue, chip: &Chip, point: &Point, chips: u64) -> Option<Fleet> {
    let replica = point.plan.replica_chips;
    // A single replica has no spare chips.
    let at_work = ((chips as f64 * (1.0 - SPARE_PART)).floor() as u64).max(replica.min(chips));
    let replicas = at_work / replica;
    (replicas > 0).then(|| fleet(catalogue, chip, point, chips, replicas))
}

fn fleet(catalogue: &Catalogue, chip: &Chip, point: &Point, chips: u64, replicas: u64) -> Fleet {
    let replica = point.plan.replica_chips;
    let prefill = point.plan.prefill_tokens_per_second();
    let working = (replicas * replica) as f64;
    Fleet {
        chip: chip.id.clone(),
        chips,
        replica_chips: replica,
        replicas,
        tokens_per_second: point.tokens_per_second_per_chip * working,
        tokens_per_second_per_chip: point.tokens_per_second_per_chip,
        tokens_per_second_per_user: point.tokens_per_second_per_user,
        prefill_per_chip: prefill.map(|rate| rate / replica as f64),
        megawatts: watts_per_chip(catalogue, chip).map(|watts| watts * chips as f64 / 1e6),
        usd_per_hour: chip.rent_usd_hour.value().map(|rent| rent * chips as f64),
        bound: point
            .plan
            .decode
            .as_ref()
            .map_or(Bound::Bandwidth, |decode| decode.bound()),
    }
}

/// Watts of a chip: its own, or its part of a system whose power is known; `None` if neither is.
pub fn watts_per_chip(catalogue: &Catalogue, chip: &Chip) -> Option<f64> {
    chip.power_w.value().or_else(|| {
        let mut systems = catalogue.systems.iter().filter(|system| system.chip == chip.id);
        systems.find_map(|system| Some(system.power_kw.value()? * 1e3 / system.chips as f64))
    })
}
