//! `cachalot serve`: a model over HTTP.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use cachalot_engine::{CacheOptions, Service, ServiceOptions, Speculation};
use cachalot_server::{
    ApiKeys, Server, ServerOptions,
    model::{ModelBackend, ModelOptions},
    termination,
};
use clap::Args;

use crate::{
    compute::ComputeOptions,
    error::Error,
    interrupt::Cooperation,
    loading::{self, LoadedModel},
    location::Location,
    model_choice::ModelChoice,
    texts::{Texts, ThinkingArguments},
};

const MEBIBYTE: usize = 1 << 20;

/// Offer a model over HTTP, in the protocols of OpenAI and Anthropic.
///
/// Routes: /v1/chat/completions, /v1/responses, /v1/messages, /v1/completions, /v1/models, /tokenize, /detokenize,
/// /health, /metrics, /openapi.json, and a page to talk with the model at /. SIGTERM or Ctrl-C lets the answers under
/// way finish.
#[derive(Args, Debug)]
pub struct ServeArguments {
    #[command(flatten)]
    model: ModelChoice,

    /// Address to listen on; others than this machine's own need an API key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,

    /// Another name for the model; one that ends with * stands for all that begin so (can be repeated)
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,

    /// Requests computed at once
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,

    /// Requests that may wait; more are refused with 429
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    queue: usize,

    /// Seconds an answer may take, waiting included
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,

    /// Seconds that answers under way have to finish after the order to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    drain_timeout: u64,

    /// Folder that keeps computed prompts beyond the end of the process [default: only in memory]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,

    /// Size of that folder at most, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 32, requires = "cache_dir")]
    cache_disk: u16,

    /// Memory for computed prompts, in MiB; 0 computes every prompt from its start
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    cache_memory: u32,

    #[command(flatten)]
    access: AccessArguments,

    #[command(flatten)]
    thinking: ThinkingArguments,

    /// Guess tokens with the model's drafter, if it has one: auto (where it pays), off, or a number of tokens; answers are
    /// the same
    #[arg(long, value_name = "HOW", default_value = "off")]
    speculate: Speculation,

    #[command(flatten)]
    compute: ComputeOptions,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Access")]
struct AccessArguments {
    /// A key that clients have to send (can be repeated); --api-key-file keeps keys out of the list of processes
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,

    /// File with keys, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Listen on an address that others reach without asking for a key
    #[arg(long, conflicts_with_all = ["api_key", "api_key_file"])]
    no_auth: bool,

    /// Requests under way at once for one key
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    key_parallel: usize,

    /// Web origin whose pages may use the server, or * (can be repeated)
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,

    /// Name by which browsers may reach the server, besides localhost and IP addresses (can be repeated)
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Bytes of a request at most, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    body_limit: u16,
}

pub fn run(arguments: &ServeArguments) -> Result<(), Error> {
    // Listening comes first: a taken port is told before a long load.
    let server = Server::listen(server_options(arguments)?)?;
    let location = Location::find(arguments.model.name(), arguments.model.yes.into())?;
    let mut compute = arguments.compute.clone();
    compute.drafter = arguments.speculate != Speculation::Off;
    let LoadedModel {
        checkpoint,
        model,
        memory,
        ..
    } = loading::load_model(&location, &compute)?;
    let texts = Texts::of_checkpoint(&checkpoint, &location.display())?;
    let service = Service::start(
        model,
        ServiceOptions {
            context: memory.plan.context,
            ..service_options(arguments)
        },
    )?;
    memory.check(&checkpoint)?;
    let options = ModelOptions {
        name: location.name().to_owned(),
        aliases: arguments.alias.clone(),
        sampling: texts.sampling.clone(),
        stop_tokens: texts.stop_tokens.clone(),
        thinking: arguments.thinking.choice(),
        limits: cachalot_protocol::Limits::default(),
        replay_bytes_max: 256 * MEBIBYTE,
        response_bytes_max: 64 * MEBIBYTE,
    };
    let backend = ModelBackend::new(service, texts.encoder, options)?;
    // Ctrl-C is the server's business now; a second one ends the process at once.
    let _cooperation = Cooperation::begin();
    tell(arguments, &location, server.address());
    let cut_count = server.run(Arc::new(backend), termination());
    match cut_count {
        0 => eprintln!("stopped"),
        count => eprintln!(
            "stopped; {count} answers were cut off after {} s",
            arguments.drain_timeout
        ),
    }
    Ok(())
}

fn server_options(arguments: &ServeArguments) -> Result<ServerOptions, Error> {
    let access = &arguments.access;
    let mut keys = ApiKeys::default();
    for key in &access.api_key {
        keys.add(key)?;
    }
    if let Some(path) = &access.api_key_file {
        keys.add_file(path)?;
    }
    let mut options = ServerOptions {
        address: SocketAddr::new(arguments.host, arguments.port),
        keys,
        open_to_everybody: access.no_auth,
        cors_origins: access.cors_origin.clone(),
        host_names: access.allow_host.clone(),
        drain_time_max: Duration::from_secs(arguments.drain_timeout),
        ..ServerOptions::default()
    };
    options.limits.body_bytes_max = usize::from(access.body_limit) * MEBIBYTE;
    options.limits.bodies_bytes_max = options.limits.bodies_bytes_max.max(options.limits.body_bytes_max);
    options.limits.request_count_max = usize::from(arguments.parallel) + arguments.queue;
    options.limits.request_count_max_per_key = access.key_parallel;
    options.limits.answer_time_max = Duration::from_secs(arguments.request_timeout);
    Ok(options)
}

fn service_options(arguments: &ServeArguments) -> ServiceOptions {
    ServiceOptions {
        sequence_count_max: usize::from(arguments.parallel),
        step_row_count_max: usize::from(arguments.compute.chunk),
        queue_length_max: arguments.queue,
        cache: (arguments.cache_memory > 0).then(|| CacheOptions {
            memory_byte_count_max: u64::from(arguments.cache_memory) << 20,
            directory: arguments.cache_dir.clone(),
            disk_byte_count_max: u64::from(arguments.cache_disk) << 30,
            ..CacheOptions::default()
        }),
        speculation: arguments.speculate,
        ..ServiceOptions::default()
    }
}

fn tell(arguments: &ServeArguments, location: &Location, address: SocketAddr) {
    if !address.ip().is_loopback() {
        let who = if arguments.access.no_auth {
            "everybody without a key"
        } else {
            "those who have a key"
        };
        eprintln!("warning: other machines reach this address; it answers {who}, and does not encrypt");
    }
    eprintln!(
        "{} is served at http://{address} (a page to talk with it is there, too)",
        location.name()
    );
}
