//! The corpora of the fuzz targets, run as a normal test.

use std::{fs, path::Path};

#[path = "../../../fuzz/src/checkpoint_readers.rs"]
mod checkpoint_readers;

fn run(corpus: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(corpus);
    let mut count = 0;
    for item in fs::read_dir(&folder).expect("a corpus") {
        let path = item.expect("an entry").path();
        println!("{}", path.display());
        target(&fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count >= 4, "{count} files in {}", folder.display());
}

#[test]
fn config() {
    run("config", checkpoint_readers::config);
}

#[test]
fn safetensors_header() {
    run("safetensors_header", checkpoint_readers::safetensors_header);
    // The seed that stands beside indexes is sound; otherwise the target would test nothing.
    let config = checkpoint_readers::MICRO_CONFIG.as_bytes().to_vec();
    let weights = include_bytes!("../../../fuzz/corpus/safetensors_header/micro.safetensors");
    let files = [("config.json", config), ("model.safetensors", weights.to_vec())];
    let files = files.map(|(name, content)| (name.to_owned(), content.into()));
    cachalot_checkpoint::Checkpoint::from_files("micro", files.into()).expect("sound");
}
