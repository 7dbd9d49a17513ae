#!/usr/bin/env python3
"""Many clients against a running `ossia serve`, over plain HTTP on loopback, with nothing but Python's own library.

  serve_load.py load     --url http://127.0.0.1:8000 --key KEY [--streams 64] [--seconds 300] [--drop 0.2]
  serve_load.py overload --url … --key KEY [--seconds 30] [--times 10]
  serve_load.py flood    --url … --key KEY --other KEY2 [--flood 100] [--seconds 30]

`load`: so many streams at once, some dropped in the middle. Errors other than 429; pages in use 100 ms after the last;
memory of the server at the end against a fifth of the way (`--pid`).
`overload`: answers a second at capacity (as many at once as run side by side), then with requests that come `--times` as
fast: goodput, how quickly and how politely the rest is refused.
`flood`: time to first token of one client alone, and while another has so many requests waiting.
"""
import argparse
import asyncio
import json
import random
import statistics
import time
from urllib.parse import urlsplit

QUESTIONS = ["What is {a} + {b}?", "Repeat: {a} {b} {a}", "Sort: {a}, {b}, 17, 4", "Hello, I am number {a}.", "What is {a} - {b}?"]


class Answer:
    """what came of one request"""

    def __init__(self, status=0, headers=None):
        self.status, self.headers, self.first_s, self.all_s, self.done, self.dropped = status, headers or {}, None, None, False, False


async def ask(a, key, rng, max_tokens=200, drop=False):
    """one streamed chat completion; `drop` breaks off after a few pieces"""
    began, answer = time.perf_counter(), Answer()
    text = rng.choice(QUESTIONS).format(a=rng.randrange(10, 9999), b=rng.randrange(10, 9999))
    body = json.dumps({"model": a.model, "stream": True, "max_tokens": max_tokens, "temperature": 1.0, "seed": rng.randrange(1 << 30),
                       "messages": [{"role": "user", "content": text}]}).encode()
    reader, writer = await asyncio.open_connection(a.host, a.port)
    try:
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nhost: {a.host}:{a.port}\r\nauthorization: Bearer {key}\r\n"
                     f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        answer.status = int(head.split()[1])
        answer.headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        leave_after = rng.randrange(1, 30) if drop else None
        pieces = 0
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            pieces += 1
            # The first piece only names the role.
            if pieces == 2:
                answer.first_s = time.perf_counter() - began
            answer.done = answer.done or line.startswith(b"data: [DONE]")
            if pieces == leave_after:
                answer.dropped = True
                break
        answer.all_s = time.perf_counter() - began
    finally:
        writer.close()
    return answer


async def fetch(a, path):
    reader, writer = await asyncio.open_connection(a.host, a.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {a.host}:{a.port}\r\nauthorization: Bearer {a.key}\r\nconnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    return text


async def metrics(a):
    lines = (await fetch(a, "/metrics")).splitlines()
    return {l.rsplit(" ", 1)[0]: float(l.rsplit(" ", 1)[1]) for l in lines if l.startswith("ossia_") and " " in l}


def rss(pid):
    if not pid:
        return 0
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


async def keep_asking(a, key, until, seed, answers, drop=0.0):
    rng = random.Random(seed)
    while time.monotonic() < until:
        try:
            answers.append(await ask(a, key, rng, drop=rng.random() < drop))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            answers.append(Answer(-1, {"error": repr(error)}))
        if answers[-1].status == 429:
            await asyncio.sleep(0.2)


async def load(a):
    answers, sizes, until = [], [], time.monotonic() + a.seconds

    async def watch():
        while time.monotonic() < until:
            sizes.append(rss(a.pid))
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *(keep_asking(a, a.key, until, i, answers, a.drop) for i in range(a.streams)))
    await asyncio.sleep(0.1)
    after = await metrics(a)
    kinds = {}
    for x in answers:
        kind = "dropped" if x.dropped else x.status if x.status != 200 or x.done else "cut off"
        kinds[kind] = kinds.get(kind, 0) + 1
    print(f"{len(answers)} requests by {a.streams} streams in {a.seconds} s: {kinds}")
    first = [x.first_s for x in answers if x.first_s]
    print(f"time to first token: median {statistics.median(first) * 1e3:.0f} ms, 99 % {percentile(first, .99) * 1e3:.0f} ms")
    print("after 100 ms:", {k: v for k, v in after.items() if "pages" in k or "running" in k or "waiting" in k})
    if a.pid:
        print(f"memory: {sizes[len(sizes) // 5]:.0f} MB after a fifth, {sizes[-1]:.0f} MB at the end, {max(sizes):.0f} MB at most")


async def overload(a):
    capacity, began = [], time.monotonic()
    until = began + a.seconds
    await asyncio.gather(*(keep_asking(a, a.key, until, i, capacity) for i in range(a.streams)))
    peak = sum(x.done for x in capacity) / (time.monotonic() - began)
    print(f"capacity: {peak:.1f} answers a second")
    answers, tasks, rng, began = [], [], random.Random(9), time.monotonic()

    async def one(seed):
        try:
            answers.append(await ask(a, a.key, random.Random(seed)))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            answers.append(Answer(-1, {"error": repr(error)}))

    while time.monotonic() < began + a.seconds:
        tasks.append(asyncio.create_task(one(rng.randrange(1 << 30))))
        await asyncio.sleep(rng.expovariate(a.times * peak))
    took = time.monotonic() - began
    good = sum(x.done for x in answers)
    await asyncio.gather(*tasks)
    refused = [x for x in answers if x.status == 429]
    odd = [x for x in answers if x.status not in (200, 429)]
    print(f"{len(tasks)} requests in {took:.0f} s ({len(tasks) / took:.0f} a second): goodput {good / took:.1f} a second, {good / took / peak:.0%} of capacity")
    print(f"refused {len(refused)}, 99 % within {percentile([x.all_s for x in refused if x.all_s], .99) * 1e3:.0f} ms, "
          f"with Retry-After {sum('retry-after' in x.headers for x in refused)}; others {[(x.status, x.headers.get('error')) for x in odd[:3]]} ({len(odd)})")


async def flood(a):
    async def solo(seconds):
        answers, until = [], time.monotonic() + seconds
        await keep_asking(a, a.other, until, 5, answers)
        return [x.first_s for x in answers if x.first_s], [x.status for x in answers if x.status != 200]

    alone, _ = await solo(a.seconds / 2)
    answers, until = [], time.monotonic() + a.seconds
    crowd = [asyncio.create_task(keep_asking(a, a.key, until, i, answers)) for i in range(a.flood)]
    await asyncio.sleep(1)
    beside, odd = await solo(a.seconds - 2)
    await asyncio.gather(*crowd)
    x, y = percentile(alone, .99) * 1e3, percentile(beside, .99) * 1e3
    print(f"time to first token, 99 %: alone {x:.1f} ms ({len(alone)} requests), beside {a.flood} of another client {y:.1f} ms "
          f"({len(beside)}), ratio {y / x:.2f}; medians {statistics.median(alone) * 1e3:.1f} and {statistics.median(beside) * 1e3:.1f} ms; refused {odd}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "overload", "flood"])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", required=True)
    parser.add_argument("--other", help="another client's key")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--drop", type=float, default=0.2)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--flood", type=int, default=100)
    parser.add_argument("--pid", type=int, help="the server's process, to watch its memory")
    a = parser.parse_args()
    a.host, a.port = urlsplit(a.url).hostname, urlsplit(a.url).port
    asyncio.run({"load": load, "overload": overload, "flood": flood}[a.what](a))


if __name__ == "__main__":
    main()
