#!/usr/bin/env python3
"""Huawei's unmodified torch_npu as a client of the emulator; prints what agrees with PyTorch on the CPU.

    cargo build -p cachalot-ascend-emulator
    python3.11 -m venv target/npu
    target/npu/bin/pip install --no-deps torch==2.9.0 torch-npu==2.9.0.post9
    target/npu/bin/pip install numpy pyyaml typing_extensions sympy filelock jinja2 fsspec networkx decorator attrs psutil scipy
    target/npu/bin/python tools/ascend/torch_npu_client.py target/debug/ascend-emulator

Exits with 1 when a check fails. Libraries that torch_npu links and this emulator is not (graph engine, single-op compiler,
and CUDA, which the x86-64 build of torch 2.9 wants) are replaced by empty ones made here: needs gcc and binutils.
"""

import collections
import glob
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SYSTEM = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6",
          "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libgomp.so.1", "libutil.so.1"}
COMPILER = """
int aclSetCompileopt(int a, const char *b) { return 0; }
unsigned long aclGetCompileoptSize(int a) { return 256; }
int aclGetCompileopt(int a, char *b, unsigned long n) { if (n) b[0] = 0; return 0; }
int aclopSetCompileFlag(int a) { return 0; }
int aclrtCtxSetSysParamOpt(int a, long b) { return 0; }
"""


def read(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def symbols(library):
    """Undefined names with their versions, defined names without."""
    undefined, defined = set(), set()
    for line in read("nm", "-D", library).splitlines():
        *_, kind, name = line.split()
        if kind in "Uw":
            undefined.add(name)
        else:
            defined.add(name.split("@")[0])
    return undefined, defined


def shared(folder, name, *more):
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / name, f"-Wl,-soname,{name}", *more], check=True)


def stand_ins(folder, emulator):
    """Empty libraries for all that torch and torch_npu link and that is not here; their functions return 100."""
    packages = [Path(importlib.util.find_spec(name).submodule_search_locations[0]) for name in ("torch", "torch_npu")]
    libraries = [found for package in packages for found in glob.glob(f"{package}/lib/*.so*") + glob.glob(f"{package}/_C*.so")]
    here = {os.path.basename(found) for found in libraries} | set(os.listdir(folder))
    needed, undefined, defined, versions = set(), set(), symbols(emulator)[1], {}
    for library in libraries:
        needed |= set(re.findall(r"NEEDED.*\[(.*?)\]", read("readelf", "-dW", library)))
        owner = None
        for line in read("readelf", "-VW", library).splitlines():
            if found := re.search(r"File: (\S+)", line):
                owner = found.group(1)
            elif owner and (found := re.search(r"Name: (\S+)  Flags", line)):
                versions[found.group(1)] = owner
        own_undefined, own_defined = symbols(library)
        undefined |= own_undefined
        defined |= own_defined
    for name in SYSTEM:
        for found in glob.glob(f"/lib/*-linux-gnu/{name}") + glob.glob(f"/lib64/{name}"):
            defined |= symbols(found)[1]
    missing = sorted(needed - here - SYSTEM - {"libacl_op_compiler.so"})
    names = collections.defaultdict(lambda: collections.defaultdict(set))
    for full in undefined:
        name, _, version = full.partition("@")
        owner = versions.get(version.lstrip("@"))
        if owner in missing:
            names[owner][version.lstrip("@")].add(name)
        elif not version and name not in defined and not re.match("_?_?Py|_ITM|__gmon|__cxa_f", name):
            names["libge_runner.so"][""].add(name)
    for library in missing:
        of_library = {version for version, owner in versions.items() if owner == library}
        code, script = [".text", "fails: mov $100,%eax", "ret", "works: xor %eax,%eax", "ret"], []
        for version in sorted(of_library | set(names[library])):
            for name in names[library][version]:
                quiet = "works" if re.match("aclopCreate|acl.*Destroy", name) else "fails"
                code += [f".globl {name}", f".type {name},@function", f".set {name},{quiet}"]
            if version:
                held = "".join(f" {name};" for name in names[library][version])
                script.append(f"{version} {{ {'global:' + held if held else ''} }};")
        (folder / "names.s").write_text("\n".join(code) + "\n")
        (folder / "names.map").write_text("\n".join(script) + "\n")
        shared(folder, library, "-nostdlib", *([f"-Wl,--version-script={folder}/names.map"] if script else []), folder / "names.s")
    (folder / "compiler.c").write_text(COMPILER)
    # As the real one, it brings the runtime's functions along.
    shared(folder, "libacl_op_compiler.so", folder / "compiler.c", "-Wl,--no-as-needed", f"-L{folder}", "-lascendcl")


def prepare(program):
    folder = Path(tempfile.mkdtemp())
    subprocess.run([program, folder], check=True)
    if not (folder / "libopapi.so").exists():
        (folder / "libopapi.so").symlink_to("libascendcl.so")
    stand_ins(folder, folder / "libascendcl.so")
    for part in ("runtime", "compiler", "opp"):
        (folder / "home" / part).mkdir(parents=True)
    os.environ |= {
        "LD_LIBRARY_PATH": str(folder), "CACHALOT_ASCEND_EMULATOR": "910B3", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "CACHALOT_ASCEND_EMULATOR_HBM_BYTES": str(4 << 30), "ASCEND_HOME_PATH": str(folder / "home"),
        "ASCEND_OPP_PATH": str(folder / "home" / "opp"),
    }
    os.execv(sys.executable, [sys.executable, __file__, "--inside"])


def checks():
    """Name, tolerance, and the same function of tensors on either device, or what both devices must give."""
    import torch
    import torch.nn.functional as F
    import torch_npu

    torch.manual_seed(4)
    a, b, x, y = torch.randn(4, 32), torch.randn(32, 16), torch.randn(3, 5), torch.randn(3, 5)
    half, gamma = a.bfloat16(), torch.randn(32).bfloat16()
    w, scale, token = torch.randint(-128, 128, (32, 32)).to(torch.int8), torch.rand(32) / 100, torch.rand(4) / 100
    q = torch.randint(-128, 128, (4, 32)).to(torch.int8)
    gate, up = a.double().chunk(2, -1)
    absmax = half.float().abs().amax(-1) / 127
    product = q.double() @ w.double() * scale.double() * token.double()[:, None]
    yield "copy", 0, lambda: a.npu(), a
    yield "mm float", 1e-5, lambda: torch.mm(a.npu(), b.npu()), a.double() @ b.double()
    yield "mm bf16", 2**-7, lambda: torch.mm(half.npu(), b.bfloat16().npu()), half.double() @ b.bfloat16().double()
    yield "bmm", 1e-5, lambda: torch.bmm(a[None].npu(), b[None].npu()), a.double()[None] @ b.double()[None]
    yield "rms_norm", 2**-7, lambda: torch_npu.npu_rms_norm(half.npu(), gamma.npu(), 1e-6)[0], F.rms_norm(
        half.double(), [32], gamma.double(), 1e-6)
    yield "swiglu", 1e-6, lambda: torch_npu.npu_swiglu(a.npu()), F.silu(gate) * up
    yield "dynamic_quant", 0, lambda: torch_npu.npu_dynamic_quant(half.npu())[0], (half.float() / absmax[:, None]).round()
    yield "dynamic_quant scale", 1e-7, lambda: torch_npu.npu_dynamic_quant(half.npu())[1], absmax
    yield "quant_matmul", 2**-7, lambda: torch_npu.npu_quant_matmul(
        q.npu(), w.npu(), scale.npu(), pertoken_scale=token.npu(), output_dtype=torch.bfloat16), product
    indices = torch.tensor([2, 0])
    for name, function, *given in [
        ("add", torch.add, x, y), ("sub", torch.sub, x, y), ("mul", torch.mul, x, y), ("div", torch.div, x, y),
        ("add scalar", lambda t: t + 2.5, x), ("mul scalar", lambda t: t * 2.5, x), ("exp", torch.exp, x),
        ("sigmoid", torch.sigmoid, x), ("silu", F.silu, x), ("relu", torch.relu, x), ("sqrt", lambda t: (t * t).sqrt(), x),
        ("rsqrt", lambda t: (t * t + 1).rsqrt(), x), ("softmax", lambda t: t.softmax(-1), x), ("log", lambda t: (t * t).log(), x),
        ("log_softmax", lambda t: t.log_softmax(-1), x), ("sum", lambda t: t.sum(-1), x), ("cumsum", lambda t: t.cumsum(1), x),
        ("argmax", lambda t: t.argmax(1), x), ("topk", lambda t: t.topk(2).values, x), ("topk places", lambda t: t.topk(2).indices, x),
        ("sort", lambda t: t.sort(dim=1, stable=True).indices, x), ("clamp", lambda t: t.clamp(-1, 1), x),
        ("cast", lambda t: t.bfloat16(), x), ("permute", lambda t: t.t().contiguous(), x),
        ("slice", lambda t: t[:, 1:4:2].contiguous(), x), ("cat", lambda t: torch.cat([t, t], 1), x),
        ("index_select", lambda t, i: t.index_select(0, i), x, indices), ("embedding", lambda t, i: F.embedding(i, t), x, indices),
        ("index_put", lambda t, i: t.clone().index_put_((i,), t[:2] * 2), x, indices),
        ("zeros", lambda t: torch.zeros_like(t) + t, x), ("arange", lambda t: torch.arange(5, device=t.device).float() * t, x),
    ]:
        yield name, 1e-6, lambda f=function, g=given: f(*[t.npu() for t in g]), function(*given)


def inside():
    # Missing functions of the stand-ins must not matter before they are called.
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
    failed = 0
    for name, tolerance, run, expected in checks():
        try:
            difference = (run().cpu().double() - expected.double()).abs() / expected.double().abs().clamp(min=1)
            worst = difference.max().item()
            good = worst <= tolerance
            print(f"{'agrees' if good else 'DIFFERS':8} {name}: {worst:.1e} (may be {tolerance:.1e})", flush=True)
        except RuntimeError as error:
            good = False
            told = re.search(r"\[ascend-emulator\].*", str(error))
            print(f"FAILS    {name}: {told.group() if told else str(error)[:200]}", flush=True)
        failed += not good
    print(f"{failed} checks failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:] == ["--inside"]:
        inside()
    elif len(sys.argv) == 2:
        prepare(sys.argv[1])
    else:
        sys.exit(__doc__)
