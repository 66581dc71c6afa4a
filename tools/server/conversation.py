#!/usr/bin/env python3
"""Plays a long agent conversation and checks what the prefix cache did with it.

    python tools/server/conversation.py target/release/cachalot [--tokens 25000] [--turns 20] [--mode reference]

A system prompt with tools of some 25,000 tokens, then turns that alternate between a user's question and the result of a
tool that the model called. It is played twice with the same words:

1. with the prefix cache in memory and in a folder, beside other requests in the same batch; half-way the server is
   stopped and started again, so that the next turn finds its tokens on disk only;
2. without any cache, alone.

Every answer has to be the same text, and from the second turn on at least 99 % of the tokens of the turn before, prompt
and answer, have to be reused. Needs nothing but Python.
"""

import argparse
import json
import random
import subprocess
import tempfile
import threading
import time
import urllib.request

WORDS = """the a server file test build error line module function cache token page state request answer engine folder
model chip thread queue limit table index value name list map key result path user tool call read write open close run
stop start wait find make take give keep check parse print send load store copy move fast slow small large old new""".split()
QUESTIONS = [
    "What is the weather in Oslo?", "What is 12 + 30?", "Tell me a story about a fox.", "What is the weather in Rome?",
    "Say this: one two three", "What is 99 - 45?", "Where is Paris?",
]


def tool(index):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    name = "get_weather" if index == 0 else f"tool_{index}"
    return {"type": "function", "function": {"name": name, "description": prose(index, 60), "parameters": schema}}


def prose(seed, count):
    source = random.Random(seed)
    return " ".join(source.choice(WORDS) for _ in range(count))


class Server:
    def __init__(self, arguments):
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "http://" in line:
                self.url = "http://" + line.split("http://", 1)[1].split()[0].rstrip("/,.")
                break
        else:
            raise SystemExit(f"the server ended: {arguments}")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def post(self, path, body):
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=3000) as response:
            return json.load(response), response.headers

    def stop(self):
        self.process.terminate()
        if self.process.wait(120) != 0:
            raise SystemExit(f"the server ended with {self.process.returncode}")


def count(server, text):
    return server.post("/tokenize", {"prompt": text})[0]["count"]


def neighbours(server, stop):
    """Keeps two other answers in the batch."""

    def talk(seed):
        while not stop.is_set():
            body = {"model": "built-in", "messages": [{"role": "user", "content": prose(seed, 40)}], "max_tokens": 100,
                    "seed": seed, "temperature": 1}
            try:
                server.post("/v1/chat/completions", body)
            except OSError:
                return
            seed += 2

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in (1000, 1001)]
    for thread in threads:
        thread.start()
    return threads


def play(start, system, tools, turns, restart_at):
    """The answers, and for each turn the tokens of its prompt and answer and those reused."""
    messages, answers, figures = [{"role": "system", "content": system}], [], []
    server = start()
    stop = threading.Event()
    threads = neighbours(server, stop) if restart_at else []

    def end():
        stop.set()
        for thread in threads:
            thread.join()
        server.stop()

    for turn in range(turns):
        if turn == restart_at and restart_at:
            end()
            server, stop = start(), threading.Event()
            threads = neighbours(server, stop)
        if messages[-1].get("tool_calls"):
            for call in messages[-1]["tool_calls"]:
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"sky": prose(turn, 5)})})
        else:
            messages.append({"role": "user", "content": QUESTIONS[turn % len(QUESTIONS)]})
        body = {"model": "built-in", "messages": messages, "tools": tools, "max_tokens": 400, "temperature": 0}
        if turn % 3 == 1 and messages[-1]["role"] == "user":
            body["tool_choice"] = "required"
        began = time.monotonic()
        answer, headers = server.post("/v1/chat/completions", body)
        usage, message = answer["usage"], answer["choices"][0]["message"]
        reused = usage["prompt_tokens_details"]["cached_tokens"]
        missed = headers.get("x-cachalot-reuse-missed", "")
        figures.append((usage["prompt_tokens"], usage["completion_tokens"], reused, missed, time.monotonic() - began))
        # Identifiers of calls are random; everything else is compared.
        calls = [call["function"] for call in message.get("tool_calls") or []]
        answers.append((message.get("content"), message.get("reasoning_content"), calls))
        messages.append({key: value for key, value in message.items() if value is not None})
    end()
    return answers, figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--tokens", type=int, default=25_000, help="of the system prompt and the tools, about")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--mode", default="reference")
    options = parser.parse_args()
    base = [options.program, "serve", "--port", "0", "--mode", options.mode]
    tools = [tool(index) for index in range(12)]
    probe = Server(base)
    system_words = options.tokens
    while count(probe, prose(7, system_words) + json.dumps(tools)) > options.tokens * 1.02:
        system_words = int(system_words * 0.95)
    system = prose(7, system_words)
    probe.stop()

    with tempfile.TemporaryDirectory() as folder:
        cached = lambda: Server([*base, "--cache-dir", folder])
        answers, figures = play(cached, system, tools, options.turns, options.turns // 2)
    alone = lambda: Server([*base, "--cache-memory", "0"])
    expected, unaided = play(alone, system, tools, options.turns, 0)

    print("turn  prompt  answer  reused  of the turn before  missed       s  without cache, s")
    failures, before = [], None
    for turn, (prompt, completion, reused, missed, seconds) in enumerate(figures):
        share = min(1.0, reused / before) if before else 0.0
        note = "  restarted" if turn == options.turns // 2 else ""
        print(f"{turn:4}  {prompt:6}  {completion:6}  {reused:6}  {share:17.2%}  {missed:8} {seconds:7.2f}  {unaided[turn][4]:16.2f}{note}")
        if before and share < 0.99:
            failures.append(f"turn {turn} reused {share:.2%} of the turn before")
        if answers[turn] != expected[turn]:
            failures.append(f"turn {turn} differs: {answers[turn]} and {expected[turn]}")
        before = prompt + completion
    print(f"{sum(bool(calls) for _, _, calls in answers)} of {len(answers)} answers call tools")
    if figures[0][0] < options.tokens * 0.9:
        failures.append(f"the first prompt has {figures[0][0]} tokens")
    if failures:
        raise SystemExit("\n".join(failures))
    print("the same text with and without cache, alone and beside others")


main()
