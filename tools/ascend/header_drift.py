#!/usr/bin/env python3
"""Compares the emulator's C interface with the headers inside the torch-npu wheel: arguments by number, width and kind,
results, and the numbers of the enumerations. Nothing of the headers is kept.

    python tools/ascend/header_drift.py [torch_npu-….whl]

Without a wheel it is downloaded with pip (43 MB). Needs g++. Exits with 1 on the first drift.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "torch-npu==2.9.0.post9"
SOURCES = Path(__file__).parents[2] / "crates/ascend-emulator/src"
WIDTHS = {"i8": 1, "u8": 1, "bool": 1, "i32": 4, "u32": 4, "i64": 8, "u64": 8, "usize": 8, "f32": 4, "f64": 8}
# What the emulator and its clients pass and expect as plain numbers.
NUMBERS = {
    "ACL_FLOAT": 0, "ACL_FLOAT16": 1, "ACL_INT8": 2, "ACL_INT32": 3, "ACL_UINT8": 4, "ACL_INT64": 9, "ACL_UINT64": 10,
    "ACL_DOUBLE": 11, "ACL_BOOL": 12, "ACL_BF16": 27, "ACL_INT4": 29, "ACL_FLOAT8_E4M3FN": 36, "ACL_FLOAT8_E8M0": 37,
    "ACL_FLOAT4_E2M1": 40, "ACL_FORMAT_NCHW": 0, "ACL_FORMAT_ND": 2, "ACL_FORMAT_FRACTAL_NZ": 29, "ACL_FORMAT_NCDHW": 30,
    "ACL_FORMAT_NCL": 47, "ACL_MEMCPY_HOST_TO_DEVICE": 1, "ACL_MEMCPY_DEVICE_TO_HOST": 2, "ACL_MEMCPY_DEVICE_TO_DEVICE": 3,
    "ACL_MEM_MALLOC_HUGE_FIRST": 0, "ACL_HBM_MEM": 1, "ACL_EVENT_RECORDED_STATUS_COMPLETE": 1, "ACL_STREAM_STATUS_COMPLETE": 0,
    "ACL_MODEL_RI_CAPTURE_MODE_GLOBAL": 0, "ACL_MODEL_RI_CAPTURE_MODE_THREAD_LOCAL": 1, "ACL_MODEL_RI_CAPTURE_MODE_RELAXED": 2,
    "ACL_MODEL_RI_CAPTURE_STATUS_ACTIVE": 1, "ACL_MODEL_RI_CAPTURE_STATUS_INVALIDATED": 2, "ACL_OPT_DETERMINISTIC": 0,
    "ACL_DEV_ATTR_AICORE_CORE_NUM": 101, "ACL_DEV_ATTR_CUBE_CORE_NUM": 102, "ACL_DEV_ATTR_VECTOR_CORE_NUM": 201,
    "ACL_DEV_ATTR_TOTAL_GLOBAL_MEM_SIZE": 301, "ACL_DEV_ATTR_NPU_ARCH": 601, "ACL_ERROR_RT_PARAM_INVALID": 107000,
    "ACL_ERROR_RT_INVALID_DEVICEID": 107001, "ACL_ERROR_RT_CONTEXT_NULL": 107002, "ACL_ERROR_RT_STREAM_CONTEXT": 107003,
    "ACL_ERROR_RT_FEATURE_NOT_SUPPORT": 207000, "ACL_ERROR_RT_MEMORY_ALLOCATION": 207001,
    "ACL_ERROR_RT_AICORE_EXCEPTION": 507015, "ACL_ERROR_REPEAT_INITIALIZE": 100002,
    "HCCL_DATA_TYPE_INT8": 0, "HCCL_DATA_TYPE_INT32": 2, "HCCL_DATA_TYPE_FP16": 3, "HCCL_DATA_TYPE_FP32": 4,
    "HCCL_DATA_TYPE_INT64": 5, "HCCL_DATA_TYPE_BFP16": 11, "HCCL_REDUCE_SUM": 0, "HCCL_REDUCE_PROD": 1, "HCCL_REDUCE_MAX": 2,
    "HCCL_REDUCE_MIN": 3, "HCCL_E_PARA": 1, "HCCL_E_PTR": 2, "HCCL_E_TIMEOUT": 9, "HCCL_E_REMOTE": 21,
}
CHECK = """
#include <type_traits>
template <class T> constexpr int kind() {
    return std::is_pointer<T>::value ? 'p' : std::is_floating_point<T>::value ? 'f' : 'i';
}
template <class R, class... A> constexpr bool fits(R (*)(A...), const char *kinds, int width) {
    const int widths[] = {int(sizeof(A))..., 0}, found[] = {kind<A>()..., 0};
    int at = 0;
    for (; kinds[2 * at]; at++)
        if (at >= int(sizeof...(A)) || found[at] != kinds[2 * at] || widths[at] != kinds[2 * at + 1] - '0') return false;
    return at == int(sizeof...(A)) && sizeof(R) == width;
}
"""


def declared_in_rust():
    """Name to kinds and widths of the arguments and the width of the result."""
    found = {}
    for source in SOURCES.glob("*.rs"):
        text = re.sub(r"//.*", "", source.read_text())
        for name, arguments, result in re.findall(r'extern "C" fn ((?:acl|Hccl)\w+)\((.*?)\)\s*->\s*([^{]+?)\s*\{', text, re.S):
            kinds = ""
            for argument in filter(None, map(str.strip, arguments.split(","))):
                of_type = argument.split(":", 1)[1].strip()
                kinds += "p8" if of_type.startswith("*") else ("f" if of_type[0] == "f" else "i") + str(WIDTHS[of_type])
            found[name] = (kinds, 8 if result.startswith("*") else WIDTHS[result])
    return found


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        wheel = sys.argv[1] if len(sys.argv) > 1 else None
        if wheel is None:
            options = ["--no-deps", "--python-version", "3.11", "--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64"]
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", *options, "-d", folder, WHEEL], check=True)
            wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            headers = [name for name in archive.namelist() if re.search(r"/(acl|hccl|aclnn)/([^/]*/)?[^/]*\.h$", name)]
            archive.extractall(folder, headers)
        runtime = next(folder.rglob("acl/acl_rt.h"))
        root = runtime.parent.parent
        includes = [str(found.relative_to(root)) for found in [root / "acl/acl.h", *root.glob("acl/error_codes/*.h"), *root.glob("acl/acl_*.h")]
                    # These add overloads for C++ to the same names.
                    if found.exists() and found.name != "acl_rt_api.h"]
        collectives = next(folder.rglob("hccl/hccl.h"))
        includes.append(str(collectives))
        code = "".join(f'#include "{name}"\n' for name in dict.fromkeys(includes)) + CHECK
        flags = ["g++", "-std=c++17", "-fsyntax-only", f"-I{root}", f"-I{collectives.parents[1]}", "-x", "c++", "-"]
        seen = subprocess.run([*flags, "-E"], input=code, capture_output=True, text=True, check=True).stdout
        words = set(re.findall(r"\w+", seen)) | set(re.findall(r"define\s+(ACL_\w+)", "".join(
            found.read_text(errors="replace") for found in folder.rglob("*.h"))))
        interface = declared_in_rust()
        checked, unknown = [], sorted(name for name in [*interface, *NUMBERS] if name not in words)
        for name, (kinds, width) in sorted(interface.items()):
            if name in words:
                code += f'static_assert(fits({name}, "{kinds}", {width}), "{name} has drifted");\n'
                checked.append(name)
        for name, number in NUMBERS.items():
            if name in words:
                code += f'static_assert(int({name}) == {number}, "{name} has drifted");\n'
                checked.append(name)
        done = subprocess.run(flags, input=code, capture_output=True, text=True, check=False)
        print(f"{len(checked)} declarations and numbers checked; not in these headers: {' '.join(unknown)}")
        for line in done.stderr.splitlines():
            if "error" in line:
                print(line, code.splitlines()[int(line.split(":")[1]) - 1] if line.startswith("<stdin>") else "")
        sys.exit(done.returncode or len(checked) < 100)


if __name__ == "__main__":
    main()
