#!/usr/bin/env python3
"""Writes calls of the emulator's operators with the results that PyTorch computes, one JSON line each.

    python tools/ascend/operator_cases.py > crates/ascend-emulator/tests/operator_cases.jsonl

Needs torch (any build). Formulas are those of the operators' documents; sums are taken in float64.
"""

import json

import torch
import torch.nn.functional as F

TYPES = {
    torch.float32: 0, torch.float16: 1, torch.int8: 2, torch.int32: 3, torch.uint8: 4, torch.int64: 9,
    torch.float64: 11, torch.bool: 12, torch.bfloat16: 27, torch.float8_e4m3fn: 36,
}
INT4, E8M0, E2M1 = 29, 37, 40
BF16, F32, F16, I8, I32, I64 = torch.bfloat16, torch.float32, torch.float16, torch.int8, torch.int32, torch.int64
torch.manual_seed(4)


def raw(t):
    return t.contiguous().view(torch.uint8).numpy().tobytes().hex() if t.dim() else raw(t.reshape(1))


def given(t, dtype=None, dims=None, **view):
    """A tensor to read, or with `expected` in `view` one that is read and written."""
    return {"dims": list(dims or t.shape), "dtype": TYPES[t.dtype] if dtype is None else dtype, "bytes": raw(t)} | view


def out(t, tolerance=0.0, dtype=None, dims=None):
    """A tensor to write; the tolerance is relative above 1 and absolute below."""
    return {"dims": list(dims or t.shape), "dtype": TYPES[t.dtype] if dtype is None else dtype, "expected": raw(t),
            "tolerance": tolerance}


def changed(before, after, tolerance=0.0, dtype=None, dims=None):
    return given(before, dtype, dims, expected=raw(after), tolerance=tolerance)


def swapped(t, dtype=None):
    """The matrix as a view of its transposed storage."""
    held = t.transpose(-1, -2).contiguous()
    strides = list(held.stride())
    strides[-2:] = strides[-1:] + strides[-2:-1]
    return given(held, dtype, list(t.shape), strides=strides, storage=list(held.shape))


def tiled(t):
    """The matrices in tiles of 16 rows and 32 bytes, as the weights' format FRACTAL_NZ lays them out."""
    *lead, rows, columns = t.shape
    width = 32 // t.element_size()
    held = t.reshape(*lead, rows // 16, 16, columns // width, width).movedim(-2, -4).contiguous()
    return given(held, None, list(t.shape), strides=list(t.stride()), storage=list(held.shape), format=29)


def real(x):
    return {"real": x}


def real32(x):
    return {"real32": x}


def scalar(x):
    return {"scalar": x}


def array(*x):
    return {"array": list(x)}


def listed(*x):
    return {"list": list(x)}


def called(operator, *arguments):
    return {"operator": operator, "arguments": arguments}


def together(*calls, chip="910B3"):
    """Calls after each other; tensors of one name share their memory."""
    print(json.dumps({"chip": chip, "calls": calls}, separators=(",", ":")))


def call(operator, *arguments, chip="910B3"):
    together(called(operator, *arguments), chip=chip)


def pattern(t, dims, dtype=None):
    """The numbers over and over, up to the shape."""
    size = t.element_size()
    for dim in dims:
        size *= dim
    return given(t, dtype, dims, size=size)


def repeated(t, dims):
    count = 1
    for dim in dims:
        count *= dim
    return t.flatten().repeat(-(-count // t.numel()))[:count].reshape(dims)


def room(dims, dtype, size, name):
    """Memory that a later call reads by its name."""
    return {"dims": dims, "dtype": dtype, "size": size, "name": name}


def quantised(x):
    """Symmetric int8 per row: scale absmax / 127, ties to even."""
    scale = x.float().abs().amax(-1, keepdim=True) / 127
    return (x.float() / scale).round().to(I8), scale.squeeze(-1)


def elementwise():
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    positive = x.abs() + 0.1
    for name, value, result in [
        ("Exp", x, x.double().exp()), ("Log", positive, positive.double().log()), ("Sqrt", positive, positive.double().sqrt()),
        ("Rsqrt", positive, positive.double().rsqrt()), ("Relu", x, x.relu()), ("Sigmoid", x, x.double().sigmoid()),
        ("Silu", x, F.silu(x.double())),
    ]:
        call(f"aclnn{name}", given(value), out(result.float(), 1e-6))
    half = x.to(BF16)
    call("aclnnSilu", given(half), out(F.silu(half.double()).to(BF16), 2**-8))
    call("aclnnSoftplus", given(x * 9), scalar(2.0), scalar(3.0), out(F.softplus(x.double() * 9, 2.0, 3.0).float(), 1e-6))
    call("aclnnClamp", given(x), scalar(-0.5), scalar(0.25), out(x.clamp(-0.5, 0.25)))
    call("aclnnAdd", given(x), given(y[:1]), scalar(0.5), out(torch.add(x, y[:1], alpha=0.5), 1e-6))
    call("aclnnSub", given(x), given(y), scalar(2.0), out(torch.sub(x, y, alpha=2), 1e-6))
    call("aclnnAdds", given(x), scalar(3.0), scalar(0.5), out(torch.add(x, 3.0, alpha=0.5), 1e-6))
    call("aclnnSubs", given(x), scalar(3.0), scalar(0.5), out(torch.sub(x, 3.0, alpha=0.5), 1e-6))
    call("aclnnDivs", given(x), scalar(2.0), out(x / 2))
    call("aclnnMul", given(x), given(y[:, :1].contiguous()), out(x * y[:, :1], 1e-6))
    call("aclnnMuls", given(x), scalar(-1.5), out(x * -1.5, 1e-6))
    call("aclnnDiv", given(x), given(positive), out(x / positive, 1e-6))
    zeros = torch.zeros(2, 3)
    call("aclnnInplaceCopy", changed(zeros, y[:1].expand(2, 3)), given(y[:1]))
    call("aclnnInplaceZero", changed(x, zeros))
    call("aclnnInplaceFillScalar", changed(x, zeros + 2.5), scalar(2.5))
    call("aclnnArange", scalar(1.0), scalar(4.5), scalar(0.5), out(torch.arange(1.0, 4.5, 0.5)))
    numbers = torch.tensor([2.5, -3.5, 1e3, 0.4])
    call("aclnnCast", given(numbers), 3, out(numbers.to(I32)))
    call("aclnnCast", given(numbers), 1, out(numbers.to(F16)))
    call("aclnnCast", given(numbers), 27, out(numbers.to(BF16)))


def moves():
    x = torch.randn(2, 3, 4)
    call("aclnnPermute", given(x), array(2, 0, 1), out(x.permute(2, 0, 1).contiguous()))
    call("aclnnSlice", given(x), 2, 1, 4, 2, out(x[:, :, 1:4:2].contiguous()))
    index = torch.tensor([2, 0, 2])
    call("aclnnIndexSelect", given(x), 1, given(index), out(x.index_select(1, index)))
    call("aclnnGatherV2", given(x), 1, given(index.to(I32)), out(x.index_select(1, index)))
    table = torch.randn(5, 4).to(BF16)
    ids = torch.tensor([[4, 0], [1, 1]])
    call("aclnnEmbedding", given(table), given(ids), out(F.embedding(ids, table)))
    call("aclnnCat", listed(given(x), given(x[:, :1].contiguous())), 1, out(torch.cat([x, x[:, :1]], 1)))


def rows():
    x = torch.randn(3, 5)
    call("aclnnSoftmax", given(x), -1, out(x.double().softmax(-1).float(), 1e-6))
    call("aclnnSoftmax", given(x), 0, out(x.double().softmax(0).float(), 1e-6))
    call("aclnnLogSoftmax", given(x), -1, out(x.double().log_softmax(-1).float(), 1e-6))
    call("aclnnCumsum", given(x), 1, 0, out(x.double().cumsum(1).float(), 1e-6))
    call("aclnnReduceSum", given(x), array(0), True, 0, out(x.double().sum(0, keepdim=True).float(), 1e-6))
    call("aclnnReduceSum", given(x), array(-1), False, 0, out(x.double().sum(-1).float(), 1e-6))
    values, places = x.sort(dim=1, descending=True, stable=True)
    call("aclnnSort", given(x), True, 1, True, out(values), out(places))
    values, places = x.sort(dim=0, stable=True)
    call("aclnnSort", given(x), True, 0, False, out(values), out(places))
    values, places = x.topk(2, largest=False)
    call("aclnnTopk", given(x), 2, 1, False, True, out(values), out(places))
    call("aclnnArgMax", given(x), 1, False, out(x.argmax(1)))
    call("aclnnArgMax", given(x), 0, True, out(x.argmax(0, keepdim=True)))
    gate, up = x[:, :4].double().chunk(2, -1)
    call("aclnnSwiGlu", given(x[:, :4].contiguous()), -1, out((F.silu(gate) * up).float(), 1e-6))
    half, gamma = torch.randn(3, 8).to(BF16), torch.randn(8).to(BF16)
    rstd = (half.double().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    call("aclnnRmsNorm", given(half), given(gamma), real(1e-6),
         out((half.double() * rstd * gamma.double()).to(BF16), 2**-8), out(rstd.float(), 1e-6))
    q, scale = quantised(half)
    call("aclnnDynamicQuant", given(half), None, out(q), out(scale, 1e-7))


def dense():
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    call("aclnnBatchMatMul", given(a), given(b), out((a.double() @ b.double()).float(), 1e-5), 0)
    call("aclnnBatchMatMul", given(a.to(BF16)), swapped(b.to(BF16)),
         out((a.to(BF16).double() @ b.to(BF16).double()).to(BF16), 2**-7), 0)
    call("aclnnMatmul", given(a[0]), swapped(b[0]), out((a[0].double() @ b[0].double()).float(), 1e-5), 0)
    call("aclnnMm", given(a[0]), given(b[0]), out((a[0].double() @ b[0].double()).float(), 1e-5), 0)
    x, w = torch.randn(3, 2, 4).to(BF16), torch.randn(2, 4, 5).to(BF16)
    grouped = torch.einsum("tgk,gkn->tgn", x.double(), w.double()).to(BF16)
    call("aclnnTransposeBatchMatMul", given(x), given(w), None, None, array(1, 0, 2), array(0, 1, 2), array(1, 0, 2), 0, 1,
         out(grouped, 2**-7))
    k, n = 32, 32
    x1, x2 = torch.randint(-128, 128, (3, k)).to(I8), torch.randint(-128, 128, (k, n)).to(I8)
    s1, s2 = torch.rand(3) / 100, torch.rand(n) / 100
    y = ((x1.double() @ x2.double()) * s1.double()[:, None] * s2.double()).to(BF16)
    call("aclnnQuantMatmulV4", given(x1), given(x2), given(s2), None, given(s1), None, False, False, out(y, 2**-7))
    call("aclnnQuantMatmulV4", given(x1), given(x2.T.contiguous()), given(s2), None, given(s1), None, False, True, out(y, 2**-7))
    call("aclnnQuantMatmulV5", given(x1), swapped(x2), given(s1), given(s2), None, None, None, None, None, False, False, 0,
         out(y, 2**-7))
    call("aclnnQuantMatmulWeightNz", given(x1), tiled(x2), given(s1), given(s2), None, None, None, None, None, False, False, 0,
         out(y, 2**-7))
    call("aclnnMatmulWeightNz", given(torch.eye(32).to(BF16)), tiled(torch.arange(1024.0).reshape(32, 32).to(BF16)),
         out(torch.arange(1024.0).reshape(32, 32).to(BF16)), 0)


def experts():
    m, k, n, e = 5, 32, 32, 3
    counts = torch.tensor([2, 0, 3])
    owner = torch.repeat_interleave(torch.arange(e), counts)
    x, w = torch.randint(-128, 128, (m, k)).to(I8), torch.randint(-128, 128, (e, k, n)).to(I8)
    scale, token = torch.rand(e, n) / 100, torch.rand(m) / 100
    y = (torch.einsum("mk,mkn->mn", x.double(), w[owner].double()) * scale[owner].double() * token.double()[:, None]).to(BF16)

    def grouped(weight, groups, kind, **more):
        call("aclnnGroupedMatmulV5", listed(given(x)), listed(weight), None, listed(given(scale)), None, None, None,
             listed(given(token)), given(groups), None, None, None, 3, 0, kind, 0, None, listed(out(y, 2**-7)), None, None, **more)

    grouped(given(w), counts, 1)
    grouped(tiled(w), counts.cumsum(0), 0, chip="910C")
    floats, matrices = torch.randn(m, k).to(BF16), torch.randn(e, k, n).to(BF16)
    plain = torch.einsum("mk,mkn->mn", floats.double(), matrices[owner].double()).to(BF16)
    call("aclnnGroupedMatmulV5", listed(given(floats)), listed(given(matrices)), None, None, None, None, None, None,
         given(counts), None, None, None, 3, 0, 1, 0, None, listed(out(plain, 2**-6)), None, None)

    wide = (torch.randn(4, 16) * 8).to(BF16)
    groups = torch.tensor([1, 3])
    for mode, chip in [(2, "910B3"), (1, "950PR")]:
        gate, up = (wide[:, ::2], wide[:, 1::2]) if mode == 1 else wide.chunk(2, -1)
        gate, up = gate.double().clamp(max=10.0), up.double().clamp(-10, 10)
        q, s = quantised((gate * gate.sigmoid() * up).float())
        call("aclnnDequantSwigluQuantV2", given(wide), None, None, None, None, None, given(groups), True, "dynamic", 2, "rint",
             -1, mode, real(10.0), real(1.0), real(0.0), out(q), out(s, 1e-6), chip=chip)


def caches():
    cache, rows = torch.zeros(2, 16, 1, 4).to(BF16), torch.randn(3, 1, 4).to(BF16)
    slots = torch.tensor([17, -1, 2], dtype=I32)
    after = cache.clone().view(32, 1, 4)
    after[17], after[2] = rows[0], rows[2]
    after = after.view_as(cache)
    none = [None] * 5
    call("aclnnScatterPaKvCache", given(rows), changed(cache, after), given(slots), *none, "Norm", None, None, None)
    call("aclnnScatterPaKvCache", given(rows), changed(cache, after), given(slots), given(rows), changed(cache, after),
         None, None, None, None, None, None, None, chip="950PR")
    pages = torch.randn(3, 4, 1, 2)
    table, lengths = torch.tensor([[2, 0], [1, -1]], dtype=I32), torch.tensor([5, 2], dtype=I32)
    want = torch.cat([pages[2], pages[0, :1], pages[1, :2]])
    empty = torch.zeros_like(want)
    call("aclnnGatherPaKvCache", given(pages), given(pages + 1), given(table), given(lengths), changed(empty, want),
         changed(empty, want + 1), None, "Norm", False)
    x, values = torch.randn(4, 3), torch.randn(3, 3)
    index = torch.tensor([3, 1, 3])
    call("aclnnIndexPutImpl", changed(x, x.clone().index_put((index,), values, accumulate=True), 1e-6), listed(given(index)),
         given(values), True, False)
    columns = torch.tensor([0, 2, 1])
    call("aclnnIndexPutImpl", changed(x, x.clone().index_put((index, columns), values[0])),
         listed(given(index), given(columns)), given(values[0]), False, False)


def norms():
    a, b = torch.randn(3, 8).to(BF16), torch.randn(3, 8).to(BF16)
    gamma, smooth, beta = torch.randn(8).to(BF16), torch.rand(8).to(BF16), torch.randn(8).to(BF16)
    total = a + b
    rstd = (total.double().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    y = total.double() * rstd * gamma.double()
    call("aclnnAddRmsNorm", given(a), given(b), given(gamma), real(1e-6), out(y.to(BF16), 2**-8), out(rstd.float(), 1e-6),
         out(total))
    q, scale = quantised(y)
    call("aclnnAddRmsNormDynamicQuantV2", given(a), given(b), given(gamma), None, None, None, real(1e-6), None, out(q), None,
         out(total), out(scale, 1e-6), None)
    q, scale = quantised((y + beta.double()) * smooth.double())
    call("aclnnRmsNormDynamicQuant", given(total), given(gamma), given(smooth), given(beta), real(1e-6), 2, out(q),
         out(scale, 1e-6))
    call("custom_aclnnRmsNormDynamicQuant", given(total), given(gamma), given(smooth), None, given(beta), real(1e-6), None, 2,
         out(q), None, out(scale, 1e-6), None)
    numbers = torch.tensor([3, 0, 3, 1], dtype=I32)
    call("aclnnBincount", given(numbers), None, 6, out(numbers.bincount(minlength=6)))
    weights = torch.randn(4)
    call("aclnnBincount", given(numbers), given(weights), 5, out(numbers.bincount(weights, minlength=5), 1e-6))
    w = torch.randint(-128, 128, (32, 64)).to(I8)
    nz = tiled(w)
    call("aclnnNpuFormatCast", given(w), {key: nz[key] for key in nz if key != "bytes"} | {"expected": nz["bytes"]})


def blocks():
    k, n = 512, 256
    x, line = torch.randint(-128, 128, (2, k)).to(I8), torch.randint(-128, 128, (509,)).to(I8)
    w = repeated(line, (n, k))
    s1, s2 = torch.rand(2, k // 128) / 100, torch.rand(n // 128, k // 128) / 100
    scaled = x.double() * s1.double().repeat_interleave(128, 1)
    y = scaled @ (w.double() * s2.double().repeat_interleave(128, 0).repeat_interleave(128, 1)).T
    call("aclnnQuantMatmulV5", given(x), pattern(line, [n, k]), given(s1), given(s2), None, None, None, None, None, False, True,
         (1 << 32) | (128 << 16) | 128, out(y.to(BF16), 2**-7))
    m, k, n, e = 4, 32, 64, 2
    counts = torch.tensor([3, 1])
    owner = torch.repeat_interleave(torch.arange(e), counts)
    x, scale, token = torch.randint(-128, 128, (m, k)).to(I8), torch.rand(e, n) / 100, torch.rand(m) / 100
    w = torch.randint(-128, 128, (e, k, n)).to(I8)
    y = torch.einsum("mk,mkn->mn", x.double(), w[owner].double()) * scale[owner].double() * token.double()[:, None]
    call("aclnnGroupedMatmulWeightNz", listed(given(x)), listed(tiled(w)), None, listed(given(scale)), None, None, None,
         listed(given(token)), given(counts), None, None, None, 3, 0, 1, 0, None, 0, listed(out(y.to(BF16), 2**-7)), None, None)
    w = torch.randint(-8, 8, (e, k, n))
    y = torch.einsum("mk,mkn->mn", x.double(), w[owner].double()) * scale[owner].double() * token.double()[:, None]
    pairs = (w[..., ::2] & 15 | (w[..., 1::2] & 15) << 4).to(torch.uint8)
    packed = scale.view(torch.int32).to(I64) & 0xFFFFFFFF
    bias = (8 * (w.double() * scale.double()[:, None]).sum(1)).float()
    call("aclnnGroupedMatmulV5", listed(given(x)), listed(given(pairs, INT4, [e, k, n])), listed(given(bias)),
         listed(given(packed, 10)), None, None, None, listed(given(token)), given(counts), None, None, None, 3, 0, 1, 0, None,
         listed(out(y.to(BF16), 2**-7)), None, None)


def gates():
    x, bias = torch.randn(3, 8), torch.randn(8)
    chosen = x.double().softmax(-1).topk(2)
    call("aclnnMoeGatingTopK", given(x), None, 2, 1, 1, 0, 0, 0, False, real(2.0), real(1e-20),
         out((2 * chosen.values).float(), 1e-6), out(chosen.indices.to(I32)), None)
    scores = x.double().sigmoid()
    biased = (scores + bias.double()).view(3, 4, 2)
    kept = biased.topk(2).values.sum(-1).topk(2).indices
    mask = torch.zeros(3, 4, dtype=torch.bool).scatter(1, kept, True).repeat_interleave(2, 1)
    places = biased.view(3, 8).masked_fill(~mask, -torch.inf).topk(3).indices
    weights = scores.gather(1, places)
    weights = 2.5 * weights / weights.sum(-1, keepdim=True)
    call("aclnnMoeGatingTopK", given(x), given(bias), 3, 2, 4, 1, 0, 1, True, real(2.5), real(1e-20),
         out(weights.float(), 1e-6), out(places.to(I32)), out(scores.float(), 1e-6))
    scores = F.softplus(x.double()).sqrt()
    ids, table = torch.tensor([1, 0, 1], dtype=I32), torch.tensor([[7, 2], [0, 5]], dtype=I32)
    for by_table in [False, True]:
        places = table[ids].to(I64) if by_table else (scores + bias.double()).topk(2).indices
        weights = scores.gather(1, places)
        weights = 1.5 * weights / weights.sum(-1, keepdim=True)
        call("custom_aclnnMoeGatingTopKHash", given(x), None if by_table else given(bias), *([given(ids), given(table)] if by_table
             else [None, None]), 2, 1, 1, real(1.5), real(1e-20), 0, 0, 2, False, out(weights.float(), 1e-6),
             out(places.to(I32)), None)


def streams():
    x, phi = torch.randn(2, 4, 8).to(BF16), torch.randn(24, 32) / 4
    alpha, bias, block = torch.rand(3), torch.randn(24), torch.randn(2, 8).to(BF16)
    flat = x.double().flatten(1)
    mixes = (flat @ phi.double().T) * (flat.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    mixes = mixes * alpha.double().repeat_interleave(torch.tensor([4, 4, 16])) + bias.double()
    pre, post = mixes[:, :4].sigmoid() + 1e-6, 2 * mixes[:, 4:8].sigmoid()
    matrix = mixes[:, 8:].view(2, 4, 4).softmax(-1) + 1e-6
    matrix = matrix / (matrix.sum(1, keepdim=True) + 1e-6)
    for _ in range(19):
        matrix = matrix / (matrix.sum(2, keepdim=True) + 1e-6)
        matrix = matrix / (matrix.sum(1, keepdim=True) + 1e-6)
    hidden = (pre[..., None] * x.double()).sum(1)
    call("custom_aclnnHcPre", given(x), given(phi), given(alpha), given(bias), 4, 20, real(1e-6), real(1e-6),
         out(hidden.to(BF16), 2**-7), out(post.float(), 1e-5), out(matrix.float(), 1e-5))
    call("aclnnMhcPreSinkhorn", given(x), given(phi), given(alpha), given(bias), 4, 20, real(1e-6), real(1e-6), False,
         out(hidden.to(BF16), 2**-7), out(post.float(), 1e-5), out(matrix.float(), 1e-5), None, None, None, None, None)
    post, matrix = post.float(), matrix.float()
    mixed = torch.einsum("tij,tid->tjd", matrix.double(), x.double()) + post.double()[..., None] * block.double()[:, None]
    call("custom_aclnnHcPost", given(block), given(x), given(post), given(matrix), out(mixed.to(BF16), 2**-7))
    x = torch.randn(2, 1, 3, 8)
    angle = torch.randn(2, 2).repeat_interleave(2, -1)
    pair = torch.stack([-x[..., 5:8:2], x[..., 4:7:2]], -1).flatten(-2)
    turned = torch.cat([x[..., :4], x[..., 4:] * angle.cos()[:, None, None] + pair * angle.sin()[:, None, None]], -1)
    table = [given(t.view(2, 1, 1, 4)) for t in (angle.cos(), angle.sin())]
    call("custom_aclnnInplacePartialRotaryMul", changed(x, turned, 1e-6), *table, 1, array(4, 8))


def attention():
    q, line, sinks = torch.randn(2, 2, 512).to(BF16), torch.randn(1021).to(BF16), torch.randn(2)
    window = repeated(line, (2, 16, 512)).double().view(32, 512)
    cached = repeated(line.flip(0), (1, 16, 512)).double().view(16, 512)
    starts, lengths = torch.tensor([0, 2], dtype=I32), torch.tensor([19], dtype=I32)
    tables = torch.tensor([[1, 0]], dtype=I32), torch.tensor([[0]], dtype=I32)
    results = []
    for token, position in enumerate([17, 18]):
        own = torch.cat([window[16:], window[:16]])[: position + 1]
        keys = torch.cat([own, cached[: (position + 1) // 4]])
        scores = torch.cat([q[token].double() @ keys.T * 512**-0.5, sinks.double()[:, None]], -1)
        results.append(scores.softmax(-1)[:, :-1] @ keys)
    metadata = room([1024], 3, 4096, "metadata")
    page = pattern(line, [2, 16, 1, 512]), pattern(line.flip(0), [1, 16, 1, 512])
    together(
        called("custom_aclnnSparseAttnSharedkvMetadata", given(starts), None, None, None, given(lengths), 2, 1, 512, 1, 2, 19, 0,
               0, 4, 4, 3, 127, 0, "TND", "PA_ND", True, True, metadata),
        called("custom_aclnnSparseAttnSharedkv", given(q), *page, None, None, given(tables[0]), given(tables[1]), given(starts),
               None, None, None, given(lengths), given(sinks), metadata, real(512**-0.5), 4, 4, 3, 0, 0, 127, 0, "TND", "PA_ND",
               False, out(torch.stack(results).to(BF16), 2**-6), None))
    q, line, weights = torch.randn(2, 4, 128).to(BF16), torch.randn(1021).to(BF16), torch.rand(2, 4)
    keys = repeated(line, (1, 16, 1, 128)).double().view(16, 128)
    entries, residual = torch.tensor([9], dtype=I32), torch.tensor([1], dtype=I32)
    rows = torch.full((2, 1, 512), -1, dtype=I32)
    for token, visible in enumerate([9, 9]):
        scores = (weights[token].double()[:, None] * (q[token].double() @ keys[:visible].T).relu()).sum(0)
        rows[token, 0, :visible] = scores.sort(descending=True).indices.to(I32)
    metadata = room([1024], 3, 4096, "metadata")
    together(
        called("aclnnLightningIndexerV2Metadata", given(starts), None, None, given(entries), given(residual), 4, 1, 128, 512, 1,
               2, 9, "TND", "PA_BBND", 3, 4, metadata),
        called("aclnnLightningIndexerV2", given(q), pattern(line, [1, 16, 1, 128]), given(weights), given(starts), None, None,
               given(entries), given(residual), given(tables[1]), None, metadata, 512, -1, "TND", "PA_BBND", 3, 4, 0, out(rows),
               None))


if __name__ == "__main__":
    for part in [elementwise, moves, rows, dense, experts, caches, norms, blocks, gates, streams, attention]:
        part()
