"""Writes down what a real agent sends in a long tool loop: OpenAI's Agents SDK over chat and over Responses, 22 calls and
an answer, against nano. The traces are played by `cargo test -p ossia-serve --test api trace`.

    OSSIA_URL=… OPENAI_API_KEY=… python tests/clients/record_agent.py crates/ossia-serve/tests/traces
"""

import asyncio
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from openai import AsyncOpenAI
from relay import Relay, trace

CALLS = 22
RESULTS = ['{"temperature":21,"sky":"sunny"}', '{"temperature":4,"sky":"rainy"}', '{"temperature":-3,"sky":"clear"}']
asked = 0


@function_tool
def get_weather(city: Literal["Paris", "Rome", "Oslo"], unit: Literal["celsius", "fahrenheit"]) -> str:
    """Weather of a city"""
    global asked
    asked += 1
    return RESULTS[asked % len(RESULTS)]


def required(body):
    """nano would answer after the first result: it is made to call until enough was called, and kept from going astray."""
    results = [item for item in body.get("input", body.get("messages", []))
               if item.get("role") == "tool" or item.get("type") == "function_call_output"]
    return body | {"tool_choice": "required" if len(results) < CALLS else "none", "seed": 1, "temperature": 0}


async def run(kind, path):
    relay = Relay(os.environ["OSSIA_URL"], required)
    async with AsyncOpenAI(base_url=f"{relay.url}/v1") as client:
        agent = Agent(name="clerk", instructions="You look up the weather.", model=kind("nano", openai_client=client),
                      tools=[get_weather], model_settings=ModelSettings(store=False))
        result = await Runner.run(agent, "What is the weather in Paris in celsius?", max_turns=CALLS + 2)
    usages = [response.usage for response in result.raw_responses]
    made, again = 0, 0
    for before, after in zip(usages, usages[1:]):
        made += before.total_tokens
        again += after.input_tokens_details.cached_tokens
    print(f"{path}: {len(usages)} requests, {again} of {made} replayed tokens cached")
    return trace(relay.seen)


def main(folder):
    set_tracing_disabled(True)
    for kind, path, name in [(OpenAIChatCompletionsModel, "/v1/chat/completions", "agents-chat"),
                             (OpenAIResponsesModel, "/v1/responses", "agents-responses")]:
        lines = [json.dumps(request, ensure_ascii=False) for request in asyncio.run(run(kind, path))]
        joined = ",\n".join(lines)
        head = json.dumps({"client": f"openai-agents {version('openai-agents')}", "path": path})[:-1]
        Path(folder, f"{name}.json").write_text(f'{head}, "requests": [\n{joined}\n]}}\n')


main(sys.argv[1])
