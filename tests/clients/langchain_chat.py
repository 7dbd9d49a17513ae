"""LangChain's OpenAI package, over chat and over Responses: tools, structured output, streams, a tool loop."""

from typing import Literal

from common import ASK, MODEL, RESULT, SUM, equal, goes_on, is_asked_call, main
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


@tool
def get_weather(city: str, unit: Literal["celsius", "fahrenheit"]) -> str:
    """Weather of a city"""
    return RESULT


class Weather(BaseModel):
    """The weather."""

    city: Literal["Paris", "Rome"]


def over(responses, check):
    def named():
        check(ChatOpenAI(model=MODEL, use_responses_api=responses, stream_usage=True))

    named.__name__ = f"{check.__name__} ({'Responses' if responses else 'chat'})"
    return named


def answer(model):
    whole = model.invoke(SUM)
    assert "42" in whole.text and whole.usage_metadata["output_token_details"]["reasoning"] > 0, whole
    chunks = list(model.stream(SUM))
    equal("".join(chunk.text for chunk in chunks), whole.text)
    equal(sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata),
          whole.usage_metadata["output_tokens"])


def tool_loop(model):
    able = model.bind_tools([get_weather])
    messages = [HumanMessage(ASK)]
    first = able.invoke(messages)
    is_asked_call(first.tool_calls[0]["name"], first.tool_calls[0]["args"])
    messages += [first, ToolMessage(RESULT, tool_call_id=first.tool_calls[0]["id"])]
    second = able.invoke(messages)
    assert "21" in second.text, second
    # LangChain drops the thinking of chat messages; the server puts it back.
    used = second.usage_metadata
    cached = used["input_token_details"]["cache_read"]
    goes_on(first.usage_metadata["total_tokens"], used["input_tokens"], cached)


def streamed_call(model):
    chunks = list(model.bind_tools([get_weather]).stream(ASK))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    is_asked_call(whole.tool_calls[0]["name"], whole.tool_calls[0]["args"])


def forced_call(model):
    able = model.bind_tools([get_weather], tool_choice="get_weather")
    equal(able.invoke(ASK).tool_calls[0]["name"], "get_weather")


def structured(model):
    for method in ("json_schema", "function_calling"):
        able = model.with_structured_output(Weather, method=method)
        assert isinstance(able.invoke(ASK), Weather), method


def too_long(model):
    try:
        model.invoke("word " * 3000)
    except ContextOverflowError:
        return
    raise AssertionError("no ContextOverflowError")


main("langchain-openai", [over(responses, check) for responses in (False, True)
                          for check in (answer, tool_loop, streamed_call, forced_call, structured, too_long)])
