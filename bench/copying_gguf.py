#!/usr/bin/env python3
"""Makes a random gpt-oss GGUF (Q8_0 and MXFP4) say the number after each token, in place, with all the work it did before.

  pip install numpy gguf
  copying_gguf.py model.gguf [--prompt known:new:tokens]

What the blocks add to the stream becomes next to nothing (attention's output has scale 0, experts' are 2^-20 as large), and
row t + 1 of the unembedding becomes row t of the embedding. Greedy decoding counts, so a prompt that holds some stretches of
the numbers decides how much of the answer repeats it: `--prompt 24:8:256` prints a prompt in which 24 of each 32 of the next
256 tokens occur one after the other. Routers are as they were: tokens go to experts at random.
"""
import argparse

FIRST = 1000
Q8_0_BLOCK, MXFP4_BLOCK = 34, 17


def count(path):
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    for name, data in tensors.items():
        if name.endswith(("attn_output.bias", "ffn_down_exps.bias")):
            data[...] = 0
        elif name.endswith("attn_output.weight"):
            data.reshape(-1, Q8_0_BLOCK)[:, :2] = 0
        elif name.endswith("ffn_down_exps.weight"):
            data.reshape(-1, MXFP4_BLOCK)[:, 0] -= 20
    tensors["output.weight"][1:] = tensors["token_embd.weight"][:-1]
    reader.data.flush()


def prompt(known, new, tokens):
    """Stretches of the tokens to come, and between them what leads nowhere; then the token before them."""
    ids = []
    for start in range(FIRST, FIRST + tokens, known + new):
        ids += list(range(start, start + known)) + [7 * start % 100_000 + 50_000]
    return ids + [FIRST - 3, FIRST - 2, FIRST - 1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("--prompt", metavar="KNOWN:NEW:TOKENS")
    a = parser.parse_args()
    if a.prompt:
        print(",".join(map(str, prompt(*map(int, a.prompt.split(":"))))))
    else:
        count(a.gguf)
