"""Reads recorded bodies and streams through the types of the official SDKs, strictly.

    cargo run -p cachalot-protocol --example record -- FOLDER
    pip install openai anthropic
    python tools/protocol/check_sdk.py FOLDER

Every body and every event is validated by the SDK's own pydantic models; streams are put together by the SDKs'
accumulators where those are public, and must say what the body says.
"""

import functools
import json
import pathlib
import sys

import anthropic
import httpx2 as httpx
import openai
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

FOLDER = pathlib.Path(sys.argv[1])
counts = {"bodies": 0, "events": 0, "streams": 0}


def events(path):
    for block in path.read_text().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if lines.get("data", "[DONE]") != "[DONE]":
            value = json.loads(lines["data"])
            assert lines.get("event", value.get("type")) == value.get("type")
            counts["events"] += 1
            yield value


adapter = functools.cache(TypeAdapter)


def validate(kind, value, path):
    try:
        return adapter(kind).validate_python(value)
    except Exception as error:
        sys.exit(f"{path.name}: {error}\n{json.dumps(value, ensure_ascii=False)[:600]}")


KINDS = {
    "chat": (ChatCompletion, ChatCompletionChunk),
    "completions": (Completion, Completion),
    "responses": (Response, ResponseStreamEvent),
    "messages": (Message, RawMessageStreamEvent),
}


def served(path, content_type):
    """A transport that answers every request with the file."""
    def answer(request):
        return httpx.Response(200, headers={"content-type": content_type}, content=path.read_bytes())
    return httpx.Client(transport=httpx.MockTransport(answer))


def through_clients(path, body):
    """The SDK's own stream reader and accumulator, against the body."""
    counts["streams"] += 1
    protocol = path.name.split(".")[0]
    settings = dict(api_key="k", base_url="http://localhost/v1", http_client=served(path, "text/event-stream"))
    if protocol == "messages":
        settings["base_url"] = "http://localhost"
        client = anthropic.Anthropic(**settings)
        with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]) as stream:
            final = stream.get_final_message()
        assert final.stop_reason == body["stop_reason"], path
        left = [(b.type, getattr(b, "text", None), getattr(b, "thinking", None), getattr(b, "input", None)) for b in final.content]
        right = [(b["type"], b.get("text"), b.get("thinking"), b.get("input")) for b in body["content"]]
        assert left == right, (path, left, right)
    elif protocol == "responses":
        client = openai.OpenAI(**settings)
        final = None
        for event in client.responses.create(model="m", input="Hi", stream=True):
            final = event
        assert final.response.output_text == "".join(
            part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"]), path
    elif protocol == "chat":
        client = openai.OpenAI(**settings)
        text = reasoning = ""
        for chunk in client.chat.completions.create(model="m", messages=[], stream=True):
            for choice in chunk.choices:
                if choice.index == 0:
                    text += choice.delta.content or ""
                    reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        message = body["choices"][0]["message"]
        assert text == (message["content"] or ""), path
        assert reasoning == message.get("reasoning_content", ""), path


for path in sorted(FOLDER.glob("*.*")):
    protocol = path.name.split(".")[0]
    if path.name.endswith(".error.json"):
        body = json.loads(path.read_text())
        assert body["error"]["message"].startswith("messages[0].content: "), path
    elif path.name == "models.json":
        body = json.loads(path.read_text())
        for model in body["data"]:
            validate(openai.types.Model, model, path)
            validate(anthropic.types.ModelInfo, model, path)
    elif path.name == "count_tokens.json":
        validate(MessageTokensCount, json.loads(path.read_text()), path)
    elif path.suffix == ".json":
        counts["bodies"] += 1
        validate(KINDS[protocol][0], json.loads(path.read_text()), path)
    elif path.suffix == ".sse":
        for event in events(path):
            if event.get("type") in ("error", "ping"):  # The SDKs handle these before their types.
                continue
            if protocol == "completions":
                # OpenAI's own chunks have null before the last; the SDK's type is that of the body.
                for choice in event["choices"]:
                    choice["finish_reason"] = choice["finish_reason"] or "stop"
            validate(KINDS[protocol][1], event, path)
        body = path.with_suffix(".json")
        if body.exists():
            through_clients(path, json.loads(body.read_text()))
assert counts["bodies"] > 150 and counts["streams"] > 150, counts
print(f"openai {openai.__version__}, anthropic {anthropic.__version__}: {counts}")
