#!/usr/bin/env python3
"""Time to first token and gaps between tokens: `ossia serve` and llama-server in turn on the same GGUF file.

  serve_vs_llama_server.py model.gguf --ossia target/release/ossia --llama llama-server [-t 2] [-n 32] [--rounds 5]
      [--shapes 1x128 4x128 4x128@4 1x512 4x512] [--keep FILE] [--show]

A round is a fresh process of each on loopback, the file in the page cache: start, a warm-up of 64 tokens and four, then
each shape: CLIENTSxPROMPT, all at the same moment, or CLIENTSxPROMPT@S, one every S seconds. A client streams one
completion (/v1/completions) of `-n` tokens to a prompt of random token ids, new in every request and the same for both.
With --keep, rounds are added to those in FILE; --show prints its summary and runs nothing. Says DISTURBED where other
programs ran: such a round means nothing.

What each is given: the same threads, four answers at once of --ctx tokens each (Ossia --parallel 4 --kv-tokens,
llama-server -np 4 -c), else its defaults: KV cache in f16, continuous batching, Ossia's steps of 512 tokens (at most 128
of prompts while others decode), llama-server's batches of 2,048 in parts of 512 and its repacked weights. Left out:
prompt caches (llama-server's by --cache-ram 0, cache_prompt false, and --ctx-checkpoints 0, without which it reads the
last four tokens of a prompt in a step of their own; Ossia's finds nothing: no prompt comes twice), texts to be
tokenized, TLS, Ossia's keys (--no-key), audit log and log lines (llama-server's go to a file).

Bodies are the same for both: greedy, tokens that end a text biased away. A token counts when its event arrives: events
with a choice and no finish reason. A server sends none for a token that is only a part of a character: those are
counted, and `usage` must say that there were as many tokens as asked for, none from a cache. Random weights: speed, not
text.
"""
import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

VOCAB = 199000                                        # ordinary tokens
CLIENTS = 4                                           # answers at once, on both sides
ENDS = {"199999": -100, "200002": -100, "200012": -100}  # endoftext, return, call: what Ossia ends at
FIGURES = {"first": "first token, s", "gap": "gap, median, ms", "gap99": "gap, p99, ms", "longest": "gap, longest, ms",
           "whole": "whole answer, s"}


class Server:
    """one of the two, in a process of its own"""

    def __init__(self, name, command, ready):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.name, self.log = name, tempfile.TemporaryFile()
        start = time.monotonic()
        self.process = subprocess.Popen(command + ["--port", str(self.port)], stdout=self.log, stderr=self.log)
        while not self.answers(ready):
            if self.process.poll() is not None:
                self.log.seek(0)
                sys.exit(f"{name} ended: {self.log.read()[-1500:].decode(errors='replace')}")
            time.sleep(0.05)
        self.ready_s = time.monotonic() - start

    def answers(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def peak_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    def cpu_s(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            return sum(int(x) for x in file.read().rsplit(")", 1)[1].split()[11:13]) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def ask(server, prompt, num):
    """one completion: when each token's event came after that, in seconds, and its text"""
    body = {"prompt": prompt, "max_tokens": num, "temperature": 0, "stream": True, "cache_prompt": False,
            "stream_options": {"include_usage": True}, "ignore_eos": True, "logit_bias": ENDS}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1200)
    start, times, texts, usage = time.monotonic(), [], [], None
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"{server.name} answers {response.status}: {response.read()[:800]}")
    while line := response.readline():
        now = time.monotonic()
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        for choice in event.get("choices", []):
            if choice.get("finish_reason") is None:
                times.append(now - start)
                texts.append(choice["text"])
    connection.close()
    if not usage or (usage["prompt_tokens"], usage["completion_tokens"]) != (len(prompt), num) or len(times) < num / 2:
        sys.exit(f"{server.name}: wanted {len(prompt)} and {num} tokens, found {usage} and {len(times)} events")
    if usage.get("prompt_tokens_details", {}).get("cached_tokens", 0):
        sys.exit(f"{server.name} has taken a prompt from its cache")
    return {"times": times, "texts": texts, "silent": num - len(times)}


def warm_up(server):
    """a prompt of 64 tokens: the 20 likeliest next tokens, which show whether both have the same model; random weights
    of many layers make so much of rounding that few are the same"""
    prompt = [random.Random(i).randrange(VOCAB) for i in range(64)]
    body = {"prompt": prompt, "max_tokens": 4, "temperature": 0, "logprobs": 20, "ignore_eos": True, "logit_bias": ENDS}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1200)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    logprobs = answer["choices"][0]["logprobs"]
    if "content" in logprobs:                         # llama-server's form
        return sorted(top["token"] for top in logprobs["content"][0]["top_logprobs"])
    return sorted(logprobs["top_logprobs"][0])


def together(server, prompts, num, every):
    """one client for each prompt, the next `every` seconds after the one before"""
    answers, start = [None] * len(prompts), threading.Barrier(len(prompts))

    def client(i):
        start.wait()
        time.sleep(i * every)
        answers[i] = ask(server, prompts[i], num)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if None in answers:
        sys.exit(f"{server.name}: a client failed")
    return answers


def busy_s():
    """processor time of the whole machine since it started"""
    with open("/proc/stat") as file:
        spent = [int(x) for x in file.readline().split()[1:9]]
    return (sum(spent) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")


def turn(a, name, shapes):
    """a round of one server: {shape: answers}"""
    with open(a.gguf, "rb") as file:                  # both start with the file in the page cache
        while file.read(1 << 26):
            pass
    threads, total = ["--threads", str(a.threads)], str(CLIENTS * a.ctx)
    with tempfile.TemporaryDirectory() as data:
        if name == "ossia":
            command = [a.ossia, "serve", "-m", a.gguf, *threads, "--ctx", str(a.ctx), "--kv-tokens", total,
                       "--parallel", str(CLIENTS), "--no-key", "--no-audit", "--log", "off", "--data", data]
        else:
            command = [a.llama, "-m", a.gguf, *threads, "-c", total, "-np", str(CLIENTS), "--cache-ram", "0",
                       "--ctx-checkpoints", "0", "--host", "127.0.0.1"]
        server = Server(name, command, "/ready" if name == "ossia" else "/health")
        try:
            likeliest = warm_up(server)
            start, busy, own = time.monotonic(), busy_s(), server.cpu_s() + time.process_time()
            done = {shape: together(server, prompts, a.num, every) for shape, (prompts, every) in shapes.items()}
            own = server.cpu_s() + time.process_time() - own
            others = (busy_s() - busy - own) / (time.monotonic() - start) / os.cpu_count()
            if others > 0.05:
                print(f"DISTURBED: other programs used {others:.0%} of the machine beside {name}", flush=True)
            return {"ready_s": server.ready_s, "peak_bytes": server.peak_bytes(), "likeliest": likeliest,
                    "shapes": done}
        finally:
            server.stop()


def prompts_of(shape, seed):
    clients, rest = shape.split("x")
    length, every = (*rest.split("@"), "0")[:2]
    rng = random.Random(f"{seed} {shape}")
    return [[rng.randrange(VOCAB) for _ in range(int(length))] for _ in range(int(clients))], float(every)


def at(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def figures(answers):
    """of one shape in one round"""
    gaps = [1e3 * (y - x) for answer in answers for x, y in zip(answer["times"], answer["times"][1:])]
    return {"first": statistics.median(answer["times"][0] for answer in answers), "gap": statistics.median(gaps),
            "gap99": at(gaps, 0.99), "longest": max(gaps),
            "whole": statistics.median(answer["times"][-1] for answer in answers)}


def show(rounds):
    sides = ("ossia", "llama-server")
    for key, unit, scale in (("ready_s", "s", 1), ("peak_bytes", "GB", 1e9)):
        line(key, [[r[side][key] / scale for r in rounds] for side in sides], unit)
    same = [len(set(r["ossia"]["likeliest"]) & set(r["llama-server"]["likeliest"])) for r in rounds]
    print(f"of the 20 likeliest tokens after the warm-up's prompt {min(same)} to {max(same)} are the same")
    for shape in sorted({shape for r in rounds for shape in r["ossia"]["shapes"]}):
        with_it = [r for r in rounds if shape in r["ossia"]["shapes"]]
        found = [[figures(r[side]["shapes"][shape]) for r in with_it] for side in sides]
        for key, name in FIGURES.items():
            line(f"{shape} {name}", [[f[key] for f in side] for side in found], "")
        silent = [sum(x["silent"] for r in with_it for x in r[side]["shapes"][shape]) for side in sides]
        print(f"{shape} tokens without an event: ossia {silent[0]}, llama-server {silent[1]}")


def line(name, found, unit):
    ratios = sorted(x / y for x, y in zip(*found))
    x, y = (statistics.median(side) for side in found)
    print(f"{name}: ossia {x:.3g}, llama-server {y:.3g} {unit}, ratio {statistics.median(ratios):.2f} "
          f"({ratios[0]:.2f} to {ratios[-1]:.2f}), {len(ratios)} rounds")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("--ossia", default="target/release/ossia")
    parser.add_argument("--llama", default="llama-server")
    for short, long, default in (("-t", "--threads", 2), ("-n", "--num", 32), ("-c", "--ctx", 1024),
                                 ("-r", "--rounds", 5)):
        parser.add_argument(short, long, type=int, default=default)
    parser.add_argument("--shapes", nargs="+", default=["1x128", "4x128", "4x128@4", "1x512", "4x512"])
    parser.add_argument("--keep", help="a file of rounds to which these are added")
    parser.add_argument("--show", action="store_true", help="only the summary of --keep")
    a = parser.parse_args()
    rounds = []
    if a.keep and os.path.exists(a.keep):
        with open(a.keep) as file:
            rounds = [json.loads(text) for text in file]
    for _ in range(0 if a.show else a.rounds):
        shapes = {shape: prompts_of(shape, len(rounds)) for shape in a.shapes}
        # Who begins changes from round to round.
        names = ("ossia", "llama-server")[::1 if len(rounds) % 2 == 0 else -1]
        rounds.append({name: turn(a, name, shapes) for name in names})
        if a.keep:
            with open(a.keep, "a") as file:
                file.write(json.dumps(rounds[-1]) + "\n")
        print(f"round {len(rounds)} of", ", ".join(a.shapes), flush=True)
    show(rounds)


if __name__ == "__main__":
    main()
