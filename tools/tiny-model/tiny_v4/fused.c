/* Kernels of the small model for a CPU: forward and backward passes that PyTorch would split into dozens of small
 * operations. All arrays are dense float32, row-major; counts are `long`. `fused.py` owns shapes and memory, and
 * `operations.py` says what each kernel computes. Written so that the compiler vectorises the innermost loops.
 */
#include <math.h>
#include <string.h>

enum { STREAMS = 4, PAIRS = 16, LOGITS = 24 };  /* streams, streams squared, read + write + combination logits */
enum { LANES = 16, ITERATIONS_MAX = 32 };

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* ---- Sinkhorn on 4x4 matrices: entry-major, LANES tokens side by side ------------------------------------------ */

typedef float Matrices[PAIRS][LANES];
typedef float Factors[STREAMS][LANES];

/* Lanes beyond the last token repeat it. */
static void load(Matrices m, const float *from, long token, long tokens) {
    for (int lane = 0; lane < LANES; lane++) {
        const float *row = from + (token + lane < tokens ? token + lane : tokens - 1) * PAIRS;
        for (int e = 0; e < PAIRS; e++) m[e][lane] = row[e];
    }
}

static void softmax_rows(Matrices m) {
    for (int j = 0; j < STREAMS; j++) {
        float *a = m[4 * j], *b = m[4 * j + 1], *c = m[4 * j + 2], *d = m[4 * j + 3];
        for (int l = 0; l < LANES; l++) {
            float top = fmaxf(fmaxf(a[l], b[l]), fmaxf(c[l], d[l]));
            float x = expf(a[l] - top), y = expf(b[l] - top), z = expf(c[l] - top), w = expf(d[l] - top);
            float factor = 1.0f / (x + y + z + w);
            a[l] = x * factor, b[l] = y * factor, c[l] = z * factor, d[l] = w * factor;
        }
    }
}

/* Divides four groups of four entries by their sums: rows with (4, 1), columns with (1, 4). */
static inline void normalise(Matrices m, Factors factors, int group_step, int entry_step, float eps) {
    for (int g = 0; g < STREAMS; g++) {
        float *a = m[g * group_step], *b = a + entry_step * LANES, *c = b + entry_step * LANES,
              *d = c + entry_step * LANES;
        for (int l = 0; l < LANES; l++) {
            float factor = 1.0f / (a[l] + b[l] + c[l] + d[l] + eps);
            factors[g][l] = factor;
            a[l] *= factor, b[l] *= factor, c[l] *= factor, d[l] *= factor;
        }
    }
}

/* y = x / s, s = sum x + eps: dx = (dy - sum(dy * y)) / s */
static inline void normalise_backward(Matrices grad, Matrices out, Factors factors, int group_step, int entry_step) {
    for (int g = 0; g < STREAMS; g++) {
        int e0 = g * group_step, e1 = e0 + entry_step, e2 = e1 + entry_step, e3 = e2 + entry_step;
        for (int l = 0; l < LANES; l++) {
            float factor = factors[g][l], dot = grad[e0][l] * out[e0][l] + grad[e1][l] * out[e1][l] +
                                                grad[e2][l] * out[e2][l] + grad[e3][l] * out[e3][l];
            grad[e0][l] = (grad[e0][l] - dot) * factor, grad[e1][l] = (grad[e1][l] - dot) * factor;
            grad[e2][l] = (grad[e2][l] - dot) * factor, grad[e3][l] = (grad[e3][l] - dot) * factor;
        }
    }
}

static void sinkhorn_forward(const float *logits, float *out, long tokens, long iterations, float eps) {
    for (long n = 0; n < tokens; n += LANES) {
        Matrices m;
        Factors unused;
        load(m, logits, n, tokens);
        softmax_rows(m);
        for (int e = 0; e < PAIRS; e++)
            for (int l = 0; l < LANES; l++) m[e][l] += eps;
        normalise(m, unused, 1, 4, eps);
        for (long i = 1; i < iterations; i++) {
            normalise(m, unused, 4, 1, eps);
            normalise(m, unused, 1, 4, eps);
        }
        for (long l = 0; l < LANES && n + l < tokens; l++)
            for (int e = 0; e < PAIRS; e++) out[(n + l) * PAIRS + e] = m[e][l];
    }
}

/* Runs the iterations again, keeping every step, and walks back. Gradients go to the last 16 of each 24 logits. */
static void sinkhorn_backward(const float *logits, const float *out_grad, float *grad, long tokens, long iterations,
                              float eps) {
    Matrices steps[2 * ITERATIONS_MAX];
    Factors factors[2 * ITERATIONS_MAX];
    for (long n = 0; n < tokens; n += LANES) {
        Matrices soft, m, g;
        load(soft, logits, n, tokens);
        softmax_rows(soft);
        for (int e = 0; e < PAIRS; e++)
            for (int l = 0; l < LANES; l++) m[e][l] = soft[e][l] + eps;
        int step = 0;
        for (long i = 0; i < iterations; i++) {
            if (i) {
                normalise(m, factors[step], 4, 1, eps);
                memcpy(steps[step++], m, sizeof m);
            }
            normalise(m, factors[step], 1, 4, eps);
            memcpy(steps[step++], m, sizeof m);
        }
        load(g, out_grad, n, tokens);
        while (step-- > 0) {
            if (step % 2) normalise_backward(g, steps[step], factors[step], 4, 1);
            else normalise_backward(g, steps[step], factors[step], 1, 4);
        }
        for (int j = 0; j < PAIRS; j += STREAMS)
            for (int l = 0; l < LANES; l++) {
                float dot = 0;
                for (int e = j; e < j + STREAMS; e++) dot += g[e][l] * soft[e][l];
                for (int e = j; e < j + STREAMS; e++) g[e][l] = soft[e][l] * (g[e][l] - dot);
            }
        for (long l = 0; l < LANES && n + l < tokens; l++)
            for (int e = 0; e < PAIRS; e++) grad[(n + l) * LOGITS + LOGITS - PAIRS + e] = g[e][l];
    }
}

/* ---- hyper-connections ------------------------------------------------------------------------------------------ */

/* products [tokens][24]: x times the mixing matrix; becomes the logits of the normalised x. */
void hyper_read_forward(const float *x, float *products, const float *scale, const float *base, float *output,
                        float *read, float *write, float *combination_logits, float *combination, float *inverse_rms,
                        long tokens, long dim, long iterations, float norm_eps, float hyper_eps) {
    for (long n = 0; n < tokens; n++) {
        const float *streams = x + n * STREAMS * dim;
        float squares = 0;
        for (long i = 0; i < STREAMS * dim; i++) squares += streams[i] * streams[i];
        float factor = 1.0f / sqrtf(squares / (STREAMS * dim) + norm_eps);
        inverse_rms[n] = factor;
        float *logit = products + n * LOGITS, *r = read + n * STREAMS, *w = write + n * STREAMS;
        for (int i = 0; i < LOGITS; i++) logit[i] *= factor;
        for (int i = 0; i < STREAMS; i++) {
            r[i] = sigmoid(logit[i] * scale[0] + base[i]) + hyper_eps;
            w[i] = 2 * sigmoid(logit[4 + i] * scale[1] + base[4 + i]);
        }
        for (int i = 0; i < PAIRS; i++) combination_logits[n * PAIRS + i] = logit[8 + i] * scale[2] + base[8 + i];
        for (long i = 0; i < dim; i++)
            output[n * dim + i] =
                r[0] * streams[i] + r[1] * streams[dim + i] + r[2] * streams[2 * dim + i] + r[3] * streams[3 * dim + i];
    }
    sinkhorn_forward(combination_logits, combination, tokens, iterations, hyper_eps);
}

void hyper_read_backward_gates(const float *x, const float *logits, const float *scale, const float *read,
                               const float *write, const float *combination_logits, const float *inverse_rms,
                               const float *output_grad, const float *write_grad, const float *combination_grad,
                               float *gate_grad, float *product_grad, float *norm_grad, long tokens, long dim,
                               long iterations, float hyper_eps) {
    sinkhorn_backward(combination_logits, combination_grad, gate_grad, tokens, iterations, hyper_eps);
    for (long n = 0; n < tokens; n++) {
        const float *streams = x + n * STREAMS * dim, *g = output_grad + n * dim;
        float *gate = gate_grad + n * LOGITS, dots[STREAMS];
        for (int j = 0; j < STREAMS; j++) {
            float dot = 0;
            for (long i = 0; i < dim; i++) dot += g[i] * streams[j * dim + i];
            dots[j] = dot;
        }
        for (int i = 0; i < STREAMS; i++) {
            float s = read[n * STREAMS + i] - hyper_eps, t = write[n * STREAMS + i] * 0.5f;
            gate[i] = dots[i] * s * (1 - s);
            gate[4 + i] = write_grad[n * STREAMS + i] * 2 * t * (1 - t);
        }
        float by_norm = 0;
        for (int i = 0; i < LOGITS; i++) {
            float scaled = gate[i] * scale[i < 4 ? 0 : i < 8 ? 1 : 2];
            by_norm += scaled * logits[n * LOGITS + i];
            product_grad[n * LOGITS + i] = scaled * inverse_rms[n];
        }
        norm_grad[n] = -inverse_rms[n] * inverse_rms[n] / (STREAMS * dim) * by_norm;
    }
}

/* Adds to x_grad what comes through the layer's input and through the norm. */
void hyper_read_backward_streams(const float *x, const float *read, const float *output_grad, const float *norm_grad,
                                 float *x_grad, long tokens, long dim) {
    for (long row = 0; row < tokens * STREAMS; row++) {
        const float *from = x + row * dim, *g = output_grad + row / STREAMS * dim;
        float *to = x_grad + row * dim, weight = read[row], by_norm = norm_grad[row / STREAMS];
        for (long i = 0; i < dim; i++) to[i] += weight * g[i] + by_norm * from[i];
    }
}

void hyper_write_forward(const float *output, const float *x, const float *write, const float *combination,
                         float *streams, long tokens, long dim) {
    for (long n = 0; n < tokens; n++) {
        const float *from = x + n * STREAMS * dim, *c = combination + n * PAIRS, *o = output + n * dim;
        for (int k = 0; k < STREAMS; k++) {
            float w = write[n * STREAMS + k], c0 = c[k], c1 = c[4 + k], c2 = c[8 + k], c3 = c[12 + k];
            float *to = streams + (n * STREAMS + k) * dim;
            for (long i = 0; i < dim; i++)
                to[i] = w * o[i] + c0 * from[i] + c1 * from[dim + i] + c2 * from[2 * dim + i] + c3 * from[3 * dim + i];
        }
    }
}

void hyper_write_backward(const float *output, const float *x, const float *write, const float *combination,
                          const float *grad, float *output_grad, float *x_grad, float *write_grad,
                          float *combination_grad, long tokens, long dim) {
    for (long n = 0; n < tokens; n++) {
        const float *from = x + n * STREAMS * dim, *o = output + n * dim, *w = write + n * STREAMS;
        const float *g0 = grad + n * STREAMS * dim, *g1 = g0 + dim, *g2 = g1 + dim, *g3 = g2 + dim;
        for (long i = 0; i < dim; i++)
            output_grad[n * dim + i] = w[0] * g0[i] + w[1] * g1[i] + w[2] * g2[i] + w[3] * g3[i];
        for (int k = 0; k < STREAMS; k++) {
            float dot = 0;
            for (long i = 0; i < dim; i++) dot += o[i] * g0[k * dim + i];
            write_grad[n * STREAMS + k] = dot;
        }
        for (int j = 0; j < STREAMS; j++) {
            const float *row = from + j * dim, *c = combination + n * PAIRS + 4 * j;
            float *to = x_grad + (n * STREAMS + j) * dim, *cg = combination_grad + n * PAIRS + 4 * j;
            float c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], d0 = 0, d1 = 0, d2 = 0, d3 = 0;
            for (long i = 0; i < dim; i++) {
                d0 += row[i] * g0[i], d1 += row[i] * g1[i], d2 += row[i] * g2[i], d3 += row[i] * g3[i];
                to[i] = c0 * g0[i] + c1 * g1[i] + c2 * g2[i] + c3 * g3[i];
            }
            cg[0] = d0, cg[1] = d1, cg[2] = d2, cg[3] = d3;
        }
    }
}

/* ---- RMS norm, then RoPE of the last 2 * pairs channels; the position of a row is row / heads % length ----------- */

static inline void turn(float *channels, const float *cosine, const float *sine, long pairs, float direction) {
    for (long i = 0; i < pairs; i++) {
        float a = channels[2 * i], b = channels[2 * i + 1], s = direction * sine[i];
        channels[2 * i] = a * cosine[i] - b * s;
        channels[2 * i + 1] = b * cosine[i] + a * s;
    }
}

/* weight may be null; without `normalise` it is not read. */
void norm_rope_forward(const float *x, const float *weight, const float *cosine, const float *sine, float *output,
                       float *inverse_rms, long rows, long heads, long length, long dim, long pairs, long normalise,
                       float direction, float eps) {
    for (long n = 0; n < rows; n++) {
        const float *from = x + n * dim;
        float *to = output + n * dim, factor = 1;
        if (normalise) {
            float squares = 0;
            for (long i = 0; i < dim; i++) squares += from[i] * from[i];
            factor = inverse_rms[n] = 1.0f / sqrtf(squares / dim + eps);
        }
        if (normalise && weight)
            for (long i = 0; i < dim; i++) to[i] = from[i] * factor * weight[i];
        else
            for (long i = 0; i < dim; i++) to[i] = from[i] * factor;
        long position = n / heads % length;
        turn(to + dim - 2 * pairs, cosine + position * pairs, sine + position * pairs, pairs, direction);
    }
}

/* weight_grad is added to. */
void norm_rope_backward(const float *x, const float *weight, const float *cosine, const float *sine,
                        const float *inverse_rms, const float *grad, float *x_grad, float *weight_grad, long rows,
                        long heads, long length, long dim, long pairs, long normalise, float direction) {
    for (long n = 0; n < rows; n++) {
        const float *from = x + n * dim;
        float *to = x_grad + n * dim;
        memcpy(to, grad + n * dim, dim * sizeof(float));
        long position = n / heads % length;
        turn(to + dim - 2 * pairs, cosine + position * pairs, sine + position * pairs, pairs, -direction);
        if (!normalise) continue;
        float factor = inverse_rms[n], dot = 0;
        if (weight)
            for (long i = 0; i < dim; i++) {
                weight_grad[i] += to[i] * from[i] * factor;
                to[i] *= weight[i];
            }
        for (long i = 0; i < dim; i++) dot += to[i] * from[i];
        dot *= factor * factor / dim;
        for (long i = 0; i < dim; i++) to[i] = factor * (to[i] - dot * from[i]);
    }
}

/* ---- softmax over window, compressed entries and sink ------------------------------------------------------------ */

void attention_weights_forward(const float *window, const float *compressed, const unsigned char *window_hidden,
                               const unsigned char *compressed_hidden, const float *sink, float *window_out,
                               float *compressed_out, float *sink_out, long batch, long blocks, long heads, long width,
                               long keys, long entries, float scale) {
    for (long row = 0; row < batch * blocks * heads * width; row++) {
        long in_block = row % width, head = row / width % heads, block = row / width / heads;  /* of all blocks */
        long position = block * width + in_block;                                              /* of all positions */
        long length = blocks * width;
        long other = ((position / length) * heads + head) * length + position % length;
        const float *a = window + row * keys, *b = compressed + other * entries;
        const unsigned char *a_hidden = window_hidden + position * keys;
        const unsigned char *b_hidden = compressed_hidden + position * entries;
        float *p = window_out + row * keys, *q = compressed_out + other * entries;
        float top = sink[head], sum = 0;
        for (long k = 0; k < keys; k++) p[k] = a_hidden[k] ? -1e30f : a[k] * scale, top = fmaxf(top, p[k]);
        for (long k = 0; k < entries; k++) q[k] = b_hidden[k] ? -1e30f : b[k] * scale, top = fmaxf(top, q[k]);
        for (long k = 0; k < keys; k++) p[k] = expf(p[k] - top), sum += p[k];
        for (long k = 0; k < entries; k++) q[k] = expf(q[k] - top), sum += q[k];
        float by_sink = expf(sink[head] - top), factor = 1.0f / (sum + by_sink);
        sink_out[row] = by_sink * factor;
        for (long k = 0; k < keys; k++) p[k] *= factor;
        for (long k = 0; k < entries; k++) q[k] *= factor;
    }
}

/* sink_grad is added to. */
void attention_weights_backward(const float *window_out, const float *compressed_out, const float *sink_out,
                                const float *window_grad, const float *compressed_grad, float *window_in,
                                float *compressed_in, float *sink_grad, long batch, long blocks, long heads, long width,
                                long keys, long entries, float scale) {
    for (long row = 0; row < batch * blocks * heads * width; row++) {
        long in_block = row % width, head = row / width % heads, block = row / width / heads;
        long position = block * width + in_block, length = blocks * width;
        long other = ((position / length) * heads + head) * length + position % length;
        const float *p = window_out + row * keys, *q = compressed_out + other * entries;
        const float *g = window_grad + row * keys, *h = compressed_grad + other * entries;
        float *a = window_in + row * keys, *b = compressed_in + other * entries, dot = 0;
        for (long k = 0; k < keys; k++) dot += p[k] * g[k];
        for (long k = 0; k < entries; k++) dot += q[k] * h[k];
        for (long k = 0; k < keys; k++) a[k] = p[k] * (g[k] - dot) * scale;
        for (long k = 0; k < entries; k++) b[k] = q[k] * (h[k] - dot) * scale;
        sink_grad[head] -= sink_out[row] * dot;
    }
}
