//! From what a pass moves and computes to how long it takes.

use crate::{
    catalogue::{Chip, Efficiency},
    step::{Class, Cost, Step, Work},
};

/// What an operator, or a whole pass, waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bound {
    /// Memory bandwidth.
    Bandwidth,
    /// Arithmetic.
    Arithmetic,
    /// Fast link.
    Link,
    /// Network beyond it.
    Network,
    /// Slower memory that experts come from.
    Storage,
    /// Time from one kernel to the next.
    Launches,
}

impl Bound {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Bandwidth => "bandwidth",
            Bound::Arithmetic => "arithmetic",
            Bound::Link => "link",
            Bound::Network => "network",
            Bound::Storage => "storage",
            Bound::Launches => "launches",
        }
    }
}

/// Time of one operator class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatorTime {
    /// What it moves and computes.
    pub cost: Cost,
    /// Seconds.
    pub seconds: f64,
    /// What it waits for.
    pub bound: Bound,
}

/// Time of a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// Its operators; their times add up.
    pub operators: Vec<OperatorTime>,
    /// Seconds of the pass.
    pub seconds: f64,
    /// Tokens that the replica gains: kept ones in decode, prompt tokens in prefill.
    pub tokens: f64,
}

impl StepTime {
    /// Tokens a second of the replica.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens / self.seconds
    }

    /// What most of the time is spent waiting for.
    pub fn bound(&self) -> Bound {
        let mut sums: Vec<(Bound, f64)> = Vec::new();
        for operator in &self.operators {
            match sums.iter_mut().find(|(bound, _)| *bound == operator.bound) {
                Some((_, seconds)) => *seconds += operator.seconds,
                None => sums.push((operator.bound, operator.seconds)),
            }
        }
        let longest = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        longest.map_or(Bound::Launches, |(bound, _)| bound)
    }

    /// Seconds of a class.
    pub fn seconds_of(&self, class: Class) -> f64 {
        let operators = self.operators.iter().filter(|operator| operator.cost.class == class);
        operators.map(|operator| operator.seconds).sum()
    }
}

/// Figures of a chip that a prediction needs and nobody has published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Their names in the catalogue.
    pub figures: Vec<&'static str>,
}

impl Unknown {
    /// One figure.
    pub fn figure(name: &'static str) -> Unknown {
        Unknown { figures: vec![name] }
    }
}

/// Rates of one device after efficiency; `None` where the catalogue knows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Rates<'a> {
    /// Chip.
    pub chip: &'a Chip,
    /// Efficiencies.
    pub efficiency: Efficiency,
    /// Bytes a second of the memory that experts beyond the device's own come from.
    pub slow_bytes_per_second: Option<f64>,
}

impl Rates<'_> {
    /// Time of a pass: the sum over operators, each as long as the slowest thing that it waits for.
    ///
    /// # Errors
    /// [`Unknown`] if a figure is missing that the pass needs.
    pub fn time(&self, step: &Step) -> Result<StepTime, Unknown> {
        let operators = step
            .costs()
            .into_iter()
            .map(|cost| self.operator(cost))
            .collect::<Result<Vec<_>, _>>()?;
        let seconds = operators.iter().map(|operator| operator.seconds).sum();
        let tokens = match step.work {
            Work::Decode { sequences, .. } => sequences * step.speculation.tokens_per_step,
            Work::Prefill { tokens, .. } => tokens * step.layout.data(),
        };
        Ok(StepTime {
            operators,
            seconds,
            tokens,
        })
    }

    fn operator(&self, cost: Cost) -> Result<OperatorTime, Unknown> {
        let (chip, efficiency) = (self.chip, self.efficiency);
        let over = |amount: f64, rate: Option<f64>, name: &'static str| match (amount, rate) {
            (0.0, _) => Ok(0.0),
            (_, None) => Err(Unknown::figure(name)),
            (amount, Some(rate)) => Ok(amount / rate),
        };
        let memory = over(cost.bytes, chip.bandwidth(), "bandwidth_tb_s")? / efficiency.memory;
        let mut arithmetic = 0.0;
        for (operand, operations) in cost.operations {
            arithmetic += over(operations, chip.rate(operand), "bf16_tflops")? / efficiency.compute;
        }
        let link = over(cost.link_bytes, chip.link(), "link_gb_s")? / efficiency.link;
        let network = over(cost.network_bytes, chip.network(), "network_gb_s")? / efficiency.link;
        let slow = over(cost.slow_bytes, self.slow_bytes_per_second, "storage_gb_s")? / efficiency.memory;
        let parts = [
            (Bound::Bandwidth, memory),
            (Bound::Arithmetic, arithmetic),
            (Bound::Link, link),
            (Bound::Network, network),
            (Bound::Storage, slow),
        ];
        let launches = cost.launches * efficiency.launch_us * 1e-6;
        let (bound, longest) = parts
            .into_iter()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .expect("five parts");
        Ok(OperatorTime {
            cost,
            seconds: longest + launches,
            bound: if launches > longest { Bound::Launches } else { bound },
        })
    }
}
