// Resident benchmark driver on libllama: loads once, then answers requests on stdin (so that A and B can be paired without reloading).
//   llama_benchd MODEL THREADS [mmap=0] [ubatch=512] [n_ctx=2048]
//   "pp N"        prefill N random tokens into an empty cache        "tg N [D]"  decode N random tokens at depth D (default 16)
//   -> "RESULT <tokens/s> <wall s> <cpu s>"
// Compile with -DIK for the older API of the ik fork.
#include "llama.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include <chrono>
#include <ctime>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>
static double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
static double cpu() { timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
int main(int argc, char ** argv) {
    int th = atoi(argv[2]), ub = argc > 4 ? atoi(argv[4]) : 512, nctx = argc > 5 ? atoi(argv[5]) : 2048; bool mm = argc > 3 && atoi(argv[3]);
    llama_log_set([](ggml_log_level l, const char * t, void *) { if (l >= GGML_LOG_LEVEL_WARN) fputs(t, stderr); }, nullptr);
    llama_backend_init(); auto mp = llama_model_default_params();
#ifdef LOADMODE
    mp.load_mode = mm ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
#else
    mp.use_mmap = mm;
#endif
    // llama.cpp puts q8_0 matrices into AMX buffers, also those that its grouped product then cannot read there:
    // PLAIN="name[,name]" keeps matching tensors in plain CPU memory, PLAIN=all turns repacking off.
    std::vector<llama_model_tensor_buft_override> plain; std::vector<std::string> names;
    if (const char * p = getenv("PLAIN")) {
        if (std::string(p) == "all") mp.use_extra_bufts = false;
        else { std::stringstream q(p); std::string n; while (std::getline(q, n, ',')) names.push_back(n);
               for (auto & n : names) plain.push_back({n.c_str(), ggml_backend_cpu_buffer_type()});
               plain.push_back({nullptr, nullptr}); mp.tensor_buft_overrides = plain.data(); }
    }
#ifdef RTR
    mp.repack_tensors = true;
#endif
    auto cp = llama_context_default_params(); cp.n_ctx = nctx; cp.n_batch = ub; cp.n_ubatch = ub; cp.n_threads = th; cp.n_threads_batch = th;
#ifdef IK
    llama_model * m = llama_model_load_from_file(argv[1], mp); if (!m) return 1;
    llama_context * c = llama_init_from_model(m, cp); if (!c) return 1; int V = llama_n_vocab(m);
    auto clear = [&] { llama_kv_cache_clear(c); };
#else
    llama_model * m = llama_model_load_from_file(argv[1], mp); if (!m) return 1;
    llama_context * c = llama_init_from_model(m, cp); if (!c) return 1; int V = llama_vocab_n_tokens(llama_model_get_vocab(m));
    auto clear = [&] { llama_memory_clear(llama_get_memory(c), true); };
#endif
    llama_batch b = llama_batch_init(ub, 0, 1); std::mt19937 g(1);
    auto feed = [&](int p, int n) { while (n) { int k = std::min(n, ub); b.n_tokens = k;
        for (int i = 0; i < k; i++) { b.token[i] = g() % V; b.pos[i] = p + i; b.n_seq_id[i] = 1; b.seq_id[i][0] = 0; b.logits[i] = i == k - 1; }
        if (llama_decode(c, b)) { fprintf(stderr, "decode failed\n"); exit(1); } llama_synchronize(c); p += k; n -= k; } };
    clear(); feed(0, 8); printf("READY\n"); fflush(stdout); std::string line;
    while (std::getline(std::cin, line)) { std::istringstream s(line); std::string w; int n, d = 16; s >> w >> n; if (!(s >> d)) d = 16;
        clear(); double t, c;
        if (w == "pp") { t = now(); c = cpu(); feed(0, n); }
        else { feed(0, d); t = now(); c = cpu(); for (int i = 0; i < n; i++) feed(d + i, 1); }
        t = now() - t; c = cpu() - c;
        printf("RESULT %.4f %.4f %.4f\n", n / t, t, c); fflush(stdout); }
    return 0;
}
