//! The choice of experts: scores, groups, bias, table of chosen ids, and the weights of the chosen.

use crate::elements::{BF16, F16, F32, I32};
use crate::signature::{Arguments, Planned, expect, kernel, operators};

/// Where the arguments stand in the three signatures.
struct Places {
    k: usize,
    group_select: usize,
    factor: usize,
    writes_scores: usize,
    y: usize,
}

const V2: Places = Places {
    k: 4,
    group_select: 7,
    factor: 11,
    writes_scores: 10,
    y: 13,
};
const HASH: Places = Places {
    k: 4,
    group_select: 9,
    factor: 7,
    writes_scores: 12,
    y: 13,
};
const V1: Places = Places {
    k: 2,
    group_select: 5,
    factor: 9,
    writes_scores: 8,
    y: 11,
};

const SOFTMAX: i64 = 0;
const SIGMOID: i64 = 1;
const SQUARE_ROOT_OF_SOFTPLUS: i64 = 2;

fn scores(row: &[f64], kind: i64) -> Vec<f64> {
    match kind {
        SOFTMAX => {
            let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|z| (z - most).exp()).sum();
            row.iter().map(|z| (z - most).exp() / sum).collect()
        }
        SIGMOID => row.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
        _ => row
            .iter()
            .map(|&z| (z.max(0.0) + (-z.abs()).exp().ln_1p()).sqrt())
            .collect(),
    }
}

/// Places in falling order, the lower first among equals.
fn falling(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}

/// The k best of the best groups; a group counts by its best score, or by the sum of its two best.
fn choose(biased: &[f64], k: usize, kept_groups: usize, groups: usize, by_two: bool) -> Vec<usize> {
    let width = biased.len() / groups;
    let worth = |group: usize| {
        let members = &biased[group * width..][..width];
        falling(members)
            .iter()
            .take(if by_two { 2 } else { 1 })
            .map(|&place| members[place])
            .sum()
    };
    let kept = falling(&(0..groups).map(worth).collect::<Vec<f64>>());
    let kept = &kept[..kept_groups];
    let mut order = falling(biased);
    order.retain(|expert| kept.contains(&(expert / width)));
    order.truncate(k);
    order
}

fn gating(arguments: &Arguments, places: &Places) -> Planned {
    let (x, y, chosen) = (
        arguments.tensor(0)?,
        arguments.tensor(places.y)?,
        arguments.tensor(places.y + 1)?,
    );
    let (out, bias) = (arguments.optional(places.y + 2), arguments.optional(1));
    let (ids, table) = match places.k {
        2 => (None, None),
        _ => (arguments.optional(2), arguments.optional(3)),
    };
    arguments.types(0, &[F32, F16, BF16])?;
    let [k, kept_groups, groups] =
        [0, 1, 2].map(|step| usize::try_from(arguments.integer(places.k + step)).unwrap_or(0));
    let [select, renorm, kind] = [0, 1, 2].map(|step| arguments.integer(places.group_select + step));
    expect((0..=2).contains(&kind), "normType must be 0, 1 or 2")?;
    expect(
        renorm == 0 || kind == SOFTMAX,
        "renorm 1 belongs to normType 0: the others divide by the sum in any case",
    )?;
    expect([0, 1].contains(&select), "groupSelectMode must be 0 or 1")?;
    expect(x.dims.len() == 2, "x must be [tokens, experts]")?;
    let (tokens, experts) = (x.dims[0], x.dims[1]);
    expect(
        groups > 0 && experts.is_multiple_of(groups) && (1..=groups).contains(&kept_groups),
        "the experts must make up groupCount groups, kGroup of them kept",
    )?;
    expect(
        select == 0 || experts / groups >= 2,
        "groupSelectMode 1 needs two experts a group",
    )?;
    let possible = experts / groups * kept_groups;
    expect(
        (1..=possible).contains(&k) && y.dims == [tokens, k] && chosen.dims == [tokens, k],
        "y and expertIdx must be [tokens, k], k no more than the kept groups hold",
    )?;
    expect(chosen.dtype == I32, "expertIdx must be int32")?;
    expect(
        bias.as_ref().is_none_or(|bias| bias.dims == [experts]),
        "bias must have one number an expert",
    )?;
    expect(ids.is_some() == table.is_some(), "inputIds and tid2eid belong together")?;
    let (factor, epsilon) = (arguments.real(places.factor), arguments.real(places.factor + 1));
    let writes_scores = arguments.integer(places.writes_scores) != 0;
    kernel(move |memory| {
        let values = x.load(memory)?;
        let bias = bias.as_ref().map_or(Ok(vec![0.0; experts]), |bias| bias.load(memory))?;
        let ids = ids.as_ref().map(|ids| ids.load(memory)).transpose()?;
        let rows = table.as_ref().map(|table| table.load(memory)).transpose()?;
        let (mut weights, mut numbers, mut scores_out) = (Vec::new(), Vec::new(), Vec::new());
        for (token, row) in values.chunks_exact(experts).enumerate() {
            let scores = scores(row, kind);
            let picked: Vec<usize> = match (&ids, &rows) {
                (Some(ids), Some(rows)) => ids
                    .get(token)
                    .and_then(|&id| rows.get(id as usize * k..)?.get(..k))
                    .ok_or("a token id is outside tid2eid")?
                    .iter()
                    .map(|&id| id as usize)
                    .collect(),
                _ => {
                    let biased: Vec<f64> = scores.iter().zip(&bias).map(|(score, bias)| score + bias).collect();
                    choose(&biased, k, kept_groups, groups, select == 1)
                }
            };
            if let Some(expert) = picked.iter().find(|&&expert| expert >= experts) {
                return Err(format!("tid2eid names expert {expert} of {experts}"));
            }
            let sum = match (kind, renorm) {
                (SOFTMAX, 0) => 1.0,
                _ => picked.iter().map(|&expert| scores[expert]).sum::<f64>() + epsilon,
            };
            weights.extend(picked.iter().map(|&expert| scores[expert] / sum * factor));
            numbers.extend(picked.iter().map(|&expert| expert as f64));
            scores_out.extend(scores);
        }
        y.store(memory, &weights)?;
        chosen.store(memory, &numbers)?;
        match &out {
            Some(out) if writes_scores => out.store(memory, &scores_out),
            _ => Ok(()),
        }
    })
}

/// The documents know normType 2 of this one on the 950 alone.
fn gating_v2(arguments: &Arguments) -> Planned {
    if arguments.integer(9) == SQUARE_ROOT_OF_SOFTPLUS {
        arguments.only_arch(3510)?;
    }
    gating(arguments, &V2)
}

fn gating_v1(arguments: &Arguments) -> Planned {
    expect(
        arguments.integer(7) != SQUARE_ROOT_OF_SOFTPLUS,
        "normType 2 needs MoeGatingTopKV2",
    )?;
    gating(arguments, &V1)
}

operators! {
    aclnnMoeGatingTopKV2 aclnnMoeGatingTopKV2GetWorkspaceSize(
        x: input, bias: optional, ids: optional, table: optional, k: int64, k_group: int64, groups: int64, select: int64,
        renorm: int64, norm: int64, flag_out: flag, factor: real, epsilon: real,
        y: output, chosen: output, out: optional_output
    ) => gating_v2;
    aclnnMoeGatingTopK aclnnMoeGatingTopKGetWorkspaceSize(
        x: input, bias: optional, k: int64, k_group: int64, groups: int64, select: int64,
        renorm: int64, norm: int64, flag_out: flag, factor: real, epsilon: real,
        y: output, chosen: output, out: optional_output
    ) => gating_v1;
    custom_aclnnMoeGatingTopKHash custom_aclnnMoeGatingTopKHashGetWorkspaceSize(
        x: input, bias: optional, ids: optional, table: optional, k: int64, k_group: int64, groups: int64, factor: real,
        epsilon: real, select: int64, renorm: int64, norm: int64, flag_out: flag,
        y: output, chosen: output, out: optional_output
    ) => |a| gating(a, &HASH);
}
