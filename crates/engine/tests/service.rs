//! What a service promises: the answers of lone runs, whatever arrives together; limits; memory that comes back.

mod support;

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use cachalot_chip::Mode;
use cachalot_engine::{
    Engine, EngineOptions, Error, FinishReason, Flow, GenerationOptions, Request, SamplingOptions, Service,
    ServiceOptions,
};
use support::{END, ask, cpu, model_on, prompt, request, service, small, submit, try_submit};

/// The same answer by a session.
fn alone(engine: &Engine, request: &Request) -> Vec<u32> {
    let options = GenerationOptions {
        sampling: request.sampling.clone(),
        token_count_max: request.token_count_max,
        stop_tokens: request.stop_tokens.clone(),
    };
    let mut session = engine.new_session().expect("a free session");
    let cancel = AtomicBool::new(false);
    let mut generation = session
        .generate(&request.prompt, options, &cancel, &mut |_| {})
        .expect("fits");
    std::iter::from_fn(|| generation.next_token().expect("finite logits")).collect()
}

fn seeded(prompt: Vec<u32>, seed: u64, length: usize) -> Request {
    Request {
        sampling: SamplingOptions {
            seed,
            ..SamplingOptions::default()
        },
        ..request(prompt, length)
    }
}

#[test]
fn answers_equal_those_of_sessions() {
    for mode in [Mode::Reference, Mode::Fast] {
        let engine = Engine::new(
            model_on(cpu(), mode),
            EngineOptions {
                context: Some(4096),
                ..EngineOptions::default()
            },
        )
        .expect("memory");
        let service = service(mode, small());
        let requests: Vec<_> = (0..7)
            .map(|i| move || seeded(prompt(i, 1 + 61 * i), i as u64, 5 + 7 * i))
            .collect();
        let pending: Vec<_> = requests.iter().map(|request| submit(&service, request())).collect();
        for (request, pending) in requests.iter().zip(pending) {
            let answer = pending.answer();
            assert_eq!(answer.tokens(), alone(&engine, &request()), "{mode}");
            assert_eq!(answer.finish().usage.prompt, request().prompt.len());
        }
    }
}

#[test]
fn requests_that_cannot_be_answered_are_refused() {
    let service = service(Mode::Fast, small());
    let refuse = |request| try_submit(&service, request).err().expect("refused");
    assert!(matches!(refuse(request(vec![], 1)), Error::EmptyPrompt));
    assert!(matches!(
        refuse(request(prompt(1, 4096), 1)),
        Error::PromptTooLong {
            length: 4096,
            context: 4096
        }
    ));
    assert!(matches!(refuse(request(vec![1 << 20], 1)), Error::Model(_)));
    let mut strange = request(vec![5], 1);
    strange.sampling.frequency_penalty = 2.5;
    assert!(matches!(
        refuse(strange),
        Error::Sampling {
            option: "frequency_penalty",
            ..
        }
    ));
    assert_eq!(service.status().ended_counts.len(), 0);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let service = service(
        Mode::Fast,
        ServiceOptions {
            sequence_count_max: 1,
            queue_length_max: 2,
            ..small()
        },
    );
    let running = submit(&service, request(prompt(1, 900), 3000));
    running.first_token();
    let waiting: Vec<_> = (0..2).map(|i| submit(&service, request(prompt(i, 9), 3))).collect();
    let error = try_submit(&service, request(prompt(9, 9), 3)).err().expect("no room");
    assert!(matches!(error, Error::QueueFull { waiting: 2, retry_after } if retry_after >= Duration::from_secs(1)));
    running.handle.cancel();
    assert_eq!(running.answer().finish().reason, FinishReason::Cancelled);
    for pending in waiting {
        pending.answer().finish();
    }
}

#[test]
fn cancelled_requests_give_their_memory_back() {
    let service = service(Mode::Fast, small());
    let free = || service.status().memory.free_page_bytes;
    // By the sink, after three tokens.
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut left = 3;
    let sink = move |event| {
        let is_token = matches!(event, cachalot_engine::Event::Token(_));
        sender.send(event).expect("the test listens");
        left -= usize::from(is_token);
        if left == 0 { Flow::Cancel } else { Flow::Continue }
    };
    let mut endless = request(prompt(1, 300), 3000);
    endless.stop_tokens.clear();
    service.submit(endless, Box::new(sink)).expect("accepted");
    let events: Vec<_> = receiver.iter().collect();
    let count = events
        .iter()
        .filter(|event| matches!(event, cachalot_engine::Event::Token(_)))
        .count();
    assert_eq!(count, 3);
    assert!(matches!(
        events.last(),
        Some(cachalot_engine::Event::Finished(finish)) if finish.reason == FinishReason::Cancelled
    ));
    // By the handle, while it waits for its first token.
    let pending = submit(&service, request(prompt(2, 4000), 3));
    pending.handle.cancel();
    assert_eq!(pending.answer().finish().reason, FinishReason::Cancelled);
    service.drain(Duration::from_secs(60));
    let total = free();
    assert!(total > 0 && service.status().running == 0);
    assert!(matches!(
        try_submit(&service, request(vec![5], 1)),
        Err(Error::ShuttingDown)
    ));
}

#[test]
fn deadlines_end_what_waits_and_what_runs() {
    let service = service(
        Mode::Fast,
        ServiceOptions {
            sequence_count_max: 1,
            ..small()
        },
    );
    let soon = |milliseconds| Some(Instant::now() + Duration::from_millis(milliseconds));
    let endless = |deadline| Request {
        stop_tokens: vec![],
        deadline,
        ..request(prompt(1, 5), 4000)
    };
    let running = submit(&service, endless(soon(600)));
    running.first_token();
    let waiting = submit(&service, endless(soon(50)));
    assert!(matches!(
        waiting.answer().outcome,
        Some(Err(Error::Deadline { waited })) if waited >= Duration::from_millis(50)
    ));
    let answer = running.answer();
    assert_eq!(answer.finish().reason, FinishReason::Deadline);
    assert!(!answer.events.is_empty());
}

#[test]
fn answers_end_at_limits_and_stop_tokens() {
    let service = service(Mode::Fast, small());
    let answer = ask(&service, request(prompt(3, 40), 0));
    assert_eq!(
        (answer.tokens().len(), answer.finish().reason),
        (0, FinishReason::Length)
    );
    let mut endless = request(prompt(3, 4090), 4000);
    endless.stop_tokens.clear();
    let answer = ask(&service, endless);
    assert_eq!(
        (answer.tokens().len(), answer.finish().reason),
        (6, FinishReason::Length)
    );
    let stop = answer.tokens()[2];
    let mut stopping = request(prompt(3, 4090), 4000);
    stopping.stop_tokens = vec![stop];
    let answer = ask(&service, stopping);
    assert!(answer.tokens().len() <= 2);
    assert_eq!(
        (answer.finish().reason, answer.finish().stop_token),
        (FinishReason::Stop, Some(stop))
    );
    assert_ne!(stop, END);
}

#[test]
fn a_dropped_service_fails_what_is_left() {
    let service: Service = service(Mode::Fast, small());
    let mut endless = request(prompt(1, 500), 3000);
    endless.stop_tokens.clear();
    let pending = submit(&service, endless);
    drop(service);
    assert!(matches!(pending.answer().outcome, Some(Err(Error::ShuttingDown))));
}
