#!/usr/bin/env python3
"""Talks with a server through the official Python clients and LangChain.

    python tools/server/sdk.py http://127.0.0.1:8000 [KEY]

The model may be any; what is checked is the protocol: that the clients accept what they are sent, and that streams and
whole answers say the same.
"""

import json
import sys

import anthropic
import openai

URL = sys.argv[1].rstrip("/")
KEY = sys.argv[2] if len(sys.argv) > 2 else "none"
MODEL = "built-in"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FIXED = {"model": MODEL, "temperature": 0, "seed": 1}
chat = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)


def ask(text, **more):
    return chat.chat.completions.create(messages=[{"role": "user", "content": text}], **FIXED, **more)


def whole_and_streamed():
    question = "Tell me a story about a fox."
    whole = ask(question, max_tokens=400)
    text, thought, finish, usage = "", "", None, None
    for chunk in ask(question, max_tokens=400, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            thought += getattr(choice.delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
    assert text and text == whole.choices[0].message.content, (text, whole)
    assert thought == (getattr(whole.choices[0].message, "reasoning_content", None) or "")
    assert finish == whole.choices[0].finish_reason == "stop"
    assert usage.completion_tokens == whole.usage.completion_tokens > 0
    assert usage.prompt_tokens_details.cached_tokens > 0, "the second prompt is the first one"


def logprobs_and_choices():
    answer = ask("What is 3 + 4?", max_tokens=300, logprobs=True, top_logprobs=3, n=2)
    assert len(answer.choices) == 2
    content = answer.choices[0].logprobs.content
    assert content and all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in content)


def json_schema():
    schema = {
        "type": "object",
        "properties": {"sum": {"type": "integer", "maximum": 99}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    kind = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": True}}
    for thinking in ("enabled", "disabled"):
        answer = ask("What is 3 + 4?", max_tokens=600, response_format=kind, extra_body={"thinking": {"type": thinking}})
        found = json.loads(answer.choices[0].message.content)
        assert set(found) == {"sum"} and isinstance(found["sum"], int), found


def tools():
    strict = {**TOOL, "function": {**TOOL["function"], "strict": True}}
    for tool, choice in [
        (TOOL, "auto"),
        (TOOL, "required"),
        (TOOL, {"type": "function", "function": {"name": "get_weather"}}),
        (strict, "required"),
    ]:
        question = [{"role": "user", "content": "What is the weather in Oslo?"}]
        answer = chat.chat.completions.create(
            messages=question, tools=[tool], tool_choice=choice, max_tokens=600, **FIXED
        )
        calls = answer.choices[0].message.tool_calls
        assert choice == "auto" or calls, (choice, answer)
        for call in calls or []:
            assert call.function.name == "get_weather" and "city" in call.function.arguments, call
        if calls:
            assert answer.choices[0].finish_reason == "tool_calls"


def errors():
    for error, change in [
        (openai.NotFoundError, {"model": "nobody"}),
        (openai.BadRequestError, {"temperature": -1}),
        (openai.BadRequestError, {"messages": "none"}),
    ]:
        try:
            chat.chat.completions.create(**{**FIXED, "messages": [{"role": "user", "content": "Hi"}], **change})
        except error as refused:
            assert refused.body["message"], refused
        else:
            raise AssertionError(f"{change} was taken")


def completions():
    answer = chat.completions.create(prompt="Once upon a time", max_tokens=16, **FIXED)
    assert answer.choices[0].text and answer.usage.prompt_tokens > 0


def responses():
    first = chat.responses.create(model=MODEL, input="Tell me a story about a fox.", temperature=0, max_output_tokens=400)
    assert first.output_text
    second = chat.responses.create(
        model=MODEL, input="And one about a bear.", previous_response_id=first.id, temperature=0, max_output_tokens=400
    )
    assert second.usage.input_tokens > first.usage.input_tokens
    assert chat.responses.retrieve(first.id).id == first.id
    kinds = [
        event.type
        for event in chat.responses.create(model=MODEL, input="Hi", stream=True, max_output_tokens=50)
    ]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete"), kinds
    try:
        chat.responses.create(model=MODEL, input="Hi", previous_response_id="resp_unknown")
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("an unknown response was taken")


def messages():
    client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
    turn = {"model": MODEL, "max_tokens": 400, "messages": [{"role": "user", "content": "Tell me a story about a fox."}]}
    whole = client.messages.create(**turn, extra_body={"temperature": 0})
    text = "".join(block.text for block in whole.content if block.type == "text")
    with client.messages.stream(**turn, extra_body={"temperature": 0}) as stream:
        assert "".join(stream.text_stream) == text and text
    count = client.messages.count_tokens(model=MODEL, messages=turn["messages"])
    usage = whole.usage
    total = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert count.input_tokens == total, (count, usage)
    try:
        client.messages.create(**{**turn, "model": "nobody"})
    except anthropic.NotFoundError:
        pass
    else:
        raise AssertionError("an unknown model was taken")


MESSAGES_TOOL = {
    "name": "get_weather",
    "description": "Tells the weather of a city",
    "input_schema": TOOL["function"]["parameters"],
}
RESPONSES_TOOL = {"type": "function", **TOOL["function"], "strict": True}
WEATHER = "What is the weather in Oslo?"


def check_arguments(text):
    assert set(json.loads(text)) == {"city"}, text


def streamed_tools():
    strict = {**TOOL, "function": {**TOOL["function"], "strict": True}}
    for thinking in ("enabled", "disabled"):
        name, arguments, thought, finish = "", "", "", None
        for chunk in ask(
            WEATHER, tools=[strict], tool_choice="required", stream=True, max_tokens=600,
            extra_body={"thinking": {"type": thinking}},
        ):
            for choice in chunk.choices:
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or []:
                    if call.index == 0:
                        name += call.function.name or ""
                        arguments += call.function.arguments or ""
        assert name == "get_weather" and finish == "tool_calls", (name, finish)
        assert bool(thought) == (thinking == "enabled"), thought
        check_arguments(arguments)


def choices_streamed():
    texts, finishes = {}, {}
    for chunk in ask("Tell me a story about a fox.", n=3, stream=True, max_tokens=40):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            finishes[choice.index] = choice.finish_reason or finishes.get(choice.index)
    assert set(texts) == {0, 1, 2} and all(finishes.values()), (texts, finishes)


def responses_tools():
    for choice in ("auto", "required", {"type": "function", "name": "get_weather"}):
        first = chat.responses.create(
            model=MODEL, input=WEATHER, tools=[RESPONSES_TOOL], tool_choice=choice, temperature=0, max_output_tokens=600
        )
        calls = [item for item in first.output if item.type == "function_call"]
        assert calls or choice == "auto", (choice, first.output)
        for call in calls:
            check_arguments(call.arguments)
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    second = chat.responses.create(
        model=MODEL, input=outputs, previous_response_id=first.id, tools=[RESPONSES_TOOL], temperature=0,
        max_output_tokens=600,
    )
    assert second.output and second.usage.input_tokens > first.usage.input_tokens, second
    pieces, wholes = {}, {}
    for event in chat.responses.create(
        model=MODEL, input=WEATHER, tools=[RESPONSES_TOOL], tool_choice="required", temperature=0, max_output_tokens=600,
        stream=True,
    ):
        if event.type == "response.function_call_arguments.delta":
            pieces[event.item_id] = pieces.get(event.item_id, "") + event.delta
        if event.type == "response.function_call_arguments.done":
            wholes[event.item_id] = event.arguments
    assert wholes and pieces == wholes, (pieces, wholes)
    for whole in wholes.values():
        check_arguments(whole)


def responses_schema():
    schema = {"type": "object", "properties": {"sum": {"type": "integer", "maximum": 99}}, "required": ["sum"],
              "additionalProperties": False}
    form = {"format": {"type": "json_schema", "name": "sum", "schema": schema, "strict": True}}
    answer = chat.responses.create(
        model=MODEL, input="What is 3 + 4?", text=form, temperature=0, max_output_tokens=600, reasoning={"effort": "high"}
    )
    assert set(json.loads(answer.output_text)) == {"sum"}, answer.output_text


def messages_tools():
    client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
    question = [{"role": "user", "content": WEATHER}]
    turn = {"model": MODEL, "max_tokens": 600, "tools": [MESSAGES_TOOL], "extra_body": {"temperature": 0}}
    for choice in ({"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "get_weather"}):
        answer = client.messages.create(**turn, messages=question, tool_choice=choice)
        uses = [block for block in answer.content if block.type == "tool_use"]
        assert uses or choice["type"] == "auto", (choice, answer)
        if uses:
            assert answer.stop_reason == "tool_use" and "city" in uses[0].input, answer
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"} for use in uses]
    follow = [*question, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    assert client.messages.create(**turn, messages=follow).content
    with client.messages.stream(**turn, messages=question, tool_choice={"type": "any"}) as stream:
        final = stream.get_final_message()
    assert any(block.type == "tool_use" and "city" in block.input for block in final.content), final


def messages_thinking():
    client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
    answer = client.messages.create(
        model=MODEL, max_tokens=2048, thinking={"type": "enabled", "budget_tokens": 1024},
        messages=[{"role": "user", "content": "What is 3 + 4?"}],
    )
    kinds = [block.type for block in answer.content]
    assert kinds[:1] == ["thinking"] and "text" in kinds, kinds


def langchain_tool_loop():
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    asked = []

    @tool
    def get_weather(city: str) -> str:
        """Tells the weather of a city"""
        asked.append(city)
        return "sunny"

    model = ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=KEY, temperature=0, max_tokens=600)
    agent = create_agent(model, [get_weather])
    state = agent.invoke({"messages": [{"role": "user", "content": "What is the weather in Oslo?"}]})
    assert asked and state["messages"][-1].content, state


CHECKS = {
    "chat": [
        whole_and_streamed, logprobs_and_choices, choices_streamed, json_schema, tools, streamed_tools, errors, completions,
        langchain_tool_loop,
    ],
    "responses": [responses, responses_tools, responses_schema],
    "messages": [messages, messages_tools, messages_thinking],
}

if __name__ == "__main__":
    failed = 0
    for group in sys.argv[3:] or CHECKS:
        for check in CHECKS[group]:
            try:
                check()
                print(f"ok      {check.__name__}", flush=True)
            except Exception as error:  # the other checks are still of interest
                failed += 1
                print(f"FAILED  {check.__name__}: {type(error).__name__}: {str(error)[:600]}", flush=True)
    sys.exit(1 if failed else 0)
