//! `cachalot distance`: how far each way of computing is from the reference.

use cachalot_checkpoint::accounting;
use cachalot_chip::Mode;
use cachalot_engine::{Engine, compare::Distance, score::score};
use cachalot_numerics::IntegerWidth;
use clap::Args;
use serde_json::{Value, json};

use super::eval::{self, CaseSource};
use crate::{
    compute::{ComputeOptions, Kv},
    error::Error,
    interrupt::Cooperation,
    loading::{self, Loaded},
    location::Location,
    model_choice::ModelChoice,
    numbers,
    progress::LateBar,
    table::table,
    texts::Texts,
};

/// Shorter texts say little, longer ones take the time of all others.
const TOKENS: std::ops::RangeInclusive<usize> = 50..=2000;
/// The reference's logits of a text are kept meanwhile; of models with large vocabularies texts are cut to fit.
const LOGIT_BYTES_MAX: usize = 256 << 20;
const CONTEXT: usize = 4096;

/// Tell how far each numeric mode and each low-bit dense part is from the reference.
///
/// The same texts go through the model in f32 with the released weights and in every other way; printed are, over all
/// positions, the mean and the 99th percentile of the divergence KL(reference || this) of the next-token
/// distributions in nats, how often both find the same token most likely, and the weights' bytes that one decoded
/// token reads. The texts are prompt and answer of the first cases of each kind, of 50 to 2,000 tokens: those of the
/// test of the law that fast mode obeys.
#[derive(Args, Debug)]
pub struct DistanceArguments {
    #[command(flatten)]
    model: ModelChoice,

    #[command(flatten)]
    cases: CaseSource,

    /// At most this many texts of each kind
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    limit: usize,

    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A way of computing, and how far it is from the reference.
struct Way {
    mode: Mode,
    dense: Option<IntegerWidth>,
    bytes_per_token: u64,
    engine: Engine,
    distance: Distance,
    divergences: Vec<f64>,
}

pub fn run(arguments: &DistanceArguments) -> Result<(), Error> {
    let location = Location::find(arguments.model.name(), arguments.model.yes.into())?;
    let reference = load(&location, arguments, Mode::Reference, None)?;
    let mut ways = ways(&location, arguments, &reference)?;
    let texts = token_texts(arguments, &reference)?;
    let cooperation = Cooperation::begin();
    let bar = LateBar::counting("comparing", "tokens");
    let total: usize = texts.iter().map(Vec::len).sum();
    let mut done = 0;
    for tokens in &texts {
        let expected = logits(&reference.engine, tokens, &cooperation)?;
        for way in &mut ways {
            for (logits, expected) in logits(&way.engine, tokens, &cooperation)?.iter().zip(&expected) {
                let mut one = Distance::default();
                one.add(logits, expected);
                way.divergences.push(one.kl_sum);
                way.distance.merge(&one);
            }
        }
        done += tokens.len();
        bar.set(done as u64, total as u64);
    }
    drop(bar);
    match arguments.json {
        true => super::print_json(&json!({
            "model": reference.name,
            "texts": texts.len(),
            "positions": total,
            "ways": ways.iter().map(Way::to_json).collect::<Vec<_>>(),
        })),
        false => {
            let heads = ["", "KL mean", "KL p99", "KL max", "same top token", "read per token"];
            let rows: Vec<Vec<String>> = ways.iter().map(Way::to_row).collect();
            let title = format!("{}, {} texts, {} positions", reference.name, texts.len(), total);
            super::print(&format!("{title}\n\n{}", table(&heads, &rows).trim_end()))
        }
    }
}

/// Official and fast as stored, then fast with each low-bit dense part that can be made of what is stored.
fn ways(location: &Location, arguments: &DistanceArguments, reference: &Loaded) -> Result<Vec<Way>, Error> {
    let mut wanted = vec![(Mode::Official, None), (Mode::Fast, None)];
    if reference.checkpoint.config().low_bit().is_none() {
        wanted.extend(IntegerWidth::ALL.iter().rev().map(|width| (Mode::Fast, Some(*width))));
    }
    let load = |(mode, dense)| {
        let loaded = load(location, arguments, mode, dense)?;
        Ok(Way {
            mode,
            dense,
            bytes_per_token: accounting::active_total(loaded.checkpoint.config()).bytes,
            engine: loaded.engine,
            distance: Distance::default(),
            divergences: Vec::new(),
        })
    };
    wanted.into_iter().map(load).collect()
}

fn load(
    location: &Location,
    arguments: &DistanceArguments,
    mode: Mode,
    dense: Option<IntegerWidth>,
) -> Result<Loaded, Error> {
    let options = ComputeOptions {
        drafter: false,
        mode,
        kv: Kv::Packed,
        dense,
        context: Some(CONTEXT),
        memory: None,
        kernels: None,
        threads: arguments.threads,
        chunk: 512,
    };
    loading::load(location, &options)
}

/// The tokens of each text.
fn token_texts(arguments: &DistanceArguments, loaded: &Loaded) -> Result<Vec<Vec<u32>>, Error> {
    let (file, cases) = eval::cases(&arguments.cases)?;
    let texts = Texts::of(loaded)?;
    let token_count_max = LOGIT_BYTES_MAX / 4 / loaded.checkpoint.config().vocab_size();
    let mut counts = std::collections::HashMap::<String, usize>::new();
    let mut taken = Vec::new();
    for case in cases {
        let count = counts.entry(case.kind).or_default();
        if *count == arguments.limit {
            continue;
        }
        let text = case.prompt + &case.expected;
        let ids = texts.tokenizer().encode_prompt(&text);
        let mut ids = ids.map_err(|error| Error::Prompt(error.into()))?;
        if TOKENS.contains(&ids.len()) {
            *count += 1;
            ids.truncate(token_count_max.max(1));
            taken.push(ids);
        }
    }
    match taken.is_empty() {
        false => Ok(taken),
        true => Err(Error::Empty {
            file,
            what: "text of 50 to 2,000 tokens",
            remedy: "give longer or shorter cases",
        }),
    }
}

fn logits(engine: &Engine, tokens: &[u32], cooperation: &Cooperation) -> Result<Vec<Vec<f32>>, Error> {
    let mut rows = Vec::with_capacity(tokens.len());
    let scored = score(engine, tokens, cooperation.flag(), |_, logits| {
        rows.push(logits.to_vec());
        Ok::<(), Error>(())
    });
    match scored {
        Ok(_) => Ok(rows),
        Err(Error::Engine(cachalot_engine::Error::Cancelled)) => Err(Error::interrupted()),
        Err(error) => Err(error),
    }
}

impl Way {
    fn name(&self) -> String {
        match self.dense {
            None => self.mode.to_string(),
            Some(width) => format!("{}, dense {width}", self.mode),
        }
    }

    /// The divergence that 99 of 100 positions do not exceed.
    fn percentile_99(&self) -> f64 {
        let mut sorted = self.divergences.clone();
        sorted.sort_by(f64::total_cmp);
        let index = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
        sorted.get(index).copied().unwrap_or(0.0)
    }

    fn to_row(&self) -> Vec<String> {
        vec![
            self.name(),
            format!("{:.3e}", self.distance.kl_mean()),
            format!("{:.3e}", self.percentile_99()),
            format!("{:.3e}", self.distance.kl_max),
            format!("{:.2} %", 100.0 * self.distance.top1_agreement()),
            numbers::bytes(self.bytes_per_token),
        ]
    }

    fn to_json(&self) -> Value {
        json!({
            "mode": self.mode.to_string(),
            "dense": self.dense.map(|width| width.to_string()),
            "kl_mean": self.distance.kl_mean(),
            "kl_p99": self.percentile_99(),
            "kl_max": self.distance.kl_max,
            "top1_agreement": self.distance.top1_agreement(),
            "bytes_per_token": self.bytes_per_token,
        })
    }
}
