"""A relay between a client and the server that remembers what passes, and writes it down as a trace.

A trace holds what a client sent, without what the server told it before: a value that came from an answer stands as
{"$from": [number of the answer, JSON pointer]}, and the beginning of a list that was sent in the request before as
{"$same": number of elements}. So it can be played against any server, which answers with ids and texts of its own.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PASSED_ON = ("authorization", "content-type", "accept")


class Relay:
    """Listens on any port and passes everything to `server`; `change` may edit the body of a request for a generation."""

    def __init__(self, server, change=lambda body: body):
        self.seen = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def relayed(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.command == "POST" and self.path in ("/v1/responses", "/v1/chat/completions"):
                    body = json.dumps(change(json.loads(body))).encode()
                entry = {"method": self.command, "path": self.path, "body": body, "answer": b"",
                         "key": self.headers.get("authorization")}
                relay.seen.append(entry)
                headers = {name: value for name, value in self.headers.items() if name.lower() in PASSED_ON}
                try:
                    answer = urlopen(Request(server + self.path, data=body or None, headers=headers, method=self.command))
                except HTTPError as error:
                    answer = error
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers["content-type"])
                self.end_headers()
                while part := answer.read1():
                    entry["answer"] += part
                    self.wfile.write(part)
                    self.wfile.flush()

            do_GET = do_POST = relayed

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"


def trace(seen):
    """The requests of one path, with references in place of what the server said."""
    known, before, requests = {}, {}, []
    for number, entry in enumerate(seen):
        body, answer = json.loads(entry["body"]), json.loads(entry["answer"])
        requests.append({name: referred(shortened(value, before.get(name)), known) for name, value in body.items()})
        before = body
        for name in ("output", "choices"):
            known.update((text, {"$from": [number, at]}) for text, at in texts(answer.get(name), f"/{name}"))
    return requests


def texts(said, pointer):
    """Every text that the server said, but for words that anybody says, and where it stands."""
    if isinstance(said, dict):
        for name, value in said.items():
            yield from texts(value, f"{pointer}/{name}")
    elif isinstance(said, list):
        for index, value in enumerate(said):
            yield from texts(value, f"{pointer}/{index}")
    elif isinstance(said, str) and len(said) > 16:
        yield said, pointer


def shortened(value, before):
    """A list without the elements with which it begins as before."""
    if not isinstance(value, list) or not isinstance(before, list):
        return value
    pairs = zip(value, before)
    same = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(value), len(before)))
    return ([{"$same": same}] if same else []) + value[same:]


def referred(value, known):
    if isinstance(value, dict):
        return {name: referred(inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [referred(inner, known) for inner in value]
    return known.get(value, value) if isinstance(value, str) else value
