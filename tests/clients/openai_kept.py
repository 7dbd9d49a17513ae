"""OpenAI's Python client: what the server keeps. Files, batches, conversations."""

import io
import json
import time

import openai
from common import MODEL, SUM, equal, main, raises
from openai import OpenAI

client = OpenAI()


def upload(text, purpose="batch"):
    return client.files.create(file=("lines.jsonl", io.BytesIO(text.encode())), purpose=purpose)


def files():
    file = upload("one\ntwo\n", "user_data")
    equal((file.bytes, file.filename, file.purpose), (8, "lines.jsonl", "user_data"))
    equal(client.files.retrieve(file.id), file)
    assert file.id in [other.id for other in client.files.list(purpose="user_data")]
    equal(client.files.content(file.id).text, "one\ntwo\n")
    assert client.files.delete(file.id).deleted
    raises(openai.NotFoundError, lambda: client.files.content(file.id))


def lines(url, body):
    texts = [{"custom_id": f"c{number}", "method": "POST", "url": url, "body": body} for number in range(3)]
    return "\n".join(json.dumps(text) for text in texts)


def batches():
    for url, body in [("/v1/responses", {"input": SUM}),
                      ("/v1/chat/completions", {"messages": [{"role": "user", "content": SUM}]})]:
        file = upload(lines(url, {"model": MODEL, **body}))
        batch = client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h",
                                      metadata={"a": "b"})
        for _ in range(600):
            batch = client.batches.retrieve(batch.id)
            if batch.status not in ("validating", "in_progress", "finalizing"):
                break
            time.sleep(0.05)
        equal((batch.status, batch.request_counts.completed, batch.metadata), ("completed", 3, {"a": "b"}))
        answers = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
        equal([answer["custom_id"] for answer in answers], ["c0", "c1", "c2"])
        assert all(answer["response"]["status_code"] == 200 and "42" in json.dumps(answer) for answer in answers)
        assert batch.id in [other.id for other in client.batches.list()]


def conversations():
    conversation = client.conversations.create(metadata={"topic": "sums"},
                                               items=[{"type": "message", "role": "user", "content": "Hello!"}])
    response = client.responses.create(model=MODEL, conversation=conversation.id, input=SUM)
    equal(response.conversation.id, conversation.id)
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    equal([item.type for item in items], ["message", "message", "reasoning", "message"])
    equal(client.conversations.items.retrieve(items[0].id, conversation_id=conversation.id), items[0])
    more = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And?"}]}
    equal(len(client.conversations.items.create(conversation.id, items=[more]).data), 1)
    client.conversations.items.delete(items[0].id, conversation_id=conversation.id)
    equal(len(list(client.conversations.items.list(conversation.id, limit=2))), 4, "over several pages")
    equal(client.conversations.update(conversation.id, metadata={"topic": "x"}).metadata, {"topic": "x"})
    assert client.conversations.delete(conversation.id).deleted
    raises(openai.NotFoundError, lambda: client.conversations.retrieve(conversation.id))


main("openai", [files, batches, conversations])
