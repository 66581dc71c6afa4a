//! Constraints as the engine compiles them: what the prompts teach passes, other things do not.

mod support;

use cachalot_engine::Constraint;
use cachalot_engine::constraint::{self, Dormancy, GrammarConstraint, Grammars, TokenText};
use cachalot_protocol::{Grammar, Protocol};
use serde_json::{Value, json};
use support::{EOS, call, prepared, tokenizer, tokens};

fn grammars() -> Grammars {
    let tokenizer = tokenizer();
    let spellings: Vec<String> = (0..tokenizer.vocabulary_size() as u32)
        .map(|id| tokenizer.decode(&[id]))
        .collect();
    let texts = spellings.iter().enumerate().map(|(id, spelling)| match id as u32 {
        id if tokenizer.is_special(id) => TokenText::Special(spelling),
        id => TokenText::Bytes(tokenizer.token_bytes(id)),
    });
    Grammars::new(texts, &[tokenizer.eos_id()]).expect("a vocabulary")
}

fn compiled(grammars: &Grammars, body: &Value) -> GrammarConstraint {
    let call = call(Protocol::ChatCompletions, body);
    let spec = prepared(&call).constraint.expect("a constraint");
    let grammar = match spec.grammar {
        Grammar::JsonSchema(schema) => constraint::Grammar::JsonSchema(schema),
        Grammar::Regex(regex) => constraint::Grammar::Regex(regex),
        Grammar::Lark(grammar) => constraint::Grammar::Lark(grammar),
    };
    let dormancy = spec.dormant_until.map(|until| Dormancy {
        until,
        forbidden: &spec.forbidden_while_dormant,
    });
    grammars
        .constraint(&grammar, dormancy)
        .expect("a grammar that compiles")
}

/// How many tokens of `answer` are allowed, and how many there are.
fn allowed(constraint: &mut GrammarConstraint, answer: &str) -> (usize, usize) {
    let ids = tokens(answer);
    for (place, id) in ids.iter().enumerate() {
        let mask = constraint.mask().expect("a mask");
        if mask.is_some_and(|mask| !mask.is_allowed(*id)) {
            return (place, ids.len());
        }
        constraint.commit(*id).expect("an allowed token");
    }
    (ids.len(), ids.len())
}

fn request(extra: Value) -> Value {
    let weather = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": ["integer", "null"]}, "note": {"type": ["string", "null"]}, "place": {"$ref": "#/$defs/place"}},
        "$defs": {"place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"], "additionalProperties": false}},
        "required": ["city", "unit", "days"], "additionalProperties": false});
    let tools = json!([
        {"type": "function", "function": {"name": "weather", "parameters": weather, "strict": true}},
        {"type": "function", "function": {"name": "any", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "none", "strict": true}}]);
    let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": tools, "reasoning_effort": "none"});
    request
        .as_object_mut()
        .expect("an object")
        .extend(extra.as_object().expect("an object").clone());
    request
}

fn block(calls: &str) -> String {
    format!("\n\n<｜DSML｜tool_calls>\n{calls}</｜DSML｜tool_calls>")
}

fn invoke(name: &str, parameters: &[(&str, &str, &str)]) -> String {
    let parameters: String = parameters
        .iter()
        .map(|(name, string, value)| {
            format!("<｜DSML｜parameter name=\"{name}\" string=\"{string}\">{value}</｜DSML｜parameter>\n")
        })
        .collect();
    format!("<｜DSML｜invoke name=\"{name}\">\n{parameters}</｜DSML｜invoke>\n")
}

#[test]
fn calls_follow_tools_and_schemas() {
    let grammars = grammars();
    let city = ("city", "true", "Os</lo>\n<b> \"x\" a < b");
    let good = invoke("weather", &[city, ("unit", "true", "C"), ("days", "false", "3")]);
    let full = invoke(
        "weather",
        &[
            city,
            ("unit", "true", "F"),
            ("days", "false", "null"),
            ("note", "true", "n"),
            ("place", "false", "{\"x\": 1.5}"),
        ],
    );
    let free = invoke("any", &[("p", "true", "a"), ("q", "false", "[1, {\"a\": null}]")]);
    let bad = [
        invoke("weather", &[city, ("unit", "true", "K"), ("days", "false", "3")]),
        invoke("weather", &[city, ("unit", "true", "C"), ("days", "true", "3")]),
        invoke("weather", &[city, ("unit", "true", "C")]),
        invoke("weather", &[("unit", "true", "C"), city, ("days", "false", "3")]),
        invoke(
            "weather",
            &[
                city,
                ("unit", "true", "C"),
                ("days", "false", "3"),
                ("more", "true", "x"),
            ],
        ),
        invoke(
            "weather",
            &[
                city,
                ("unit", "true", "C"),
                ("days", "false", "3"),
                ("place", "false", "{\"y\": 1}"),
            ],
        ),
        invoke("other", &[]),
        invoke("none", &[("p", "true", "a")]),
    ];
    let required = request(json!({"tool_choice": "required"}));
    let auto = request(json!({}));
    let named = request(json!({"tool_choice": {"type": "function", "function": {"name": "any"}}}));
    let single = request(json!({"tool_choice": "required", "parallel_tool_calls": false}));
    let text_or_json = request(json!({"response_format": {"type": "json_object"}}));
    let passes = |request: &Value, answer: &str| {
        let (count, all) = allowed(&mut compiled(&grammars, request), &format!("{answer}{EOS}"));
        count == all
    };
    for calls in [
        &good,
        &full,
        &free,
        &invoke("none", &[]),
        &invoke("any", &[]),
        &format!("{good}{free}"),
    ] {
        assert!(passes(&required, &block(calls)), "{calls}");
        assert!(passes(&auto, &format!("Look: a < b{}", block(calls))), "{calls}");
        assert!(passes(&text_or_json, &block(calls)), "{calls}");
    }
    for calls in &bad {
        assert!(!passes(&required, &block(calls)), "{calls}");
        assert!(!passes(&auto, &block(calls)), "{calls}");
    }
    assert!(passes(&auto, "Only text, a < b, a <") && !passes(&required, "Only text"));
    assert!(passes(&text_or_json, "{\"a\": 1}") && !passes(&text_or_json, "Only text"));
    assert!(passes(&named, &block(&free)) && !passes(&named, &block(&good)));
    assert!(passes(&single, &block(&free)) && !passes(&single, &block(&format!("{free}{free}"))));
}

#[test]
fn thinking_comes_first_and_is_free() {
    let grammars = grammars();
    let body = request(json!({"tool_choice": "required", "reasoning_effort": "high"}));
    let answer = format!("Hm, <b> {{</think>{}{EOS}", block(&invoke("none", &[])));
    let (count, all) = allowed(&mut compiled(&grammars, &body), &answer);
    assert_eq!(count, all);
    let (count, _) = allowed(&mut compiled(&grammars, &body), "Hm</think>Text");
    assert_eq!(count, tokens("Hm</think>").len());
    // A call within the thoughts would leave the constraint asleep for ever.
    let early = format!("Hm{}", block(&invoke("none", &[])));
    let (count, all) = allowed(&mut compiled(&grammars, &body), &early);
    assert!(count < all, "{count}");
    let spec = prepared(&call(Protocol::ChatCompletions, &body))
        .constraint
        .expect("a constraint");
    let special = |text: &str| tokenizer().special_id(text);
    assert_eq!(spec.dormant_until, special("</think>"));
    let forbidden: Vec<Option<u32>> = spec.forbidden_while_dormant.into_iter().map(Some).collect();
    assert_eq!(forbidden, [special(EOS), special("｜DSML｜")]);
}

#[test]
fn formats_without_tools() {
    let grammars = grammars();
    let ask = |format: Value| json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "response_format": format, "reasoning_effort": "none"});
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
    let by_schema = ask(json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}));
    for (request, good, bad) in [
        (by_schema, "{\"a\": 1}", "{\"b\": 1}"),
        (ask(json!({"type": "json_object"})), "{\"b\": []}", "[]"),
        (ask(json!({"type": "regex", "regex": "a/b|c+"})), "ccc", "ab"),
    ] {
        let passes = |answer: &str| {
            let (count, all) = allowed(&mut compiled(&grammars, &request), &format!("{answer}{EOS}"));
            count == all
        };
        assert!(passes(good) && !passes(bad), "{request}");
    }
}
