//! What must hold for any plan.

use std::sync::LazyLock;

use cachalot_planner::{
    catalogue::{Catalogue, Chip, Figure},
    memory::{Memory, Request},
    model::{self, Model},
    plan::{Goal, Machine, evaluate, plan, remedies},
    precision::Precision,
    step::{Layout, Speculation},
};
use proptest::prelude::*;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::built_in);
static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let names = [
        "DeepSeek-V4-Flash",
        "DeepSeek-V4-Pro-DSpark",
        "DeepSeek-V3",
        "DeepSeek-V3.2",
        "DeepSeek-V4.1-Flash",
    ];
    names.iter().map(|name| model::find(name).expect("known")).collect()
});

fn chips() -> impl Strategy<Value = Chip> {
    let known: Vec<Chip> = CATALOGUE
        .chips
        .iter()
        .filter(|chip| {
            chip.bandwidth().is_some() && chip.memory_bytes().is_some() && chip.bf16_tflops.value().is_some()
        })
        .cloned()
        .collect();
    proptest::sample::select(known)
}

prop_compose! {
    fn cases()(
        chip in chips(),
        model in 0..5usize,
        devices in 0..4u32,
        tensor in 0..3u32,
        context in 1u64..160_000,
        users in 1u64..4096,
        drafts in 0u64..4,
    ) -> (Chip, usize, Layout, Goal) {
        let devices = (8u64 << devices) * chip.devices;
        let goal = Goal {
            context,
            users,
            speculation: Speculation { drafts, tokens_per_step: 1.0 + 0.5 * drafts as f64 },
            ..Goal::default()
        };
        (chip, model, Layout { devices, tensor: 1 << tensor }, goal)
    }
}

fn seconds(chip: &Chip, model: &Model, layout: Layout, goal: &Goal) -> Option<(f64, f64)> {
    let machine = Machine {
        catalogue: &CATALOGUE,
        chip,
        chips: layout.devices / chip.devices,
    };
    let plan = evaluate(model, machine, goal, Precision::Released, layout);
    Some((plan.decode.ok()?.seconds, plan.prefill.ok()?.seconds))
}

proptest! {
    #[test]
    fn more_bandwidth_arithmetic_or_link_is_never_slower((chip, model, layout, goal) in cases(), factor in 1.0..10.0f64) {
        let model = &MODELS[model];
        let Some(before) = seconds(&chip, model, layout, &goal) else { return Ok(()) };
        let scaled = |figure: &Figure| match figure.value() {
            Some(value) => Figure::measured(value * factor, "test"),
            None => Figure::default(),
        };
        let wider = [
            Chip { bandwidth_tb_s: scaled(&chip.bandwidth_tb_s), ..chip.clone() },
            Chip { link_gb_s: scaled(&chip.link_gb_s), network_gb_s: scaled(&chip.network_gb_s), ..chip.clone() },
            Chip {
                bf16_tflops: scaled(&chip.bf16_tflops),
                fp8_tflops: scaled(&chip.fp8_tflops),
                int8_tops: scaled(&chip.int8_tops),
                ..chip.clone()
            },
        ];
        for better in wider {
            let after = seconds(&better, model, layout, &goal).expect("known before");
            prop_assert!(after.0 <= before.0 * (1.0 + 1e-12) && after.1 <= before.1 * (1.0 + 1e-12));
        }
    }

    #[test]
    fn more_context_never_needs_less_memory_and_is_never_faster((chip, model, layout, goal) in cases(), more in 1u64..100_000) {
        let model = &MODELS[model];
        let longer = Goal { context: goal.context + more, ..goal.clone() };
        let memory = |goal: &Goal| {
            let request = Request {
                model,
                precision: Precision::Released,
                layout,
                sequences: goal.users as f64,
                context: goal.context as f64,
                drafting: false,
            };
            Memory::of(&request, &chip).expect("known memory").total()
        };
        prop_assert!(memory(&longer) >= memory(&goal));
        let machine = Machine { catalogue: &CATALOGUE, chip: &chip, chips: layout.devices / chip.devices };
        let decode = |goal: &Goal| evaluate(model, machine, goal, Precision::Released, layout);
        let (short, long) = (decode(&goal), decode(&longer));
        if let (Ok(short), Ok(long)) = (short.decode, long.decode) {
            prop_assert!(long.seconds >= short.seconds * (1.0 - 1e-12));
        }
    }

    #[test]
    fn a_bigger_batch_never_gives_less_in_total((chip, model, layout, goal) in cases(), more in 1u64..4096) {
        let model = &MODELS[model];
        let machine = Machine { catalogue: &CATALOGUE, chip: &chip, chips: layout.devices / chip.devices };
        let rate = |users: u64| {
            let goal = Goal { users, ..goal.clone() };
            let plan = evaluate(model, machine, &goal, Precision::Released, layout);
            (plan.hit_rate == 1.0).then(|| plan.decode_tokens_per_second()).flatten()
        };
        if let (Some(few), Some(many)) = (rate(goal.users), rate(goal.users + more)) {
            prop_assert!(many >= few * (1.0 - 1e-9), "{few} then {many}");
        }
    }

    #[test]
    fn what_is_said_to_fit_fits((chip, model, _layout, goal) in cases(), count in 1u64..64) {
        let model = &MODELS[model];
        let machine = Machine { catalogue: &CATALOGUE, chip: &chip, chips: count };
        let found = plan(model, machine, &goal).expect("a sound goal");
        if !found.fits() {
            prop_assert!(!remedies(model, machine, &goal).expect("a sound goal").is_empty());
        } else {
            let users = found.sequences_max.expect("known memory");
            prop_assert!(users >= goal.users);
            prop_assert!(found.context_max.expect("known memory") >= goal.context);
        }
    }
}

#[test]
fn unknown_stays_unknown() {
    let model = &MODELS[0];
    let chip = CATALOGUE.chip("mlu590").unwrap();
    let machine = Machine {
        catalogue: &CATALOGUE,
        chip,
        chips: 8,
    };
    let found = plan(model, machine, &Goal::default()).unwrap();
    assert!(found.memory.is_none() && found.decode.is_err() && found.sequences_max.is_none());
    // A 950DT has no published power, a 910C only that of a whole system.
    let watts = |name| cachalot_planner::fleet::watts_per_chip(&CATALOGUE, CATALOGUE.chip(name).unwrap());
    assert_eq!(watts("950dt"), None);
    assert_eq!(watts("910c").map(f64::round), Some(1456.0));
}

#[test]
fn drafts_need_a_drafter() {
    let goal = Goal {
        speculation: Speculation {
            drafts: 1,
            tokens_per_step: 1.5,
        },
        ..Goal::default()
    };
    assert!(goal.check(&MODELS[0]).is_ok());
    let without = Model {
        drafter: None,
        ..MODELS[0].clone()
    };
    let message = goal.check(&without).unwrap_err().to_string();
    assert!(message.contains("without an MTP layer"), "{message}");
}

#[test]
fn users_extend_the_catalogue() {
    let mut catalogue = Catalogue::built_in();
    let text = "[[chip]]\nid = \"mine\"\nname = \"Mine\"\nfamily = \"gpu\"\n\
                bandwidth_tb_s = { value = 2, status = \"measured\", source = \"me\" }\n";
    catalogue.extend(text, "mine.toml").unwrap();
    assert_eq!(catalogue.chip("MINE").unwrap().bandwidth(), Some(2e12));
    for broken in [
        "chip = 1",
        "[[chip]]\nid = \"x\"\nname = \"X\"\nfamily = \"none\"\n",
        "[[chip]]\nid = \"x\"\nname = \"X\"\nfamily = \"gpu\"\npower_w = { value = -1, status = \"vendor\" }\n",
        "[[chip]]\nid = \"x\"\nname = \"X\"\nfamily = \"gpu\"\npower_w = { value = nan, status = \"vendor\" }\n",
        "[[chip]]\nid = \"x\"\nname = \"X\"\nfamily = \"gpu\"\ndevices = 0\n",
        "[[chip]]\nid = \"x\"\nname = \"X\"\nfamily = \"gpu\"\nspeed = 3\n",
    ] {
        let message = catalogue.extend(broken, "mine.toml").unwrap_err().to_string();
        assert!(message.starts_with("mine.toml: "), "{message}");
    }
    let message = catalogue.chip("910b33").unwrap_err().to_string();
    assert!(message.contains("910b3"), "{message}");
}
