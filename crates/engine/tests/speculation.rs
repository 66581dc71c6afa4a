//! Guesses change nothing about answers: what the service says with them is what it says without.

mod support;

use cachalot_checkpoint::Checkpoint;
use cachalot_chip::Mode;
use cachalot_engine::{
    CacheOptions, Constraint, Error, Request, SamplingOptions, Service, ServiceOptions, Speculation, TokenMask,
};
use cachalot_model::{Model, ModelOptions};
use support::{Answer, ask, cpu, model_folder, prompt, request, submit};

fn service(speculation: Speculation, options: ServiceOptions) -> Service {
    let checkpoint = Checkpoint::open(&model_folder()).expect("the built-in model");
    let model_options = ModelOptions {
        mode: Mode::Fast,
        drafter: true,
        ..ModelOptions::default()
    };
    let model = Model::load(&checkpoint, cpu(), model_options, &mut |_, _| {}).expect("loads");
    assert_eq!(model.draft_count_max(), Some(8));
    Service::start(model, ServiceOptions { speculation, ..options }).expect("memory")
}

fn small() -> ServiceOptions {
    ServiceOptions {
        cache: None,
        ..support::small()
    }
}

/// Makes a request anew.
type Build = Box<dyn Fn() -> Request>;

/// Every way to draw tokens, and constraints.
fn requests() -> Vec<(&'static str, Build)> {
    let sampled = |name, options: SamplingOptions| {
        let build = move || Request {
            sampling: options.clone(),
            logprob_count: Some(2),
            ..request(prompt(options.seed as usize, 40), 60)
        };
        (name, Box::new(build) as Build)
    };
    let plain = SamplingOptions::default;
    vec![
        sampled("greedy", SamplingOptions::greedy()),
        sampled("temperature 1", SamplingOptions { seed: 5, ..plain() }),
        sampled(
            "cuts",
            SamplingOptions {
                temperature: 0.8,
                top_k: 20,
                top_p: 0.9,
                min_p: 0.02,
                seed: 6,
                ..plain()
            },
        ),
        sampled(
            "penalties",
            SamplingOptions {
                temperature: 0.7,
                repetition_penalty: 1.3,
                presence_penalty: 0.5,
                frequency_penalty: 0.2,
                logit_bias: vec![(7, 3.0)],
                seed: 7,
                ..plain()
            },
        ),
        (
            "constraint",
            Box::new(|| Request {
                sampling: SamplingOptions::default(),
                constraint: Some(Box::new(Alternating::default())),
                ..request(prompt(8, 40), 60)
            }),
        ),
    ]
}

/// Allows even and odd ids in turn.
#[derive(Default)]
struct Alternating {
    turn: usize,
    mask: Option<TokenMask>,
}

impl Constraint for Alternating {
    fn mask(&mut self) -> Result<Option<&TokenMask>, Error> {
        let word = [0x5555_5555, 0xAAAA_AAAA][self.turn % 2];
        Ok(Some(self.mask.insert(TokenMask::from_words(vec![word; 2048 / 32]))))
    }

    fn commit(&mut self, token: u32) -> Result<(), Error> {
        assert_eq!(token as usize % 2, self.turn % 2, "a token that was not allowed");
        self.turn += 1;
        Ok(())
    }
}

fn same(found: &Answer, expected: &Answer, what: &str) {
    assert_eq!(found.events, expected.events, "{what}");
    let finishes = [found, expected].map(|answer| {
        let finish = answer.finish();
        (finish.reason, finish.stop_token, finish.usage.generated)
    });
    assert_eq!(finishes[0], finishes[1], "{what}");
}

#[test]
fn answers_are_the_same_with_and_without() {
    let off = service(Speculation::Off, small());
    let expected: Vec<Answer> = requests().iter().map(|(_, build)| ask(&off, build())).collect();
    assert_eq!(off.status().speculation.drafted_count, 0);
    for speculation in [1, 2, 5, 8]
        .map(Speculation::Always)
        .into_iter()
        .chain([Speculation::Auto])
    {
        let on = service(speculation, small());
        for ((name, build), expected) in requests().iter().zip(&expected) {
            same(&ask(&on, build()), expected, &format!("{name}, {speculation:?}"));
        }
        // All at once: steps check guesses of several answers.
        let pending: Vec<_> = requests().iter().map(|(_, build)| submit(&on, build())).collect();
        for ((pending, expected), (name, _)) in pending.into_iter().zip(&expected).zip(requests()) {
            same(
                &pending.answer(),
                expected,
                &format!("{name} among others, {speculation:?}"),
            );
        }
        let status = on.status().speculation;
        assert!(status.is_possible);
        if let Speculation::Always(_) = speculation {
            assert!(status.drafted_count > 0 && status.accepted_count > 0, "{status:?}");
        }
    }
}

/// Prompts of the evaluation cases, evenly over all kinds.
fn real_prompts(count: usize) -> Vec<Vec<u32>> {
    let tokenizer = tokenizers::Tokenizer::from_file(model_folder().join("tokenizer.json")).expect("a tokenizer");
    let cases = std::fs::read_to_string(model_folder().join("evaluation.jsonl")).expect("the evaluation cases");
    let lines: Vec<&str> = cases.lines().collect();
    let chosen = lines.iter().step_by(lines.len() / count).take(count);
    let ids = chosen.map(|line| {
        let case: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let prompt = case["prompt"].as_str().expect("a string");
        tokenizer.encode(prompt, false).expect("encodes").get_ids().to_vec()
    });
    ids.filter(|ids| ids.len() < 3000).collect()
}

/// What the model was made for, greedily and sampled, through the prefix cache.
#[test]
fn answers_to_real_prompts_are_the_same() {
    let prompts = real_prompts(64);
    assert!(prompts.len() >= 60);
    let cached = || ServiceOptions {
        cache: Some(CacheOptions::default()),
        ..small()
    };
    for temperature in [0.0, 0.8] {
        let [off, on] = [Speculation::Off, Speculation::Always(4)].map(|speculation| {
            let service = service(speculation, cached());
            let build = |prompt: &Vec<u32>| Request {
                sampling: SamplingOptions {
                    temperature,
                    ..SamplingOptions::default()
                },
                ..request(prompt.clone(), 96)
            };
            let pending: Vec<_> = prompts.iter().map(|prompt| submit(&service, build(prompt))).collect();
            let answers: Vec<Answer> = pending.into_iter().map(|pending| pending.answer()).collect();
            // Once more, from the cache.
            let again = ask(&service, build(&prompts[prompts.len() - 1]));
            assert!(again.reused > 0);
            same(&again, &answers[answers.len() - 1], "again");
            (answers, service.status().speculation)
        });
        for (index, (found, expected)) in on.0.iter().zip(&off.0).enumerate() {
            same(found, expected, &format!("prompt {index} at {temperature}"));
        }
        let acceptance = on.1.acceptance().expect("guesses");
        assert!(acceptance > 0.4, "{acceptance} at {temperature}");
    }
}

/// Answers end where they should: at a limit, when cancelled, and when memory is short.
#[test]
fn limits_cancellations_and_interruptions_hold() {
    let off = service(Speculation::Off, small());
    let tight = ServiceOptions {
        context: Some(1024),
        token_count_max: Some(1024),
        ..small()
    };
    let on = service(Speculation::Always(5), tight);
    for count in 1..9 {
        let found = ask(&on, request(prompt(1, 30), count));
        same(
            &found,
            &ask(&off, request(prompt(1, 30), count)),
            &format!("{count} tokens"),
        );
    }
    let endless = |seed| Request {
        stop_tokens: Vec::new(),
        ..request(prompt(seed, 100), 600)
    };
    let expected: Vec<Answer> = (0..4).map(|seed| ask(&off, endless(seed))).collect();
    let pending: Vec<_> = (0..4).map(|seed| submit(&on, endless(seed))).collect();
    for (pending, expected) in pending.into_iter().zip(&expected) {
        assert_eq!(pending.answer().tokens(), expected.tokens());
    }
    assert!(on.status().interrupted_count > 0, "memory was not short");
    let cancelled = submit(&on, endless(9));
    cancelled.first_token();
    cancelled.handle.cancel();
    assert_eq!(
        cancelled.answer().finish().reason,
        cachalot_engine::FinishReason::Cancelled
    );
    assert!(
        ask(&on, request(prompt(1, 30), 3))
            .outcome
            .is_some_and(|outcome| outcome.is_ok())
    );
}

/// The drafter's own tokens never show: over many seeds the first tokens have the model's probabilities.
#[test]
fn sampled_tokens_have_the_models_distribution() {
    const SEEDS: u64 = 1500;
    let on = service(
        Speculation::Always(3),
        ServiceOptions {
            sequence_count_max: 16,
            cache: Some(CacheOptions::default()),
            ..small()
        },
    );
    let text = prompt(3, 24);
    // The third token of an answer, given its first two, is checked as a guess of a step.
    let sampling = |seed| SamplingOptions {
        temperature: 1.2,
        top_k: 6,
        seed,
        ..SamplingOptions::default()
    };
    let build = |seed| Request {
        sampling: sampling(seed),
        ..request(text.clone(), 3)
    };
    let mut counts: std::collections::BTreeMap<Vec<u32>, [f64; 2]> = Default::default();
    let off = service(Speculation::Off, small());
    let mut pending = Vec::new();
    for seed in 0..SEEDS {
        // Other seeds: two samples of what should be one distribution.
        pending.push((0, submit(&on, build(seed))));
        pending.push((1, submit(&off, build(1_000_000 + seed))));
        if pending.len() >= 128 {
            for (side, pending) in pending.drain(..) {
                counts.entry(pending.answer().tokens()).or_default()[side] += 1.0;
            }
        }
    }
    for (side, pending) in pending {
        counts.entry(pending.answer().tokens()).or_default()[side] += 1.0;
    }
    // Chi-square of two samples; rare texts together.
    let (mut chi, mut cells, mut rest) = (0.0, 0.0, [0.0; 2]);
    let mut add = |[a, b]: [f64; 2]| {
        if a + b > 0.0 {
            chi += (a - b) * (a - b) / (a + b);
            cells += 1.0;
        }
    };
    for pair in counts.values() {
        match pair[0] + pair[1] >= 20.0 {
            true => add(*pair),
            false => (rest[0], rest[1]) = (rest[0] + pair[0], rest[1] + pair[1]),
        }
    }
    add(rest);
    let freedom: f64 = cells - 1.0;
    // Mean and deviation of chi-square; four deviations are not seen by chance.
    assert!(
        freedom >= 5.0 && chi < freedom + 4.0 * (2.0 * freedom).sqrt(),
        "{chi} with {freedom}"
    );
}
