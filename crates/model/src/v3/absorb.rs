//! The up-projection of latents, cut into what queries absorb and what makes values.
//!
//! `kv_b` holds for each head `N` rows for its key and `V` rows for its value, `[H (N + V), L]`. In the space of the
//! latents a query is multiplied with the transposed key rows, an attended latent with the value rows.

use bytes::Bytes;
use cachalot_chip::MatrixSource;
use cachalot_numerics::{MatrixFormat, ScaleDtype, decode_matrix};

/// `N` and `V` rows of each head.
#[derive(Clone, Copy)]
pub(super) struct HeadRows {
    pub head_count: usize,
    pub key_rows: usize,
    pub value_rows: usize,
}

/// The transposed key rows `[H L, N]` and the value rows `[H V, L]` of all heads.
///
/// Plain matrices and FP8 matrices whose blocks do not straddle heads keep their codes and scales; others are decoded.
pub(super) fn split(source: MatrixSource, rows: HeadRows) -> [MatrixSource; 2] {
    let format = source.format;
    match format {
        MatrixFormat::F32 => split_plain(&source, rows, 4),
        MatrixFormat::Bf16 => split_plain(&source, rows, 2),
        MatrixFormat::Fp8Block {
            rows: block_rows,
            columns,
            scale,
        } if rows.key_rows.is_multiple_of(block_rows)
            && rows.value_rows.is_multiple_of(block_rows)
            && source.columns.is_multiple_of(columns) =>
        {
            split_blocks(&source, rows, [block_rows, columns], scale)
        }
        _ => {
            let values = decode_matrix(format, &source.weights, &source.scales, source.rows, source.columns);
            let decoded = MatrixSource {
                weights: Bytes::from_iter(values.iter().flat_map(|value| value.to_le_bytes())),
                scales: Bytes::new(),
                format: MatrixFormat::F32,
                ..source
            };
            split_plain(&decoded, rows, 4)
        }
    }
}

fn split_plain(source: &MatrixSource, rows: HeadRows, element_bytes: usize) -> [MatrixSource; 2] {
    let cut = Cut::new(&source.weights, rows, source.columns, element_bytes);
    named(source, rows, cut, [source.format; 2], [Bytes::new(), Bytes::new()])
}

/// A transposed block is a block, its scale the same.
fn split_blocks(source: &MatrixSource, rows: HeadRows, block: [usize; 2], scale: ScaleDtype) -> [MatrixSource; 2] {
    let blocks = HeadRows {
        head_count: rows.head_count,
        key_rows: rows.key_rows / block[0],
        value_rows: rows.value_rows / block[0],
    };
    let scales = Cut::new(
        &source.scales,
        blocks,
        source.columns / block[1],
        scale.dtype().byte_count(),
    );
    let transposed = MatrixFormat::Fp8Block {
        rows: block[1],
        columns: block[0],
        scale,
    };
    let cut = Cut::new(&source.weights, rows, source.columns, 1);
    named(
        source,
        rows,
        cut,
        [transposed, source.format],
        [scales.keys.into(), scales.values.into()],
    )
}

fn named(
    source: &MatrixSource,
    rows: HeadRows,
    cut: Cut,
    [key_format, value_format]: [MatrixFormat; 2],
    [key_scales, value_scales]: [Bytes; 2],
) -> [MatrixSource; 2] {
    [
        MatrixSource {
            name: format!("{} (keys, transposed)", source.name),
            rows: rows.head_count * source.columns,
            columns: rows.key_rows,
            format: key_format,
            weights: cut.keys.into(),
            scales: key_scales,
        },
        MatrixSource {
            name: format!("{} (values)", source.name),
            rows: rows.head_count * rows.value_rows,
            columns: source.columns,
            format: value_format,
            weights: cut.values.into(),
            scales: value_scales,
        },
    ]
}

/// Elements of key rows, transposed for each head, and of value rows.
struct Cut {
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Cut {
    fn new(bytes: &[u8], rows: HeadRows, columns: usize, element_bytes: usize) -> Self {
        let row_byte_count = columns * element_bytes;
        let mut cut = Cut {
            keys: Vec::with_capacity(rows.head_count * rows.key_rows * row_byte_count),
            values: Vec::with_capacity(rows.head_count * rows.value_rows * row_byte_count),
        };
        for head in bytes.chunks_exact((rows.key_rows + rows.value_rows) * row_byte_count) {
            let (keys, values) = head.split_at(rows.key_rows * row_byte_count);
            for column in 0..columns {
                for row in 0..rows.key_rows {
                    let element = row * row_byte_count + column * element_bytes;
                    cut.keys.extend_from_slice(&keys[element..][..element_bytes]);
                }
            }
            cut.values.extend_from_slice(values);
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the format, the decoded parts are the transposed key rows and the value rows of the decoded whole.
    #[test]
    fn parts_are_those_of_the_whole() {
        let block = |rows, columns| MatrixFormat::Fp8Block {
            rows,
            columns,
            scale: ScaleDtype::F32,
        };
        let rows = HeadRows {
            head_count: 3,
            key_rows: 4,
            value_rows: 2,
        };
        let columns = 8;
        // The second straddles heads, the third has a short last block.
        for format in [
            block(2, 4),
            block(4, 4),
            block(2, 3),
            MatrixFormat::Bf16,
            MatrixFormat::F32,
        ] {
            let scale_count = format.scale_shape(18, columns).map_or(0, |(_, [a, b])| a * b);
            let scales: Vec<f32> = (0..scale_count).map(|index| 0.5 + index as f32).collect();
            let byte_count = format.byte_count(18, columns) - 4 * scale_count;
            let source = MatrixSource {
                name: "kv_b".to_owned(),
                rows: 18,
                columns,
                format,
                // Below the codes of NaN and infinity in all formats.
                weights: Bytes::from_iter((0..byte_count).map(|index| (index * 37 % 120) as u8)),
                scales: Bytes::from_iter(scales.iter().flat_map(|scale| scale.to_le_bytes())),
            };
            let decode = |m: &MatrixSource| decode_matrix(m.format, &m.weights, &m.scales, m.rows, m.columns);
            let whole = decode(&source);
            let [keys, values] = split(source, rows);
            let (found_keys, found_values) = (decode(&keys), decode(&values));
            for head in 0..3 {
                for column in 0..columns {
                    for row in 0..4 {
                        let expected = whole[(head * 6 + row) * columns + column];
                        assert_eq!(found_keys[(head * columns + column) * 4 + row], expected, "{format}");
                    }
                    for row in 0..2 {
                        let expected = whole[(head * 6 + 4 + row) * columns + column];
                        assert_eq!(found_values[(head * 2 + row) * columns + column], expected, "{format}");
                    }
                }
            }
        }
    }
}
