//! The inventory against the published sizes of the releases.

use std::path::Path;

use cachalot_checkpoint::{
    ModelConfig,
    accounting::{self, KvFormat, Size},
    inventory::{self, Part, Place},
    published,
};

fn config(name: &str) -> ModelConfig {
    let text = published::config(name).expect("built in");
    ModelConfig::from_json(text, Path::new(name)).expect("a valid configuration")
}

#[test]
fn tensor_counts_and_bytes_are_the_published_ones() {
    for (name, tensors, bytes) in [
        ("DeepSeek-V4-Flash", 69_187, 159_609_485_896),
        ("DeepSeek-V4-Flash-DSpark", 72_317, 166_878_536_440),
        ("DeepSeek-V4-Flash-0731", 72_317, 166_878_536_440),
        ("DeepSeek-V4-Flash-Base", 69_187, 292_555_345_480),
        ("DeepSeek-V4-Pro", 145_116, 864_704_792_696),
        ("DeepSeek-V4-Pro-DSpark", 149_782, 892_727_580_904),
        ("DeepSeek-V4-Pro-0813", 149_782, 892_727_580_904),
        ("DeepSeek-V4-Pro-Base", 145_116, 1_602_325_824_632),
    ] {
        let config = config(name);
        let total = accounting::total(&config);
        assert_eq!((total.tensors, total.bytes), (tensors, bytes), "{name}");
        // The list says the same as the sums.
        let listed = inventory::tensors(&config).fold((0, 0), |(count, bytes), tensor| {
            (count + 1, bytes + tensor.byte_count())
        });
        assert_eq!(listed, (tensors, bytes), "{name}, listed");
    }
}

/// V3's repository holds 688,586,727,753 bytes of weight files, headers included; README_WEIGHTS tells the parameters:
/// 671 B, 36.6 B active, and 11.5 B of the MTP layer without its copies of embedding and head.
#[test]
fn v3_is_as_large_as_published() {
    const FILE_BYTES: u64 = 688_586_727_753;
    for name in ["V3", "V3-0324", "R1", "R1-0528", "V3.1"] {
        let config = config(&name_of(name));
        let total = accounting::total(&config);
        assert_eq!((total.tensors, total.bytes), (91_991, 688_574_839_360), "{name}");
        let listed = inventory::tensors(&config).fold((0, 0), |(count, bytes), tensor| {
            (count + 1, bytes + tensor.byte_count())
        });
        assert_eq!(listed, (total.tensors, total.bytes), "{name}, listed");
        // A header tells name, type, shape and offsets of a tensor in a line of JSON.
        let header_bytes_per_tensor = (FILE_BYTES - total.bytes) as f64 / total.tensors as f64;
        assert!(
            (120.0..140.0).contains(&header_bytes_per_tensor),
            "{header_bytes_per_tensor}"
        );
        let stage = accounting::part(&config, Part::Stages).parameters;
        let copies = 2 * accounting::part(&config, Part::Head).parameters;
        let billions = |count: u64| (count as f64 / 1e8).round() / 10.0;
        let active = accounting::active_total(&config).parameters;
        assert_eq!(billions(total.parameters - stage), 671.0, "{name}");
        assert_eq!(billions(active), 36.6, "{name}");
        // The text leaves the projection out that joins the MTP layer's inputs.
        assert_eq!(billions(stage - copies - 7168 * 14_336), 11.5, "{name}");
    }
    // V3.2 adds an indexer to every layer, the MTP layer too: two FP8 matrices with scales, a BF16 one, a norm with bias.
    let indexer = (8192 * 1536 + 64 * 12 * 4) + (128 * 7168 + 56 * 4) + 2 * 64 * 7168 + 2 * 4 * 128;
    for name in ["V3.2-Exp", "V3.2"] {
        let total = accounting::total(&config(&name_of(name)));
        let expected = (91_991 + 62 * 7, 688_574_839_360 + 62 * indexer);
        assert_eq!((total.tensors, total.bytes), expected, "{name}");
    }
}

/// The notes on V3, section 7.
#[test]
fn v3_keeps_what_the_notes_say_of_each_token() {
    for (name, packed, bf16) in [("V3", 70_272.0, 70_272.0), ("V3.2", 48_068.0, 85_888.0)] {
        let config = config(&name_of(name));
        assert_eq!(accounting::kv_bytes_per_token(&config, KvFormat::Packed), packed);
        assert_eq!(accounting::kv_bytes_per_token(&config, KvFormat::Bf16), bf16);
        assert_eq!(accounting::fixed_bytes_per_sequence(&config, KvFormat::Bf16), 0);
        let ModelConfig::V3(config) = config else {
            panic!("{name} is of the V3 family");
        };
        assert!((config.attention_scale() / 0.135_233_8 - 1.0).abs() < 1e-6);
    }
}

fn name_of(release: &str) -> String {
    format!("deepseek-ai/DeepSeek-{release}")
}

#[test]
fn bytes_by_part_are_the_published_ones() {
    for (part, flash, pro) in [
        (Part::RoutedExperts, 147_169_738_752, 822_054_223_872),
        (Part::Attention, 4_599_478_144, 18_294_854_528),
        (Part::SharedExperts, 1_082_196_480, 4_029_923_520),
        (Part::Embedding, 1_059_061_760, 1_853_358_080),
        (Part::Head, 1_059_061_760, 1_853_358_080),
        (Part::Compressors, 525_722_624, 1_344_566_272),
        (Part::Indexers, 275_353_344, 625_367_040),
        (Part::HyperConnections, 135_537_756, 336_278_412),
        (Part::Routers, 108_834_816, 354_511_872),
        (Part::Norms, 712_704, 1_763_328),
        (Part::Stages, 3_593_787_756, 13_956_587_692),
    ] {
        assert_eq!(
            accounting::part(&config("DeepSeek-V4-Flash"), part).bytes,
            flash,
            "{part:?}"
        );
        assert_eq!(
            accounting::part(&config("DeepSeek-V4-Pro"), part).bytes,
            pro,
            "{part:?}"
        );
    }
    let dspark = |name| accounting::part(&config(name), Part::Stages).bytes;
    assert_eq!(dspark("DeepSeek-V4-Flash-DSpark"), 10_862_838_300);
    assert_eq!(dspark("DeepSeek-V4-Pro-DSpark"), 41_979_375_900);
    let layer = |name, layer| accounting::place(&config(name), Place::Layer(layer)).bytes;
    assert_eq!(layer("DeepSeek-V4-Flash", 3), 3_568_596_312);
    assert_eq!(layer("DeepSeek-V4-Flash", 4), 3_589_851_224);
    assert_eq!(layer("DeepSeek-V4-Pro", 3), 13_868_262_424);
    assert_eq!(layer("DeepSeek-V4-Pro", 4), 13_903_542_296);
}

#[test]
fn active_bytes_are_the_published_ones() {
    for (name, total, parts) in [
        (
            "DeepSeek-V4-Flash",
            11_217_572_060,
            [
                4_599_478_144,
                3_449_290_752,
                1_082_196_480,
                1_059_061_760,
                525_722_624,
                275_353_344,
                135_537_756,
                90_218_496,
            ],
        ),
        (
            "DeepSeek-V4-Pro",
            39_666_603_980,
            [
                18_294_854_528,
                12_844_597_248,
                4_029_923_520,
                1_853_358_080,
                1_344_566_272,
                625_367_040,
                336_278_412,
                335_895_552,
            ],
        ),
    ] {
        let config = config(name);
        assert_eq!(accounting::active_total(&config).bytes, total, "{name}");
        let order = [
            Part::Attention,
            Part::RoutedExperts,
            Part::SharedExperts,
            Part::Head,
            Part::Compressors,
            Part::Indexers,
            Part::HyperConnections,
            Part::Routers,
        ];
        for (part, bytes) in order.into_iter().zip(parts) {
            assert_eq!(accounting::active(&config, part).bytes, bytes, "{name} {part:?}");
        }
    }
}

#[test]
fn parameters_are_the_published_ones() {
    // Billions with three digits, as the published tables round them.
    let billions = |size: Size| (size.parameters as f64 / 1e6).round() / 1e3;
    for (name, main, stages, active) in [
        ("DeepSeek-V4-Flash", 284.332, 6.610, 13.270),
        ("DeepSeek-V4-Flash-DSpark", 284.332, 19.846, 13.270),
        ("DeepSeek-V4-Pro", 1572.997, 25.840, 48.852),
        ("DeepSeek-V4-Pro-DSpark", 1572.997, 77.498, 48.852),
    ] {
        let config = config(name);
        let extra = accounting::part(&config, Part::Stages);
        let mut rest = accounting::total(&config);
        rest.parameters -= extra.parameters;
        assert_eq!((billions(rest), billions(extra)), (main, stages), "{name}");
        assert_eq!(billions(accounting::active_total(&config)), active, "{name}");
    }
}

#[test]
fn bytes_of_a_sequence_are_the_published_ones() {
    for (name, packed, bf16, [layers, csa, hca]) in [
        ("DeepSeek-V4-Flash", 3514.25, 6880.0, [43, 21, 20]),
        ("DeepSeek-V4-Pro", 5031.4375, 9848.0, [61, 30, 31]),
    ] {
        let config = config(name);
        assert_eq!(accounting::kv_bytes_per_token(&config, KvFormat::Packed), packed);
        assert_eq!(accounting::kv_bytes_per_token(&config, KvFormat::Bf16), bf16);
        // Windows of all layers, then open windows of CSA (entries and index keys) and HCA layers.
        let fixed = layers * 74_752 + csa * (65_536 + 16_384) + hca * 524_288;
        assert_eq!(accounting::fixed_bytes_per_sequence(&config, KvFormat::Packed), fixed);
    }
}
