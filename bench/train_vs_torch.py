#!/usr/bin/env python3
"""Training speed of Ossia and of transformers + PyTorch on one CPU, in turn, each time in a fresh process.

  train_vs_torch.py --ossia target/release/ossia [--rounds 5] [--steps 12] [--threads 2] [--variant eager|compiled|all]

The same on both sides: the shape of crates/ossia-train/recipes/nano.toml in f32, weights (PyTorch's are those after
Ossia's first update), documents, about 16384 tokens for an update, no padding, attention inside documents only, logits
and loss of every token, no auxiliary losses, clipping, AdamW with weight decay of matrices, the number of threads.
Speed is the median over the updates after the warm-up. Before anything is timed, PyTorch computes the loss of a
checkpoint of Ossia's over the same documents: both must agree.

What PyTorch is given, to be fast:
- Rows of exactly 512 tokens: documents laid end to end and cut there, where Ossia keeps them whole. A document that is
  cut attends to less. Masks and positions are made while its clock stands still; making batches is in Ossia's time.
- Whatever is fastest in a trial of what it has: eager or torch.compile (inductor), experts eager or grouped_mm
  (batched_mm copies an expert's weights for every token: 5 GB, and far behind), micro batches of 2048, 4096 (as
  Ossia's) or 8192 tokens. Compilation is in the warm-up, told apart.
- A malloc that keeps memory: much faster, and larger. One run with the usual one at the end shows how much.
- Attention is its "eager" one, all that transformers has for gpt-oss on a CPU: SDPA and flex attention refuse sinks.

Not compared: other data types than f32 (bf16 on machines that have it), GPUs, larger models, Muon, training on quantised
weights, making data, writing checkpoints, what is learned. On a busy machine the figures mean nothing: PyTorch's threads
wait for each other at every operation, so it falls behind several times over.
"""
import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
if "--child" in sys.argv:   # the parent stays small: a process that it starts counts the parent's memory as its peak's
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from transformers import GptOssConfig, GptOssForCausalLM

RECIPE = Path(__file__).resolve().parents[1] / "crates/ossia-train/recipes/nano.toml"
NANO = tomllib.loads(RECIPE.read_text())
MAX_LEN = NANO["data"]["max_len"]
DOCUMENTS = 240             # about four batches
LOSS_TOLERANCE = 1e-4       # f32 sums in different orders


def toml_value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)    # the same for strings, numbers, booleans, lists of them


def recipe(data, training, every):
    """nano.toml with AdamW, without auxiliary losses, with all tokens learned"""
    plain = {"optimizer": "adamw", "aux_loss": [0.0, 0.0], "router_z_loss": 0.0, "z_loss": 0.0}
    return NANO | {"data": NANO["data"] | {"documents": DOCUMENTS, "weights": {"context": 1.0}} | data,
                   "training": NANO["training"] | plain | training,
                   "quantize": {"from": 1.0}, "checkpoints": {"every": every, "keep": 9},
                   "validation": {"every": 1 << 40, "documents": 0}}


def ossia(args, folder, name, data, training, every=1 << 40):
    """trains in folder/name; gives the records of metrics.jsonl"""
    file, out = folder / f"{name}.toml", folder / name
    file.write_text("".join(f"{k} = {toml_value(v)}\n" for k, v in recipe(data, training, every).items()))
    command = [args.ossia, "train", file, "--out", out, "--threads", str(args.threads), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    records = (out / "metrics.jsonl").read_text().splitlines() if done.returncode == 0 else []
    if len(records) != training["steps"]:
        sys.exit(f"ossia ended after {len(records)} of {training['steps']} updates: {done.stderr[-800:]}")
    return [json.loads(line) for line in records]


def read_shard(path):
    """for each document (inputs, targets, classes of targets); crates/ossia-train/src/dataset/shard.rs has the format"""
    raw = Path(path).read_bytes()
    assert raw[:8] == b"OSSIATOK", f"{path} is no shard"
    num_documents, num_tokens = (int(n) for n in np.frombuffer(raw, "<u8", 2, 48))
    ends = np.frombuffer(raw, "<u8", num_documents, 96).astype(int)
    tokens = np.frombuffer(raw, "<u4", num_tokens, 96 + 8 * num_documents).astype("int64")
    classes = np.frombuffer(raw, "u1", num_tokens, 96 + 8 * num_documents + 4 * num_tokens)
    spans = [(start, min(end, start + MAX_LEN + 1)) for start, end in zip([0, *ends[:-1]], ends)]
    return [(tokens[a:b - 1], tokens[a + 1:b], classes[a + 1:b]) for a, b in spans]


class Stream:
    """documents laid end to end, again and again"""

    def __init__(self, documents, window):
        self.inputs, self.targets, self.classes = (torch.from_numpy(np.concatenate(part)) for part in zip(*documents))
        lengths = [len(d[0]) for d in documents]
        self.document = torch.repeat_interleave(torch.arange(len(documents)), torch.tensor(lengths))
        self.position = torch.cat([torch.arange(n) for n in lengths])
        self.window, self.at = window, 0

    def rows(self, num_rows, length):
        """what the model is given of the next [num_rows, length] tokens, and the targets"""
        places = ((self.at + torch.arange(num_rows * length)) % len(self.inputs)).view(num_rows, length)
        self.at = (self.at + num_rows * length) % len(self.inputs)
        document = self.document[places]
        distance = torch.arange(length)[:, None] - torch.arange(length)
        full = (document[:, :, None] == document[:, None, :]) & (distance >= 0)
        masks = {"full_attention": full, "sliding_attention": full & (distance < self.window)}
        lowest = torch.finfo(torch.float32).min
        masks = {kind: torch.zeros(m.shape).masked_fill_(~m, lowest)[:, None] for kind, m in masks.items()}
        given = {"input_ids": self.inputs[places], "position_ids": self.position[places], "attention_mask": masks}
        return given, self.targets[places].flatten()


def load_model(checkpoint, experts):
    """transformers' model with the weights of Ossia's checkpoint"""
    config = GptOssConfig.from_pretrained(checkpoint)
    config._attn_implementation = "eager"
    model = GptOssForCausalLM(config).float().train()
    model.set_experts_implementation(experts)
    given, weights = load_file(Path(checkpoint) / "model.safetensors"), {}
    for name in model.state_dict():
        if ".mlp.experts." in name:     # one matrix [out, in] for each expert there, [experts, in, out] here
            stem, part = (name[:-5], "bias") if name.endswith("_bias") else (name, "weight")
            each = [given.pop(f"{stem}s.{e}.{part}") for e in range(config.num_local_experts)]
            weights[name] = torch.stack([m.t() if part == "weight" else m for m in each]).contiguous()
        else:
            weights[name] = given.pop(name)
    assert not given, f"tensors that transformers does not know: {list(given)}"
    model.load_state_dict(weights)
    return model


def losses(model, given, targets):
    return F.cross_entropy(model(**given, use_cache=False).logits.flatten(0, 1), targets, reduction="none")


def torch_check(job):
    """the mean loss over all tokens but context, as Ossia records it, over whole documents, eight in a row"""
    model = load_model(job["checkpoint"], "eager")
    documents, nll, count = read_shard(job["shard"]), 0.0, 0
    for first in range(0, len(documents), 8):
        stream = Stream(documents[first:first + 8], model.config.sliding_window)
        learned = stream.classes != 0
        with torch.no_grad():
            nll += losses(model, *stream.rows(1, len(stream.inputs)))[learned].double().sum().item()
        count += learned.sum().item()
    return {"loss": nll / count}


def make_optimizer(model):
    """AdamW with Ossia's betas and eps; fused and foreach differ by far less than a hundredth of an update"""
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[parameter.dim() > 1 and not any(k in name for k in ("bias", "embed", "lm_head"))].append(parameter)
    groups = [{"params": groups[True], "weight_decay": NANO["training"]["weight_decay"]},
              {"params": groups[False], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=NANO["training"]["lr"], betas=(0.9, 0.95), eps=1e-8, fused=True)


def torch_speed(job):
    """one measurement"""
    libraries = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model = load_model(job["checkpoint"], job["experts"])
    stream = Stream(read_shard(job["shard"]), model.config.sliding_window)
    num_micro = NANO["training"]["batch_tokens"] // (job["rows"] * MAX_LEN)
    num_tokens = num_micro * job["rows"] * MAX_LEN
    optimizer = make_optimizer(model)
    loss_of = lambda given, targets: losses(model, given, targets).sum() / num_tokens
    loss_of = torch.compile(loss_of) if job["compiled"] else loss_of
    seconds, first_loss = [], 0.0
    for step in range(job["warmup"] + job["steps"]):
        spent = 0.0
        optimizer.zero_grad()
        for _ in range(num_micro):
            given, targets = stream.rows(job["rows"], MAX_LEN)
            start = time.perf_counter()
            loss = loss_of(given, targets)
            loss.backward()
            spent += time.perf_counter() - start
            first_loss += loss.item() * (step == 0)
        start = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(model.parameters(), NANO["training"]["clip"])
        optimizer.step()
        seconds.append(spent + time.perf_counter() - start)
    usual = statistics.median(seconds[job["warmup"]:])
    return {"tok_s": num_tokens / usual, "first_loss": first_loss, "libraries_bytes": libraries,
            "compile_s": max(0.0, sum(seconds[:job["warmup"]]) - usual * job["warmup"]),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def peer(args, folder, job):
    """runs a child; gives its result, or in words why there is none"""
    threads = str(args.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1",
                                "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    if not job.get("usual_malloc"):     # which gives large temporaries back to the system, and asks for them again
        environment |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36)}
    command = [sys.executable, __file__, "--child", json.dumps(job), "--threads", threads]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or [f"ended with {done.returncode}"]
    return lines[-1][:300] if done.returncode else json.loads(lines[-1])


def same_loss(args, folder, shards):
    """holds both losses together; gives the checkpoint, after one update, that PyTorch begins with"""
    shard, vocabulary = str(next(shards.glob("*.shard"))), NANO["data"]["vocabulary"]
    num_tokens = sum(len(d[0]) for d in read_shard(shard))
    # A batch that is all documents, whatever their order.
    first, second = ossia(args, folder, "same", {"source": {"shards": str(shards)}},
                          {"steps": 2, "batch_tokens": num_tokens, "warmup": 0.0}, every=1)
    assert second["tokens"] == 2 * num_tokens, "each document once in a step"
    job = {"checkpoint": str(folder / "same/checkpoints/step-00000001"), "shard": shard}
    theirs = peer(args, folder, job | {"do": "check"})
    if isinstance(theirs, str):
        sys.exit(f"PyTorch failed: {theirs}")
    print(f"first loss: ossia {first['loss']:.4f}, ln {vocabulary} = {math.log(vocabulary):.4f}")
    print(f"loss over {num_tokens} tokens after an update: ossia {second['loss']:.6f}, PyTorch {theirs['loss']:.6f}")
    if abs(second["loss"] - theirs["loss"]) > LOSS_TOLERANCE or abs(first["loss"] - math.log(vocabulary)) > 0.2:
        sys.exit("the two do not compute the same thing")
    return job | {"do": "speed", "steps": args.steps, "warmup": args.warmup}


def trial(args, folder, job):
    """the job of PyTorch's fastest way"""
    kinds = [c for c in (False, True) if args.variant in ("all", "compiled" if c else "eager")]
    speeds = []
    for compiled, experts, rows in [(c, e, r) for c in kinds for e in ("eager", "grouped_mm") for r in (4, 8, 16)]:
        name = f"{'compiled' if compiled else 'eager'}, experts {experts}, {rows} rows a micro batch"
        way = job | {"compiled": compiled, "experts": experts, "rows": rows, "name": name}
        result = peer(args, folder, way | {"steps": min(3, args.steps)})
        told = f"FAILED: {result}"
        if not isinstance(result, str):
            told = f"{result['tok_s']:.0f} tok/s, loss {result['first_loss']:.5f}, compiling {result['compile_s']:.0f} s"
            speeds.append((result["tok_s"], way))
        print(f"trial: {name}: {told}", flush=True)
    return max(speeds, key=lambda s: s[0])[1] if speeds else sys.exit("no way of PyTorch's works here")


def warn_of_others():
    read = lambda: [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    before = read()
    time.sleep(1.0)
    spent = [y - x for x, y in zip(before, read())]
    if (used := 1.0 - (spent[3] + spent[4]) / max(sum(spent), 1)) > 0.05:
        print(f"DISTURBED: other programs use {used:.0%} of the machine; PyTorch suffers most", flush=True)


def compare(args, folder):
    ossia(args, folder, "data", {}, {"steps": 1})      # makes vocabulary and documents
    shards, rows = folder / "data/data", []
    warn_of_others()
    job = trial(args, folder, same_loss(args, folder, shards))
    print(f"PyTorch from here on: {job['name']}", flush=True)
    for number in range(args.rounds):
        warn_of_others()
        records = ossia(args, folder, f"round-{number}", {"source": {"shards": str(shards)}},
                        {"steps": args.warmup + args.steps})
        mine = {"tok_s": statistics.median(r["tok_s"] for r in records[args.warmup:]),
                "peak_rss_bytes": records[-1]["peak_rss_bytes"]}
        theirs = peer(args, folder, job)
        if isinstance(theirs, str):
            sys.exit(f"PyTorch failed: {theirs}")
        rows.append((mine, theirs))
        both = [f"{r['tok_s']:.0f} tok/s, peak {r['peak_rss_bytes'] / 1e6:.0f} MB" for r in (mine, theirs)]
        print(f"round {number}: ossia {both[0]}; PyTorch {both[1]}", flush=True)
    for key, unit, scale in (("tok_s", "tok/s", 1), ("peak_rss_bytes", "MB", 1e6)):
        mine, theirs = ([pair[i][key] / scale for pair in rows] for i in (0, 1))
        ratios = sorted(x / y for x, y in zip(mine, theirs))
        print(f"{key}: ossia {statistics.median(mine):.0f} {unit}, PyTorch {statistics.median(theirs):.0f} {unit}, "
              f"ratio pair by pair {statistics.median(ratios):.3g} ({ratios[0]:.3g} to {ratios[-1]:.3g})")
    usual = peer(args, folder, job | {"usual_malloc": True})
    if not isinstance(usual, str):
        print(f"PyTorch, usual malloc, once: {usual['tok_s']:.0f} tok/s, peak {usual['peak_rss_bytes'] / 1e6:.0f} MB, "
              f"of which the libraries alone {usual['libraries_bytes'] / 1e6:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ossia", default="target/release/ossia", help="the program, built with --release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="updates that are timed in each process")
    parser.add_argument("--warmup", type=int, default=2, help="updates before them")
    parser.add_argument("--threads", type=int, default=2, help="of either")
    parser.add_argument("--variant", choices=("eager", "compiled", "all"), default="all", help="PyTorch's")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        torch.set_num_threads(args.threads)
        job = json.loads(args.child)
        return print(json.dumps({"check": torch_check, "speed": torch_speed}[job["do"]](job)))
    with tempfile.TemporaryDirectory() as folder:
        return compare(args, Path(folder))


if __name__ == "__main__":
    main()
