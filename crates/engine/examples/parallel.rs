//! Speed of many answers at once against one, and what the engine adds to the model.
//!
//! `cargo run --release -p cachalot-engine --example parallel -- FOLDER [SEQUENCES] [TOKENS]`

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Instant,
};

use cachalot_checkpoint::Checkpoint;
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_engine::{Event, Flow, Request, Service, ServiceOptions};
use cachalot_model::{Model, ModelOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().ok_or("name the folder of a model")?;
    let number = |index: usize, default| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let (sequence_count, token_count) = (number(1, 16)?, number(2, 200)?);
    let checkpoint = Checkpoint::open(Path::new(folder))?;
    let chip = Arc::new(CpuChip::new(CpuOptions::default()));
    let model = Model::load(&checkpoint, chip, ModelOptions::default(), &mut |_, _| {})?;
    let options = ServiceOptions {
        context: Some(4096),
        token_count_max: Some(4096 * sequence_count),
        sequence_count_max: sequence_count,
        ..ServiceOptions::default()
    };
    let service = Service::start(model, options)?;
    let alone = tokens_per_second(&service, 1, token_count)?;
    let together = tokens_per_second(&service, sequence_count, token_count)?;
    println!("1 sequence: {alone:.1} tokens/s");
    println!(
        "{sequence_count} sequences: {together:.1} tokens/s, {:.2} times as many",
        together / alone
    );
    Ok(())
}

/// Decodes answers of equal length and prints where the time of their steps went.
fn tokens_per_second(service: &Service, count: usize, token_count: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let (sender, receiver) = mpsc::channel();
    let before = service.status();
    for sequence in 0..count as u32 {
        let request = Request {
            token_count_max: Some(token_count),
            ..Request::new((0..32).map(|i| 3 + (i * 37 + sequence * 101) % 2000).collect())
        };
        let sender = sender.clone();
        let sink = move |event: Event| {
            // Times are taken on the engine's thread.
            let _ = sender.send((Instant::now(), matches!(event, Event::Token(_))));
            Flow::Continue
        };
        service.submit(request, Box::new(sink))?;
    }
    drop(sender);
    let times: Vec<Instant> = receiver
        .iter()
        .filter(|(_, is_token)| *is_token)
        .map(|(time, _)| time)
        .collect();
    let (first, last) = (times[count - 1], times[times.len() - 1]);
    let after = service.status();
    let steps = (after.step_count - before.step_count) as f64;
    let (a, b) = (after.profile, before.profile);
    let parts = [
        ("model", a.model - b.model),
        ("schedule", a.schedule - b.schedule),
        ("sample", a.sample - b.sample),
        ("cache", a.cache - b.cache),
    ];
    print!("{count} at once, microseconds a step:");
    for (name, time) in parts {
        print!(" {name} {:.0}", 1e6 * time.as_secs_f64() / steps);
    }
    println!();
    Ok((times.len() - count) as f64 / (last - first).as_secs_f64())
}
