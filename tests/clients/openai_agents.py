"""OpenAI's Agents SDK, over chat and over Responses: tool loop, streaming, structured answer, hand-over, session; two runs
in one conversation of the server."""

import asyncio
from typing import Literal

from agents import Agent, ModelSettings, Runner, SQLiteSession, function_tool, set_tracing_disabled
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from common import ASK, MODEL, RESULT, SUM, equal, goes_on, main
from openai import AsyncOpenAI, BadRequestError
from openai.types.shared import Reasoning
from pydantic import BaseModel

set_tracing_disabled(True)
called = []


@function_tool
def get_weather(city: str, unit: Literal["celsius", "fahrenheit"]) -> str:
    """Weather of a city"""
    called.append((city, unit))
    return RESULT


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]


def over(kind, check):
    """The check with a model of this kind, in an event loop and with a client of its own."""

    async def run():
        async with AsyncOpenAI() as client:
            await check(kind(MODEL, openai_client=client))

    def named():
        asyncio.run(run())

    named.__name__ = f"{check.__name__} ({'chat' if kind is OpenAIChatCompletionsModel else 'Responses'})"
    return named


async def tool_loop(model):
    called.clear()
    result = await Runner.run(Agent(name="a", model=model, tools=[get_weather]), ASK)
    equal(called, [("Paris", "celsius")])
    assert "21" in result.final_output, result
    first, second = (response.usage for response in result.raw_responses)
    goes_on(first.total_tokens, second.input_tokens, second.input_tokens_details.cached_tokens)


async def streamed(model):
    called.clear()
    result = Runner.run_streamed(Agent(name="a", model=model, tools=[get_weather]), ASK)
    kinds = [event.name async for event in result.stream_events() if event.type == "run_item_stream_event"]
    assert kinds.index("tool_called") < kinds.index("tool_output") < kinds.index("message_output_created"), kinds
    equal((called, "21" in result.final_output), ([("Paris", "celsius")], True))


async def structured(model):
    agent = Agent(name="a", model=model, output_type=Weather, model_settings=ModelSettings(max_tokens=400))
    assert isinstance((await Runner.run(agent, "The weather?")).final_output, Weather)


async def hand_over(model):
    helper = Agent(name="helper", model=model)
    # Without thinking: nano would think for ever about what it was not taught.
    settings = ModelSettings(tool_choice="required", reasoning=Reasoning(effort="none"))
    first = Agent(name="first", model=model, handoffs=[helper], model_settings=settings)
    equal((await Runner.run(first, SUM)).last_agent.name, "helper")


async def session(model):
    agent, kept = Agent(name="a", model=model), SQLiteSession("s")
    assert "42" in (await Runner.run(agent, SUM, session=kept)).final_output
    await Runner.run(agent, "Hello!", session=kept)
    roles = [item.get("role") for item in await kept.get_items() if item.get("role")]
    equal(roles, ["user", "assistant"] * 2)


async def one_conversation(model):
    """The SDK waits and asks again where another response is being made in the conversation."""
    async with AsyncOpenAI() as client:
        kept = await client.conversations.create()
        schema = {"type": "array", "minItems": 100, "maxItems": 100, "items": {"type": "integer", "minimum": 0, "maximum": 9}}
        text = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
        first = await client.responses.create(model=MODEL, input="Count.", conversation=kept.id, background=True, text=text,
                                              reasoning={"effort": "none"})
        try:
            await client.responses.create(model=MODEL, input=SUM, conversation=kept.id)
            raise AssertionError("two at once")
        except BadRequestError as error:
            equal(error.code, "conversation_locked")
        result = await Runner.run(Agent(name="a", model=model), SUM, conversation_id=kept.id)
        assert result.final_output, result
        equal((await client.responses.retrieve(first.id)).status, "completed")
        items = [item async for item in client.conversations.items.list(kept.id, order="asc")]
        equal([item.content[0].text for item in items if getattr(item, "role", None) == "user"], ["Count.", SUM])


main("openai-agents", [over(kind, check) for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel)
                       for check in (tool_loop, streamed, structured, hand_over, session)]
     + [over(OpenAIResponsesModel, one_conversation)])
