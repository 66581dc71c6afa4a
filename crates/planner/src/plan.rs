//! Plans: how to spread a model over chips, and what comes out.

use crate::{
    Error,
    catalogue::{Catalogue, Chip},
    engine,
    memory::{Memory, RESERVED_HOST_PART, Request},
    model::Model,
    precision::Precision,
    step::{Layout, Speculation, Step, Work},
    time::{Rates, StepTime, Unknown},
    units,
};

/// Tokens of a pass of prefill for each copy of the attention weights.
const PREFILL_TOKENS: f64 = 8192.0;
/// Sequences at most that one copy of the attention weights decodes together.
const SEQUENCES_PER_COPY_MAX: f64 = 512.0;
/// Tokens at most that are drafted for a step.
const DRAFTS_MAX: u64 = 16;
/// Sequences that the search for the largest number ends at.
const SEQUENCES_MAX: f64 = 16_777_216.0;

/// What a plan is for.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Tokens of each sequence. Default 8,192.
    pub context: u64,
    /// Sequences at the same time. Default 1.
    pub users: u64,
    /// Formats of the weights; `None` for what suits the chip.
    pub precision: Option<Precision>,
    /// Drafting. Default off.
    pub speculation: Speculation,
    /// Part of the uses of experts that find them in memory where not all fit; `None` for the part that fits,
    /// which is what uniform routing gives.
    pub hit_rate: Option<f64>,
    /// Bytes a second of the memory (RAM of the host, SSD) that experts may stay in; `None` for the chip's storage.
    pub slow_bytes_per_second: Option<f64>,
}

impl Default for Goal {
    fn default() -> Goal {
        Goal {
            context: 8192,
            users: 1,
            precision: None,
            speculation: Speculation::OFF,
            hit_rate: None,
            slow_bytes_per_second: None,
        }
    }
}

impl Goal {
    /// Refuses what no model can do.
    ///
    /// # Errors
    /// [`Error::Request`] that names the input.
    pub fn check(&self, model: &Model) -> Result<(), Error> {
        let request = |what, value: String, expected: String| Err(Error::Request { what, value, expected });
        if !(1..=model.context_max).contains(&self.context) {
            let expected = format!("1 to {} tokens for {}", units::grouped(model.context_max), model.name);
            return request("the context", units::grouped(self.context), expected);
        }
        if !(1..=SEQUENCES_MAX as u64).contains(&self.users) {
            return request(
                "the number of users",
                self.users.to_string(),
                format!("1 to {}", units::grouped(SEQUENCES_MAX as u64)),
            );
        }
        let Speculation {
            drafts,
            tokens_per_step,
        } = self.speculation;
        if drafts > DRAFTS_MAX {
            return request("the number of drafts", drafts.to_string(), format!("0 to {DRAFTS_MAX}"));
        }
        if drafts > 0 && model.drafter.is_none() {
            let expected = format!(
                "0: {} comes without an MTP layer or DSpark stages to draft with",
                model.name
            );
            return request("the number of drafts", drafts.to_string(), expected);
        }
        if !(1.0..=(drafts + 1) as f64).contains(&tokens_per_step) {
            return request(
                "the number of tokens for each step",
                tokens_per_step.to_string(),
                format!("1 to {}: the sampled token and at most every draft", drafts + 1),
            );
        }
        match self.hit_rate {
            Some(rate) if !(0.0..=1.0).contains(&rate) => {
                request("the hit rate", rate.to_string(), "0 to 1".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// One way to spread a model over the chips, and what it gives.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Formats of the weights.
    pub precision: Precision,
    /// Chips of a replica.
    pub replica_chips: u64,
    /// Replicas.
    pub replicas: u64,
    /// How a replica is spread.
    pub layout: Layout,
    /// Memory of each device; `None` if the chip's memory is unknown.
    pub memory: Option<Memory>,
    /// Part of the uses of experts that find them in the device's memory: 1 unless experts stay elsewhere.
    pub hit_rate: f64,
    /// Most sequences at the goal's context, all replicas together; `None` if the chip's memory is unknown.
    pub sequences_max: Option<u64>,
    /// Longest context for the goal's users; `None` if the chip's memory is unknown.
    pub context_max: Option<u64>,
    /// A step of decoding of one replica.
    pub decode: Result<StepTime, Unknown>,
    /// A pass of prefill of one replica.
    pub prefill: Result<StepTime, Unknown>,
}

impl Plan {
    /// Whether everything is in memory, or experts may stay elsewhere.
    pub fn fits(&self) -> bool {
        self.memory
            .as_ref()
            .is_some_and(|memory| memory.fits() || self.hit_rate < 1.0)
    }

    /// Tokens a second of all replicas.
    pub fn decode_tokens_per_second(&self) -> Option<f64> {
        Some(self.decode.as_ref().ok()?.tokens_per_second() * self.replicas as f64)
    }

    /// Prompt tokens a second of all replicas.
    pub fn prefill_tokens_per_second(&self) -> Option<f64> {
        Some(self.prefill.as_ref().ok()?.tokens_per_second() * self.replicas as f64)
    }
}

/// What is planned on: a chip, its efficiencies, how many.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// Catalogue with the efficiencies.
    pub catalogue: &'a Catalogue,
    /// Chip.
    pub chip: &'a Chip,
    /// How many.
    pub chips: u64,
}

/// The best plan for a goal on so many chips: the fastest that fits, or, if none does, the one that lacks least.
///
/// Replicas of 1, 2, 4 ... chips and of all chips are tried, with 1, 2, 4 or 8 devices for each copy of the attention.
///
/// # Errors
/// [`Error::Request`] for goals that no model can reach and for no chips.
pub fn plan(model: &Model, machine: Machine, goal: &Goal) -> Result<Plan, Error> {
    goal.check(model)?;
    if !(1..=10_000_000).contains(&machine.chips) {
        return Err(Error::Request {
            what: "the number of chips",
            value: machine.chips.to_string(),
            expected: "1 to 10,000,000".to_owned(),
        });
    }
    let mut best: Option<Plan> = None;
    for precision in precisions(machine.chip, goal) {
        for layout in layouts(machine.chip, machine.chips) {
            let candidate = evaluate(model, machine, goal, precision, layout);
            if best.as_ref().is_none_or(|best| is_better(&candidate, best)) {
                best = Some(candidate);
            }
        }
        // The next precision is only for what does not fit in this one.
        if best.as_ref().is_some_and(Plan::fits) {
            break;
        }
    }
    Ok(best.expect("at least one precision and layout"))
}

fn precisions(chip: &Chip, goal: &Goal) -> Vec<Precision> {
    match (goal.precision, Precision::of_chip(chip)) {
        (Some(precision), _) => vec![precision],
        (None, Precision::W8A8) => vec![Precision::W8A8, Precision::W4A8],
        (None, precision) => vec![precision],
    }
}

fn layouts(chip: &Chip, chips: u64) -> Vec<Layout> {
    let mut sizes: Vec<u64> = (0..10).map(|power| 1 << power).filter(|size| *size <= chips).collect();
    if chips <= 1024 {
        sizes.push(chips);
    }
    sizes.dedup();
    let mut layouts = Vec::new();
    for devices in sizes.into_iter().map(|size| size * chip.devices) {
        for tensor in [1, 2, 4, 8] {
            if devices % tensor == 0 && tensor <= chip.link_devices() {
                layouts.push(Layout { devices, tensor });
            }
        }
    }
    layouts
}

/// Fitting comes before not fitting; then a known speed before an unknown one; then the faster.
fn is_better(a: &Plan, b: &Plan) -> bool {
    let key = |plan: &Plan| {
        let lacking = plan
            .memory
            .as_ref()
            .map_or(f64::INFINITY, |memory| memory.total() / memory.available);
        let whole = plan.memory.as_ref().is_some_and(Memory::fits);
        (
            plan.fits(),
            whole,
            if plan.fits() { 0.0 } else { -lacking },
            plan.decode_tokens_per_second().unwrap_or(-1.0),
        )
    };
    key(a).partial_cmp(&key(b)).is_some_and(std::cmp::Ordering::is_gt)
}

/// A plan with given precision and layout.
pub fn evaluate(model: &Model, machine: Machine, goal: &Goal, precision: Precision, layout: Layout) -> Plan {
    let chip = machine.chip;
    let replica_chips = layout.devices / chip.devices;
    let replicas = (machine.chips / replica_chips).max(1);
    let sequences = (goal.users as f64 / replicas as f64).max(1.0);
    let request = Request {
        model,
        precision,
        layout,
        sequences: sequences.ceil(),
        context: goal.context as f64,
        drafting: goal.speculation.drafts > 0 && model.drafter.is_some(),
    };
    let memory = Memory::of(&request, chip);
    let slow = goal
        .slow_bytes_per_second
        .or(chip.storage_gb_s.value().map(|rate| rate * 1e9));
    let room = memory.as_ref().is_none_or(|memory| memory.fits());
    let possible = memory
        .as_ref()
        .is_some_and(|memory| memory.without_experts() < memory.available);
    let hit_rate = match &memory {
        Some(memory) if !room && possible && slow.is_some() => {
            // Not everything can hit where not everything fits.
            goal.hit_rate.unwrap_or(memory.resident_experts()).min(1.0 - 1e-6)
        }
        _ => 1.0,
    };
    let rates = Rates {
        chip,
        efficiency: machine.catalogue.efficiency(chip),
        slow_bytes_per_second: slow,
    };
    let step = |work| Step {
        model,
        precision,
        layout,
        work,
        speculation: goal.speculation,
        link_devices: chip.link_devices(),
        hit_rate,
    };
    let context = goal.context as f64;
    let decode = rates.time(&step(Work::Decode { sequences, context }));
    let prefill = rates.time(&step(Work::Prefill {
        tokens: if chip.family == engine::FAMILY {
            engine::PREFILL_ROWS.min(context)
        } else {
            PREFILL_TOKENS
        },
        prompt: context,
    }));
    let is_possible = |request: Request| {
        Memory::of(&request, chip)
            .is_some_and(|memory| memory.fits() || (slow.is_some() && memory.without_experts() < memory.available))
    };
    let known = memory.is_some();
    let sequences_max =
        known.then(|| largest(SEQUENCES_MAX, |sequences| is_possible(Request { sequences, ..request })));
    let context_max = known.then(|| {
        largest(model.context_max as f64, |context| {
            is_possible(Request { context, ..request })
        })
    });
    Plan {
        precision,
        replica_chips,
        replicas,
        layout,
        hit_rate,
        sequences_max: sequences_max.map(|count| count * replicas),
        context_max,
        memory,
        decode,
        prefill,
    }
}

/// The largest whole number up to a limit that fits, 0 if none does.
fn largest(limit: f64, fits: impl Fn(f64) -> bool) -> u64 {
    let (mut low, mut high) = (0.0, limit);
    if fits(limit) {
        return limit as u64;
    }
    while high - low > 1.0 {
        let middle = ((low + high) / 2.0_f64).floor();
        if fits(middle) { low = middle } else { high = middle }
    }
    low as u64
}

/// The smallest changes, each alone, that would make a plan fit; empty if it fits or nothing would help.
///
/// # Errors
/// As [`plan`].
pub fn remedies(model: &Model, machine: Machine, goal: &Goal) -> Result<Vec<String>, Error> {
    let found = plan(model, machine, goal)?;
    let mut remedies = Vec::new();
    if found.fits() || found.memory.is_none() {
        return Ok(remedies);
    }
    if let Some(context) = found.context_max.filter(|context| *context > 0) {
        remedies.push(format!("--context {context} instead of {}", goal.context));
    }
    if let Some(users) = found.sequences_max.filter(|users| *users > 0) {
        remedies.push(format!("--users {users} instead of {}", goal.users));
    }
    for precision in [Precision::W8A8, Precision::W4A8, Precision::Q4, Precision::Q2] {
        let tried = Goal {
            precision: Some(precision),
            ..goal.clone()
        };
        let smaller = precision.part_bytes(model, crate::model::Part::RoutedExperts)
            < found.precision.part_bytes(model, crate::model::Part::RoutedExperts);
        if smaller && plan(model, machine, &tried)?.fits() {
            remedies.push(format!("--weights {}", precision.name()));
            break;
        }
    }
    // A machine's memory is bought by the gigabyte, an accelerator's by the chip.
    if machine.chip.host_memory {
        let needed = found.memory.as_ref().map_or(0.0, Memory::total) / (1.0 - RESERVED_HOST_PART);
        remedies.push(format!(
            "a machine with {:.0} GB of memory (try --memory)",
            (needed / 1e9).ceil()
        ));
    } else if let Some(chips) = chips_needed(model, machine, goal)? {
        remedies.push(format!("--count {chips} instead of {}", machine.chips));
    }
    if machine.chip.host_memory || goal.slow_bytes_per_second.is_none() {
        let tried = Goal {
            slow_bytes_per_second: Some(1e9),
            ..goal.clone()
        };
        if plan(model, machine, &tried)?.fits() {
            remedies
                .push("experts in slower memory: --slow-memory followed by its bytes a second, such as 7GB".to_owned());
        }
    }
    if remedies.is_empty() {
        let (needed, offered) = found
            .memory
            .map_or((0.0, 0.0), |memory| (memory.total(), memory.available));
        remedies.push(format!(
            "a chip with {} more memory",
            units::short_bytes((needed - offered).max(0.0))
        ));
    }
    Ok(remedies)
}

/// The smallest number of chips, up to 1,024, that the goal fits on.
///
/// # Errors
/// As [`plan`].
pub fn chips_needed(model: &Model, machine: Machine, goal: &Goal) -> Result<Option<u64>, Error> {
    let fits = |chips: u64| Ok::<_, Error>(plan(model, Machine { chips, ..machine }, goal)?.fits());
    let Some(mut high) = doubling(1024, &fits)? else {
        return Ok(None);
    };
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle)? { high = middle } else { low = middle }
    }
    Ok(Some(high))
}

fn doubling(limit: u64, fits: &dyn Fn(u64) -> Result<bool, Error>) -> Result<Option<u64>, Error> {
    let mut count = 1;
    while count <= limit {
        if fits(count)? {
            return Ok(Some(count));
        }
        count *= 2;
    }
    Ok(None)
}

/// One point of throughput against speed.
#[derive(Clone, Debug)]
pub struct Point {
    /// Sequences of a replica.
    pub sequences: u64,
    /// Tokens a second of one user.
    pub tokens_per_second_per_user: f64,
    /// Tokens a second and chip.
    pub tokens_per_second_per_chip: f64,
    /// The plan behind it.
    pub plan: Plan,
}

/// Throughput against speed for a user on replicas of at most `chips` chips: for 1, 2, 4 ... sequences the best
/// replica that fits.
///
/// # Errors
/// As [`plan`]. Chips with unknown figures give no points.
pub fn curve(model: &Model, machine: Machine, goal: &Goal) -> Result<Vec<Point>, Error> {
    goal.check(model)?;
    let mut points: Vec<Point> = Vec::new();
    let layouts = layouts(machine.chip, machine.chips);
    for precision in precisions(machine.chip, goal) {
        for layout in &layouts {
            points.extend(curve_of(model, machine, goal, precision, *layout));
        }
        if !points.is_empty() {
            break;
        }
    }
    // What is slower for the user and for the chip than another point is no choice.
    points.sort_by(|a, b| b.tokens_per_second_per_user.total_cmp(&a.tokens_per_second_per_user));
    let mut most = 0.0;
    points.retain(|point| {
        let keeps = point.tokens_per_second_per_chip > most;
        most = f64::max(most, point.tokens_per_second_per_chip);
        keeps
    });
    Ok(points)
}

fn curve_of(model: &Model, machine: Machine, goal: &Goal, precision: Precision, layout: Layout) -> Vec<Point> {
    let replica_chips = layout.devices / machine.chip.devices;
    let machine = Machine {
        chips: replica_chips,
        ..machine
    };
    let mut points = Vec::new();
    let mut sequences = 1;
    while sequences as f64 <= layout.data() * SEQUENCES_PER_COPY_MAX {
        let goal = Goal {
            users: sequences,
            ..goal.clone()
        };
        let plan = evaluate(model, machine, &goal, precision, layout);
        let (true, Ok(decode)) = (plan.fits() && plan.hit_rate == 1.0, &plan.decode) else {
            break;
        };
        points.push(Point {
            sequences,
            tokens_per_second_per_user: decode.tokens_per_second() / sequences as f64,
            tokens_per_second_per_chip: decode.tokens_per_second() / replica_chips as f64,
            plan,
        });
        sequences *= 2;
    }
    points
}

/// The point with the highest throughput whose users get at least `floor` tokens a second.
pub fn best_point(points: &[Point], floor: f64) -> Option<&Point> {
    let fast = points.iter().filter(|point| point.tokens_per_second_per_user >= floor);
    fast.max_by(|a, b| a.tokens_per_second_per_chip.total_cmp(&b.tokens_per_second_per_chip))
}
