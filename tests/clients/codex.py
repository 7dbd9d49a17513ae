"""Codex: `codex exec` with a provider of its own, and `--oss` with both local providers.

nano knows nothing of Codex' tools and would never call one by itself. So Codex reaches the server through a relay, which
asks for one call at the beginning, and lets the shell tool run one harmless command only. All else passes unchanged.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SERVER = os.environ["OSSIA_URL"]
CODEX = os.environ["CODEX"]
COMMAND = "echo here-is-ossia"
SHELL = {
    "type": "object",
    "properties": {"cmd": {"type": "string", "enum": [COMMAND]}},
    "required": ["cmd"],
    "additionalProperties": False,
}


class Relay(BaseHTTPRequestHandler):
    """Passes requests on, remembers them as (method, path, body, answer)."""

    seen = []

    def log_message(self, *_):
        pass

    def relayed(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/v1/responses":
            body = json.dumps(harmless(json.loads(body))).encode()
        entry = {"method": self.command, "path": self.path, "body": body, "answer": b"",
                 "key": self.headers.get("authorization")}
        self.seen.append(entry)
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() in ("authorization", "content-type", "accept")}
        request = Request(SERVER + self.path, data=body or None, headers=headers, method=self.command)
        try:
            answer = urlopen(request)
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


def harmless(body):
    for tool in body.get("tools", []):
        if tool.get("name") == "exec_command":
            tool.update(parameters=SHELL, strict=True)
    was_called = any(item.get("type") == "function_call" for item in body["input"])
    if body.get("tools") and not was_called and body.get("generate") is not False:
        body["tool_choice"] = {"type": "function", "name": "exec_command"}
    # After a prompt eight times as long as any that it has seen, nano goes round in circles unless chance leads it out.
    return body | {"temperature": 1, "max_output_tokens": 6000}


def codex(relay, arguments, config=""):
    """The events of one run in an empty folder, and the requests that it made."""
    Relay.seen.clear()
    with tempfile.TemporaryDirectory() as folder:
        home, work = Path(folder, "home"), Path(folder, "work")
        home.mkdir(), work.mkdir()
        (home / "config.toml").write_text(config + "[analytics]\nenabled = false\n")
        known = {name: os.environ[name] for name in ("PATH", "OPENAI_API_KEY")}
        own = {"HOME": str(home), "CODEX_HOME": str(home), "CODEX_OSS_BASE_URL": f"{relay}/v1"}
        command = [CODEX, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        run = subprocess.run([*command, *arguments, "Say hello."], cwd=work, env=known | own, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    return [json.loads(line) for line in run.stdout.splitlines()], list(Relay.seen)


def answered(entry):
    """The response at the end of a stream."""
    data = [json.loads(line[6:]) for line in entry["answer"].decode().splitlines() if line.startswith("data: {")]
    assert [event["sequence_number"] for event in data] == list(range(len(data))), data
    assert data[-1]["type"] in ("response.completed", "response.incomplete"), data[-1]
    return data[-1]["response"]


def is_tool_loop(events, seen):
    """The command ran once asked for, the turn ended well, and the second prompt goes on where the first ended."""
    ran = [event["item"] for event in events
           if event["type"] == "item.completed" and event["item"]["type"] == "command_execution"]
    assert ran and ran[0]["exit_code"] == 0 and ran[0]["aggregated_output"].strip() == "here-is-ossia", events
    assert events[-1]["type"] == "turn.completed", events[-1]
    asked = [entry for entry in seen if entry["path"] == "/v1/responses" and json.loads(entry["body"]).get("tools")]
    first, second = [next(entry for entry in asked if is_second(entry) == wanted) for wanted in (False, True)]
    before, after = (answered(entry) for entry in (first, second))
    sent = {item.get("id"): item for item in json.loads(second["body"])["input"]}
    thoughts = [item for item in before["output"] if item["type"] == "reasoning"]
    assert all(item["encrypted_content"] == sent[item["id"]]["encrypted_content"] for item in thoughts), sent.keys()
    before, after = before["usage"], after["usage"]
    assert after["input_tokens"] > before["input_tokens"] + before["output_tokens_details"]["reasoning_tokens"]
    assert after["input_tokens_details"]["cached_tokens"] >= before["input_tokens"], (before, after)


def is_second(entry):
    return any(item.get("type") == "function_call_output" for item in json.loads(entry["body"])["input"])


def by_config(relay):
    config = f"""model = "gpt-oss-20b"
model_provider = "ossia"
[model_providers.ossia]
name = "ossia"
base_url = "{relay}/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
"""
    events, seen = codex(relay, [], config)
    assert {entry["path"] for entry in seen} == {"/v1/responses"}, seen
    assert all(entry["key"] == f"Bearer {os.environ['OPENAI_API_KEY']}" for entry in seen)
    is_tool_loop(events, seen)


def oss_ollama(relay):
    events, seen = codex(relay, ["--oss", "--local-provider", "ollama"])
    assert {"/api/version", "/api/tags"} <= {entry["path"] for entry in seen}, seen
    is_tool_loop(events, seen)


def oss_lmstudio(relay):
    events, seen = codex(relay, ["--oss", "--local-provider", "lmstudio"])
    assert "/v1/models" in {entry["path"] for entry in seen}, seen
    is_tool_loop(events, seen)


def main(checks):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    Thread(target=server.serve_forever, daemon=True).start()
    failed = 0
    for check in checks:
        try:
            check(f"http://127.0.0.1:{server.server_port}")
            print(f"  ok      {check.__name__}")
        except Exception:
            failed += 1
            print(f"  FAILED  {check.__name__}\n{traceback.format_exc()}")
            for entry in Relay.seen:
                print(f"    {entry['method']} {entry['path']}: {entry['answer'][-600:]!r}")
    version = subprocess.run([CODEX, "--version"], capture_output=True, text=True).stdout.strip()
    print(f"  {version}: {len(checks) - failed} of {len(checks)} checks")
    sys.exit(failed > 0)


main([by_config, oss_ollama, oss_lmstudio])
