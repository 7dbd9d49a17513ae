"""OpenAI's Python client: the Responses API, whole and streamed, and what follows on it."""

import time
from typing import Literal

import openai
from common import ASK, MODEL, RESPONSES_TOOL, RESULT, SUM, equal, goes_on, is_asked_call, main, raises
from openai import OpenAI
from pydantic import BaseModel, Field

client = OpenAI()


def ask(text=SUM, **fields):
    return client.responses.create(model=MODEL, input=text, **fields)


def kinds(response):
    return [item.type for item in response.output]


def whole():
    response = ask()
    equal((response.status, kinds(response)), ("completed", ["reasoning", "message"]))
    assert "42" in response.output_text and response.output[0].content[0].text, response
    usage = response.usage
    equal(usage.total_tokens, usage.input_tokens + usage.output_tokens)
    assert usage.output_tokens_details.reasoning_tokens > 0, usage


def is_whole_stream(events):
    """Numbers without a gap, and every item and part that is begun is ended, with one id."""
    equal([event.sequence_number for event in events], list(range(len(events))))
    equal([event.type for event in events[:2]], ["response.created", "response.in_progress"])
    final = events[-1].response
    equal({event.response.id for event in events if hasattr(event, "response")}, {final.id})
    for index, item in enumerate(final.output):
        own = [event for event in events if getattr(event, "output_index", None) == index]
        equal((own[0].type, own[-1].type), ("response.output_item.added", "response.output_item.done"))
        equal((own[0].item.id, own[-1].item), (item.id, item))
        equal({event.item_id for event in own[1:-1]}, {item.id})
        deltas = "".join(event.delta for event in own if event.type.endswith(".delta"))
        text = item.arguments if item.type == "function_call" else item.content[0].text
        equal(deltas, text)
        assert any(event.type.endswith(("text.done", "arguments.done")) for event in own), own
    return final


def streamed():
    for fields in [{}, {"tools": [RESPONSES_TOOL], "input": ASK}]:
        events = list(client.responses.create(**{"model": MODEL, "input": SUM, "stream": True, **fields}))
        equal(is_whole_stream(events).status, "completed")
    with client.responses.stream(model=MODEL, input=SUM) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        equal((stream.get_final_response().output_text, "42" in text), (text, True))


def followed():
    first = ask("My number is 7.")
    second = ask(previous_response_id=first.id)
    equal(second.previous_response_id, first.id)
    assert second.usage.input_tokens > ask().usage.input_tokens
    equal(client.responses.retrieve(second.id).output, second.output)
    items = [item for item in client.responses.input_items.list(second.id, order="asc")]
    equal([item.content[0].text for item in items], [SUM])


# Thinking as Open WebUI puts it into the text, to the model and on its page.
IN_TEXT = [
    "<think>{}</think>",
    '<details type="reasoning" done="true" duration="1">\n<summary>Thought for 1 seconds</summary>\n> {}\n</details>\n',
]


def tool_loops():
    """The result by the response's id, with the items given back, without the thinking, and with it in the text."""
    first = ask(ASK, tools=[RESPONSES_TOOL], include=["reasoning.encrypted_content"])
    equal(kinds(first), ["reasoning", "function_call"])
    call = first.output[-1]
    is_asked_call(call.name, call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    asked, thought = {"role": "user", "content": ASK}, first.output[0].content[0].text
    as_text = [{"role": "assistant", "content": said.format(thought)} for said in IN_TEXT]
    for fields in [{"input": [result], "previous_response_id": first.id},
                   {"input": [asked, *first.output, result], "store": False},
                   {"input": [asked, call, result], "store": False},
                   *({"input": [asked, said, call, result], "store": False} for said in as_text)]:
        second = client.responses.create(model=MODEL, tools=[RESPONSES_TOOL], **fields)
        assert "21" in second.output_text, second
        goes_on(first.usage.total_tokens, second.usage.input_tokens, second.usage.input_tokens_details.cached_tokens)


def custom_tool():
    tool = {"type": "custom", "name": "pick", "format": {"type": "grammar", "syntax": "regex", "definition": "[ab]{3}"}}
    # Without thinking: nano would think for ever about what it was not taught.
    response = ask("Hello!", tools=[tool], tool_choice="required", reasoning={"effort": "none"})
    call = response.output[-1]
    equal((call.type, call.name, len(call.input)), ("custom_tool_call", "pick", 3))


def summary():
    response = ask(reasoning={"summary": "auto"})
    thought = response.output[0]
    assert thought.content[0].text.startswith(thought.summary[0].text), thought
    with client.responses.stream(model=MODEL, input=SUM, reasoning={"summary": "auto"}) as stream:
        told = [event.text for event in stream if event.type == "response.reasoning_summary_text.done"]
    equal(told, [thought.summary[0].text])


def compacted():
    first = ask()
    short = {"max_output_tokens": 60}
    compaction = client.responses.compact(model=MODEL, previous_response_id=first.id, extra_body=short)
    equal([item.type for item in compaction.output], ["message", "compaction"])
    items = [item.to_dict(warnings=False) for item in compaction.output]
    response = ask([*items, {"role": "user", "content": SUM}], **short)
    assert response.usage.input_tokens > first.usage.input_tokens, response


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]
    degrees: int = Field(ge=-40, le=50)


def parsed():
    response = client.responses.parse(model=MODEL, input="The weather?", text_format=Weather, max_output_tokens=400)
    assert isinstance(response.output_parsed, Weather), response
    with client.responses.stream(model=MODEL, input="The weather?", text_format=Weather) as stream:
        equal(stream.get_final_response().output_parsed, response.output_parsed)


def cut():
    response = ask(max_output_tokens=4)
    equal((response.status, response.incomplete_details.reason), ("incomplete", "max_output_tokens"))


def log_probabilities():
    response = ask(top_logprobs=2, include=["message.output_text.logprobs"])
    tokens = response.output[-1].content[0].logprobs
    equal("".join(token.token for token in tokens), response.output_text)


def background():
    response = ask(background=True)
    while response.status in ("queued", "in_progress"):
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    assert "42" in response.output_text, response
    events = list(client.responses.retrieve(response.id, stream=True, starting_after=3))
    equal((events[0].sequence_number, events[-1].type), (4, "response.completed"))
    stopped = client.responses.cancel(ask("Hello!", background=True, max_output_tokens=1000).id)
    assert stopped.status in ("cancelled", "completed"), stopped


def forgotten():
    response = ask()
    client.responses.delete(response.id)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(response.id))
    equal(client.responses.input_tokens.count(model=MODEL, input=SUM).input_tokens, response.usage.input_tokens)


def errors():
    error = raises(openai.BadRequestError, lambda: ask(previous_response_id="resp_none"))
    equal(error.param, "previous_response_id")
    error = raises(openai.BadRequestError, lambda: ask("word " * 3000))
    equal((error.code, error.param), ("context_length_exceeded", "input"))
    raises(openai.NotFoundError, lambda: client.responses.retrieve("resp_none"))
    image = [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/a.png"}]}]
    assert "input[0]" in raises(openai.BadRequestError, lambda: ask(image)).param


main("openai", [whole, streamed, followed, tool_loops, custom_tool, summary, compacted, parsed, cut, log_probabilities,
                background, forgotten, errors])
