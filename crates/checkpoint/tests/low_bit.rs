//! The dense part in fewer bits: in memory, stored, interrupted, damaged.

mod support;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use cachalot_checkpoint::{
    Checkpoint, Error, LOW_BIT_KEY, accounting,
    inventory::{self, Place, Slot, SlotKind},
};
use cachalot_numerics::{IntegerWidth, MatrixFormat, decode_matrix};
use serde_json::{Value, json};
use support::{CONFIG, Files};

static NEVER: AtomicBool = AtomicBool::new(false);

/// Everything but the MTP layer.
fn slots(checkpoint: &Checkpoint) -> Vec<Slot> {
    let slots = inventory::slots(checkpoint.config());
    slots.filter(|slot| !matches!(slot.place, Place::Stage(_))).collect()
}

fn convert(source: &Checkpoint, width: IntegerWidth, out: &Path) -> Checkpoint {
    source.convert(width, out, &NEVER, |_| ()).expect("converts");
    Checkpoint::open(out).expect("opens")
}

/// Relative error that a width may have on normal weights: a tenth above what an independent search over the same scales
/// gives (`tools/fixtures/low_bit_error.py`); for int8, whose scales are an octave apart and here all alike, twice that
/// of scales of any size.
fn error_max(width: IntegerWidth) -> f64 {
    match width {
        IntegerWidth::Int4 => 1.1 * 0.0863,
        IntegerWidth::Int6 => 1.1 * 0.0229,
        IntegerWidth::Int8 => 2.0 * 0.0054,
    }
}

#[test]
fn stored_and_loaded_dense_parts_are_the_same_bits() {
    let home = tempfile::tempdir().unwrap();
    for width in IntegerWidth::ALL {
        let released = Files::of(CONFIG).open().expect("sound");
        let stored = convert(&released, width, &home.path().join(width.to_string()));
        let mut loaded = Files::of(CONFIG).open().expect("sound");
        let low_bit = loaded.requantise_dense(width, |_| ()).expect("re-quantises");
        let (mut converted, mut squares) = (0, [0.0; 2]);
        for slot in slots(&released) {
            let SlotKind::Matrix { rows, columns, .. } = slot.kind else {
                let [before, after] = [&released, &stored].map(|c| c.tensor(&slot.name).expect("stored"));
                assert_eq!(before.data, after.data, "{}", slot.name);
                continue;
            };
            let [before, in_memory, on_disk] =
                [&released, &loaded, &stored].map(|c| c.matrix(&slot.name).expect("stored"));
            assert_eq!(in_memory.format, on_disk.format, "{}", slot.name);
            assert_eq!(in_memory.weights, on_disk.weights, "{}", slot.name);
            assert_eq!(in_memory.scales, on_disk.scales, "{}", slot.name);
            if on_disk.format == before.format {
                assert_eq!(before.weights, on_disk.weights, "{}", slot.name);
                continue;
            }
            converted += 1;
            assert!(slot.part.is_dense() && on_disk.format == MatrixFormat::Integer(width));
            let [exact, rounded] = [&before, &on_disk].map(|m| {
                let scales = m.scales.as_deref().unwrap_or_default();
                decode_matrix(m.format, &m.weights, scales, rows, columns)
            });
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>();
            squares[0] += square(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b));
            squares[1] += square(&mut exact.iter().copied());
        }
        let error = (squares[0] / squares[1]).sqrt();
        assert!(error < error_max(width), "{width}: {error}");
        assert_eq!(converted, low_bit.converted);
        assert!(converted > 10, "{width} converts {converted}");
        // FP8 is no larger than int8 and stays.
        let wq_a = stored.matrix("layers.1.attn.wq_a").unwrap().format;
        assert_eq!(wq_a == MatrixFormat::FP8, width == IntegerWidth::Int8);
        stored.verify(|_| ()).expect("sound values");
        // The announced sizes are those of the files.
        let announced = accounting::total(stored.config());
        let header_bytes: u64 = shards(&home.path().join(width.to_string()))
            .map(|file| header_byte_count(&file))
            .sum();
        assert_eq!(announced.bytes, stored.byte_count() - header_bytes);
        assert_eq!(announced.tensors as usize, stored.tensor_count());
    }
}

fn shards(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
}

fn header_byte_count(file: &Path) -> u64 {
    let content = fs::read(file).unwrap();
    8 + u64::from_le_bytes(content[..8].try_into().unwrap())
}

#[test]
fn converting_again_changes_nothing_and_other_formats_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let released = Files::of(CONFIG).open().unwrap();
    let once = convert(&released, IntegerWidth::Int6, &home.path().join("once"));
    let twice = convert(&once, IntegerWidth::Int6, &home.path().join("twice"));
    let name = "layers.0.attn.wo_b";
    assert_eq!(once.matrix(name).unwrap().weights, twice.matrix(name).unwrap().weights);
    let refused = once.convert(IntegerWidth::Int4, &home.path().join("other"), &NEVER, |_| ());
    assert!(matches!(refused, Err(Error::LowBitAlready { .. })), "{refused:?}");
    let full = released.convert(IntegerWidth::Int4, &home.path().join("once"), &NEVER, |_| ());
    assert!(matches!(full, Err(Error::FolderNotEmpty { .. })), "{full:?}");
}

#[test]
fn transformers_names_keep_their_spelling() {
    let home = tempfile::tempdir().unwrap();
    for spelling in ["transformers_default", "transformers_own"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(spelling);
        let mut released = Checkpoint::open(&folder).unwrap();
        let stored = convert(&released, IntegerWidth::Int4, &home.path().join(spelling));
        let low_bit = released.requantise_dense(IntegerWidth::Int4, |_| ()).unwrap();
        assert!(low_bit.converted > 0);
        for slot in slots(&released) {
            if let SlotKind::Matrix { .. } = slot.kind {
                let [a, b] = [&released, &stored].map(|c| c.matrix(&slot.name).unwrap());
                assert_eq!(
                    (a.format, a.weights, a.scales),
                    (b.format, b.weights, b.scales),
                    "{}",
                    slot.name
                );
            }
        }
        assert!(stored.extra_tensors().is_empty(), "{:?}", stored.extra_tensors());
    }
}

#[test]
fn a_stopped_conversion_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let released = Files::of(CONFIG).open().unwrap();
    convert(&released, IntegerWidth::Int4, &home.path().join("whole"));
    let (out, partial) = (home.path().join("out"), home.path().join("out.partial"));
    let stop = |width, after: u64| {
        let cancel = AtomicBool::new(false);
        let result = released.convert(width, &out, &cancel, |progress| {
            cancel.fetch_or(progress.bytes_done >= after, Ordering::Relaxed);
        });
        assert!(matches!(result, Err(Error::Stopped { .. })), "{result:?}");
        assert!(!out.exists());
        shards(&partial).count()
    };
    let half = released.byte_count() / 2;
    let finished = stop(IntegerWidth::Int8, half);
    assert!(finished > 0);
    // Another format starts over, the same one goes on.
    assert!(stop(IntegerWidth::Int4, 0) < finished);
    let finished = stop(IntegerWidth::Int4, half);
    let first = shards(&partial).min().unwrap();
    let written = fs::metadata(&first).unwrap().modified().unwrap();
    released.convert(IntegerWidth::Int4, &out, &NEVER, |_| ()).unwrap();
    let kept = fs::metadata(out.join(first.file_name().unwrap())).unwrap();
    assert_eq!(kept.modified().unwrap(), written, "{finished} shards were finished");
    assert!(!partial.exists());
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    };
    let whole = home.path().join("whole");
    assert_eq!(names(&out), names(&whole));
    for name in names(&whole) {
        assert!(
            fs::read(out.join(&name)).unwrap() == fs::read(whole.join(&name)).unwrap(),
            "{name:?}"
        );
    }
    // A folder of that name that is none of ours stays.
    fs::create_dir(home.path().join("new.partial")).unwrap();
    fs::write(home.path().join("new.partial/letter"), "dear").unwrap();
    let refused = released.convert(IntegerWidth::Int4, &home.path().join("new"), &NEVER, |_| ());
    assert!(matches!(refused, Err(Error::FolderNotEmpty { .. })), "{refused:?}");
}

#[test]
fn weights_out_of_range_stay_and_bad_ones_are_named() {
    let mut files = Files::of(CONFIG).merged();
    files.edit(|shard| shard.tensor("head.weight").data[..2].copy_from_slice(&0x4780u16.to_le_bytes())); // 65536
    let mut large = files.open().unwrap();
    large.requantise_dense(IntegerWidth::Int4, |_| ()).unwrap();
    assert_eq!(large.matrix("head").unwrap().format, MatrixFormat::Bf16);
    files.edit(|shard| shard.tensor("head.weight").data[2..4].copy_from_slice(&0x7FC0u16.to_le_bytes())); // NaN
    let refused = files
        .open()
        .unwrap()
        .requantise_dense(IntegerWidth::Int4, |_| ())
        .unwrap_err();
    assert!(refused.to_string().contains("head.weight[1] is NaN"), "{refused}");
}

/// A converted folder as files to damage, in one shard.
fn converted(width: IntegerWidth) -> Files {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    convert(&Files::of(CONFIG).open().unwrap(), width, &out);
    let entries = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.map(|path| {
        (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            fs::read(&path).unwrap(),
        )
    });
    Files(named.collect()).merged()
}

#[test]
fn damaged_folders_end_in_errors_that_name_the_tensor() {
    type Damage = fn(&mut Files);
    let cases: [(IntegerWidth, Damage, &[&str]); 8] = [
        (
            IntegerWidth::Int4,
            |f| edit_config(f, Value::Null),
            &["attn.wq_a.weight", "type U8"],
        ),
        (
            IntegerWidth::Int4,
            |f| edit_config(f, json!({"format": "int6", "group_size": 32})),
            &["attn.wq_a.weight", "shape"],
        ),
        (
            IntegerWidth::Int4,
            |f| edit_config(f, json!({"format": "int5", "group_size": 32})),
            &["cachalot_dense.format", "int5"],
        ),
        (
            IntegerWidth::Int4,
            |f| edit_config(f, json!({"format": "int4", "group_size": 64})),
            &["cachalot_dense.group_size", "64"],
        ),
        (
            IntegerWidth::Int4,
            |f| edit_config(f, json!({"group_size": 32})),
            &["cachalot_dense.format"],
        ),
        (
            IntegerWidth::Int4,
            |f| f.edit(|shard| drop(shard.take("layers.1.attn.wkv.scale"))),
            &["layers.1.attn.wkv.scale", "missing"],
        ),
        (
            IntegerWidth::Int6,
            |f| f.edit(|shard| shard.tensor("layers.1.attn.wkv.scale").dtype = "F8_E8M0".into()),
            &["layers.1.attn.wkv.scale", "expected U8"],
        ),
        (
            IntegerWidth::Int8,
            |f| f.edit(|shard| shard.tensor("head.scale").data[3] = 0x81),
            &["head.scale[3]", "0x81"],
        ),
    ];
    for (width, damage, parts) in cases {
        let mut files = converted(width);
        assert!(files.open().is_ok(), "sound before");
        damage(&mut files);
        let refusal = files.refusal();
        for part in parts {
            assert!(refusal.contains(part), "{part} in {refusal}");
        }
    }
}

fn edit_config(files: &mut Files, low_bit: Value) {
    let content = files.get("config.json");
    let mut config: Value = serde_json::from_slice(content).unwrap();
    config[LOW_BIT_KEY] = low_bit;
    *content = config.to_string().into_bytes();
}
