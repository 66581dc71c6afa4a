#!/usr/bin/env bash
# Builds llama.cpp from its PyPI source package, writes the slice, and times both engines in pairs.
#   compare.sh FOLDER [PAIRS=5] [repacked|plain]      environment: PYTHON (with numpy), THREADS
# Needs 16 GB of memory: both engines hold the slice.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
pairs=${2:-5}
variant=${3:-repacked}
python=${PYTHON:-python3}
threads=${THREADS:-$(nproc)}
package=llama_cpp_python-0.3.36
source=$folder/$package/vendor/llama.cpp
build=$folder/build-llama

cd "$folder"
if [ ! -d "$source" ]; then
    "$python" -m pip download --quiet --no-binary llama-cpp-python --no-deps llama-cpp-python==0.3.36
    tar xf "$package.tar.gz"
fi
if [ ! -x llama_benchd ]; then
    # What this processor has, except AMX: see README.md.
    features=()
    for feature in AVX512F:AVX512 AVX512_VBMI:AVX512_VBMI AVX512_VNNI:AVX512_VNNI AVX512_BF16:AVX512_BF16; do
        grep -qiw "${feature%%:*}" /proc/cpuinfo && features+=("-DGGML_${feature##*:}=ON")
    done
    cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF "${features[@]}" -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DGGML_CCACHE=OFF
    cmake --build "$build" -j "$(nproc)" --target llama
    c++ -O2 -std=c++17 -DLOADMODE "$here/llama_benchd.cpp" -o llama_benchd -I"$source/include" -I"$source/ggml/include" \
        -L"$build/bin" -lllama -lggml -lggml-base -lggml-cpu -Wl,-rpath,"$build/bin"
fi
[ -f slice/config.json ] || "$python" "$here/gen_dsv4.py" slice slice
[ -f slice.gguf ] || PYTHONPATH=$source/gguf-py "$python" "$here/to_gguf.py" slice slice.gguf

cargo build --release --quiet --manifest-path "$here/../../Cargo.toml" -p cachalot-engine --example resident
ours=$(cd "$here/../.." && pwd)/target/release/examples/resident
plain=none
[ "$variant" = plain ] && plain=all
cat >spec.json <<JSON
{"reps": $pairs, "max_other": 0.1, "quiet": 0.1, "wait_s": 300, "tries": 3,
 "cmds": {
  "cachalot": {"daemon": "$ours slice $threads", "ask": ["pp 512", "tg 32"]},
  "llama.cpp $variant": {"daemon": "./llama_benchd slice.gguf $threads",
                         "env": {"OMP_WAIT_POLICY": "passive", "PLAIN": "$plain"}, "ask": ["pp 512", "tg 32"]}}}
JSON
"$python" "$here/ab.py" spec.json pairs.jsonl
