//! The DSpark stages: a block of tokens in one pass, then a Markov bias from each token to the next.

use cachalot_chip::{Add, Attention, CopyTensor, Embed, GatherRows, LinearRounding, Tensor, WriteTail};

use super::{Drafting, Run, weights::Dspark};
use crate::{
    DraftRequest, Error,
    draft::Choose,
    step::Step,
    v4::{memory::LayerState, pass::Pass, weights::Layer},
};

impl Drafting<'_> {
    pub(super) fn draft_block(
        &self,
        dspark: &Dspark,
        requests: &mut [DraftRequest<'_>],
        group: &[usize],
        choose: &mut Choose<'_>,
        drafts: &mut [Vec<u32>],
    ) -> Result<(), Error> {
        let base = self.block_logits(dspark, requests, group)?;
        let mut active = group.to_vec();
        for index in 0.. {
            let rows: Vec<i32> = active
                .iter()
                .filter_map(|request| group.iter().position(|other| other == request))
                .map(|place| (place * dspark.block_size + index) as i32)
                .collect();
            let previous: Vec<Run> = active
                .iter()
                .map(|request| Run {
                    slot: requests[*request].sequence.slot,
                    first: index,
                    tokens: drafts[*request]
                        .last()
                        .or(requests[*request].tokens.last())
                        .into_iter()
                        .copied()
                        .collect(),
                })
                .collect();
            let step = self.begin(&self.state.inputs, &previous)?;
            let pass = self.pass(&step)?;
            let (logits, confidences) = self.markov(&pass, dspark, &base, &rows)?;
            let outputs = (&logits, Some(&confidences));
            self.choose(index, &mut active, outputs, requests, choose, drafts)?;
            if active.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Logits of all rows of the blocks, before the Markov bias; `collapsed` holds what they were made from.
    fn block_logits(&self, dspark: &Dspark, requests: &[DraftRequest<'_>], group: &[usize]) -> Result<Tensor, Error> {
        let block = dspark.block_size;
        let (mut runs, mut lone_runs) = (Vec::new(), Vec::new());
        for request in group {
            let DraftRequest { sequence, tokens, .. } = &requests[*request];
            let (slot, first) = (sequence.slot, sequence.length - sequence.taps_from);
            let mut inputs = vec![dspark.noise_token; block];
            inputs[0] = tokens[sequence.length];
            lone_runs.extend(inputs.iter().map(|token| Run {
                slot,
                first: first + block - 1,
                tokens: vec![*token],
            }));
            runs.push(Run {
                slot,
                first,
                tokens: inputs,
            });
        }
        let lone = self.begin(&self.state.lone_inputs, &lone_runs)?;
        let step = self.begin(&self.state.inputs, &runs)?;
        let pass = self.pass(&step)?;
        pass.step.enqueue(Embed {
            table: &self.memory.model.weights.embed,
            tokens: &pass.step.inputs.tokens,
            streams: &pass.workspace.streams,
        })?;
        for (weights, state) in self.drafter.stages.iter().zip(&self.state.stages) {
            pass.expect_rows(&weights.experts);
            self.block_attention(&pass, &lone, weights, state, block)?;
            pass.feed_forward(weights)?;
        }
        let base = self.state.base_logits.narrow(0, pass.step.row_count);
        self.head(&pass, &base)?;
        Ok(base)
    }

    /// Attention in which every row of a block sees the window before it and the whole block.
    ///
    /// The block's keys go into the ring first. Then every row is a sequence of its own that stands at the block's last
    /// position, whose key is therefore the fresh one of all rows.
    fn block_attention(
        &self,
        pass: &Pass<'_>,
        lone: &Step<'_>,
        layer: &Layer,
        state: &LayerState,
        block: usize,
    ) -> Result<(), Error> {
        let (workspace, config) = (&pass.workspace, pass.config);
        let weights = &layer.attention;
        pass.enter(&layer.attention_hyper, &layer.attention_norm)?;
        pass.query(weights, &workspace.plain_angles)?;
        pass.window_keys(weights, &workspace.plain_angles)?;
        pass.step.enqueue(WriteTail {
            rows: pass.step.rows(),
            x: &workspace.packed_kv,
            ring: &state.window_tail,
        })?;
        let last: Vec<i32> = (0..pass.step.row_count)
            .map(|row| (row / block * block + block - 1) as i32)
            .collect();
        let last_keys = self.state.last_keys.narrow(0, pass.step.row_count);
        self.gather(pass, &workspace.packed_kv, &last, &last_keys)?;
        pass.step.enqueue(Attention {
            rows: lone.rows(),
            query: &workspace.query,
            fresh: &last_keys,
            tail: &state.window_tail,
            format: pass.step.options.row_format(),
            rotary: config.qk_rope_head_dim,
            window: config.sliding_window + block,
            entries: None,
            sink: &weights.sink,
            scale: (config.head_dim as f32).powf(-0.5),
            out: &workspace.attended,
        })?;
        pass.output(weights, &workspace.plain_angles)?;
        pass.leave()
    }

    /// Logits with the bias of the token before, and confidences, for some rows of the blocks; the step's tokens are
    /// the tokens before.
    fn markov(&self, pass: &Pass<'_>, dspark: &Dspark, base: &Tensor, rows: &[i32]) -> Result<(Tensor, Tensor), Error> {
        let (count, d, rank) = (rows.len(), pass.config.hidden_size, dspark.markov_w2.columns());
        let narrow = |tensor: &Tensor| tensor.narrow(0, count);
        let (logits, bias, markov) = (
            narrow(&self.state.logits),
            narrow(&self.state.bias),
            narrow(&self.state.markov),
        );
        pass.step.enqueue(Embed {
            table: &dspark.markov_w1,
            tokens: &pass.step.inputs.tokens,
            streams: &markov.reshape(&[count, 1, rank]),
        })?;
        pass.step
            .linear(&markov, &dspark.markov_w2, LinearRounding::F32, &bias)?;
        self.gather(pass, base, rows, &logits)?;
        pass.step.enqueue(Add {
            a: &logits,
            b: &bias,
            out: &logits,
        })?;
        let collapsed = &pass.workspace.input;
        pass.step.enqueue(GatherRows {
            x: &self.state.collapsed,
            rows: &narrow(&self.state.indices),
            out: collapsed,
        })?;
        for row in 0..count {
            let start = row * (d + rank);
            for (x, first, width) in [(collapsed, start, d), (&markov, start + d, rank)] {
                pass.step.enqueue(CopyTensor {
                    x: &x.narrow(row, 1).reshape(&[width]),
                    out: &self.state.joined.narrow(first, width),
                })?;
            }
        }
        let joined = self
            .state
            .joined
            .narrow(0, count * (d + rank))
            .reshape(&[count, d + rank]);
        let confidences = narrow(&self.state.confidences);
        pass.step
            .linear(&joined, &dspark.confidence, LinearRounding::F32, &confidences)?;
        Ok((logits, confidences))
    }
}
