"""The chat format of DeepSeek-V4: messages in, labelled text segments out.

The rendered text is the official encoding (begin of sentence, role markers, reasoning tags, DSML tool calls). It is
built here from its own parts so that the generators need no other package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

BEGIN, END, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, SYSTEM = "<｜User｜>", "<｜Assistant｜>", "<｜System｜>"
THINK, END_THINK, DSML, REMINDER = "<think>", "</think>", "｜DSML｜", "<｜latest_reminder｜>"

# The position in this list is the token id.
SPECIAL_TOKENS = [BEGIN, END, PAD, USER, ASSISTANT, SYSTEM, THINK, END_THINK, DSML, REMINDER]
BEGIN_ID, END_ID, PAD_ID = 0, 1, 2

EFFORT_PREFIXES = {
    "high": (
        "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
        "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root "
        "cause, rigorously stress-testing your logic against all potential paths, edge cases, and adversarial "
        "scenarios.\n"
        "Explicitly write out your entire deliberation process, documenting every intermediate step, considered "
        "alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n"
    ),
    "max": (
        "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
        "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively "
        "decompose the problem into its most fundamental components, trace every causal chain to its root, and "
        "resolve the underlying cause rather than any surface symptom.\n"
        "Do not stop reasoning until you have independently verified the solution from multiple angles and are "
        "certain that no assumption remains unchecked and no error remains undiscovered.\n\n"
    ),
}

TOOLS_HEAD = """

## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

"""
TOOLS_TAIL = "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n"

Schema = dict[str, Any]


class ToolCall(NamedTuple):
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class User:
    text: str


@dataclass(frozen=True)
class ToolResults:
    results: tuple[str, ...]


@dataclass(frozen=True)
class Assistant:
    text: str
    reasoning: str | None = None
    calls: tuple[ToolCall, ...] = ()


Message = User | ToolResults | Assistant


class Role(IntEnum):
    """What a segment is to the loss: fixed preamble (none), prompt (little), answer (all)."""

    PREAMBLE = -1
    PROMPT = 0
    ANSWER = 1


class Segment(NamedTuple):
    text: str
    role: Role


Document = list[Segment]


def dsml_tool_calls(calls: Sequence[ToolCall]) -> str:
    """The DSML block of the calls: strings as they are, everything else as JSON."""
    lines = ["<｜DSML｜tool_calls>"]
    for call in calls:
        lines.append(f'<｜DSML｜invoke name="{call.name}">')
        for name, value in call.arguments.items():
            is_string = isinstance(value, str)
            text = value if is_string else json.dumps(value)
            flag = "true" if is_string else "false"
            lines.append(f'<｜DSML｜parameter name="{name}" string="{flag}">{text}</｜DSML｜parameter>')
        lines.append("</｜DSML｜invoke>")
    lines.append("</｜DSML｜tool_calls>")
    return "\n".join(lines)


def render(
    messages: Sequence[Message],
    tools: Sequence[Schema] | None = None,
    thinking: bool = False,
    effort: str | None = None,
    system: str | None = None,
) -> Document:
    """Renders a conversation into segments; every answer ends with the end-of-sentence token.

    Without tools, only the reasoning after the last user message stays in the text, as in the official encoding:
    earlier answers are shown as if they had been given without thinking.
    """
    head = BEGIN
    if thinking and effort in EFFORT_PREFIXES:
        head += EFFORT_PREFIXES[effort]
    head += system or ""
    if tools:
        head += TOOLS_HEAD + "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools) + TOOLS_TAIL
    document = [Segment(head, Role.PREAMBLE)]
    last_user = max((i for i, message in enumerate(messages) if isinstance(message, User)), default=-1)
    for i, message in enumerate(messages):
        match message:
            case User(text):
                document.append(Segment(USER + text, Role.PROMPT))
            case ToolResults(results):
                wrapped = "\n\n".join(f"<tool_result>{result}</tool_result>" for result in results)
                document.append(Segment(USER + wrapped, Role.PROMPT))
            case Assistant(text, reasoning, calls):
                reasons = thinking and reasoning is not None and (bool(tools) or i > last_user)
                document.append(Segment(ASSISTANT + (THINK if reasons else END_THINK), Role.PROMPT))
                body = (reasoning + END_THINK if reasons else "") + text
                if calls:
                    body += "\n\n" + dsml_tool_calls(calls)
                document.append(Segment(body + END, Role.ANSWER))
    return document


def open_prompt(messages: Sequence[Message], tools: Sequence[Schema] | None = None, thinking: bool = False) -> str:
    """The text up to the place where the assistant begins to write."""
    text = "".join(segment.text for segment in render(messages, tools, thinking))
    return text + ASSISTANT + (THINK if thinking else END_THINK)
