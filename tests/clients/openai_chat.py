"""OpenAI's Python client: chat completions, completions, models, errors."""

from typing import Literal

import openai
from common import ASK, CHAT_TOOL, MODEL, RESULT, SERVER, SUM, equal, goes_on, is_asked_call, main, raises
from openai import OpenAI
from openai.lib.streaming.chat import ChunkEvent
from pydantic import BaseModel, Field

client = OpenAI()
USER = [{"role": "user", "content": ASK}]


def ask(text=SUM, **fields):
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], **fields)


def whole():
    answer = ask()
    choice = answer.choices[0]
    equal((choice.finish_reason, choice.message.role, answer.object), ("stop", "assistant", "chat.completion"))
    assert "42" in choice.message.content and choice.message.reasoning, choice
    usage = answer.usage
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens, usage


def streamed():
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    message = ask().choices[0].message
    equal("".join(delta.content or "" for delta in deltas), message.content)
    equal("".join(getattr(delta, "reasoning", None) or "" for delta in deltas), message.reasoning)
    equal(len({chunk.id for chunk in chunks}), 1, "ids")
    equal([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], "stop")
    assert chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices


def stream_helper():
    with client.chat.completions.stream(model=MODEL, messages=USER, tools=[CHAT_TOOL]) as stream:
        kinds = {event.type for event in stream if not isinstance(event, ChunkEvent)}
        final = stream.get_final_completion()
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds, kinds
    call = final.choices[0].message.tool_calls[0].function
    is_asked_call(call.name, call.arguments)


def tool_loop():
    first = client.chat.completions.create(model=MODEL, messages=USER, tools=[CHAT_TOOL])
    message = first.choices[0].message
    equal(first.choices[0].finish_reason, "tool_calls")
    is_asked_call(message.tool_calls[0].function.name, message.tool_calls[0].function.arguments)
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": RESULT}
    bare = {"role": "assistant", "tool_calls": [call.model_dump() for call in message.tool_calls]}
    page = '<details type="reasoning" done="true" duration="1">\n<summary>Thought for 1 seconds</summary>\n> {}\n</details>\n'
    # As it came, without its thinking, and as Open WebUI puts it into the text, to the model and on its page.
    as_text = ({**bare, "content": text.format(message.reasoning)} for text in ("<think>{}</think>", page))
    for said in (message, bare, *as_text):
        fields = dict(model=MODEL, messages=[*USER, said, result], tools=[CHAT_TOOL])
        second = client.chat.completions.create(**fields)
        assert "21" in second.choices[0].message.content, second
        goes_on(first.usage.total_tokens, second.usage.prompt_tokens, second.usage.prompt_tokens_details.cached_tokens)


def tool_choice():
    for choice, called in [("required", True), ("none", False),
                           ({"type": "function", "function": {"name": "get_weather"}}, True)]:
        message = ask("Hello!", tools=[CHAT_TOOL], tool_choice=choice).choices[0].message
        equal(bool(message.tool_calls), called, str(choice))


class Weather(BaseModel):
    """Bounded, for nano does not know when to end a text that it has never seen."""

    city: Literal["Paris", "Rome"]
    degrees: int = Field(ge=-40, le=50)
    sky: list[Literal["sunny", "grey"]] = Field(min_length=1, max_length=2)


def parsed_answer():
    fields = dict(model=MODEL, messages=[{"role": "user", "content": "The weather?"}], max_tokens=400)
    answer = client.chat.completions.parse(response_format=Weather, temperature=1, seed=3, **fields)
    assert isinstance(answer.choices[0].message.parsed, Weather), answer
    with client.chat.completions.stream(response_format=Weather, **fields) as stream:
        equal(stream.get_final_completion().choices[0].message.parsed, client.chat.completions.parse(
            response_format=Weather, **fields).choices[0].message.parsed)


def parsed_call():
    class GetWeather(BaseModel):
        city: str

    tool = openai.pydantic_function_tool(GetWeather, name="get_weather")
    fields = dict(model=MODEL, messages=USER, tools=[tool], tool_choice="required")
    call = client.chat.completions.parse(**fields).choices[0].message.tool_calls[0]
    assert isinstance(call.function.parsed_arguments, GetWeather), call


def log_probabilities():
    choice = ask(logprobs=True, top_logprobs=3).choices[0]
    tokens = choice.logprobs.content
    equal("".join(token.token for token in tokens), choice.message.content)
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)


def several():
    choices = ask(n=3, seed=1, temperature=1).choices
    equal([choice.index for choice in choices], [0, 1, 2])
    equal(choices, ask(n=3, seed=1, temperature=1).choices, "the same seed")


def lengths_and_stops():
    equal(ask(max_completion_tokens=3).choices[0].finish_reason, "length")
    stop = ask(stop=["2"]).choices[0]
    equal((stop.message.content, stop.finish_reason), ("4", "stop"))


def efforts():
    thought = [ask(reasoning_effort=effort).usage.completion_tokens_details.reasoning_tokens
               for effort in ("none", "low", "medium", "high")]
    assert thought[0] == 0 and thought[2] > 0 and thought[3] > 0, thought


def plain_completions():
    answer = client.completions.create(model=MODEL, prompt="What is 2 plus 3?", max_tokens=5, echo=True, logprobs=2)
    assert answer.choices[0].text.startswith("What is 2 plus 3?"), answer
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    chunks = list(client.completions.create(model=MODEL, prompt="What", max_tokens=5, stream=True))
    equal(chunks[-1].choices[0].finish_reason, "length")


def models():
    assert MODEL in [model.id for model in client.models.list()]
    equal(client.models.retrieve(MODEL).id, MODEL)


def errors():
    error = raises(openai.NotFoundError, lambda: client.models.retrieve("gpt-7"))
    equal(error.code, "model_not_found")
    error = raises(openai.BadRequestError, lambda: ask("word " * 3000))
    equal((error.code, error.type), ("context_length_exceeded", "invalid_request_error"))
    error = raises(openai.BadRequestError, lambda: ask(temperature=3.5))
    equal(error.param, "temperature")
    raises(openai.AuthenticationError, lambda: OpenAI(api_key="sk-wrong").models.list())
    raises(openai.NotFoundError, lambda: OpenAI(base_url=SERVER + "/v9").models.list())
    raises(openai.NotFoundError, lambda: client.embeddings.create(model=MODEL, input="x"))


main("openai", [whole, streamed, stream_helper, tool_loop, tool_choice, parsed_answer, parsed_call, log_probabilities,
                several, lengths_and_stops, efforts, plain_completions, models, errors])
