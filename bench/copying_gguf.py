#!/usr/bin/env python3
"""Makes a random gpt-oss GGUF (Q8_0 and MXFP4) say the number after each token, in place, with all the work it did before.

  pip install numpy gguf
  copying_gguf.py model.gguf

What the blocks add to the stream becomes next to nothing (attention's output has scale 0, experts' are 2^-20 as large), and
row t + 1 of the unembedding becomes row t of the embedding. Greedy decoding counts, so a prompt that holds some stretches of
the numbers decides how much of the answer repeats it (see speculate.py). Routers are as they were: tokens go to experts at
random.
"""
import sys

FIRST = 1000
Q8_0_BLOCK, MXFP4_BLOCK = 34, 17


def count(path):
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, wanted in (("output.weight", "Q8_0"), ("token_embd.weight", "Q8_0"), ("blk.0.attn_output.weight", "Q8_0"),
                         ("blk.0.ffn_down_exps.weight", "MXFP4")):
        if name not in tensors or tensors[name].tensor_type.name != wanted:
            sys.exit(f"{path}: wanted {name} in {wanted}, as in a gpt-oss GGUF with --dense q8_0")
    if not tensors["blk.0.attn_output.weight"].data.reshape(-1, Q8_0_BLOCK)[:, :2].any():
        sys.exit(f"{path} counts already")
    for name, tensor in tensors.items():
        if name.endswith(("attn_output.bias", "ffn_down_exps.bias")):
            tensor.data[...] = 0
        elif name.endswith("attn_output.weight"):
            tensor.data.reshape(-1, Q8_0_BLOCK)[:, :2] = 0
        elif name.endswith("ffn_down_exps.weight"):
            tensor.data.reshape(-1, MXFP4_BLOCK)[:, 0] -= 20
    tensors["output.weight"].data[1:] = tensors["token_embd.weight"].data[:-1]
    reader.data.flush()


def prompt(known, new, tokens):
    """Stretches of the tokens to come, and between them what leads nowhere; then the token before them."""
    ids = []
    for start in range(FIRST, FIRST + tokens, known + new):
        ids += list(range(start, start + known)) + [7 * start % 100_000 + 50_000]
    return ids + [FIRST - 3, FIRST - 2, FIRST - 1]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    count(sys.argv[1])
