"""Writes the corpus of odd model outputs, crates/protocol/tests/corpus/answers.jsonl.

    python tools/protocol/answers.py

Each line: what the model wrote (special tokens spelled out), how it ended, and what a client has to end up with. What
is expected follows from the format's description and from what a client can do with it, not from our parser's output:
every call that has a name is seen, text and reasoning never hold markup, and arguments that are not whole are no JSON.
"""

import json
import pathlib

EOS = "<｜end▁of▁sentence｜>"
OPEN, CLOSE = "\n\n<｜DSML｜tool_calls>\n", "</｜DSML｜tool_calls>"


def parameter(name, value, string=True):
    return f'<｜DSML｜parameter name="{name}" string="{str(string).lower()}">{value}</｜DSML｜parameter>\n'


def invoke(name, *parameters):
    return f'<｜DSML｜invoke name="{name}">\n{"".join(parameters)}</｜DSML｜invoke>\n'


def block(*calls):
    return OPEN + "".join(calls) + CLOSE


CITY = parameter("city", "Oslo")
OSLO = ["f", '{"city": "Oslo"}']
CASES = []


def case(name, answer, reasoning="", text="", calls=(), end="stop", thinking=False, warnings=(), cut=False):
    """`end`: stop, length or tool_calls as clients see it; `cut`: the token limit ends the answer."""
    CASES.append({
        "name": name, "thinking": thinking, "answer": answer + ("" if cut else EOS), "cut": cut,
        "reasoning": reasoning, "text": text, "calls": list(calls), "end": end, "warnings": warnings if warnings is None else list(warnings),
    })


# In format.
case("plain text", "Hello.", text="Hello.")
case("thinking and text", "Hm</think>Yes", reasoning="Hm", text="Yes", thinking=True)
case("one call", block(invoke("f", CITY)), calls=[OSLO], end="tool_calls")
case("text and call", "Look:" + block(invoke("f", CITY)), text="Look:", calls=[OSLO], end="tool_calls")
case("thinking and call without text", "Hm</think>" + block(invoke("f", CITY)), "Hm", "", [OSLO], "tool_calls", True)
case("two calls", block(invoke("f", CITY), invoke("g")), calls=[OSLO, ["g", "{}"]], end="tool_calls")
case("same tool twice", block(invoke("f", CITY), invoke("f", CITY)), calls=[OSLO, OSLO], end="tool_calls")
case("empty answer", "")
case("characters of four bytes", "🤭日本é", text="🤭日本é")
case("unicode in arguments", block(invoke("f", parameter("city", "日本🤭\n\"x\"\\"))),
     calls=[["f", '{"city": "日本🤭\\n\\"x\\"\\\\"}']], end="tool_calls")
case("arguments as JSON", block(invoke("f", parameter("n", "3", False), parameter("o", '{"a": [1, null]}', False))),
     calls=[["f", '{"n": 3, "o": {"a": [1, null]}}']], end="tool_calls")
case("markup of other languages in arguments", block(invoke("f", parameter("city", "<a></a></<b> x < y </"))),
     calls=[["f", '{"city": "<a></a></<b> x < y </"}']], end="tool_calls")
case("huge argument", block(invoke("f", parameter("city", "long line\n" * 3000))),
     calls=[["f", json.dumps({"city": "long line\n" * 3000})]], end="tool_calls")
case("less-than at the end of text", "a <", text="a <")
case("newlines before a call", "a\n\n\n" + block(invoke("f", CITY)), text="a", calls=[OSLO], end="tool_calls")

# Reasoning that is not closed, opened twice, nested (ds4 318).
case("call without closing the reasoning", "Hm" + block(invoke("f", CITY)), "Hm", "", [OSLO], "tool_calls", True,
     ["tool_call_in_reasoning"])
case("reasoning never closed", "Hm", "Hm", "", [], "stop", True, ["reasoning_not_closed"])
case("reasoning cut by the limit", "Hm and", "Hm and", "", [], "length", True, ["reasoning_not_closed"], cut=True)
case("reasoning opened again", "<think>Hm</think>Yes", "Hm", "Yes", [], "stop", True, ["skipped"])
case("reasoning closed twice", "Hm</think></think>Yes", "Hm", "Yes", [], "stop", True, ["skipped"])
case("thinks though asked not to", "<think>Hm</think>Yes", "Hm", "Yes")
case("speaks of the tags", "Use <think>x</think> so", text="Use <think>x</think> so")
case("nested thinking", "a<think>b</think>c</think>d", "a<think>b", "c" + "d", [], "stop", True, ["skipped"])

# Blocks in the wrong order, twice, without their ends.
case("two blocks", block(invoke("f", CITY)) + block(invoke("g")), calls=[OSLO, ["g", "{}"]], end="tool_calls")
case("text between blocks", block(invoke("f", CITY)) + "and" + block(invoke("g")), text="and",
     calls=[OSLO, ["g", "{}"]], end="tool_calls")
case("text after calls", block(invoke("f", CITY)) + "Done", text="Done", calls=[OSLO], end="tool_calls")
case("words within a block", OPEN + "so " + invoke("f", CITY) + CLOSE, calls=[OSLO], end="tool_calls",
     warnings=["skipped"])
case("block without its beginning", "\n\n" + invoke("f", CITY), calls=[OSLO], end="tool_calls")
case("block without its end", OPEN + invoke("f", CITY), calls=[OSLO], end="tool_calls")
case("call without its end", OPEN + f'<｜DSML｜invoke name="f">\n{CITY}' + CLOSE, calls=[OSLO], end="tool_calls")
case("call within a call", OPEN + '<｜DSML｜invoke name="g">\n' + invoke("f", CITY) + CLOSE,
     calls=[["g", "{}"], OSLO], end="tool_calls")
case("block ends twice", block(invoke("f", CITY)) + "\n" + CLOSE, calls=[OSLO], end="tool_calls",
     warnings=["tool_call_malformed"])
case("thinking closed within a block", OPEN + invoke("f", CITY) + "</think>" + CLOSE, calls=[OSLO], end="tool_calls",
     warnings=["skipped"])
case("spelling of the next release", "\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke name=\"f\">\n<｜DSML｜ parameter name=\"city\" "
     "string=\"true\">Oslo</｜DSML｜ parameter>\n</｜DSML｜ invoke>\n</｜DSML｜ calls>", calls=[OSLO], end="tool_calls")

# Cut by the token limit at every kind of place.
case("cut in text", "Hello, I", text="Hello, I", end="length", cut=True)
case("cut in the first marker", "\n\n<｜DSML｜", end="length", warnings=["tool_call_cut"], cut=True)
case("cut in the name", OPEN + '<｜DSML｜invoke name="f', end="length", warnings=["tool_call_cut"], cut=True)
case("cut behind the name", OPEN + '<｜DSML｜invoke name="f">\n', calls=[["f", "{"]], end="length",
     warnings=["tool_call_cut"], cut=True)
case("cut in a string", OPEN + '<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="city" string="true">Os',
     calls=[["f", '{"city": "Os']], end="length", warnings=["tool_call_cut"], cut=True)
case("cut in a number", OPEN + '<｜DSML｜invoke name="f">\n' + CITY + '<｜DSML｜parameter name="n" string="false">12',
     calls=[["f", '{"city": "Oslo", "n": ']], end="length", warnings=["tool_call_cut"], cut=True)
case("cut in the second call", OPEN + invoke("f", CITY) + '<｜DSML｜invoke name="g">\n<｜DSML｜par',
     calls=[OSLO, ["g", "{"]], end="length", warnings=["tool_call_cut"], cut=True)
case("cut behind a whole call", OPEN + invoke("f", CITY), calls=[OSLO], end="length", cut=True)
case("cut in reasoning that calls", "Hm" + OPEN + '<｜DSML｜invoke name="f">\n' + CITY, "Hm", "",
     [["f", '{"city": "Oslo"']], "length", True, ["tool_call_in_reasoning", "tool_call_cut"], cut=True)

# Ended by the model in the middle, or unreadable.
case("ended in a string", OPEN + '<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="city" string="true">Os',
     calls=[["f", '{"city": "Os']], end="tool_calls", warnings=["tool_call_cut"])
case("empty block", "A" + block() + "B", text="AB", warnings=["tool_call_malformed"])
case("only an empty block", block(), text=None, warnings=["tool_call_malformed"])
case("unknown tag", "A<｜DSML｜foo>B", text="AB", warnings=["tool_call_malformed"])
case("tag without its end", block('<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="city" string="true" Oslo'
     "</｜DSML｜parameter>\n</｜DSML｜invoke>\n"), calls=[["f", None]], end="tool_calls",
     warnings=["tool_call_malformed"])
case("tag without its end, then the limit", block('<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="city" string="true" Oslo'
     "</｜DSML｜parameter>\n</｜DSML｜invoke>\n") + "\n\n<｜DSML｜", calls=[["f", None]], end="length",
     warnings=["tool_call_malformed", "tool_call_cut"], cut=True)
case("tool without a name", block("<｜DSML｜invoke>\n</｜DSML｜invoke>\n"), text=None, warnings=None)
case("turn of somebody else", "Yes<｜User｜>And", text="Yes", warnings=["foreign_turn"])

# Names and values.
case("name in another case", block(invoke("F", CITY)), calls=[OSLO], end="tool_calls", warnings=["tool_renamed"])
case("name with a prefix", block(invoke("functions.f", CITY)), calls=[OSLO], end="tool_calls",
     warnings=["tool_renamed"])
case("unknown tool", block(invoke("h", CITY)), calls=[["h", OSLO[1]]], end="tool_calls", warnings=["tool_unknown"])
case("parameter twice", block(invoke("f", CITY, CITY)), calls=[["f", '{"city": "Oslo", "city": "Oslo"}']],
     end="tool_calls", warnings=["parameter_repeated"])
case("value that is no JSON", block(invoke("f", parameter("n", "Oslo", False))), calls=[["f", '{"n": "Oslo"}']],
     end="tool_calls", warnings=["value_not_json"])
case("kind of value not said", block(invoke("f", '<｜DSML｜parameter name="n">[1]</｜DSML｜parameter>\n')),
     calls=[["f", '{"n": [1]}']], end="tool_calls")
case("markup in a value", block(invoke("f", parameter("city", "<think></think><｜DSML｜x>"))),
     calls=[["f", '{"city": "<think></think><｜DSML｜x>"}']], end="tool_calls")

path = pathlib.Path(__file__).parents[2] / "crates/protocol/tests/corpus/answers.jsonl"
path.write_text("".join(json.dumps(case, ensure_ascii=False) + "\n" for case in CASES))
print(len(CASES), "cases")
