#!/usr/bin/env python3
"""What `--speculate` gains on answers that repeat some of their prompt: with it and without it in turn, fresh processes.

  speculate.py copying.gguf --ossia target/release/ossia [--known 32 24 16 0] [-n 256] [--rounds 5]

The model counts (see copying_gguf.py), so that it is known which tokens come; its work is a real model's. Of each 32 tokens to
come `--known` stand in the prompt one after the other, the others nowhere. Time runs from the first token to the last. The tokens
must be the same both ways. Routers send tokens to experts at random, which is the worst for checking several at once: they share
few experts.
"""
import argparse
import statistics
import subprocess
import sys
import time

from copying_gguf import prompt

STRETCH = 32


def decode(a, tokens, extra):
    """The tokens made, and how many a second"""
    command = [a.ossia, "generate", "-m", a.gguf, "--tokens", ",".join(map(str, tokens)), "-n", str(a.num), "--greedy", *extra]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = process.stdout.read(1)
    start = time.time()
    rest = process.stdout.read()
    seconds = time.time() - start
    if process.wait() != 0:
        sys.exit(process.stderr.read().decode())
    made = [int(token) for token in (first + rest).split(b",")]
    return made, (len(made) - 1) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("--ossia", required=True)
    parser.add_argument("--known", type=int, nargs="+", default=[32, 24, 16, 0])
    parser.add_argument("-n", "--num", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()
    for known in a.known:
        tokens = prompt(known, STRETCH - known, a.num)
        plain, guessed, ratios = [], [], []
        for _ in range(a.rounds):
            made, speed = decode(a, tokens, [])
            again, faster = decode(a, tokens, ["--speculate"])
            if made != again:
                sys.exit(f"other tokens with guesses than without: {again} instead of {made}")
            plain.append(speed)
            guessed.append(faster)
            ratios.append(faster / speed)
        print(f"{known} of {STRETCH} known: {statistics.median(plain):.1f} tok/s without, {statistics.median(guessed):.1f} with,"
              f" ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
