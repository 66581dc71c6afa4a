//! The backend with a real model: the protocols in front of the engine.

mod answer;
mod errors;
mod store;
mod texts;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cachalot_chat::{PromptEncoder, Thinking};
use cachalot_engine::{
    Event, Flow, Request, SamplingOptions, Service,
    constraint::{Dormancy, Grammars, TokenText},
};
use cachalot_protocol::{
    Call, ErrorKind, Limits, PrepareOptions, Prepared, Preparer, ProtocolError, ReplayStore, Sampling, parse,
};
use serde_json::Value;

use crate::{
    Protocol, Refusal,
    backend::{Answer, Backend, BackendStatus, Figure, Inquiry, ModelCard},
    models,
};
use errors::{from_engine, refusal};
use store::ResponseStore;

/// Parts of an answer that wait for a client before the model is made to wait for nobody and the answer is given up:
/// see [`answer::EVENT_COUNT_MAX`].
const PART_COUNT_MAX: usize = 64;

/// How a model is offered.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Its own name.
    pub name: String,
    /// Other names; one that ends with `*` stands for all that begin so.
    pub aliases: Vec<String>,
    /// How tokens are drawn when the client says nothing.
    pub sampling: SamplingOptions,
    /// Tokens that end an answer besides the format's own.
    pub stop_tokens: Vec<u32>,
    /// How to think when the client says nothing.
    pub thinking: Thinking,
    /// Bounds of single requests.
    pub limits: Limits,
    /// Bytes of sampled answers kept for exact replay. Default of the command line 256 MiB.
    pub replay_bytes_max: usize,
    /// Bytes of responses kept for `previous_response_id`. Default of the command line 64 MiB.
    pub response_bytes_max: usize,
}

/// Answers by a model of this process.
pub struct ModelBackend {
    shared: Arc<Shared>,
}

/// What the tasks of answers share.
struct Shared {
    service: Service,
    preparer: Preparer,
    grammars: Grammars,
    replay: ReplayStore,
    responses: ResponseStore,
    options: ModelOptions,
    created: u64,
}

impl ModelBackend {
    /// Offers the model of `service`, whose prompts `encoder` makes.
    ///
    /// # Errors
    /// [`cachalot_engine::Error::Constraint`] if no grammars can be had for its vocabulary.
    pub fn new(
        service: Service,
        encoder: PromptEncoder,
        options: ModelOptions,
    ) -> Result<Self, cachalot_engine::Error> {
        let tokenizer = encoder.tokenizer();
        let vocabulary = (0..tokenizer.vocabulary_size() as u32).map(|id| {
            let bytes = tokenizer.token_bytes(id);
            match std::str::from_utf8(bytes) {
                Ok(text) if tokenizer.is_special(id) => TokenText::Special(text),
                _ if bytes.is_empty() => TokenText::Unused,
                _ => TokenText::Bytes(bytes),
            }
        });
        let mut ends = options.stop_tokens.clone();
        ends.push(tokenizer.eos_id());
        ends.sort_unstable();
        ends.dedup();
        let grammars = Grammars::new(vocabulary, &ends)?;
        let prepare = PrepareOptions {
            context_token_count: service.context(),
            thinking: options.thinking,
        };
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        Ok(ModelBackend {
            shared: Arc::new(Shared {
                service,
                preparer: Preparer::new(encoder, prepare),
                grammars,
                replay: ReplayStore::new(options.replay_bytes_max),
                responses: ResponseStore::new(options.response_bytes_max),
                options,
                created,
            }),
        })
    }
}

impl Shared {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: self.options.name.clone(),
            aliases: self.options.aliases.clone(),
            context: self.service.context(),
            created: self.created,
        }
    }

    /// The call of a body, with its earlier conversation.
    fn read(&self, inquiry: &Inquiry) -> Result<Call, ProtocolError> {
        let mut call = parse(inquiry.protocol, &inquiry.body, &self.options.limits)?;
        if !models::is_served(&self.card(), &call.model) {
            let message = format!(
                "model: there is no '{}' here, only '{}'; use that name, or start the server with --alias '{}'",
                call.model, self.options.name, call.model
            );
            return Err(ProtocolError::new(ErrorKind::NotFound, message));
        }
        if let Some(id) = call.previous_response_id.clone() {
            let history = self.responses.history(&id, inquiry.owner).ok_or_else(|| {
                let message = format!(
                    "previous_response_id: no response '{id}' is kept here; it was not stored or has made room for \
                     others, so send the whole conversation"
                );
                let mut error = ProtocolError::new(ErrorKind::NotFound, message);
                error.field = Some("previous_response_id".to_owned());
                error
            })?;
            call.continue_from(&history);
        }
        Ok(call)
    }

    /// The engine's request for answer `choice`.
    fn request(
        &self,
        call: &Call,
        prepared: &Prepared,
        inquiry: &Inquiry,
        seed: u64,
    ) -> Result<Request, ProtocolError> {
        let mut request = Request::new(prepared.ids.clone());
        request.sampling = sampling(&call.sampling, &self.options.sampling, seed);
        request.token_count_max = Some(prepared.token_count_max);
        request.stop_tokens = prepared
            .stop_tokens
            .iter()
            .chain(&self.options.stop_tokens)
            .copied()
            .collect();
        request.logprob_count = call.logprob_count;
        request.deadline = Some(inquiry.deadline);
        request.borders = prepared.borders.clone();
        request.group = inquiry.owner.map(|owner| owner.to_string());
        if let Some(spec) = &prepared.constraint {
            let grammar = texts::grammar(&spec.grammar);
            let dormancy = spec.dormant_until.map(|until| Dormancy {
                until,
                forbidden: &spec.forbidden_while_dormant,
            });
            let constraint = self.grammars.constraint(&grammar, dormancy).map_err(from_engine)?;
            request.constraint = Some(Box::new(constraint));
        }
        Ok(request)
    }

    /// Asks for one token and waits for it.
    fn probe(&self, time_max: Duration) -> Result<(), String> {
        let (sender, events) = std::sync::mpsc::channel();
        let mut request = Request::new(vec![self.preparer.encoder().tokenizer().bos_id()]);
        request.sampling = SamplingOptions::greedy();
        request.token_count_max = Some(1);
        // Users' answers are not to wait for it, and it is not to wait for all of them.
        request.priority = 1;
        let sink = move |event: Event| {
            let _ = match event {
                Event::Token(_) | Event::Finished(_) => sender.send(Ok(())),
                Event::Failed(error) => sender.send(Err(error.to_string())),
                Event::Admitted { .. } | Event::Prefill { .. } => Ok(()),
            };
            Flow::Continue
        };
        let submitted = self.service.submit(request, Box::new(sink));
        let handle = submitted.map_err(|error| error.to_string())?;
        events.recv_timeout(time_max).unwrap_or_else(|_| {
            handle.cancel();
            Err(format!("no token within {} s", time_max.as_secs()))
        })
    }
}

/// The client's wishes over the model's defaults.
fn sampling(wishes: &Sampling, defaults: &SamplingOptions, seed: u64) -> SamplingOptions {
    SamplingOptions {
        temperature: wishes.temperature.unwrap_or(defaults.temperature),
        top_p: wishes.top_p.unwrap_or(defaults.top_p),
        top_k: wishes.top_k.unwrap_or(defaults.top_k),
        min_p: wishes.min_p.unwrap_or(defaults.min_p),
        seed,
        presence_penalty: wishes.presence_penalty.unwrap_or(defaults.presence_penalty),
        frequency_penalty: wishes.frequency_penalty.unwrap_or(defaults.frequency_penalty),
        repetition_penalty: wishes.repetition_penalty.unwrap_or(defaults.repetition_penalty),
        logit_bias: wishes.logit_bias.clone(),
    }
}

/// A seed that nobody chose.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

impl Backend for ModelBackend {
    fn answer(&self, inquiry: Inquiry) -> Result<Answer, Refusal> {
        let protocol = inquiry.protocol;
        answer::begin(&self.shared, inquiry).map_err(|error| refusal(&error, protocol))
    }

    fn count_tokens(&self, body: &[u8]) -> Result<Value, Refusal> {
        texts::count_tokens(&self.shared, body).map_err(|error| refusal(&error, Protocol::Messages))
    }

    fn tokenize(&self, body: &[u8]) -> Result<Value, Refusal> {
        texts::tokenize(&self.shared, body).map_err(|error| refusal(&error, Protocol::Completions))
    }

    fn detokenize(&self, body: &[u8]) -> Result<Value, Refusal> {
        texts::detokenize(&self.shared, body).map_err(|error| refusal(&error, Protocol::Completions))
    }

    fn stored_response(&self, id: &str, owner: Option<usize>) -> Option<Value> {
        self.shared.responses.body(id, owner)
    }

    fn forget_response(&self, id: &str, owner: Option<usize>) -> bool {
        self.shared.responses.remove(id, owner)
    }

    fn model(&self) -> ModelCard {
        self.shared.card()
    }

    fn probe(&self, time_max: Duration) -> Result<(), String> {
        self.shared.probe(time_max)
    }

    fn status(&self) -> BackendStatus {
        let status = self.shared.service.status();
        let memory = &status.memory;
        let counter = |name, help, value: u64| Figure {
            name,
            help,
            is_counter: true,
            value: value as f64,
        };
        BackendStatus {
            queued: status.waiting,
            running: status.running,
            prefill_token_count: status.prefill_token_count,
            decode_token_count: status.decode_token_count,
            prefill_tokens_per_second: status.prefill_tokens_per_second,
            decode_tokens_per_second: status.decode_tokens_per_second,
            reused_token_count: status.reused_token_count,
            cache_fault: status.cache_fault.clone(),
            memory_bytes: vec![
                ("used_pages", memory.used_page_bytes),
                ("cached_pages", memory.cached_page_bytes),
                ("free_pages", memory.free_page_bytes),
                ("running_tails", memory.running_tail_bytes),
                ("cached_tails", memory.cached_tail_bytes),
                ("replay", self.shared.replay.byte_count() as u64),
                ("responses", self.shared.responses.byte_count() as u64),
                ("disk", memory.disk_bytes),
            ],
            bytes_per_second: None,
            step_times: vec![
                ("schedule", status.profile.schedule),
                ("model", status.profile.model),
                ("sample", status.profile.sample),
                ("cache", status.profile.cache),
            ],
            others: vec![
                counter("steps_total", "Steps of the model.", status.step_count),
                counter("failed_steps_total", "Steps that failed.", status.failed_step_count),
                counter(
                    "interruptions_total",
                    "Answers interrupted and resumed.",
                    status.interrupted_count,
                ),
            ],
        }
    }

    fn drain(&self, time_max: Duration) {
        self.shared.service.drain(time_max);
    }
}
