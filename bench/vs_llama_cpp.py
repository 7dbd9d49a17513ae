#!/usr/bin/env python3
"""Ossia and llama.cpp in turn on the same GGUF file, so that a noisy machine treats both alike.

  pip install llama-cpp-python        (from source, for this machine: CMAKE_ARGS=-DGGML_NATIVE=ON)
  vs_llama_cpp.py model.gguf --ossia target/release/ossia [-p 512] [-n 64] [-d 0] [-b 1] [-t 2] [--rounds 5] [--state FILE]

A round is one fresh process each: load, a warm-up of eight tokens, `-d` tokens that are there before the clock starts,
a prompt of `-p` tokens in chunks of 512, `-n` decoded tokens one after the other; with `-b` so many sequences, whose
prompts are read one after the other and which are then decoded side by side. Prints each round, then medians and the
ratios Ossia / llama.cpp pair by pair with their range. Random tokens: speed, not text.
"""
import argparse
import ctypes
import json
import mmap
import os
import random
import resource
import statistics
import subprocess
import sys
import time

FIGURES = {"prefill_tok_s": "tok/s", "decode_tok_s": "tok/s", "load_s": "s", "peak_rss_bytes": "bytes"}


class Peer:
    """llama.cpp in this process"""

    def __init__(self, a):
        import llama_cpp
        self.l = llama_cpp
        self.quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        start = time.time()
        self.model = llama_cpp.llama_model_load_from_file(a.gguf.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot load {a.gguf}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = a.batch * (a.depth + a.prompt + a.num + 16)
        params.n_batch = params.n_ubatch = 512
        params.n_seq_max = a.batch
        params.n_threads = params.n_threads_batch = a.threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.load_s = time.time() - start
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def step(self, entries):
        """entries: (token, position, sequence, whether logits are wanted)"""
        self.batch.n_tokens = len(entries)
        for i, (token, position, sequence, wanted) in enumerate(entries):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, position, wanted
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
        if self.l.llama_decode(self.context, self.batch) != 0:
            sys.exit("llama_decode failed")
        self.l.llama_synchronize(self.context)

    def read(self, tokens, start, sequence):
        for at in range(0, len(tokens), 512):
            part = tokens[at:at + 512]
            last = at + len(part) == len(tokens)
            self.step([(t, start + at + i, sequence, last and i + 1 == len(part)) for i, t in enumerate(part)])

    def remember(self, tokens, file):
        """reads what is there before the clock starts, or takes what an earlier round has kept of it in `file`"""
        ids = (self.l.llama_token * len(tokens))(*tokens)
        if file and os.path.exists(file):
            known, num = (self.l.llama_token * len(tokens))(), ctypes.c_size_t()
            if not self.l.llama_state_load_file(self.context, file.encode(), known, len(tokens), ctypes.byref(num)):
                sys.exit(f"llama.cpp cannot load {file}")
            if list(known) != tokens:
                sys.exit(f"{file} was kept for other tokens: remove it")
            return
        self.read(tokens, 0, 0)
        if file and not self.l.llama_state_save_file(self.context, file.encode(), ids, len(tokens)):
            sys.exit(f"llama.cpp cannot save {file}")

    def forget(self):
        self.l.llama_memory_clear(self.l.llama_get_memory(self.context), True)


def peer(a):
    """one round of llama.cpp; prints JSON"""
    it, rng = Peer(a), random.Random(7)
    length = a.depth + a.prompt + a.num
    tokens = [[rng.randrange(min(it.vocab, 199000)) for _ in range(length)] for _ in range(a.batch)]
    it.read(tokens[0][:8], 0, 0)
    it.forget()
    if a.batch == 1 and a.depth:
        it.remember(tokens[0][:a.depth], a.state)
    else:
        for s in range(a.batch):
            it.read(tokens[s][:a.depth], 0, s)
    times = [time.time()]
    for s in range(a.batch):
        it.read(tokens[s][a.depth:a.depth + a.prompt], a.depth, s)
    times.append(time.time())
    for at in range(a.depth + a.prompt, length):
        it.step([(tokens[s][at], at, s, True) for s in range(a.batch)])
    times.append(time.time())
    print(json.dumps({
        "prefill_tok_s": a.batch * a.prompt / max(times[1] - times[0], 1e-9),
        "decode_tok_s": a.batch * a.num / max(times[2] - times[1], 1e-9),
        "load_s": it.load_s, "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def bring_in(gguf, anew=False):
    """the file into the page cache, in large pages where the file system has them, as a first start of Ossia leaves it: the
    program before may have driven parts of it out"""
    with open(gguf, "rb") as file:
        if anew:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as bytes_of:
            bytes_of.madvise(mmap.MADV_HUGEPAGE)
            sum(bytes_of[::4096])


def run(command, gguf):
    bring_in(gguf)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr[-800:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("--ossia", default="target/release/ossia")
    for short, long, default in (("-p", "--prompt", 512), ("-n", "--num", 64), ("-d", "--depth", 0), ("-b", "--batch", 1),
                                 ("-t", "--threads", 2), ("-r", "--rounds", 5)):
        parser.add_argument(short, long, type=int, default=default)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--state", help="where llama.cpp keeps what it has read of the depth, so that it reads it once")
    parser.add_argument("--dense", help="passed on to Ossia: bf16 keeps dense weights as they are")
    a = parser.parse_args()
    if a.child:
        return peer(a)
    shape = ["-p", str(a.prompt), "-n", str(a.num), "-d", str(a.depth), "-b", str(a.batch)]
    mine = [a.ossia, "bench", "-m", a.gguf, *shape, "-r", "1", "--threads", str(a.threads), "--json"]
    mine += ["--dense", a.dense] if a.dense else []
    theirs = [sys.executable, __file__, a.gguf, "--child", *shape, "-t", str(a.threads)]
    theirs += ["--state", a.state] if a.state else []
    bring_in(a.gguf, anew=True)
    pairs = []
    for i in range(a.rounds):
        pairs.append((run(mine, a.gguf), run(theirs, a.gguf)))
        each = (f"{name} prefill {r['prefill_tok_s']:.1f} decode {r['decode_tok_s']:.2f} tok/s load {r['load_s']:.1f} s "
                f"{r['peak_rss_bytes'] / 1e9:.1f} GB" for name, r in zip(("ossia", "llama.cpp"), pairs[-1]))
        print(f"round {i}:", "   ".join(each), flush=True)
    for key, unit in FIGURES.items():
        x, y = ([pair[i][key] for pair in pairs] for i in (0, 1))
        ratios = sorted(a / b for a, b in zip(x, y) if b)
        if ratios:
            print(f"{key}: ossia {statistics.median(x):.3g}, llama.cpp {statistics.median(y):.3g} {unit}, "
                  f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
