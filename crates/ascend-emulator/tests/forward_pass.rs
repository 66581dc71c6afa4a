//! The operators of one layer, against their formulas worked out by hand.

#[macro_use]
mod client;

use client::*;
use std::ffi::c_char;
use std::ptr::null_mut;

type Text = *const c_char;

const NONE: Handle = null_mut();

/// The number that these bits of bf16 stand for.
fn wide(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[test]
fn streams_mix_in_the_right_direction() {
    let client = Client::new("910B3", &[]);
    // Rows and columns sum to one: the iteration keeps the matrix, which is not symmetric.
    let row = [0.4_f32, 0.3, 0.2, 0.1];
    let kept: Vec<f32> = (0..16).map(|place| row[(place % 4 + 4 - place / 4) % 4]).collect();
    // sigmoid(ln 3) = 3/4.
    let mut bias = vec![3_f32.ln(); 8];
    bias.extend(kept.iter().map(|value| value.ln()));
    let x = client.tensor(&[1, 1, 4, 1], BF16, client.upload(&[1.0, 2.0, 3.0, 4.0].map(bf16)));
    let phi = client.tensor(&[24, 4], F32, client.upload(&[0_f32; 96]));
    let alpha = client.tensor(&[3], F32, client.upload(&[1_f32; 3]));
    let bias = client.tensor(&[24], F32, client.upload(&bias));
    let [hin, post, residual, mixed] = [2, 16, 64, 8].map(|bytes| client.allocate(bytes));
    let (hin_tensor, post_tensor) = (
        client.tensor(&[1, 1, 1], BF16, hin),
        client.tensor(&[1, 1, 4], F32, post),
    );
    let residual_tensor = client.tensor(&[1, 1, 16], F32, residual);
    run!(client, "aclnnMhcPreSinkhorn", x => Handle, phi => Handle, alpha => Handle, bias => Handle, 4 => i64, 20 => i64,
        1e-6 => f64, 1e-6 => f64, false => bool, hin_tensor => Handle, post_tensor => Handle, residual_tensor => Handle,
        NONE => Handle, NONE => Handle, NONE => Handle, NONE => Handle, NONE => Handle);
    assert_eq!(wide(client.download::<u16>(hin, 1)[0]), 7.5, "3/4 of ten");
    assert!(
        client
            .download::<f32>(post, 4)
            .iter()
            .all(|share| (share - 1.5).abs() < 1e-5)
    );
    let found = client.download::<f32>(residual, 16);
    assert!(found.iter().zip(&kept).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");

    // Stream 0 alone holds 10: it goes out by row 0 of the matrix; each stream gets 3/2 of the block's 2.
    let x = client.tensor(&[1, 4, 1], BF16, client.upload(&[10.0, 0.0, 0.0, 0.0].map(bf16)));
    let block = client.tensor(&[1, 1], BF16, client.upload(&[bf16(2.0)]));
    let matrix = client.tensor(&[1, 4, 4], F32, client.upload(&kept));
    let post = client.tensor(&[1, 4], F32, client.upload(&[1.5_f32; 4]));
    let out = client.tensor(&[1, 4, 1], BF16, mixed);
    run!(client, "aclnnMhcPost", x => Handle, matrix => Handle, block => Handle, post => Handle, out => Handle);
    assert_eq!(
        client
            .download::<u16>(mixed, 4)
            .into_iter()
            .map(wide)
            .collect::<Vec<_>>(),
        [7.0, 6.0, 5.0, 4.0]
    );
}

/// One sequence of six tokens, two of them new, whose row at position p is p + 1; one compressed entry of elevens.
struct Sequence {
    client: Client,
    q: Handle,
    caches: [Handle; 2],
    table: Handle,
    lengths: [Handle; 3],
    residual: Handle,
    metadata: Handle,
}

impl Sequence {
    fn new() -> Self {
        let client = Client::new("910B3", &[]);
        let rows = |values: &[f32]| -> Vec<u16> {
            (0..16)
                .flat_map(|row| [bf16(values.get(row).copied().unwrap_or(99.0)); 512])
                .collect()
        };
        let page = |values: &[f32]| client.tensor(&[1, 16, 1, 512], BF16, client.upload(&rows(values)));
        let caches = [page(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), page(&[11.0])];
        let numbers = |values: &[i32]| client.tensor(&[values.len() as i64], I32, client.upload(values));
        let lengths = [numbers(&[0, 2]), numbers(&[6]), numbers(&[1])];
        let residual = numbers(&[2]);
        let table = client.tensor(&[1, 1], I32, client.upload(&[0]));
        let q = client.tensor(&[2, 1, 512], BF16, client.upload(&[0_u16; 1024]));
        let metadata = client.tensor(&[1024], I32, client.allocate(4096));
        Self {
            q,
            caches,
            table,
            lengths,
            residual,
            metadata,
            client,
        }
    }

    fn prepare_metadata(&self, ratio: i64) {
        let [starts, lengths, entries] = self.lengths;
        run!(self.client, "aclnnSparseFlashMlaMetadata", starts => Handle, NONE => Handle, NONE => Handle, NONE => Handle,
            lengths => Handle, entries => Handle, self.residual => Handle, NONE => Handle, NONE => Handle, 1 => i64,
            1 => i64, 512 => i64, 1 => i64, 2 => i64, 0 => i64, 0 => i64, 0 => i64, 0 => i64, ratio => i64, 4 => i64,
            3 => i64, 127 => i64, 0 => i64, c"TND".as_ptr() => Text, c"PA_BBND".as_ptr() => Text, true => bool,
            true => bool, self.metadata => Handle);
    }

    /// The first number of each token's result, or the code of the wait.
    fn attend(&self, residual: Handle, chosen: Handle) -> Result<Vec<f32>, i32> {
        let client = &self.client;
        let address = client.allocate(2048);
        let out = client.tensor(&[2, 1, 512], BF16, address);
        let sinks = client.tensor(&[1], F32, client.upload(&[0_f32]));
        let ([window, compressed], [starts, lengths, entries]) = (self.caches, self.lengths);
        type Tensors = [Handle; 18];
        let tensors: Tensors = [
            self.q,
            window,
            compressed,
            NONE,
            chosen,
            self.table,
            self.table,
            starts,
            NONE,
            NONE,
            NONE,
            lengths,
            entries,
            residual,
            NONE,
            NONE,
            sinks,
            self.metadata,
        ];
        type First = extern "C" fn(
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            f64,
            i64,
            i64,
            i64,
            i64,
            i64,
            Text,
            Text,
            i64,
            bool,
            Handle,
            Handle,
            *mut u64,
            *mut Handle,
        ) -> i32;
        let (mut bytes, mut executor) = (0, NONE);
        let first = client.symbol::<First>("aclnnSparseFlashMlaGetWorkspaceSize");
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r] = tensors;
        let scale = 512_f64.powf(-0.5);
        let code = first(
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            m,
            n,
            o,
            p,
            q,
            r,
            scale,
            4,
            4,
            3,
            127,
            0,
            c"TND".as_ptr(),
            c"PA_BBND".as_ptr(),
            1,
            false,
            out,
            NONE,
            &mut bytes,
            &mut executor,
        );
        assert_eq!(code, 0, "{}", client.message());
        assert_eq!(client.launch("aclnnSparseFlashMla", executor, client.stream), 0);
        match client.synchronise(client.stream) {
            0 => Ok(client
                .download::<u16>(address, 1024)
                .chunks(512)
                .map(|row| wide(row[0]))
                .collect()),
            code => Err(code),
        }
    }
}

#[test]
fn attention_sees_window_entries_and_sink() {
    let sequence = Sequence::new();
    sequence.prepare_metadata(4);
    let none_chosen = sequence
        .client
        .tensor(&[2, 1, 512], I32, sequence.client.upload(&[-1_i32; 1024]));
    // All scores are equal, and the sink counts as one more key: 1 + … + 5 and the entry's 11 over 7, 21 + 11 over 8.
    let bits = |value: f32| wide(((value.to_bits() + 0x8000) >> 16) as u16);
    let cases = [
        (sequence.residual, NONE, [26.0 / 7.0, 32.0 / 8.0]),
        // Without the residual the first query's limit lies before the entry.
        (NONE, NONE, [15.0 / 6.0, 32.0 / 8.0]),
        (sequence.residual, none_chosen, [15.0 / 6.0, 21.0 / 7.0]),
    ];
    for (residual, chosen, expected) in cases {
        assert_eq!(sequence.attend(residual, chosen).unwrap(), expected.map(bits));
    }
}

#[test]
fn metadata_of_other_lengths_is_refused() {
    let sequence = Sequence::new();
    sequence.prepare_metadata(128);
    assert_eq!(sequence.attend(sequence.residual, NONE), Err(507015));
    assert!(sequence.client.message().contains("metadata"));
}

#[test]
fn the_indexer_orders_entries_and_fills_with_minus_one() {
    let client = Client::new("950PR", &[]);
    let mut query = [0_u16; 128];
    query[0] = bf16(1.0);
    let scores = [1.0_f32, -5.0, 3.0, 1.0, 7.0];
    let mut keys = vec![0_u16; 16 * 128];
    scores
        .iter()
        .enumerate()
        .for_each(|(row, &score)| keys[row * 128] = bf16(score));
    let q = client.tensor(&[1, 1, 128], BF16, client.upload(&query));
    let k = client.tensor(&[1, 16, 1, 128], BF16, client.upload(&keys));
    let weights = client.tensor(&[1, 1], F32, client.upload(&[0.5_f32]));
    let starts = client.tensor(&[2], I32, client.upload(&[0, 1]));
    let (entries, residual) = (
        client.tensor(&[1], I32, client.upload(&[4])),
        client.tensor(&[1], I32, client.upload(&[3])),
    );
    let table = client.tensor(&[1, 1], I32, client.upload(&[0]));
    let address = client.allocate(2048);
    let out = client.tensor(&[1, 1, 512], I32, address);
    run!(client, "aclnnLightningIndexerV2", q => Handle, k => Handle, weights => Handle, starts => Handle, NONE => Handle,
        NONE => Handle, entries => Handle, residual => Handle, table => Handle, NONE => Handle, NONE => Handle,
        512 => i64, -1 => i64, c"TND".as_ptr() => Text, c"PA_BBND".as_ptr() => Text, 3 => i64, 4 => i64, 0 => i64,
        out => Handle, NONE => Handle);
    assert_eq!(
        client.download::<i32>(address, 512)[..6],
        [2, 0, 3, 1, -1, -1],
        "the fifth is not there yet"
    );
}

#[test]
fn pairs_are_rotated_and_rows_written() {
    let client = Client::new("910C", &[]);
    let x = client.upload(&[9_f32, 1.0, 2.0, 8.0]);
    let half = client.upload(&[0.5_f32, 0.5]);
    let slice = client.symbol::<extern "C" fn(*const i64, u64) -> Handle>("aclCreateIntArray")([1_i64, 3].as_ptr(), 2);
    let tensor = client.tensor(&[1, 1, 1, 4], F32, x);
    let (cos, sin) = (
        client.tensor(&[1, 1, 1, 2], F32, half),
        client.tensor(&[1, 1, 1, 2], F32, half),
    );
    run!(client, "aclnnInplacePartialRotaryMul", tensor => Handle, cos => Handle, sin => Handle, 1 => i64, slice => Handle);
    assert_eq!(client.download::<f32>(x, 4), [9.0, -0.5, 1.5, 8.0]);

    let rows = client.upload(&[0_f32; 6]);
    let (target, at) = (
        client.tensor(&[3, 2], F32, rows),
        client.tensor(&[2, 1], I32, client.upload(&[2, 0])),
    );
    let updates = client.tensor(&[2, 2], F32, client.upload(&[1_f32, 2.0, 3.0, 4.0]));
    run!(client, "aclnnScatterNdUpdate", target => Handle, at => Handle, updates => Handle);
    assert_eq!(client.download::<f32>(rows, 6), [3.0, 4.0, 0.0, 0.0, 1.0, 2.0]);
}

#[test]
fn windows_become_entries_also_across_steps() {
    let client = Client::new("910C", &[]);
    // One channel, gates all 0: an entry is a mean. Values of a token t: its own window's half 2·t, the next one's t.
    let weights = client.tensor(&[2, 1], BF16, client.upload(&[1.0, 2.0].map(bf16)));
    let gates = client.tensor(&[2, 1], BF16, client.upload(&[0_u16; 2]));
    let offsets = client.tensor(&[4, 2], F32, client.upload(&[0_f32; 8]));
    let address = client.upload(&[0_f32; 2 * 16 * 4]);
    let [state, again] = [0; 2].map(|_| client.tensor(&[2, 16, 4], F32, address));
    let table = client.tensor(&[1, 1], I32, client.upload(&[1]));
    let (first, second): (Vec<u16>, Vec<u16>) = (
        (1..=6).map(|value| bf16(value as f32)).collect(),
        (7..=8).map(|value| bf16(value as f32)).collect(),
    );
    // Window 0: 2 · (1 + 2 + 3 + 4) / 4. Window 1: ((1 + 2 + 3 + 4) + 2 · (5 + 6 + 7 + 8)) / 8, begun in the first step.
    for (tokens, position, expected) in [(first, 0, 5.0), (second, 6, 7.75)] {
        let count = tokens.len() as i64;
        let x = client.tensor(&[count, 1], BF16, client.upload(&tokens));
        let starts = client.tensor(&[2], I32, client.upload(&[0, count as i32]));
        let positions = client.tensor(&[1], I32, client.upload(&[position]));
        let entry = client.allocate(2);
        let out = client.tensor(&[1, 1], BF16, entry);
        run!(client, "aclnnCompressor", x => Handle, weights => Handle, gates => Handle, state => Handle, offsets => Handle,
            table => Handle, starts => Handle, NONE => Handle, positions => Handle, 4 => i64, 2 => i64, 1 => i64,
            4 => i64, out => Handle, again => Handle);
        assert_eq!(wide(client.download::<u16>(entry, 1)[0]), expected);
    }
    assert_eq!(
        client.download::<f32>(address, 128)[64 + 7 * 4..][..4],
        [8.0, 16.0, 0.0, 0.0]
    );
    assert!(
        client.download::<f32>(address, 64).iter().all(|&value| value == 0.0),
        "block 0 stays free"
    );
}
