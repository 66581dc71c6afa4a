// The console: a chat over /v1/chat/completions and a live view of the server's figures.
// Texts of users and models become text nodes only, never HTML.
"use strict";

const element = (id) => document.getElementById(id);
const conversation = [];
let running = null;

// What the model may be offered to see tool calls: the page answers it itself.
const TOOL = { type: "function", function: { name: "get_time", description: "Tells the present time",
  parameters: { type: "object", properties: {}, additionalProperties: false } } };
const TOOL_ROUNDS_MAX = 4;

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- a small part of Markdown: paragraphs, headings, lists, code, bold, emphasis

function inline(parent, text) {
  const pattern = /(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(\*[^*\s][^*\n]*\*)/g;
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    parent.append(text.slice(end, match.index));
    const [whole, code, bold] = match;
    if (code) parent.append(make("code", "", whole.slice(1, -1)));
    else if (bold) parent.append(make("strong", "", whole.slice(2, -2)));
    else parent.append(make("em", "", whole.slice(1, -1)));
    end = match.index + whole.length;
  }
  parent.append(text.slice(end));
}

function block(parent, lines) {
  let list = null;
  let paragraph = null;
  for (const line of lines) {
    const heading = /^(#{1,4})\s+(.*)/.exec(line);
    const item = /^\s*(?:([-*])|\d+[.)])\s+(.*)/.exec(line);
    if (!line.trim()) { list = paragraph = null; }
    else if (heading) { const made = make(`h${Math.min(4, heading[1].length + 1)}`); inline(made, heading[2]); parent.append(made); list = paragraph = null; }
    else if (item) {
      const tag = item[1] ? "ul" : "ol";
      if (!list || list.localName !== tag) { list = make(tag); parent.append(list); }
      const made = make("li"); inline(made, item[2]); list.append(made); paragraph = null;
    } else {
      if (!paragraph) { paragraph = make("p"); parent.append(paragraph); list = null; } else paragraph.append(make("br"));
      inline(paragraph, line);
    }
  }
}

function render(target, text) {
  target.replaceChildren();
  text.split(/^```/m).forEach((part, index) => {
    if (index % 2 === 0) { block(target, part.split("\n")); return; }
    const pre = make("pre");
    pre.append(make("code", "", part.replace(/^[^\n]*\n?/, "")));
    target.append(pre);
  });
}

// ---- one answer on the page

class AnswerView {
  constructor() {
    this.root = make("div", "answer");
    this.thinking = this.text = this.note = null;
    this.calls = new Map();
    this.reasoning = ""; this.content = ""; this.drawn = false;
    element("talk").append(this.root);
    this.wait = make("p", "note", "waiting …");
    this.root.append(this.wait);
  }

  progress(text) { if (this.wait) this.wait.textContent = text; }

  begin() { if (this.wait) { this.wait.remove(); this.wait = null; } }

  think(piece) {
    this.begin();
    if (!this.thinking) {
      const details = make("details");
      details.append(make("summary", "", "Thinking …"), make("pre"));
      this.root.append(details);
      this.thinking = details;
    }
    this.reasoning += piece;
    this.thinking.lastChild.append(piece);
  }

  say(piece) {
    this.begin();
    this.thought();
    if (!this.text) { this.text = make("div"); this.root.append(this.text); }
    this.content += piece;
    // Once a frame, not once a token: long answers are rendered anew each time.
    if (!this.drawn) { this.drawn = true; requestAnimationFrame(() => { this.drawn = false; this.draw(); }); }
  }

  draw() { if (this.text) render(this.text, this.content); follow(); }

  thought() { if (this.thinking) this.thinking.firstChild.textContent = "Thought"; }

  call(delta) {
    this.begin();
    this.thought();
    let call = this.calls.get(delta.index);
    if (!call) {
      call = { id: "", name: "", arguments: "", box: make("div", "call") };
      call.box.append("calls ", make("b"), make("pre"));
      this.calls.set(delta.index, call);
      this.root.append(call.box);
    }
    if (delta.id) call.id = delta.id;
    if (delta.function?.name) call.name += delta.function.name;
    call.arguments += delta.function?.arguments ?? "";
    call.box.querySelector("b").textContent = call.name;
    call.box.querySelector("pre").textContent = call.arguments;
  }

  fail(message) { this.begin(); this.root.append(make("div", "error", message)); follow(); }

  end(text) { this.begin(); this.thought(); this.draw(); this.root.append(make("div", "note", text)); follow(); }

  message() {
    const message = { role: "assistant", content: this.content };
    if (this.reasoning) message.reasoning_content = this.reasoning;
    if (this.calls.size) message.tool_calls = [...this.calls.values()].map((call) =>
      ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
    return message;
  }
}

function follow() {
  const talk = element("talk");
  if (talk.scrollHeight - talk.scrollTop - talk.clientHeight < 160) talk.scrollTop = talk.scrollHeight;
}

// ---- asking

function headers() {
  const key = sessionStorage.getItem("key");
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let border;
    while ((border = rest.indexOf("\n\n")) >= 0) {
      yield rest.slice(0, border);
      rest = rest.slice(border + 2);
    }
  }
}

async function answer(view) {
  const body = { model: element("model").textContent, messages: conversation, stream: true,
    stream_options: { include_usage: true }, thinking: { type: element("think").checked ? "enabled" : "disabled" } };
  if (element("temperature").value !== "") body.temperature = Number(element("temperature").value);
  if (element("clock").checked) body.tools = [TOOL];
  const started = performance.now();
  const response = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), signal: running.signal,
    body: JSON.stringify(body) });
  if (!response.ok) {
    if (response.status === 401) askForKey();
    const found = await response.json().catch(() => null);
    throw new Error(found?.error?.message ?? `the server answered ${response.status}`);
  }
  let usage = null, first = null, finish = null;
  for await (const event of events(response)) {
    if (event.startsWith(": ")) { view.progress(event.slice(2)); continue; }
    const data = event.replace(/^data: ?/, "");
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (!choice) continue;
    const delta = choice.delta ?? {};
    if (delta.reasoning_content) view.think(delta.reasoning_content);
    if (delta.content) view.say(delta.content);
    for (const call of delta.tool_calls ?? []) view.call(call);
    if (first === null && (delta.reasoning_content || delta.content || delta.tool_calls)) first = performance.now();
    if (choice.finish_reason) finish = choice.finish_reason;
    follow();
  }
  view.end(summary(usage, started, first, finish));
}

function summary(usage, started, first, finish) {
  const parts = [];
  if (first !== null) parts.push(`first token ${((first - started) / 1000).toFixed(2)} s`);
  if (usage) {
    const rate = (usage.completion_tokens - 1) / Math.max(0.001, (performance.now() - (first ?? started)) / 1000);
    parts.push(`${usage.completion_tokens} tokens, ${rate.toFixed(0)}/s`);
    parts.push(`${usage.prompt_tokens_details?.cached_tokens ?? 0} of ${usage.prompt_tokens} prompt tokens reused`);
  }
  if (finish === "length") parts.push("cut at the token limit");
  return parts.join(" · ");
}

async function ask(text) {
  conversation.push({ role: "user", content: text });
  element("talk").append(make("div", "user", text));
  element("talk").scrollTop = element("talk").scrollHeight;
  running = new AbortController();
  busy(true);
  let view;
  try {
    for (let round = 0; round < TOOL_ROUNDS_MAX; round++) {
      view = new AnswerView();
      await answer(view);
      conversation.push(view.message());
      if (!view.calls.size) break;
      for (const call of view.calls.values()) {
        const content = call.name === "get_time" ? new Date().toString() : "there is no such tool";
        conversation.push({ role: "tool", tool_call_id: call.id, content });
      }
    }
  } catch (error) {
    if (error.name === "AbortError") {
      view.end("stopped");
      if (view.content && !view.calls.size) conversation.push({ role: "assistant", content: view.content });
      else conversation.pop();
    } else {
      view.fail(error instanceof TypeError ? "the server cannot be reached" : error.message);
      conversation.pop();
    }
  }
  running = null;
  busy(false);
}

function busy(is) {
  element("send").hidden = is;
  element("stop").hidden = !is;
  element("clear").disabled = is;
  if (!is) element("text").focus();
}

function askForKey() {
  const dialog = element("key-dialog");
  if (!dialog.open) dialog.showModal();
}

// ---- figures

const history = [];
const number = (value) => value === undefined || value === null ? "–"
  : value >= 100 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 10) / 10);

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (value >= 999.5 && index < 4) { value /= 1000; index += 1; }
  return `${value < 10 && index ? value.toFixed(1) : Math.round(value)} ${units[index]}`;
}

function rows(target, pairs) {
  target.replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
}

function draw() {
  const canvas = element("graph"), scale = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale; canvas.height = canvas.clientHeight * scale;
  const context = canvas.getContext("2d"), most = Math.max(1, ...history), step = canvas.width / 59;
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  context.lineWidth = 1.5 * scale;
  context.beginPath();
  history.forEach((value, index) => {
    const x = canvas.width - (history.length - 1 - index) * step;
    context.lineTo(x, canvas.height - 2 * scale - (value / most) * (canvas.height - 4 * scale));
  });
  context.stroke();
}

function show(status) {
  element("model").textContent = status.model;
  element("queued").textContent = number(status.queued);
  element("running").textContent = number(status.running);
  element("decode").textContent = number(status.decode_tokens_per_second);
  element("prefill").textContent = number(status.prefill_tokens_per_second);
  const share = status.prompt_tokens ? `${(100 * status.reused_tokens / status.prompt_tokens).toFixed(1)} %` : "–";
  rows(element("reuse"), [["reused", share],
    ...Object.entries(status.missed_tokens).map(([reason, count]) => [reason.replaceAll("_", " "), number(count)])]);
  rows(element("memory"), Object.entries(status.memory_bytes).map(([kind, value]) => [kind.replaceAll("_", " "), bytes(value)]));
  const age = status.health.probe.age_seconds;
  element("probe").textContent = age === null ? "not yet" : `${Math.round(age)} s ago`;
  element("certificate").textContent = status.health.certificate ?? "none";
  health(status.health.status === "ok" ? "ok" : "bad", status.health.status);
  history.push(status.decode_tokens_per_second);
  if (history.length > 60) history.shift();
  draw();
}

function health(state, text) {
  element("health").dataset.state = state;
  element("health").textContent = text;
}

async function watch() {
  for (;;) {
    if (!document.hidden) {
      try {
        const response = await fetch("/console/status", { headers: headers() });
        if (response.ok) show(await response.json());
        else { health("bad", `error ${response.status}`); if (response.status === 401) askForKey(); }
      } catch { health("bad", "not reached"); }
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

// ---- controls

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = element("text").value.trim();
  if (!text || running) return;
  element("text").value = "";
  element("text").style.height = "";
  ask(text);
});
element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("ask").requestSubmit();
  }
});
element("text").addEventListener("input", ({ target }) => {
  target.style.height = "auto";
  target.style.height = `${target.scrollHeight + 2}px`;
});
element("stop").addEventListener("click", () => running?.abort());
element("clear").addEventListener("click", () => { conversation.length = 0; element("talk").replaceChildren(); });
element("figures-toggle").addEventListener("click", ({ target }) => {
  target.setAttribute("aria-expanded", String(element("figures").classList.toggle("open")));
  draw();
});
element("key-dialog").addEventListener("close", () => sessionStorage.setItem("key", element("key").value));
watch();
