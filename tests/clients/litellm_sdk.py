"""LiteLLM's SDK, as `openai/…` over chat and Responses: tools, streams, schema, errors."""

import os
from typing import Literal

# Else it asks the internet for prices when it is loaded.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from common import ASK, CHAT_TOOL, MODEL, RESPONSES_TOOL, RESULT, SUM, equal, goes_on, is_asked_call, main, raises
from pydantic import BaseModel

NAME = f"openai/{MODEL}"
USER = [{"role": "user", "content": SUM}]
litellm.suppress_debug_info = True


def chat():
    whole = litellm.completion(model=NAME, messages=USER)
    message = whole.choices[0].message
    assert "42" in message.content and message.reasoning_content, whole
    chunks = list(litellm.completion(model=NAME, messages=USER, stream=True))
    built = litellm.stream_chunk_builder(chunks, messages=USER).choices[0].message
    equal((built.content, built.reasoning_content), (message.content, message.reasoning_content))


def tool_loop():
    messages = [{"role": "user", "content": ASK}]
    first = litellm.completion(model=NAME, messages=messages, tools=[CHAT_TOOL])
    message = first.choices[0].message
    call = message.tool_calls[0]
    is_asked_call(call.function.name, call.function.arguments)
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
    second = litellm.completion(model=NAME, messages=messages, tools=[CHAT_TOOL])
    assert "21" in second.choices[0].message.content, second
    goes_on(first.usage.total_tokens, second.usage.prompt_tokens, second.usage.prompt_tokens_details.cached_tokens)


def streamed_call():
    fields = dict(model=NAME, messages=[{"role": "user", "content": ASK}], tools=[CHAT_TOOL])
    built = litellm.stream_chunk_builder(list(litellm.completion(stream=True, **fields)))
    call = built.choices[0].message.tool_calls[0].function
    is_asked_call(call.name, call.arguments)


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]


def schema():
    answer = litellm.completion(model=NAME, messages=USER, response_format=Weather, max_tokens=400)
    Weather.model_validate_json(answer.choices[0].message.content)


def responses():
    first = litellm.responses(model=NAME, input=ASK, tools=[RESPONSES_TOOL])
    call = first.output[-1]
    is_asked_call(call.name, call.arguments)
    result = [{"type": "function_call_output", "call_id": call.call_id, "output": RESULT}]
    fields = dict(model=NAME, input=result, tools=[RESPONSES_TOOL], previous_response_id=first.id)
    assert "21" in litellm.responses(**fields).output[-1].content[0].text
    kinds = [event.type for event in litellm.responses(stream=True, **fields)]
    equal((kinds[0], kinds[-1]), ("response.created", "response.completed"))


def errors():
    fields = dict(model=NAME, messages=USER)
    raises(litellm.ContextWindowExceededError,
           lambda: litellm.completion(model=NAME, messages=[{"role": "user", "content": "word " * 3000}]))
    raises(litellm.AuthenticationError, lambda: litellm.completion(api_key="sk-wrong", **fields))
    raises(litellm.NotFoundError, lambda: litellm.completion(model="openai/gpt-7", messages=USER))
    raises(litellm.BadRequestError, lambda: litellm.completion(temperature=9, **fields))


main("litellm", [chat, tool_loop, streamed_call, schema, responses, errors])
