"""Writes the corpus of requests, crates/protocol/tests/corpus/requests/, in the shapes that clients are documented to send.

    python tools/protocol/requests.py
"""

import json
import pathlib

FOLDER = pathlib.Path(__file__).parents[2] / "crates/protocol/tests/corpus/requests"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"]}},
           "required": ["city", "days"], "additionalProperties": False}
SHELL = {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}},
         "workdir": {"type": "string"}, "timeout_ms": {"type": "number"}}, "required": ["command"],
         "additionalProperties": False}
EPHEMERAL = {"type": "ephemeral"}


def text(kind, words):
    return {"type": kind, "text": words}


REQUESTS = {
    # Codex CLI: responses only, no store, encrypted reasoning, hosted tools, a custom tool with a grammar.
    "responses.codex": {
        "model": "gpt-5-codex", "instructions": "You are a coding agent.", "stream": True, "store": False,
        "input": [
            {"type": "message", "role": "developer", "content": [text("input_text", "<permissions>")]},
            {"type": "message", "role": "user", "content": [text("input_text", "<environment_context>")]},
            {"type": "message", "role": "user", "content": [text("input_text", "Fix the test")]},
            {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "cachalot1:SG0="},
            {"type": "message", "role": "assistant", "content": [text("output_text", "Looking.")]},
            {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_1"},
            {"type": "custom_tool_call", "status": "completed", "call_id": "call_2", "name": "apply_patch",
             "input": "*** Begin Patch\n*** End Patch"},
            {"type": "function_call_output", "call_id": "call_1", "output": '{"output":"a.py","metadata":{}}'},
            {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Done!"},
            {"type": "ghost_snapshot", "ghost_commit": {"id": "a"}},
        ],
        "tools": [
            {"type": "function", "name": "shell", "description": "Runs a command", "strict": False, "parameters": SHELL},
            {"type": "custom", "name": "apply_patch", "description": "Edits files",
             "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"*** Begin Patch\""}},
            {"type": "web_search", "external_web_access": False}, {"type": "local_shell"},
            {"type": "namespace", "name": "mcp", "description": "", "tools": []}, {"type": "image_generation"},
        ],
        "tool_choice": "auto", "parallel_tool_calls": False, "reasoning": {"effort": "medium", "summary": "auto"},
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "0199", "text": {"verbosity": "low"},
        "client_metadata": {"x": "y"},
    },
    "responses.codex_probe": {"model": "gpt-5-codex", "input": [], "max_output_tokens": 1, "stream": False},
    "responses.sdk": {
        "model": "m", "input": "Hi", "previous_response_id": "resp_1", "temperature": 0.2, "top_logprobs": 2,
        "text": {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER, "strict": True}},
        "metadata": {"a": "b"}, "truncation": "auto", "user": "u",
    },
    "responses.sdk_tools": {
        "model": "m", "input": [{"role": "user", "content": "Hi"}], "max_output_tokens": 100,
        "tools": [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}],
        "tool_choice": {"type": "function", "name": "weather"}, "reasoning": {"effort": "none"},
    },
    # Claude Code: system blocks with cache marks, interleaved thinking, a server tool, long tool results.
    "messages.claude_code": {
        "model": "claude-opus-4-5", "max_tokens": 32000, "stream": True, "temperature": 1,
        "metadata": {"user_id": "user_1_account__session_2"},
        "system": [{"type": "text", "text": "You are Claude Code.", "cache_control": EPHEMERAL},
                   {"type": "text", "text": "Tools …", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": [text("text", "<system-reminder>x</system-reminder>"),
                                         {**text("text", "Fix it"), "cache_control": EPHEMERAL}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "cachalot0"}, text("text", "Looking."),
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/a"}},
                {"type": "tool_use", "id": "toolu_2", "name": "Bash", "input": {"command": "ls", "timeout": 5}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("text", "a"), text("text", "b")]},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such file", "is_error": True,
                 "cache_control": EPHEMERAL},
                text("text", "<system-reminder>y</system-reminder>")]},
        ],
        "tools": [
            {"name": "Read", "description": "Reads", "input_schema": {"type": "object", "properties": {
                "file_path": {"type": "string"}}, "required": ["file_path"], "$schema": "http://json-schema.org/draft-07/schema#"}},
            {"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
             "cache_control": EPHEMERAL},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        ],
        "thinking": {"type": "enabled", "budget_tokens": 31999}, "context_management": {"edits": []},
        "output_config": {"effort": "medium"}, "betas": ["interleaved-thinking-2025-05-14"],
    },
    "messages.claude_code_title": {
        "model": "claude-haiku-4-5", "max_tokens": 512, "system": [text("text", "Is this a new topic?")], "tools": [],
        "messages": [{"role": "user", "content": "Fix it"}, {"role": "assistant", "content": "{"}],
        "stop_sequences": ["\n\nHuman:"],
    },
    "messages.sdk": {
        "model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], "thinking": {"type": "adaptive"},
        "tools": [{"name": "weather", "input_schema": WEATHER, "strict": True}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True}, "top_k": 5, "top_p": 0.9,
        "service_tier": "auto",
    },
    # OpenAI's SDK.
    "chat.sdk": {
        "model": "m", "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [text("text", "Hi"), text("text", "there")], "name": "u"}],
        "n": 2, "logprobs": True, "top_logprobs": 3, "seed": -1, "logit_bias": {"50": -100}, "stop": "END",
        "max_completion_tokens": 10, "stream": True, "stream_options": {"include_usage": True}, "store": False,
        "presence_penalty": 0.5, "frequency_penalty": -0.5, "metadata": {}, "service_tier": "auto", "user": "u",
    },
    "chat.json_schema": {
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "reasoning_effort": "high",
        "response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}},
    },
    # LangChain: tool_choice by name or required, null content beside calls, usage asked for.
    "chat.langchain": {
        "model": "m", "messages": [
            {"content": "Weather?", "role": "user"},
            {"content": None, "role": "assistant", "tool_calls": [
                {"type": "function", "id": "call_a", "function": {"name": "weather", "arguments": '{"city": "Oslo", "days": 2}'}}]},
            {"content": "rain", "role": "tool", "tool_call_id": "call_a"}],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "W", "parameters": WEATHER, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": False,
        "stream": False, "temperature": 0.0, "stream_options": {"include_usage": True},
    },
    # OpenCode, Pi and DeepSeek's own clients: reasoning handed back.
    "chat.reasoning_back": {
        "model": "deepseek-v4", "messages": [
            {"role": "system", "content": "s"}, {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "reasoning_content": "Hm", "tool_calls": [
                {"id": "call_a", "type": "function", "index": 0, "function": {"name": "weather", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "call_a", "content": [text("text", "rain")]}],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}], "tool_choice": "auto",
        "thinking": {"type": "enabled"}, "max_tokens": 8192, "stream": True,
    },
    "completions.sdk": {"model": "m", "prompt": "Once", "max_tokens": 5, "logprobs": 2, "echo": False, "n": 1, "best_of": 1},
    "completions.tokens": {"model": "m", "prompt": [[1, 2, 3]], "stream": True, "stop": ["\n"]},
}

FOLDER.mkdir(parents=True, exist_ok=True)
for name, request in REQUESTS.items():
    (FOLDER / f"{name}.json").write_text(json.dumps(request, ensure_ascii=False, indent=1) + "\n")
print(len(REQUESTS), "requests")
