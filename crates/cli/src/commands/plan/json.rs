//! Plans for scripts. What is unknown is `null`.

use cachalot_planner::{
    catalogue::Chip,
    fleet::{self, Fleet, NoFleet},
    model::{KvFormat, Model},
    plan::{Goal, Machine, Plan},
    time::{StepTime, Unknown},
};
use serde_json::{Value, json};

use super::{Compared, speed_of_user};

pub fn plan(model: &Model, machine: Machine, goal: &Goal, plan: &Plan, remedies: &[String]) -> Value {
    let format = plan.precision.kv_format();
    let watts = fleet::watts_per_chip(machine.catalogue, machine.chip).map(|watts| watts * machine.chips as f64);
    let rate = plan.decode_tokens_per_second().filter(|_| plan.fits());
    let memory = plan.memory.as_ref().map(|memory| {
        let parts: serde_json::Map<String, Value> = memory
            .dense
            .iter()
            .map(|(part, bytes)| (part.name().to_owned(), json!(bytes.round())))
            .collect();
        json!({
            "available": memory.available.round(),
            "total": memory.total().round(),
            "routed experts": memory.experts.round(),
            "parts": parts,
            "kv": memory.kv.round(),
            "windows": memory.fixed.round(),
            "snapshots": memory.snapshots.round(),
            "workspace": memory.workspace.round(),
        })
    });
    json!({
        "model": model.name,
        "released_bytes": model.bytes(),
        "kv_bytes_per_token": model.kv_bytes_per_token(format),
        "kv_bytes_per_token_packed": model.kv_bytes_per_token(KvFormat::Packed),
        "fixed_bytes_per_sequence": model.fixed_bytes_per_sequence(format),
        "chip": machine.chip.id,
        "chips": machine.chips,
        "context": goal.context,
        "users": goal.users,
        "weights": plan.precision.name(),
        "replicas": plan.replicas,
        "chips_per_replica": plan.replica_chips,
        "tensor_parallel": plan.layout.tensor,
        "expert_parallel": plan.layout.devices,
        "fits": plan.memory.as_ref().map(|_| plan.fits()),
        "hit_rate": plan.hit_rate,
        "context_max": plan.context_max,
        "users_max": plan.sequences_max,
        "remedies": remedies,
        "bytes_per_device": memory,
        "decode": step(&plan.decode),
        "decode_tokens_per_second": rate,
        "tokens_per_second_per_user": speed_of_user(plan, goal).filter(|_| plan.fits()),
        "decode_tokens_per_second_per_chip": rate.map(|rate| rate / machine.chips as f64),
        "decode_tokens_per_second_per_watt": rate.zip(watts).map(|(rate, watts)| rate / watts),
        "usd_per_million_tokens": rate
            .zip(machine.chip.rent_usd_hour.value())
            .map(|(rate, rent)| rent * machine.chips as f64 / 3600.0 / rate * 1e6),
        "watts": watts,
        "prefill": step(&plan.prefill),
        "prefill_tokens_per_second": plan.prefill_tokens_per_second().filter(|_| plan.fits()),
    })
}

fn step(step: &Result<StepTime, Unknown>) -> Value {
    match step {
        Err(unknown) => json!({ "unknown": unknown.figures }),
        Ok(step) => {
            let operators = step.operators.iter().map(|operator| {
                json!({
                    "class": operator.cost.class.name(),
                    "seconds": operator.seconds,
                    "waits_for": operator.bound.name(),
                    "bytes": operator.cost.bytes,
                    "operations": operator.cost.operations.iter().map(|(_, count)| count).sum::<f64>(),
                    "link_bytes": operator.cost.link_bytes + operator.cost.network_bytes,
                    "slow_bytes": operator.cost.slow_bytes,
                    "launches": operator.cost.launches,
                })
            });
            json!({
                "seconds": step.seconds,
                "waits_for": step.bound().name(),
                "operators": operators.collect::<Vec<_>>(),
            })
        }
    }
}

pub fn comparison(model: &Model, goal: &Goal, compared: &[Compared]) -> Value {
    let chips = compared.iter().map(|compared| match &compared.best {
        Ok((point, best)) => {
            let mut value = fleet(best);
            value["users_per_chip"] = json!(point.sequences as f64 / point.plan.replica_chips as f64);
            value["weights"] = json!(point.plan.precision.name());
            value
        }
        Err(reason) => json!({ "chip": compared.chip.id, "impossible": reason.to_string() }),
    });
    json!({ "model": model.name, "context": goal.context, "chips": chips.collect::<Vec<_>>() })
}

pub fn fleets(model: &Model, goal: &Goal, chip: &Chip, fleets: &Result<Vec<Fleet>, NoFleet>) -> Value {
    let (list, impossible) = match fleets {
        Ok(fleets) => (fleets.iter().map(fleet).collect(), None),
        Err(reason) => (Vec::new(), Some(reason.to_string())),
    };
    json!({
        "model": model.name,
        "context": goal.context,
        "chip": chip.id,
        "spare_part": fleet::SPARE_PART,
        "fleets": list,
        "impossible": impossible,
    })
}

fn fleet(fleet: &Fleet) -> Value {
    json!({
        "chip": fleet.chip,
        "chips": fleet.chips,
        "chips_per_replica": fleet.replica_chips,
        "replicas": fleet.replicas,
        "tokens_per_second": fleet.tokens_per_second,
        "tokens_per_second_per_chip": fleet.tokens_per_second_per_chip,
        "tokens_per_second_per_user": fleet.tokens_per_second_per_user,
        "prefill_tokens_per_second_per_chip": fleet.prefill_per_chip,
        "megawatts": fleet.megawatts,
        "usd_per_hour": fleet.usd_per_hour,
        "waits_for": fleet.bound.name(),
    })
}
