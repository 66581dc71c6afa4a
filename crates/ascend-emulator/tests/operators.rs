//! Operators against values worked out from their documents' formulas, here in f64 or by hand.

#[macro_use]
mod client;

use client::*;
use std::ptr::null_mut;

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
    assert!(found.iter().zip(expected).all(near), "{found:?} is not {expected:?}");
}

#[test]
fn weights_of_a_product_may_be_transposed_or_tiled() {
    let client = Client::new("910B3", &[]);
    let (k, n) = (32_usize, 16_usize);
    let x: Vec<f32> = (0..k).map(|index| index as f32 - 7.0).collect();
    let weight = |row: usize, column: usize| (row * 3 + column * 5) as f32 % 11.0 - 5.0;
    let expected: Vec<f32> = (0..n)
        .map(|column| (0..k).map(|row| x[row] * weight(row, column)).sum())
        .collect();
    let out = client.allocate(4 * n);
    let (x, out_tensor) = (
        client.tensor(&[1, k as i64], F32, client.upload(&x)),
        client.tensor(&[1, n as i64], F32, out),
    );

    let columns: Vec<f32> = (0..n)
        .flat_map(|column| (0..k).map(move |row| weight(row, column)))
        .collect();
    let view = client.view(&[32, 16], &[1, 32], F32, 2, &[16, 32], client.upload(&columns));
    run!(client, "aclnnMm", x => Handle, view => Handle, out_tensor => Handle, 0 => i8);
    close(&client.download(out, n), &expected);

    // NZ: tiles of 16 rows and 8 columns of four bytes; all row tiles of one column of tiles lie together.
    let mut tiles = Vec::new();
    for column_tile in 0..2 {
        for row_tile in 0..2 {
            for place in 0..128 {
                tiles.push(weight(row_tile * 16 + place / 8, column_tile * 8 + place % 8));
            }
        }
    }
    let tiled = client.view(&[32, 16], &[16, 1], F32, 29, &[2, 2, 16, 8], client.upload(&tiles));
    run!(client, "aclnnMatmulWeightNz", x => Handle, tiled => Handle, out_tensor => Handle, 0 => i8);
    close(&client.download(out, n), &expected);
}

#[test]
fn int8_products_are_exact_up_to_their_scales() {
    let client = Client::new("910C", &[]);
    let x = [1.0_f32, -2.0, 0.5, 4.0].map(bf16);
    let (quantised, scale) = (client.allocate(4), client.allocate(4));
    let x = client.tensor(&[1, 4], BF16, client.upload(&x));
    let (q, s) = (client.tensor(&[1, 4], I8, quantised), client.tensor(&[1], F32, scale));
    run!(client, "aclnnDynamicQuant", x => Handle, null_mut() => Handle, q => Handle, s => Handle);
    // 127 / 4 = 31.75 a unit: 31.75, −63.5, 15.875, 127, rounded with ties to even.
    assert_eq!(client.download::<i8>(quantised, 4), [32, -64, 16, 127]);
    close(&client.download(scale, 1), &[4.0 / 127.0]);

    let out = client.allocate(4);
    let weight = client.tensor(&[2, 4], I8, client.upload(&[1_i8, 0, 0, 1, 0, 1, 1, 0]));
    let (scales, y) = (
        client.tensor(&[2], F32, client.upload(&[127_f32, 127.0])),
        client.tensor(&[1, 2], BF16, out),
    );
    let none = null_mut();
    run!(client, "aclnnQuantMatmulV5", q => Handle, weight => Handle, s => Handle, scales => Handle, none => Handle,
        none => Handle, none => Handle, none => Handle, none => Handle, false => bool, true => bool, 0 => i64, y => Handle);
    // (32 + 127) · 4 = 636 and (−64 + 16) · 4 = −192.
    assert_eq!(client.download::<u16>(out, 2), [636.0, -192.0].map(bf16));
}

#[test]
fn rows_are_normed_ordered_and_cast() {
    let client = Client::new("910B3", &[]);
    let row = [3_f32, -4.0, 3.0, 0.0];
    let (out, rstd, places) = (client.allocate(16), client.allocate(4), client.allocate(16));
    let x = client.tensor(&[1, 4], F32, client.upload(&row));
    let gamma = client.tensor(&[4], F32, client.upload(&[1_f32, 2.0, 1.0, 1.0]));
    let (y, factor) = (client.tensor(&[1, 4], F32, out), client.tensor(&[1, 1], F32, rstd));
    run!(client, "aclnnRmsNorm", x => Handle, gamma => Handle, 1e-6 => f64, y => Handle, factor => Handle);
    let by = (34.0 / 4.0 + 1e-6_f64).sqrt();
    close(
        &client.download(out, 4),
        &[3.0 / by, -8.0 / by, 3.0 / by, 0.0].map(|value| value as f32),
    );
    close(&client.download(rstd, 1), &[(1.0 / by) as f32]);

    let (values, indices) = (client.tensor(&[1, 2], F32, out), client.tensor(&[1, 2], I64, places));
    run!(client, "aclnnTopk", x => Handle, 2 => i64, -1 => i64, true => bool, true => bool, values => Handle, indices => Handle);
    assert_eq!(
        client.download::<i64>(places, 2),
        [0, 2],
        "of equal values the first comes first"
    );

    // 1 + 2⁻⁸ and 1 + 3·2⁻⁸ lie between two numbers of bf16: ties go to even.
    let between = client.tensor(&[2], F32, client.upload(&[1.0_f32 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]));
    run!(client, "aclnnCast", between => Handle, BF16 => i32, client.tensor(&[2], BF16, out) => Handle);
    assert_eq!(client.download::<u16>(out, 2), [0x3F80, 0x3F82]);
}

#[test]
fn floats_of_8_bits_exist_on_the_950() {
    let client = Client::new("950PR", &[]);
    let out = client.allocate(6);
    let x = client.tensor(
        &[6],
        F32,
        client.upload(&[1_f32, -1.0, 448.0, 1000.0, 0.001_953_125, 17.0]),
    );
    run!(client, "aclnnCast", x => Handle, E4M3 => i32, client.tensor(&[6], E4M3, out) => Handle);
    assert_eq!(client.download::<u8>(out, 6), [0x38, 0xB8, 0x7E, 0x7E, 0x01, 0x58]);
}

#[test]
fn tokens_find_their_experts_and_come_back() {
    let client = Client::new("950PR", &[]);
    let none: Handle = null_mut();
    // Two tokens, three experts: softplus(ln(e^(s²) − 1)) = s², so these scores are 1, 2, 3 and 3, 2, 1.
    let logit = |score: f64| ((score * score).exp() - 1.0).ln() as f32;
    let logits: Vec<f32> = [1.0, 2.0, 3.0, 3.0, 2.0, 1.0].map(logit).to_vec();
    let [weights, chosen, rows, places, counts] = [16, 16, 64, 16, 24].map(|bytes| client.allocate(bytes));
    let x = client.tensor(&[2, 3], F32, client.upload(&logits));
    let bias = client.tensor(&[3], F32, client.upload(&[0_f32, 10.0, 0.0]));
    let (y, ids) = (
        client.tensor(&[2, 2], F32, weights),
        client.tensor(&[2, 2], I32, chosen),
    );
    run!(client, "aclnnMoeGatingTopKV2", x => Handle, bias => Handle, none => Handle, none => Handle, 2 => i64, 1 => i64,
        1 => i64, 0 => i64, 0 => i64, 2 => i64, false => bool, 1.5 => f64, 1e-20 => f64, y => Handle, ids => Handle,
        none => Handle);
    assert_eq!(client.download::<i32>(chosen, 4), [1, 2, 1, 0], "the bias chooses");
    close(&client.download(weights, 4), &[0.6, 0.9, 0.6, 0.9]);

    let tokens = client.tensor(&[2, 2], BF16, client.upload(&[1.0, 2.0, 3.0, 4.0].map(bf16)));
    let expanded = client.tensor(&[4, 2], BF16, rows);
    let (place, count) = (client.tensor(&[4], I32, places), client.tensor(&[3], I64, counts));
    run!(client, "aclnnMoeInitRoutingV3", tokens => Handle, ids => Handle, none => Handle, none => Handle, 4 => i64,
        4 => i64, 3 => i64, 0 => i64, 1 => i64, true => bool, -1 => i64, none => Handle, 0 => i64, expanded => Handle,
        place => Handle, count => Handle, none => Handle);
    assert_eq!(client.download::<i64>(counts, 3), [1, 2, 1]);
    assert_eq!(client.download::<i32>(places, 4), [1, 3, 2, 0]);
    assert_eq!(
        client.download::<u16>(rows, 8),
        [3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0].map(bf16)
    );

    let out = client.allocate(16);
    run!(client, "aclnnMoeFinalizeRoutingV2", expanded => Handle, place => Handle, none => Handle, none => Handle,
        none => Handle, y => Handle, none => Handle, 2 => i64, client.tensor(&[2, 2], F32, out) => Handle);
    close(&client.download(out, 4), &[1.5, 3.0, 4.5, 6.0]);
}

#[test]
fn sums_have_another_order_when_asked() {
    for (variables, expected) in [
        (&[][..], 1.0),
        (&[("CACHALOT_ASCEND_EMULATOR_SUMS", "backwards")][..], 0.0),
    ] {
        let client = Client::new("910B3", variables);
        let out = client.allocate(4);
        let x = client.tensor(&[1, 3], F32, client.upload(&[1e8_f32, -1e8, 1.0]));
        let ones = client.tensor(&[3, 1], F32, client.upload(&[1_f32; 3]));
        run!(client, "aclnnMm", x => Handle, ones => Handle, client.tensor(&[1, 1], F32, out) => Handle, 0 => i8);
        assert_eq!(client.download::<f32>(out, 1), [expected]);
    }
}
