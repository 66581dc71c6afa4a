//! Bad values: found at open where that is cheap, by `verify` everywhere.

mod support;

use cachalot_checkpoint::{Error, ValueFault, check_scales};
use serde_json::json;
use support::{CONFIG, Files, config_with};

/// -Base style: FP8 experts and F32 scales.
fn base_config() -> String {
    config_with(json!({
        "expert_dtype": "fp8",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }))
}

/// Writes `bytes` over element `index` of a tensor of `bytes.len()`-byte elements.
fn plant(files: &Files, tensor: &str, index: usize, bytes: &[u8]) -> Files {
    let mut files = files.clone();
    files.edit(|shard| {
        let place = index * bytes.len()..(index + 1) * bytes.len();
        shard.tensor(tensor).data[place].copy_from_slice(bytes);
    });
    files
}

fn fault_of(error: Error) -> (String, usize, ValueFault) {
    match error {
        Error::Value {
            file,
            tensor,
            index,
            fault,
        } => {
            assert_eq!(file, "tiny/model.safetensors");
            (tensor, index, fault)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn sound_checkpoints_pass() {
    for config in [CONFIG.to_owned(), base_config()] {
        let checkpoint = Files::of(&config).open().expect("a checkpoint");
        let seen = std::sync::Mutex::new(Vec::new());
        checkpoint
            .verify(|progress| seen.lock().expect("no panic").push(progress))
            .expect("sound");
        let seen = seen.into_inner().expect("no panic");
        let last = seen
            .iter()
            .max_by_key(|progress| progress.bytes_done)
            .expect("progress");
        assert_eq!(last.bytes_done, last.bytes_total);
    }
}

#[test]
fn cheap_tensors_are_checked_at_open() {
    let fp4 = Files::of(CONFIG).merged();
    let base = Files::of(&base_config()).merged();
    let infinite = ValueFault::Infinite;
    for (files, tensor, index, bytes, fault) in [
        (&fp4, "layers.3.attn.wq_a.scale", 0, &[255][..], ValueFault::NotANumber),
        (
            &fp4,
            "norm.weight",
            63,
            &0x7FC0u16.to_le_bytes(),
            ValueFault::NotANumber,
        ),
        (
            &fp4,
            "layers.1.attn.attn_sink",
            2,
            &f32::INFINITY.to_le_bytes(),
            infinite,
        ),
        (
            &fp4,
            "layers.1.ffn.gate.bias",
            1,
            &f32::NEG_INFINITY.to_le_bytes(),
            infinite,
        ),
        (
            &fp4,
            "layers.2.hc_ffn_scale",
            2,
            &f32::NAN.to_le_bytes(),
            ValueFault::NotANumber,
        ),
        (
            &fp4,
            "layers.0.ffn.gate.tid2eid",
            95,
            &4i64.to_le_bytes(),
            ValueFault::Expert { id: 4, count: 4 },
        ),
        (
            &fp4,
            "layers.0.ffn.gate.tid2eid",
            0,
            &(-1i64).to_le_bytes(),
            ValueFault::Expert { id: -1, count: 4 },
        ),
        (
            &base,
            "layers.0.attn.wkv.scale",
            0,
            &0f32.to_le_bytes(),
            ValueFault::NotPositive(0.0),
        ),
        (
            &base,
            "mtp.0.h_proj.scale",
            0,
            &(-2f32).to_le_bytes(),
            ValueFault::NotPositive(-2.0),
        ),
        (
            &base,
            "layers.0.attn.wkv.scale",
            0,
            &f32::INFINITY.to_le_bytes(),
            infinite,
        ),
    ] {
        let error = plant(files, tensor, index, bytes).open().expect_err(tensor);
        assert_eq!(fault_of(error), (tensor.to_owned(), index, fault));
    }
}

#[test]
fn the_rest_is_checked_by_verify() {
    let fp4 = Files::of(CONFIG).merged();
    let base = Files::of(&base_config()).merged();
    let infinite = ValueFault::Infinite;
    for (files, tensor, index, bytes, fault) in [
        (
            &fp4,
            "layers.1.ffn.experts.3.w2.scale",
            63,
            &[255][..],
            ValueFault::NotANumber,
        ),
        (&fp4, "layers.3.attn.wo_b.weight", 2047, &[0x7F], ValueFault::NotANumber),
        (&fp4, "layers.3.attn.wo_b.weight", 0, &[0xFF], ValueFault::NotANumber),
        (&fp4, "embed.weight", 3071, &0xFF80u16.to_le_bytes(), infinite),
        (
            &fp4,
            "layers.2.hc_attn_fn",
            6143,
            &f32::NAN.to_le_bytes(),
            ValueFault::NotANumber,
        ),
        (
            &base,
            "layers.0.ffn.experts.1.w1.scale",
            0,
            &0f32.to_le_bytes(),
            ValueFault::NotPositive(0.0),
        ),
        (
            &base,
            "layers.0.ffn.experts.1.w1.weight",
            5,
            &[0x7F],
            ValueFault::NotANumber,
        ),
    ] {
        let checkpoint = plant(files, tensor, index, bytes).open().expect(tensor);
        let error = checkpoint.verify(|_| ()).expect_err(tensor);
        assert_eq!(fault_of(error), (tensor.to_owned(), index, fault));
        if let Some(matrix) = tensor.strip_suffix(".scale") {
            let matrix = checkpoint.matrix(matrix).expect("a matrix");
            let error = check_scales("tiny/model.safetensors", &matrix).expect_err(tensor);
            assert_eq!(fault_of(error), (tensor.to_owned(), index, fault));
        }
    }
    let checkpoint = fp4.open().expect("a checkpoint");
    for name in ["embed", "layers.1.ffn.experts.3.w2", "layers.3.attn.wo_b"] {
        check_scales("tiny", &checkpoint.matrix(name).expect(name)).expect("sound scales");
    }
}

/// Two bad tensors: the first in the order of the file is reported, whichever thread is faster.
#[test]
fn the_first_bad_tensor_is_reported() {
    let mut files = Files::of(CONFIG).merged();
    files.edit(|shard| {
        for tensor in &mut shard.tensors {
            if tensor.name.contains(".experts.") && tensor.name.ends_with(".scale") {
                *tensor.data.last_mut().expect("bytes") = 255;
            }
        }
    });
    let first = support::Shard::parse(files.get("model.safetensors")).tensors;
    let first = first
        .into_iter()
        .find(|t| t.name.contains(".experts.") && t.name.ends_with(".scale"));
    let error = files
        .open()
        .expect("a checkpoint")
        .verify(|_| ())
        .expect_err("bad scales");
    assert_eq!(fault_of(error).0, first.expect("a scale").name);
}
