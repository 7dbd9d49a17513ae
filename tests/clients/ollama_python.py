"""Ollama's Python client: chat and generate, whole and streamed, tools, a schema, what models there are, errors."""

import os
from typing import Literal

import ollama
from common import ASK, CHAT_TOOL, MODEL, RESULT, SERVER, SUM, equal, is_asked_call, main, raises
from pydantic import BaseModel

client = ollama.Client(host=SERVER, headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"})
USER = [{"role": "user", "content": SUM}]


def chat():
    whole = client.chat(model=MODEL, messages=USER)
    equal((whole.done, whole.done_reason), (True, "stop"))
    assert "42" in whole.message.content and whole.message.thinking and whole.eval_count > 0, whole
    parts = list(client.chat(model=MODEL, messages=USER, stream=True))
    equal("".join(part.message.content or "" for part in parts), whole.message.content)
    equal("".join(part.message.thinking or "" for part in parts), whole.message.thinking)
    equal([part.done for part in parts], [False] * (len(parts) - 1) + [True])


def generate():
    whole = client.generate(model=MODEL, prompt=SUM)
    assert "42" in whole.response and whole.done, whole
    equal("".join(part.response for part in client.generate(model=MODEL, prompt=SUM, stream=True)), whole.response)


def think():
    assert not client.chat(model=MODEL, messages=USER, think=False).message.thinking
    assert client.chat(model=MODEL, messages=USER, think="high").message.thinking


def tool_loop():
    messages = [{"role": "user", "content": ASK}]
    first = client.chat(model=MODEL, messages=messages, tools=[CHAT_TOOL])
    call = first.message.tool_calls[0].function
    is_asked_call(call.name, dict(call.arguments))
    messages += [first.message, {"role": "tool", "tool_name": call.name, "content": RESULT}]
    second = client.chat(model=MODEL, messages=messages, tools=[CHAT_TOOL])
    assert "21" in second.message.content, second
    made = first.prompt_eval_count + first.eval_count
    assert made < second.prompt_eval_count < made + 60, (first, second)


def function_as_tool():
    def get_weather(city: str, unit: str) -> str:
        """Weather of a city

        Args:
            city: The city
            unit: celsius or fahrenheit
        """

    answer = client.chat(model=MODEL, messages=[{"role": "user", "content": ASK}], tools=[get_weather])
    equal(answer.message.tool_calls[0].function.name, "get_weather")


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]


def schema():
    fields = dict(model=MODEL, messages=USER, options={"num_predict": 400, "temperature": 0})
    Weather.model_validate_json(client.chat(format=Weather.model_json_schema(), **fields).message.content)


def options():
    equal(client.chat(model=MODEL, messages=USER, options={"num_predict": 3}).done_reason, "length")
    equal(client.chat(model=MODEL, messages=USER, options={"stop": ["2"]}).message.content, "4")


def models():
    assert any(model.model.startswith(MODEL) for model in client.list().models)
    shown = client.show(MODEL)
    assert "tools" in shown.capabilities and "thinking" in shown.capabilities, shown
    equal(client.pull(MODEL).status, "success")
    equal([step.status for step in client.pull(MODEL, stream=True)][-1], "success")


def errors():
    equal(raises(ollama.ResponseError, lambda: client.chat(model="llama9", messages=USER)).status_code, 404)
    equal(raises(ollama.ResponseError, lambda: client.generate(model=MODEL, prompt="word " * 3000)).status_code, 400)
    nobody = ollama.Client(host=SERVER, headers={"Authorization": "Bearer sk-wrong"})
    equal(raises(ollama.ResponseError, lambda: nobody.list()).status_code, 401)


main("ollama", [chat, generate, think, tool_loop, function_as_tool, schema, options, models, errors])
