//! Routing, grouped products and the activation between them.

use crate::elements::{BF16, F16, F32, I4, I8, I32, I64, Tensor, U64};
use crate::operators::rows::quantise_row;
use crate::signature::{Arguments, Planned, expect, kernel, operators};

/// Token rows in the order of their experts; rowIdx[token · k + choice] is the row they went to, -1 outside the range.
fn init_routing(arguments: &Arguments) -> Planned {
    arguments.absent(&[2, 3])?;
    let (x, choice) = (arguments.tensor(0)?, arguments.tensor(1)?);
    let [y, places, counts] = [arguments.tensor(13)?, arguments.tensor(14)?, arguments.tensor(15)?];
    let scale = arguments.optional(16);
    let mode = arguments.integer(10);
    expect([-1, 1].contains(&mode), "quantMode -1 and 1 are emulated")?;
    expect(
        arguments.integer(7) == 0 && arguments.integer(12) == 0,
        "dropPadMode 0 and rowIdxType 0 are emulated",
    )?;
    expect(
        arguments.integer(8) == 1 && arguments.integer(9) != 0,
        "expertTokensNumType 1 with its flag is emulated",
    )?;
    expect(
        x.dims.len() == 2 && choice.dims.len() == 2 && choice.dims[0] == x.dims[0],
        "x is [tokens, d], expertIdx [tokens, k]",
    )?;
    let (width, k, pairs) = (x.dims[1], choice.dims[1], choice.count());
    expect(
        y.dims == [pairs, width] && places.count() == pairs,
        "expandedX must be [tokens · k, d], rowIdx tokens · k",
    )?;
    expect(
        y.dtype == if mode == 1 { I8 } else { x.dtype },
        "expandedX has the type of x, or int8 with quantMode 1",
    )?;
    expect(
        choice.dtype == I32 && places.dtype == I32 && counts.dtype == I64,
        "expertIdx and rowIdx are int32, counts int64",
    )?;
    let range = match arguments.array(11)[..] {
        [] => (0, arguments.integer(6)),
        [first, end] if first < end => (first, end),
        _ => return Err("activeExpertRange must be {first, last + 1}".into()),
    };
    expect(
        counts.count() as i64 == range.1 - range.0,
        "counts must have one number an expert of the range",
    )?;
    expect(
        mode == -1 || scale.as_ref().is_some_and(|scale| scale.count() == pairs),
        "expandedScale must be tokens · k",
    )?;
    kernel(move |memory| {
        let (values, experts) = (x.load(memory)?, choice.load(memory)?);
        let mut order: Vec<usize> = (0..pairs)
            .filter(|&pair| (range.0..range.1).contains(&(experts[pair] as i64)))
            .collect();
        order.sort_by_key(|&pair| experts[pair] as i64);
        let mut row_of = vec![-1.0; pairs];
        let mut tokens = vec![0.0; counts.count()];
        let (mut rows, mut scales) = (Vec::new(), Vec::new());
        for (row, &pair) in order.iter().enumerate() {
            row_of[pair] = row as f64;
            tokens[(experts[pair] as i64 - range.0) as usize] += 1.0;
            let source = &values[pair / k * width..][..width];
            let (quantised, scale) = if mode == 1 {
                quantise_row(source)
            } else {
                (source.to_vec(), 1.0)
            };
            rows.extend(quantised);
            scales.push(scale);
        }
        y.store(memory, &rows)?;
        places.store(memory, &row_of)?;
        counts.store(memory, &tokens)?;
        match &scale {
            Some(scale) if mode == 1 => scale.store(memory, &scales),
            _ => Ok(()),
        }
    })
}

/// groupType 0 with one tensor in each list: rows of x by group times that group's matrix.
fn grouped_matmul(arguments: &Arguments, output: usize, weight_layout: bool) -> Planned {
    arguments.absent(&[4, 5, 6, 9, 10, 11])?;
    let one = |index: usize| {
        <[Tensor; 1]>::try_from(arguments.list(index)).map_err(|_| format!("list {index} must hold one tensor"))
    };
    let ([x], [weight], [y], groups) = (one(0)?, one(1)?, one(output)?, arguments.tensor(8)?);
    let four_bits = weight.dtype == I4;
    let bias = if four_bits { Some(one(2)?) } else { None };
    expect(
        four_bits || arguments.list(2).is_empty(),
        "bias belongs to int4 weights in the emulated forms",
    )?;
    expect(
        !weight_layout || weight.is_weight_layout(),
        "weight must have the format of this operator",
    )?;
    let quantised = x.dtype == I8;
    let scales = if quantised { Some((one(3)?, one(7)?)) } else { None };
    expect(
        [0, 3].contains(&arguments.integer(12)) || arguments.integer(12) == 2,
        "splitItem must be 0, 2 or 3",
    )?;
    expect(
        arguments.integer(13) == 0 && arguments.integer(15) == 0,
        "groupType 0 without activation is emulated",
    )?;
    expect(
        [0, 1].contains(&arguments.integer(14)),
        "groupListType must be 0 (ends) or 1 (counts)",
    )?;
    expect(
        [I8, BF16, F16, F32].contains(&x.dtype) && (weight.dtype == x.dtype || x.dtype == I8 && four_bits),
        "x and weight must be of one type, int8 or float, or int8 and int4",
    )?;
    expect(
        !quantised || y.dtype == BF16 || y.dtype == F16,
        "int8 gives bf16 or float16",
    )?;
    expect(
        x.dims.len() == 2 && weight.dims.len() == 3,
        "x must be [m, k], weight [experts, k, n]",
    )?;
    let (m, k, experts, n) = (x.dims[0], x.dims[1], weight.dims[0], weight.dims[2]);
    expect(weight.dims[1] == k && y.dims == [m, n], "out must be [m, n]")?;
    expect(
        groups.dtype == I64 && groups.dims == [experts],
        "groupList must be int64, one number an expert",
    )?;
    if let Some(([scale], [token_scale])) = &scales {
        expect(
            scale.dims == [experts, n] && token_scale.count() == m,
            "scale must be [experts, n], perTokenScale [m]",
        )?;
        expect(
            (scale.dtype == U64) == four_bits,
            "the scale of int4 weights is uint64 with the bits of a float, of int8 weights float or bf16",
        )?;
    }
    if let Some([bias]) = &bias {
        expect(
            bias.dims == [experts, n] && bias.dtype == F32,
            "bias must be float [experts, n]: 8 times the sum of each column's scaled weights",
        )?;
    }
    let ends_given = arguments.integer(14) == 0;
    kernel(move |memory| {
        let (a, b, groups) = (x.load(memory)?, weight.load(memory)?, groups.load(memory)?);
        let scales = match &scales {
            Some(([scale], [token_scale])) => Some((scale.load(memory)?, token_scale.load(memory)?)),
            None => None,
        };
        let bias = bias.as_ref().map(|[bias]| bias.load(memory)).transpose()?;
        // With int4 the products are of x - 8, which the bias makes good.
        let shift = if four_bits { 8.0 } else { 0.0 };
        let (mut out, mut end) = (Vec::new(), 0);
        for (expert, &number) in groups.iter().enumerate() {
            let start = end;
            end = if ends_given {
                number as usize
            } else {
                start + number as usize
            };
            if end > m || end < start {
                return Err(format!("groupList leaves the {m} rows of x at expert {expert}"));
            }
            for row in start..end {
                for column in 0..n {
                    let product = |inner: usize| (a[row * k + inner] - shift) * b[(expert * k + inner) * n + column];
                    out.push(match &scales {
                        Some((scale, token_scale)) => {
                            let sum = (0..k).map(product).sum::<f64>() as f32;
                            let added = bias.as_ref().map_or(0.0, |bias| bias[expert * n + column] as f32);
                            f64::from((sum * scale[expert * n + column] as f32 + added) * token_scale[row] as f32)
                        }
                        None => f64::from((0..k).fold(0_f32, |sum, inner| sum + product(inner) as f32)),
                    });
                }
            }
        }
        // Rows after the last group stay as they are.
        y.store(memory, &out)
    })
}

/// Modes 1 (gate in even columns) and 2 (gate in the left half), clamped before the activation; int8 per token.
fn swiglu_quant(arguments: &Arguments) -> Planned {
    arguments.absent(&[1, 2, 3, 4, 5])?;
    arguments.types(0, &[BF16, F16])?;
    let (x, groups, y, scale) = (
        arguments.tensor(0)?,
        arguments.optional(6),
        arguments.tensor(16)?,
        arguments.tensor(17)?,
    );
    let mode = arguments.integer(12);
    expect(
        arguments.integer(7) != 0,
        "activateLeft must be true: otherwise the halves change places",
    )?;
    expect(
        arguments.text(8) == "dynamic" && arguments.integer(9) == 2 && arguments.text(10) == "rint",
        "\"dynamic\", int8, \"rint\" are emulated",
    )?;
    if mode == 2 && arguments.arch == 3510 {
        arguments.only_arch(2201)?;
    }
    expect([1, 2].contains(&mode), "swigluMode 1 and 2 are emulated")?;
    let (limit, alpha, bias) = (arguments.real(13), arguments.real(14), arguments.real(15));
    let (width, rows) = (x.width(), x.count() / x.width().max(1));
    expect(
        x.dims.len() == 2 && width == 2 * y.width() && y.dims[0] == rows && y.dtype == I8,
        "y must be int8 [m, n / 2]",
    )?;
    expect(scale.count() == rows && scale.dtype == F32, "scale must be float [m]")?;
    kernel(move |memory| {
        let values = x.load(memory)?;
        let used = match &groups {
            Some(groups) => groups.load(memory)?.iter().sum::<f64>() as usize,
            None => rows,
        };
        let (mut out, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks_exact(width).take(used) {
            let half = width / 2;
            let activated: Vec<f64> = (0..half)
                .map(|column| {
                    let (gate, up) = if mode == 1 {
                        (row[2 * column], row[2 * column + 1])
                    } else {
                        (row[column], row[half + column])
                    };
                    let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
                    gate / (1.0 + (-alpha * gate).exp()) * (up + bias)
                })
                .collect();
            let (quantised, scale) = quantise_row(&activated);
            out.extend(quantised);
            scales.push(scale);
        }
        y.store(memory, &out)?;
        scale.store(memory, &scales)
    })
}

/// dropPadMode 2: out[token] = x1[token] + Σ scales[token, choice] · expandedX[rowIdx[token · k + choice]].
fn finalize_routing(arguments: &Arguments) -> Planned {
    arguments.absent(&[3, 4])?;
    let (x, rows, y) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(8)?);
    let (shared, scales) = (arguments.optional(2), arguments.tensor(5)?);
    expect(arguments.integer(7) == 2, "dropPadMode 2 is emulated")?;
    expect(
        x.dims.len() == 2 && y.dims.len() == 2 && x.dims[1] == y.dims[1],
        "expandedX and out must be matrices of one width",
    )?;
    expect(
        scales.dims.len() == 2 && scales.dims[0] == y.dims[0] && rows.count() == scales.count(),
        "scales must be [tokens, k]",
    )?;
    expect(
        shared.as_ref().is_none_or(|shared| shared.dims == y.dims),
        "x1 must have the shape of out",
    )?;
    expect(rows.dtype == I32, "expandedRowIdx must be int32")?;
    let (width, k) = (y.dims[1], scales.dims[1]);
    kernel(move |memory| {
        let (values, rows, scales) = (x.load(memory)?, rows.load(memory)?, scales.load(memory)?);
        let mut out = shared
            .as_ref()
            .map_or(Ok(vec![0.0; y.count()]), |shared| shared.load(memory))?;
        for (pair, (&row, &scale)) in rows
            .iter()
            .zip(&scales)
            .enumerate()
            .filter(|(_, (row, _))| **row >= 0.0)
        {
            let source = values
                .get(row as usize * width..)
                .and_then(|rest| rest.get(..width))
                .ok_or("a row index is too large")?;
            let token = &mut out[pair / k * width..][..width];
            token
                .iter_mut()
                .zip(source)
                .for_each(|(sum, value)| *sum = f64::from((*sum + scale * value) as f32));
        }
        y.store(memory, &out)
    })
}

operators! {
    aclnnMoeInitRoutingV3 aclnnMoeInitRoutingV3GetWorkspaceSize(
        x: input, choice: input, scale: optional, offset: optional, active: int64, capacity: int64, experts: int64,
        drop: int64, kind: int64, count_flag: flag, quant: int64, range: array, row_kind: int64,
        y: output, places: output, counts: output, scale_out: optional_output
    ) => init_routing;
    aclnnGroupedMatmulV5 aclnnGroupedMatmulV5GetWorkspaceSize(
        x: list, weight: list, bias: optional_list, scale: optional_list, offset: optional_list, anti_scale: optional_list,
        anti_offset: optional_list, token_scale: optional_list, groups: input, activation: optional_list,
        activation_scale: optional_list, activation_offset: optional_list, split: int64, kind: int64, list_kind: int64,
        act: int64, tuning: array, out: output_list, feature: optional_output_list, dynamic: optional_output_list
    ) => |a| grouped_matmul(a, 17, false);
    aclnnGroupedMatmulWeightNz aclnnGroupedMatmulWeightNzGetWorkspaceSize(
        x: list, weight: list, bias: optional_list, scale: optional_list, offset: optional_list, anti_scale: optional_list,
        anti_offset: optional_list, token_scale: optional_list, groups: input, activation: optional_list,
        activation_scale: optional_list, activation_offset: optional_list, split: int64, kind: int64, list_kind: int64,
        act: int64, tuning: array, group_size: int64, out: output_list, feature: optional_output_list,
        dynamic: optional_output_list
    ) => |a| grouped_matmul(a, 18, true);
    aclnnDequantSwigluQuantV2 aclnnDequantSwigluQuantV2GetWorkspaceSize(
        x: input, weight_scale: optional, activation_scale: optional, bias: optional, quant_scale: optional,
        quant_offset: optional, groups: optional, left: flag, quant: text, dtype: int64, round: text, axis: int64,
        mode: int64, limit: real, alpha: real, glu_bias: real, y: output, scale: output
    ) => swiglu_quant;
    aclnnMoeFinalizeRoutingV2 aclnnMoeFinalizeRoutingV2GetWorkspaceSize(
        x: input, rows: input, x1: optional, x2: optional, bias: optional, scales: input, experts: optional,
        drop: int64, out: output
    ) => finalize_routing;
}
