"""Codex: `codex exec` with a provider of its own, `--oss` with both local providers, and a long tool loop.

nano knows nothing of Codex' tools and would never call one by itself. So Codex reaches the server through a relay, which
asks for calls at the beginning, and lets the shell tool run harmless commands only. All else passes unchanged.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from relay import Relay

CODEX = os.environ["CODEX"]
COMMANDS = ["echo here-is-ossia", "echo one more", "pwd"]
# Of the long loop.
MANY = 21


class Harmless:
    """What the relay changes: so many calls are asked for, each of one of these commands."""

    def __init__(self):
        self.ask_for(1, COMMANDS[:1])

    def ask_for(self, calls, commands, effort=None):
        self.calls, self.commands, self.effort = calls, commands, effort

    def __call__(self, body):
        shell = {"type": "object", "properties": {"cmd": {"type": "string", "enum": self.commands}}, "required": ["cmd"],
                 "additionalProperties": False}
        for tool in body.get("tools", []):
            if tool.get("name") == "exec_command":
                tool.update(parameters=shell, strict=True)
        calls = [item for item in body["input"] if item.get("type") == "function_call"]
        if body.get("tools") and len(calls) < self.calls and body.get("generate") is not False:
            body["tool_choice"] = {"type": "function", "name": "exec_command"}
        if self.effort:
            body["reasoning"] = (body.get("reasoning") or {}) | {"effort": self.effort}
        # After a prompt eight times as long as any that it has seen, nano goes round in circles unless chance leads it out.
        return body | {"temperature": 1, "max_output_tokens": 6000}


harmless = Harmless()
relay = Relay(os.environ["OSSIA_URL"], harmless)
CONFIG = f"""model = "gpt-oss-20b"
model_provider = "ossia"
[model_providers.ossia]
name = "ossia"
base_url = "{relay.url}/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
"""


def codex(arguments, config=""):
    """The events of one run in an empty folder, and the requests that it made."""
    relay.seen.clear()
    with tempfile.TemporaryDirectory() as folder:
        home, work = Path(folder, "home"), Path(folder, "work")
        home.mkdir(), work.mkdir()
        (home / "config.toml").write_text(config + "[analytics]\nenabled = false\n")
        known = {name: os.environ[name] for name in ("PATH", "OPENAI_API_KEY")}
        own = {"HOME": str(home), "CODEX_HOME": str(home), "CODEX_OSS_BASE_URL": f"{relay.url}/v1"}
        command = [CODEX, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        run = subprocess.run([*command, *arguments, "Say hello."], cwd=work, env=known | own, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    return [json.loads(line) for line in run.stdout.splitlines()], list(relay.seen)


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
    assert after["input_tokens_details"]["cached_tokens"] >= before["total_tokens"] - 1, (before, after)


def is_second(entry):
    return any(item.get("type") == "function_call_output" for item in json.loads(entry["body"])["input"])


def by_config():
    events, seen = codex([], CONFIG)
    assert {entry["path"] for entry in seen} == {"/v1/responses"}, seen
    assert all(entry["key"] == f"Bearer {os.environ['OPENAI_API_KEY']}" for entry in seen)
    is_tool_loop(events, seen)


def oss_ollama():
    events, seen = codex(["--oss", "--local-provider", "ollama"])
    assert {"/api/version", "/api/tags"} <= {entry["path"] for entry in seen}, seen
    is_tool_loop(events, seen)


def oss_lmstudio():
    events, seen = codex(["--oss", "--local-provider", "lmstudio"])
    assert "/v1/models" in {entry["path"] for entry in seen}, seen
    is_tool_loop(events, seen)


def long_loop():
    """Many calls one after another: each prompt begins with all of the one before and of what was made of it."""
    harmless.ask_for(MANY, COMMANDS, "low")
    events, seen = codex([], CONFIG)
    assert events[-1]["type"] == "turn.completed", events[-1]
    usages = [answered(entry)["usage"] for entry in seen if json.loads(entry["body"]).get("tools")]
    assert len(usages) > MANY, len(usages)
    made = sum(usage["total_tokens"] for usage in usages[:-1])
    cached = sum(usage["input_tokens_details"]["cached_tokens"] for usage in usages[1:])
    print(f"          {len(usages)} requests, {cached} of {made} replayed tokens cached: {100 * cached / made:.2f} %")
    assert cached >= 0.97 * made


def main(checks):
    failed = 0
    for check in checks:
        try:
            check()
            print(f"  ok      {check.__name__}")
        except Exception:
            failed += 1
            print(f"  FAILED  {check.__name__}\n{traceback.format_exc()}")
            for entry in relay.seen:
                print(f"    {entry['method']} {entry['path']}: {entry['answer'][-600:]!r}")
    version = subprocess.run([CODEX, "--version"], capture_output=True, text=True).stdout.strip()
    print(f"  {version}: {len(checks) - failed} of {len(checks)} checks")
    sys.exit(failed > 0)


main([by_config, oss_ollama, oss_lmstudio, long_loop])
