//! Bytes of models against the published ones.

use cachalot_planner::model::{self, KvFormat, Part};

#[test]
fn weight_bytes_are_the_published_totals() {
    for (name, bytes) in [
        ("DeepSeek-V4-Flash", 159_609_485_896),
        ("deepseek-ai/DeepSeek-V4-Flash-DSpark", 166_878_536_440),
        ("DeepSeek-V4-Flash-Base", 292_555_345_480),
        ("DeepSeek-V4-Pro", 864_704_792_696),
        ("DeepSeek-V4-Pro-0813", 892_727_580_904),
        ("DeepSeek-V4-Pro-Base", 1_602_325_824_632),
        ("DeepSeek-V4.1-Flash", 510_286_023_000),
    ] {
        assert_eq!(model::find(name).unwrap().bytes(), bytes, "{name}");
    }
    // Published only as "about 689 GB".
    let v3 = model::find("deepseek-r1").unwrap().bytes() as f64;
    assert!((v3 / 689e9 - 1.0).abs() < 0.005, "{v3}");
}

#[test]
fn parts_are_the_published_ones() {
    let v41 = model::find("DeepSeek-V4.1-Flash").unwrap();
    for (part, bytes) in [
        (Part::RoutedExperts, 288_777_830_400),
        (Part::EngramTables, 202_758_032_400),
        (Part::Attention, 5_069_721_600),
        (Part::SharedExperts, 1_416_960_000),
        (Part::Embedding, 1_323_827_200),
        (Part::Head, 1_323_827_200),
        (Part::Vision, 970_536_960),
        (Part::EngramProjections, 315_043_840),
        (Part::Routers, 157_409_280),
        (Part::HyperConnections, 157_295_040),
        (Part::Indexers, 45_130_752),
        (Part::Compressors, 36_704_256),
    ] {
        assert_eq!(v41.part_bytes(part), bytes, "{part:?}");
    }
    let stages = v41.part_bytes(Part::Stages) + v41.part_bytes(Part::StageExperts);
    assert_eq!(stages, 7_932_874_632);
    let pro = model::find("DeepSeek-V4-Pro").unwrap();
    assert_eq!(pro.part_bytes(Part::RoutedExperts), 822_054_223_872);
    assert_eq!(pro.part_bytes(Part::Attention), 18_294_854_528);
}

#[test]
fn kv_bytes_are_the_published_ones() {
    for (name, packed, bf16) in [
        ("DeepSeek-V4-Flash", 3514.25, 6880.0),
        ("DeepSeek-V4-Pro", 5031.4375, 9848.0),
        ("DeepSeek-V3", 70_272.0, 70_272.0),
        ("DeepSeek-V3.2", 48_068.0, 85_888.0),
        ("DeepSeek-V4.1-Flash", 890.0, 3200.0),
    ] {
        let model = model::find(name).unwrap();
        assert_eq!(model.kv_bytes_per_token(KvFormat::Packed), packed, "{name}");
        assert_eq!(model.kv_bytes_per_token(KvFormat::Bf16), bf16, "{name}");
    }
    let flash = model::find("DeepSeek-V4-Flash").unwrap();
    let published = 43 * 74_752 + 21 * (65_536 + 16_384) + 20 * 524_288;
    assert_eq!(flash.fixed_bytes_per_sequence(KvFormat::Packed), published);
}

#[test]
fn unknown_models_get_the_nearest_names() {
    let message = model::find("deepseek-ai/DeepSeek-V4-Flsh").unwrap_err().to_string();
    assert!(message.contains("deepseek-ai/DeepSeek-V4-Flash"), "{message}");
}
