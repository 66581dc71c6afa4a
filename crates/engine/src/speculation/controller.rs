//! How many tokens to guess.

use std::time::Duration;

use super::{Acceptance, DRAFT_COUNT_MAX, Speculation, SpeculationStatus, costs::Costs};

/// A step with guesses has to promise this much more than one without.
const MARGIN: f64 = 1.03;

/// Part of the time of all steps that guesses may lose.
const LOSS_SHARE_MAX: f64 = 0.01;

/// Gains that may be lost again, in plain steps: an old success is no licence.
const CREDIT_STEPS: f64 = 8.0;

/// Plain steps before the first guess: their cost is the yardstick.
const PLAIN_STEP_COUNT_MIN: u64 = 6;

/// So often a plain step is run although guesses pay, to renew the yardstick.
const YARDSTICK_INTERVAL: u64 = 64;

/// Guesses for the requests of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    /// Tokens to guess for each request.
    pub counts: Vec<usize>,
    /// A guess less likely than this to survive is not worth its row.
    pub survival_min: f64,
}

/// What a step with guesses took and gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speculated {
    pub request_count: usize,
    /// Tokens guessed and those that were right.
    pub drafted: usize,
    pub accepted: usize,
    pub draft_time: Duration,
    /// The model's part and the drawing.
    pub step_time: Duration,
}

/// Learns what steps cost and decides. One for a chip: requests bring their own [`Acceptance`].
#[derive(Clone, Debug)]
pub(crate) struct Speculator {
    speculation: Speculation,
    draft_count_max: usize,
    steps: Costs,
    drafts: Costs,
    /// Mean of all requests.
    mean: Acceptance,
    /// Seconds lost by guessing (negative: gained), and seconds of all steps.
    lost: f64,
    spent: f64,
    since_plain: u64,
    status: SpeculationStatus,
}

impl Speculator {
    /// For a model whose drafter guesses up to `draft_count_max` tokens, 0 without one.
    pub fn new(speculation: Speculation, draft_count_max: usize) -> Self {
        let draft_count_max = match speculation {
            Speculation::Off => 0,
            Speculation::Auto => draft_count_max.min(DRAFT_COUNT_MAX),
            Speculation::Always(count) => draft_count_max.min(count),
        };
        Speculator {
            speculation,
            draft_count_max,
            steps: Costs::default(),
            drafts: Costs::default(),
            mean: Acceptance::default(),
            lost: 0.0,
            spent: 0.0,
            since_plain: 0,
            status: SpeculationStatus {
                is_possible: draft_count_max > 0,
                ..SpeculationStatus::default()
            },
        }
    }

    /// Whether guesses may ever be made.
    pub fn is_possible(&self) -> bool {
        self.draft_count_max > 0
    }

    /// Makes no guesses any more: the drafter failed.
    pub fn disable(&mut self) {
        self.draft_count_max = 0;
        self.status.is_possible = false;
    }

    pub fn status(&self) -> SpeculationStatus {
        SpeculationStatus {
            seconds_saved: -self.lost,
            ..self.status
        }
    }

    /// What to expect of a new request.
    pub fn expectation(&self) -> Acceptance {
        self.mean
    }

    /// How many tokens to guess for requests of which each has room for `limits[i]`.
    pub fn decide(&mut self, requests: &[(Acceptance, usize)]) -> Decision {
        let none = Decision {
            counts: vec![0; requests.len()],
            survival_min: 0.0,
        };
        if !self.is_possible() {
            return none;
        }
        if let Speculation::Always(_) = self.speculation {
            let counts = requests.iter().map(|(_, limit)| (*limit).min(self.draft_count_max));
            return Decision {
                counts: counts.collect(),
                survival_min: 0.0,
            };
        }
        let count = requests.len();
        let Some(plain) = self.steps.seconds(count).filter(|_| self.steps.knows(count)) else {
            return none;
        };
        if self.status.plain_step_count < PLAIN_STEP_COUNT_MIN || self.since_plain >= YARDSTICK_INTERVAL {
            return none;
        }
        let budget = LOSS_SHARE_MAX * self.spent - self.lost;
        let best = self.best(requests);
        if let Some((decision, rate)) = best
            && rate > MARGIN * count as f64 / plain
            && budget > -plain
        {
            return decision;
        }
        self.probe(requests, plain, budget).unwrap_or(none)
    }

    /// The prefix of all possible guesses, likeliest first, that promises the most tokens a second.
    fn best(&self, requests: &[(Acceptance, usize)]) -> Option<(Decision, f64)> {
        let mut candidates: Vec<(f64, usize)> = Vec::new();
        for (index, (acceptance, limit)) in requests.iter().enumerate() {
            let survivals = acceptance.survivals().take((*limit).min(self.draft_count_max));
            candidates.extend(survivals.map(|survival| (survival, index)));
        }
        // Stable, and a request's own survivals descend: its guesses stay in order.
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut tokens, mut best) = (requests.len() as f64, None);
        let mut counts = vec![0; requests.len()];
        for (guesses, (survival, index)) in candidates.into_iter().enumerate() {
            tokens += survival;
            counts[index] += 1;
            let Some(seconds) = self.seconds(requests.len(), guesses + 1) else {
                break;
            };
            let rate = tokens / seconds;
            if best.as_ref().is_none_or(|(_, found)| rate > *found) {
                let more = self.seconds(requests.len(), guesses + 2).unwrap_or(seconds);
                let decision = Decision {
                    counts: counts.clone(),
                    survival_min: (rate * (more - seconds)).clamp(0.0, 0.9),
                };
                best = Some((decision, rate));
            }
        }
        best
    }

    /// Seconds of a step with so many guesses, their drafting included.
    fn seconds(&self, request_count: usize, guesses: usize) -> Option<f64> {
        let steps = self.steps.seconds(request_count + guesses)?;
        // Before the first: as a tenth of a step each, which is much.
        let drafts = self.drafts.seconds(guesses);
        let drafts = drafts.unwrap_or(0.1 * guesses as f64 * self.steps.seconds(1).unwrap_or(steps));
        Some(steps + drafts)
    }

    /// A few guesses for the most promising request, if what they may lose is allowed.
    fn probe(&self, requests: &[(Acceptance, usize)], plain: f64, budget: f64) -> Option<Decision> {
        let survival = |acceptance: &Acceptance| acceptance.survivals().next().unwrap_or(0.0);
        let (index, (acceptance, limit)) = requests
            .iter()
            .enumerate()
            .max_by(|a, b| survival(&a.1.0).total_cmp(&survival(&b.1.0)))?;
        // Two, once costs are known, where the first is likely to be right: they tell the slope of the costs.
        let wanted = if self.status.step_count > 0 && survival(acceptance) > 0.5 {
            2
        } else {
            1
        };
        let guesses = wanted.min(*limit).min(self.draft_count_max);
        let seconds = self.seconds(requests.len(), guesses)?;
        // As if all were wrong, so that a bad drafter cannot lose more.
        let loss = seconds - plain;
        if guesses == 0 || loss > budget {
            return None;
        }
        let mut counts = vec![0; requests.len()];
        counts[index] = guesses;
        Some(Decision {
            counts,
            survival_min: 0.0,
        })
    }

    /// Takes note of a step of `row_count` answers without guesses.
    pub fn note_plain(&mut self, row_count: usize, time: Duration) {
        self.steps.observe(row_count, time);
        self.spent += time.as_secs_f64();
        self.since_plain = 0;
        self.status.plain_step_count += 1;
    }

    /// Takes note of a step with guesses.
    pub fn note_speculated(&mut self, step: &Speculated) {
        let rows = step.request_count + step.drafted;
        self.steps.observe(rows, step.step_time);
        // The first time, weights come from far away.
        if self.status.step_count > 0 {
            self.drafts.observe(step.drafted, step.draft_time);
        }
        let seconds = (step.step_time + step.draft_time).as_secs_f64();
        let tokens = (step.request_count + step.accepted) as f64;
        let plain = self.steps.seconds(step.request_count).unwrap_or(seconds);
        self.lost += seconds - plain * tokens / step.request_count.max(1) as f64;
        self.lost = self.lost.max(-CREDIT_STEPS * plain);
        self.spent += seconds;
        self.since_plain += 1;
        self.status.step_count += 1;
        self.status.drafted_count += step.drafted as u64;
        self.status.accepted_count += step.accepted as u64;
    }

    /// Takes note of a request's guesses in a step.
    pub fn note_request(&mut self, acceptance: &mut Acceptance, drafted: usize, accepted: usize) {
        match drafted {
            0 => acceptance.forget(&self.mean),
            _ => {
                acceptance.observe(drafted, accepted);
                self.mean.observe(drafted, accepted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chip on which a step takes a millisecond and `per_row` more for each further row, and a guess `per_draft`.
    fn run(per_row: f64, per_draft: f64, right: f64, steps: usize) -> (f64, SpeculationStatus) {
        let mut speculator = Speculator::new(Speculation::Auto, 5);
        let mut acceptance = speculator.expectation();
        let (mut tokens, mut spent) = (0usize, 0.0);
        for step in 0..steps {
            let decision = speculator.decide(&[(acceptance, 5)]);
            let drafted = decision.counts[0];
            let accepted = (0..drafted)
                .take_while(|guess| crate::uniform(step as u64, *guess as u64) < right)
                .count();
            let step_time = 1e-3 * (1.0 + per_row * drafted as f64);
            let draft_time = 1e-3 * per_draft * drafted as f64;
            match drafted {
                0 => speculator.note_plain(1, Duration::from_secs_f64(step_time)),
                _ => speculator.note_speculated(&Speculated {
                    request_count: 1,
                    drafted,
                    accepted,
                    draft_time: Duration::from_secs_f64(draft_time),
                    step_time: Duration::from_secs_f64(step_time),
                }),
            }
            speculator.note_request(&mut acceptance, drafted, accepted);
            (tokens, spent) = (tokens + 1 + accepted, spent + step_time + draft_time);
        }
        (1e-3 * tokens as f64 / spent, speculator.status())
    }

    #[test]
    fn gains_are_taken_and_losses_are_bounded() {
        for per_row in [0.05, 0.2, 0.5, 1.0, 2.0] {
            for per_draft in [0.05, 0.3, 1.0] {
                for right in [0.0, 0.1, 0.5, 0.8, 0.95] {
                    let (speed_up, status) = run(per_row, per_draft, right, 3000);
                    let what = format!("{per_row} a row, {per_draft} a draft, {right} right: {speed_up} {status:?}");
                    assert!(speed_up > 0.985, "{what}");
                    // One guess a step would do at least this.
                    let single = (1.0 + right) / (1.0 + per_row + per_draft);
                    assert!(speed_up > 0.93 * single, "{what}");
                }
            }
        }
        let (short, _) = run(2.0, 1.0, 0.0, 150);
        assert!(short > 0.97, "{short}");
    }

    #[test]
    fn likely_requests_go_first() {
        let mut speculator = Speculator::new(Speculation::Auto, 5);
        for _ in 0..20 {
            speculator.note_plain(2, Duration::from_millis(10));
        }
        speculator.steps.observe(4, Duration::from_micros(11_000));
        speculator.steps.observe(8, Duration::from_micros(16_000));
        speculator.drafts.observe(2, Duration::from_micros(200));
        let (mut good, mut bad) = (Acceptance::default(), Acceptance::default());
        for _ in 0..100 {
            good.observe(5, 5);
            bad.observe(5, 0);
        }
        let decision = speculator.decide(&[(bad, 5), (good, 5)]);
        assert_eq!((decision.counts[0], decision.counts[1] > 1), (0, true), "{decision:?}");
        assert_eq!(speculator.decide(&[(bad, 5), (good, 1)]).counts, [0, 1]);
    }

    #[test]
    fn options_are_parsed() {
        for (text, expected) in [
            ("auto", Ok(Speculation::Auto)),
            ("off", Ok(Speculation::Off)),
            ("3", Ok(Speculation::Always(3))),
        ] {
            assert_eq!(text.parse(), expected);
        }
        for text in ["", "9", "-1", "on"] {
            assert!(text.parse::<Speculation>().is_err(), "{text}");
        }
    }
}
