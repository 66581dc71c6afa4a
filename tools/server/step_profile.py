#!/usr/bin/env python3
"""Where the time of decode steps goes in a running server.

    cachalot serve --port 8999 &
    tools/server/step_profile.py http://127.0.0.1:8999 --sequences 1 16 --seconds 8

Endless streamed answers (temperature 1, the end-of-sentence token forbidden) keep the given number of sequences in the
batch. Prints tokens per second and, of `/metrics`, the microseconds of a step by part; `outside` is what none of the
parts accounts for: handing events over, threads, HTTP. Standard library only.
"""

import argparse
import json
import socket
import threading
import time
import urllib.request
from urllib.parse import urlparse

PARTS = ("schedule", "model", "sample", "cache")


def metrics(url):
    text = urllib.request.urlopen(url + "/metrics").read().decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def served_model(url):
    return json.load(urllib.request.urlopen(url + "/v1/models"))["data"][0]["id"]


def keep_asking(url, model, index, counts, stop, forbidden):
    body = json.dumps({
        "model": model, "prompt": f"Once upon a time there was a fox number {index}. ", "stream": True,
        "max_tokens": 900, "temperature": 1.0, "logit_bias": {str(forbidden): -100},
    }).encode()
    address = (url.hostname, url.port)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {url.hostname}\r\ncontent-type: application/json\r\n"
    head += f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    while not stop.is_set():
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode() + body)
            while not stop.is_set() and (data := connection.recv(1 << 20)):
                counts[index] += data.count(b"data: {")


def profile(url, sequences, seconds, forbidden):
    model = served_model(url)
    stop, counts = threading.Event(), [0] * sequences
    work = [threading.Thread(target=keep_asking, args=(urlparse(url), model, index, counts, stop, forbidden))
            for index in range(sequences)]
    for thread in work:
        thread.start()
    time.sleep(1.5)
    before, told, start = metrics(url), sum(counts), time.monotonic()
    time.sleep(seconds)
    after, told, elapsed = metrics(url), sum(counts) - told, time.monotonic() - start
    stop.set()
    for thread in work:
        thread.join()
    if told == 0:
        raise SystemExit("the server streamed no token: look at its log")
    steps = after["cachalot_steps_total"] - before["cachalot_steps_total"]
    name = 'cachalot_step_seconds_total{{part="{}"}}'
    parts = {part: 1e6 * (after[name.format(part)] - before[name.format(part)]) / steps for part in PARTS}
    step = 1e6 * elapsed / steps
    shown = "  ".join(f"{part} {value:.0f}" for part, value in parts.items())
    print(f"{sequences:3} sequences: {told / elapsed:6.0f} tok/s, step {step:.0f} us: {shown}  "
          f"outside {step - sum(parts.values()):.0f}")
    return told / elapsed


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("url")
    arguments.add_argument("--sequences", type=int, nargs="+", default=[1, 16])
    arguments.add_argument("--seconds", type=float, default=8)
    arguments.add_argument("--forbid", type=int, default=1, help="the end-of-sentence token (default 1: built-in model)")
    options = arguments.parse_args()
    speeds = [profile(options.url.rstrip("/"), count, options.seconds, options.forbid) for count in options.sequences]
    for count, speed in zip(options.sequences[1:], speeds[1:]):
        print(f"{count} sequences give {speed / speeds[0]:.2f} times the tokens of {options.sequences[0]}")


if __name__ == "__main__":
    main()
