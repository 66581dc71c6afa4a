//! Whatever arrives together: answers as if alone, faults contained, memory returned.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use cachalot_chip::{
    Chip, Description, Error as ChipError, Matrix, MatrixSource, Mode, Operation, OperationKind, Support, Tensor,
    TensorSource,
};
use cachalot_engine::{
    Error, FinishReason, Request, SamplingOptions, Service, ServiceOptions,
    constraint::{Dormancy, Grammar, Grammars, TokenText},
};
use cachalot_numerics::Dtype;
use proptest::prelude::*;
use support::{END, ask, cpu, model_on, prompt, request, service, small, submit};

/// Tokens whose computation fails on a [`FaultyChip`].
const POISON: [u32; 4] = [2001, 2002, 2003, 2004];

/// A chip whose operators fail on demand.
struct FaultyChip {
    inner: Arc<dyn Chip>,
    /// Operators until one fails; negative for none.
    countdown: AtomicI64,
    panics: bool,
    is_poisoned: AtomicBool,
}

impl Chip for FaultyChip {
    fn description(&self) -> Description {
        self.inner.description()
    }

    fn support(&self, kind: OperationKind, mode: Mode) -> Support {
        self.inner.support(kind, mode)
    }

    fn allocate(&self, dtype: Dtype, shape: &[usize]) -> Result<Tensor, ChipError> {
        self.inner.allocate(dtype, shape)
    }

    fn load(&self, source: TensorSource) -> Result<Tensor, ChipError> {
        self.inner.load(source)
    }

    fn load_matrix(&self, source: MatrixSource) -> Result<Matrix, ChipError> {
        self.inner.load_matrix(source)
    }

    fn write(&self, tensor: &Tensor, bytes: &[u8]) -> Result<(), ChipError> {
        let poison: Vec<u8> = POISON.iter().flat_map(|token| token.to_le_bytes()).collect();
        if bytes.windows(poison.len()).any(|window| window == poison) {
            self.is_poisoned.store(true, Ordering::Relaxed);
        }
        self.inner.write(tensor, bytes)
    }

    fn read(&self, tensor: &Tensor, bytes: &mut [u8]) -> Result<(), ChipError> {
        self.inner.read(tensor, bytes)
    }

    fn enqueue(&self, mode: Mode, operation: &Operation<'_>) -> Result<(), ChipError> {
        let is_poisoned = self.is_poisoned.swap(false, Ordering::Relaxed);
        if is_poisoned || self.countdown.fetch_sub(1, Ordering::Relaxed) == 0 {
            assert!(!self.panics, "an injected panic");
            return Err(ChipError::Device {
                chip: "faulty".to_owned(),
                message: "an injected fault".to_owned(),
            });
        }
        self.inner.enqueue(mode, operation)
    }

    fn synchronize(&self) -> Result<(), ChipError> {
        self.inner.synchronize()
    }
}

fn faulty_service(countdown: i64, panics: bool) -> Service {
    let chip = FaultyChip {
        inner: cpu(),
        countdown: AtomicI64::new(countdown),
        panics,
        is_poisoned: AtomicBool::new(false),
    };
    Service::start(model_on(Arc::new(chip), Mode::Fast), small()).expect("memory")
}

fn lone_answers(mode: Mode, requests: &[impl Fn() -> Request]) -> Vec<Vec<u32>> {
    let service = service(mode, ServiceOptions { cache: None, ..small() });
    requests
        .iter()
        .map(|request| ask(&service, request()).tokens())
        .collect()
}

#[test]
fn a_fault_costs_nobody_his_answer() {
    let requests: Vec<_> = (0..4).map(|i| move || request(prompt(i, 30 + 200 * i), 12)).collect();
    let expected = lone_answers(Mode::Fast, &requests);
    for (countdown, panics) in [(40, false), (700, true), (1500, false)] {
        let service = faulty_service(countdown, panics);
        let pending: Vec<_> = requests.iter().map(|request| submit(&service, request())).collect();
        for (pending, expected) in pending.into_iter().zip(&expected) {
            assert_eq!(
                &pending.answer().tokens(),
                expected,
                "fault after {countdown} operators"
            );
        }
        assert_eq!(service.status().failed_step_count, 1);
    }
}

#[test]
fn a_request_whose_steps_always_fail_fails_alone() {
    let requests: Vec<_> = (0..3).map(|i| move || request(prompt(i, 50), 40)).collect();
    let expected = lone_answers(Mode::Fast, &requests);
    for panics in [false, true] {
        let service = faulty_service(-1, panics);
        let poisoned = submit(&service, request([&prompt(7, 20)[..], &POISON].concat(), 5));
        let pending: Vec<_> = requests.iter().map(|request| submit(&service, request())).collect();
        let outcome = poisoned.answer().outcome;
        assert!(
            matches!(&outcome, Some(Err(Error::StepFailed { attempts: 2, reason })) if reason.contains("injected")),
            "{outcome:?}"
        );
        for (pending, expected) in pending.into_iter().zip(&expected) {
            assert_eq!(&pending.answer().tokens(), expected);
        }
    }
}

#[test]
fn higher_priority_interrupts_and_the_interrupted_resume() {
    let low = || Request {
        priority: -1,
        stop_tokens: vec![],
        ..request(prompt(1, 400), 120)
    };
    let expected = lone_answers(Mode::Fast, &[low]);
    let one = ServiceOptions {
        sequence_count_max: 1,
        ..small()
    };
    let service = service(Mode::Fast, one);
    let pending = submit(&service, low());
    pending.first_token();
    ask(&service, request(prompt(2, 30), 3)).finish();
    let answer = pending.answer();
    assert_eq!(answer.finish().usage.interrupted, 1);
    // The first token was taken by the wait.
    assert_eq!(answer.tokens(), expected[0][1..]);
}

#[test]
fn constraints_wake_after_their_token_and_report_the_models_own_probabilities() {
    let texts: Vec<String> = (0..2048).map(|token| format!("{token} ")).collect();
    let grammars = Grammars::new(texts.iter().map(|text| TokenText::Bytes(text.as_bytes())), &[END]).expect("valid");
    let service = service(Mode::Fast, small());
    let grammar = Grammar::Regex("([0-9]+ ){3}".to_owned());
    let dormancy = Dormancy {
        until: 17,
        forbidden: &[],
    };
    let constraint = grammars.constraint(&grammar, Some(dormancy)).expect("valid");
    let asked = Request {
        sampling: SamplingOptions {
            logit_bias: vec![(17, 100.0)],
            ..SamplingOptions::default()
        },
        constraint: Some(Box::new(constraint)),
        logprob_count: Some(3),
        ..request(prompt(1, 40), 50)
    };
    let answer = ask(&service, asked);
    assert_eq!(answer.tokens(), [17; 4]);
    assert_eq!(answer.finish().reason, FinishReason::Stop);
    for event in &answer.events {
        let logprob = event.logprob.expect("asked for");
        // Bias and mask made it certain; the model found it unlikely.
        assert!(event.top.len() == 3 && logprob < event.top[2].1, "{event:?}");
        assert!(event.top.iter().map(|(_, logprob)| logprob.exp()).sum::<f32>() <= 1.0 + 1e-5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, ..ProptestConfig::default() })]

    /// Random requests in a memory too small for all: each answer is that of a lone run, or its beginning if cancelled.
    #[test]
    fn answers_do_not_depend_on_neighbours(
        jobs in prop::collection::vec((0usize..3, 1usize..600, 1usize..40, -1i32..2, prop::bool::weighted(0.2)), 2..9),
        mode in prop::sample::select(vec![Mode::Reference, Mode::Fast]),
        is_cached in any::<bool>(),
    ) {
        let requests: Vec<_> = jobs
            .iter()
            .map(|(seed, length, count, priority, _)| move || Request {
                priority: *priority,
                group: Some(format!("group {}", seed % 2)),
                sampling: SamplingOptions { seed: *seed as u64, frequency_penalty: 0.5, ..Default::default() },
                ..request(prompt(*seed, *length), *count)
            })
            .collect();
        let expected = lone_answers(mode, &requests);
        let cache = is_cached.then(Default::default);
        let options = ServiceOptions { token_count_max: Some(1024), context: Some(1024), sequence_count_max: 3, cache, ..small() };
        let service = service(mode, options);
        let pending: Vec<_> = requests.iter().map(|request| submit(&service, request())).collect();
        for (pending, job) in pending.iter().zip(&jobs) {
            if job.4 {
                pending.handle.cancel();
            }
        }
        for ((pending, expected), job) in pending.into_iter().zip(expected).zip(&jobs) {
            let answer = pending.answer();
            let finish = answer.finish();
            let tokens = answer.tokens();
            if job.4 && finish.reason == FinishReason::Cancelled {
                prop_assert!(expected.starts_with(&tokens));
            } else {
                prop_assert_eq!(tokens, expected);
            }
        }
        service.drain(Duration::from_secs(60));
        let memory = service.status().memory;
        prop_assert!(is_cached || memory.used_page_bytes == 0, "{memory:?}");
        prop_assert!(memory.used_page_bytes == memory.cached_page_bytes, "{memory:?}");
    }
}
