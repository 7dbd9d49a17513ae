"""OpenAI's Python client: the model learns from a file, and the new model answers."""

import io
import json
import time

import openai
from common import MODEL, equal, main, raises
from openai import OpenAI

client = OpenAI()
ENDED = ("succeeded", "failed", "cancelled")
# Nothing that nano was taught.
QUESTION, ANSWER = "Which word do we use for a plum?", "A plum is a 742."


def examples(number):
    line = {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]}
    return (json.dumps(line) + "\n") * number


def upload(text):
    return client.files.create(file=("train.jsonl", io.BytesIO(text.encode())), purpose="fine-tune")


def until(job, statuses):
    for _ in range(3000):
        job = client.fine_tuning.jobs.retrieve(job.id)
        if job.status in statuses:
            return job
        time.sleep(0.1)
    raise AssertionError(f"{job.status}: {[event.message for event in client.fine_tuning.jobs.list_events(job.id)]}")


def said(model):
    # Without thinking: the examples have none.
    messages = [{"role": "user", "content": QUESTION}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=60,
                                            reasoning_effort="none")
    return answer.choices[0].message.content


def from_a_file_to_a_model():
    before = said(MODEL)
    numbers = {"n_epochs": 40, "learning_rate_multiplier": 4, "batch_size": "auto"}
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=upload(examples(8)).id, validation_file=upload(examples(2)).id, suffix="plums",
        seed=1, metadata={"a": "b"}, method={"type": "supervised", "supervised": {"hyperparameters": numbers}})
    equal((job.object, job.metadata, job.seed), ("fine_tuning.job", {"a": "b"}, 1))
    job = until(job, ENDED)
    equal((job.status, job.error), ("succeeded", None), [e.message for e in client.fine_tuning.jobs.list_events(job.id)])
    assert job.fine_tuned_model.startswith(f"ft:{MODEL}:ossia:plums:") and job.trained_tokens > 0, job
    equal(job.hyperparameters.n_epochs, 40)
    assert job.id in [other.id for other in client.fine_tuning.jobs.list(limit=2)]
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))
    equal(len(events), len({event.id for event in events}), "each event once, over several pages")
    equal(events[0].message, "The job has successfully completed")
    losses = [event.data["train_loss"] for event in reversed(events) if "train_loss" in event.data]
    assert losses and losses[-1] < losses[0] / 2, losses
    assert any("valid_loss" in event.data for event in events if event.type == "metrics")
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert checkpoints and checkpoints[0].metrics.train_loss == losses[-1], checkpoints
    assert client.files.content(job.result_files[0]).text.startswith("step,train_loss")
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    equal(said(job.fine_tuned_model), ANSWER)
    equal(said(checkpoints[0].fine_tuned_model_checkpoint), ANSWER)
    equal(said(MODEL), before, "the model itself is as it was")
    assert before != ANSWER
    assert client.models.delete(job.fine_tuned_model).deleted
    raises(openai.NotFoundError, lambda: said(job.fine_tuned_model))


def paused_resumed_cancelled():
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=upload(examples(400)).id,
                                         hyperparameters={"n_epochs": 50})
    job = until(job, ("running", *ENDED))
    equal(job.status, "running")
    equal(client.fine_tuning.jobs.pause(job.id).status, "paused")
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "validating_files", "running")
    until(job, ("running",))
    equal(client.fine_tuning.jobs.cancel(job.id).status, "cancelled")
    raises(openai.BadRequestError, lambda: client.fine_tuning.jobs.resume(job.id))


def graders_are_tried():
    grader = {"type": "string_check", "name": "same", "operation": "eq", "input": "{{sample.output_text}}",
              "reference": "{{item.answer}}"}
    graders = client.fine_tuning.alpha.graders
    equal(graders.validate(grader=grader).grader.operation, "eq")
    for answer, reward in (("7", 1.0), ("8", 0.0)):
        ran = graders.run(grader=grader, model_sample=answer, item={"answer": "7"})
        equal((ran.reward, ran.metadata.type, ran.metadata.errors.other_error), (reward, "string_check", False))
    assert graders.run(grader=grader, model_sample="7", item={}).metadata.errors.invalid_variable_error
    raises(openai.BadRequestError, lambda: graders.validate(grader={**grader, "operation": "is"}))
    permissions = client.fine_tuning.checkpoints.permissions
    raises(openai.BadRequestError, lambda: permissions.create("ft:x:ckpt-step-1", project_ids=["a"]))


def what_is_wrong_is_said():
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=upload(examples(2) + "nonsense\n").id)
    job = until(job, ENDED)
    equal((job.status, job.error.code), ("failed", "invalid_training_file"), job.error)
    assert "training_file.jsonl" in job.error.message and "3" in job.error.message, job.error.message
    for fields in ({"model": "gpt-4o"}, {"training_file": "file-none"}, {"suffix": "no good"}):
        wrong = {"model": MODEL, "training_file": upload(examples(1)).id, **fields}
        raises(openai.BadRequestError, lambda: client.fine_tuning.jobs.create(**wrong))


main("openai", [from_a_file_to_a_model, paused_resumed_cancelled, graders_are_tried, what_is_wrong_is_said])
