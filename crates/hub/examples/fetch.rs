//! Downloads a model with the settings of the environment and prints its folder.
//!
//! `cargo run -p cachalot-hub --example fetch -- deepseek-ai/DeepSeek-V4-Flash [revision]`

use std::sync::atomic::AtomicBool;
use std::{env, process};

use cachalot_hub::{Error, Event, Hub, Revision, Settings, is_model_file};

fn main() {
    let mut arguments = env::args().skip(1);
    let Some(name) = arguments.next() else {
        eprintln!("usage: fetch organisation/name [revision]");
        process::exit(2);
    };
    if let Err(error) = fetch(&name, arguments.next().as_deref()) {
        eprintln!("error: {error}");
        process::exit(1);
    }
}

fn fetch(name: &str, revision: Option<&str>) -> Result<(), Error> {
    let repository = name.parse()?;
    let revision = revision.map_or(Ok(Revision::default()), str::parse)?;
    let hub = Hub::new(Settings::from_environment()?)?;
    let never = AtomicBool::new(false);
    let folder = hub.download(&repository, &revision, &is_model_file, &|event| report(&event), &never)?;
    println!("{}", folder.display());
    Ok(())
}

fn report(event: &Event<'_>) {
    match event {
        Event::Planned {
            file_count,
            bytes_total,
            bytes_present,
        } => {
            eprintln!("{file_count} files, {bytes_total} bytes, {bytes_present} of them here");
        }
        Event::Started { file, bytes_total } => eprintln!("{file}: {bytes_total} bytes"),
        Event::Waiting { file } => eprintln!("{file}: another process fetches it"),
        Event::Retrying { error, wait, .. } => eprintln!("{error}; again in {wait:?}"),
        Event::Finished { file } => eprintln!("{file}: done"),
        _ => {}
    }
}
