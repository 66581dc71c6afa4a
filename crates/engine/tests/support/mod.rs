//! The built-in model, a service over it, and sinks that collect.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use cachalot_checkpoint::Checkpoint;
use cachalot_chip::{Chip, Mode};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_engine::{
    Error, Event, Finish, Flow, MissReason, Request, RequestHandle, Service, ServiceOptions, TokenEvent,
};
use cachalot_model::{Model, ModelOptions};

/// The built-in model's token that ends an answer.
pub const END: u32 = 1;

pub fn model_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny")
}

pub fn cpu() -> Arc<dyn Chip> {
    Arc::new(CpuChip::new(CpuOptions::default()))
}

pub fn model_on(chip: Arc<dyn Chip>, mode: Mode) -> Model {
    let checkpoint = Checkpoint::open(&model_folder()).expect("the built-in model");
    let options = ModelOptions {
        mode,
        ..ModelOptions::default()
    };
    Model::load(&checkpoint, chip, options, &mut |_, _| {}).expect("loads")
}

pub fn service(mode: Mode, options: ServiceOptions) -> Service {
    Service::start(model_on(cpu(), mode), options).expect("memory")
}

/// A few sequences of up to 4,096 tokens.
pub fn small() -> ServiceOptions {
    ServiceOptions {
        context: Some(4096),
        sequence_count_max: 4,
        ..ServiceOptions::default()
    }
}

/// Token ids that look like text to the model: a fixed walk through the vocabulary.
pub fn prompt(seed: usize, length: usize) -> Vec<u32> {
    (0..length)
        .map(|i| (3 + (i * i * 31 + i * 17 + seed * 97 + i / 7) % 2040) as u32)
        .collect()
}

/// What a sink heard.
#[derive(Debug, Default)]
pub struct Answer {
    pub reused: usize,
    pub missed: Option<MissReason>,
    pub events: Vec<TokenEvent>,
    pub outcome: Option<Result<Finish, Error>>,
}

impl Answer {
    pub fn tokens(&self) -> Vec<u32> {
        self.events.iter().map(|event| event.token).collect()
    }

    pub fn finish(&self) -> &Finish {
        match &self.outcome {
            Some(Ok(finish)) => finish,
            other => panic!("the request did not finish: {other:?}"),
        }
    }
}

/// A request under way.
pub struct Pending {
    pub handle: RequestHandle,
    events: mpsc::Receiver<Event>,
}

impl Pending {
    /// Waits for the last event.
    pub fn answer(self) -> Answer {
        let mut answer = Answer::default();
        loop {
            match self
                .events
                .recv_timeout(Duration::from_secs(120))
                .expect("an end within two minutes")
            {
                Event::Admitted { reused, missed, .. } => (answer.reused, answer.missed) = (reused, missed),
                Event::Prefill { .. } => {}
                Event::Token(token) => answer.events.push(token),
                Event::Finished(finish) => answer.outcome = Some(Ok(finish)),
                Event::Failed(error) => answer.outcome = Some(Err(error)),
            }
            if answer.outcome.is_some() {
                // Nothing comes after the last event.
                assert!(self.events.try_recv().is_err());
                return answer;
            }
        }
    }

    /// Waits for the first token.
    pub fn first_token(&self) {
        while !matches!(self.events.recv().expect("a token"), Event::Token(_)) {}
    }
}

pub fn try_submit(service: &Service, request: Request) -> Result<Pending, Error> {
    let (sender, events) = mpsc::channel();
    let sink = move |event| match sender.send(event) {
        Ok(()) => Flow::Continue,
        Err(_) => Flow::Cancel,
    };
    let handle = service.submit(request, Box::new(sink))?;
    Ok(Pending { handle, events })
}

pub fn submit(service: &Service, request: Request) -> Pending {
    try_submit(service, request).expect("accepted")
}

pub fn ask(service: &Service, request: Request) -> Answer {
    submit(service, request).answer()
}

/// A request for a fixed number of tokens unless the model ends earlier.
pub fn request(prompt: Vec<u32>, token_count_max: usize) -> Request {
    Request {
        token_count_max: Some(token_count_max),
        stop_tokens: vec![END],
        ..Request::new(prompt)
    }
}
