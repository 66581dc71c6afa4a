#!/usr/bin/env python3
"""Drives the console page in a headless Chromium and asserts what it promises.

    python tools/server/console.py http://127.0.0.1:8000 [--shots FOLDER] [--browser /usr/bin/chromium]

Needs the package `playwright`, and a Chromium: its own, or one named by --browser. Screenshots are for looking at.
"""

import argparse
import pathlib
import time
from urllib.parse import urlparse

from playwright.sync_api import sync_playwright

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("url")
parser.add_argument("--shots", type=pathlib.Path)
parser.add_argument("--browser")
arguments = parser.parse_args()
HOST = urlparse(arguments.url).netloc
STORY = "Tell me a story about a fox."
SETTINGS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 380, "height": 740}, "has_touch": True},
}


def shoot(page, name):
    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=arguments.shots / f"{name}.png")


def until(page, condition, seconds=30):
    """Playwright's own waiting evaluates text within the page, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never: {condition}"
        page.wait_for_timeout(50)


def ask(page, text):
    page.fill("#text", text)
    page.keyboard.press("Enter")


def wait_until_over(page):
    until(page, "document.getElementById('stop').hidden", 60)


def luminance(page):
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number)")[:3]
    return (red + green + blue) / 765


def answers_with_folded_thinking(page, name):
    page.evaluate("""() => { window.lengths = []; new MutationObserver(() => window.lengths.push(
        document.getElementById('talk').textContent.length)).observe(
        document.getElementById('talk'), { childList: true, subtree: true, characterData: true }); }""")
    ask(page, STORY)
    wait_until_over(page)
    assert "fox" in page.locator(".answer").last.inner_text()
    assert len(set(page.evaluate("window.lengths"))) > 5, "the answer did not come in pieces"
    thinking = page.locator(".answer details").first
    assert thinking.get_attribute("open") is None and not thinking.locator("pre").is_visible(), "thinking is not folded"
    thinking.locator("summary").click()
    assert thinking.locator("pre").is_visible()
    thinking.locator("summary").click()
    note = page.locator(".answer .note").last.inner_text()
    assert "first token" in note and "prompt tokens reused" in note, note
    shoot(page, f"{name}-answer")


def shows_tool_calls(page, name):
    page.click("#clear")
    assert page.locator("#talk > *").count() == 0
    page.check("#clock")
    for question in ("What time is it?", "Use the tool get_time.", "Call get_time now.", "Tell me the present time."):
        ask(page, question)
        wait_until_over(page)
        if page.locator(".call b").count():
            break
        page.click("#clear")
    # A small model need not call; one that does is shown with its name.
    if page.locator(".call b").count():
        assert page.locator(".call b").first.inner_text() and page.locator(".call pre").count()
        print(f"ok      {name}: a tool call is shown")
    else:
        print(f"open    {name}: the model called no tool")
    shoot(page, f"{name}-tool")
    page.uncheck("#clock")


def stops(page, name):
    page.click("#clear")
    # A small model answers faster than anybody clicks; a long question takes it seconds to read.
    page.fill("#text", "The quick brown fox jumps over the lazy dog. " * 1500)
    page.keyboard.press("Enter")
    until(page, "document.getElementById('running').textContent === '1'")
    assert not page.locator("#send").is_visible()
    page.click("#stop")
    wait_until_over(page)
    assert page.locator(".answer .note").last.inner_text() == "stopped"
    until(page, "document.getElementById('running').textContent === '0'", 10)
    ask(page, STORY)
    wait_until_over(page)
    assert "first token" in page.locator(".answer .note").last.inner_text(), "after a stop, the next question is answered"
    shoot(page, f"{name}-stopped")


def shows_figures(page, name):
    if name == "phone":
        assert not page.locator("#figures").is_visible()
        page.click("#figures-toggle")
    until(page, "document.getElementById('health').textContent === 'ok'", 60)
    for figure in ("queued", "running", "decode", "prefill"):
        assert page.locator(f"#{figure}").inner_text() != "–", figure
    assert "%" in page.locator("#reuse").inner_text()
    assert "B" in page.locator("#memory").inner_text()
    shoot(page, f"{name}-figures")
    if name == "phone":
        page.click("#figures-toggle")


def fits(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"


def drive(browser, name, settings):
    context = browser.new_context(**settings)
    page = context.new_page()
    foreign, wrong = [], []
    page.on("request", lambda request: foreign.append(request.url)
            if urlparse(request.url).netloc not in (HOST, "") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(arguments.url)
    assert (luminance(page) < 0.3) == (settings["color_scheme"] == "dark"), luminance(page)
    until(page, "document.getElementById('model').textContent !== ''")
    shoot(page, f"{name}-empty")
    page.fill("#temperature", "0")
    answers_with_folded_thinking(page, name)
    fits(page)
    shows_tool_calls(page, name)
    stops(page, name)
    shows_figures(page, name)
    fits(page)
    assert not foreign, f"requests left the host: {foreign}"
    assert not wrong, wrong
    context.close()
    print(f"ok      {name}")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=arguments.browser, args=["--no-sandbox"])
    for name, settings in SETTINGS.items():
        drive(browser, name, settings)
    browser.close()
