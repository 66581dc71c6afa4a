//! Every operator against values computed elsewhere: `operator_cases.jsonl` is written by
//! `tools/ascend/operator_cases.py` with PyTorch, one call a line.

mod client;

use client::*;
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::null_mut;

/// Arguments in integer registers and on the stack, then those in floating-point registers.
const INTEGERS: usize = 44;

/// Both platforms the emulator runs on (x86-64 and aarch64 Linux) pass the first eight floating-point arguments in
/// registers of their own, whatever stands between them, and every other argument in slots of eight bytes: one type
/// serves every operator with at most eight of the former.
fn call(function: Handle, integers: &[u64], reals: &[f64]) -> i32 {
    macro_rules! as_function {
        (@type $slot:tt) => { u64 };
        ($($slot:tt)*) => {{
            type Any = extern "C" fn($(as_function!(@type $slot)),*, f64, f64, f64, f64, f64, f64, f64, f64) -> i32;
            // SAFETY: see above; arguments too many lie where the function does not look.
            let function: Any = unsafe { std::mem::transmute(function) };
            let (mut slots, mut all) = ([0_u64; INTEGERS], [0.0; 8]);
            slots[..integers.len()].copy_from_slice(integers);
            all[..reals.len()].copy_from_slice(reals);
            let [a, b, c, d, e, f, g, h] = all;
            function($(slots[$slot]),*, a, b, c, d, e, f, g, h)
        }};
    }
    as_function!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37
        38 39 40 41 42 43)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap())
        .collect()
}

fn numbers(value: &Value) -> Vec<i64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_i64().unwrap())
        .collect()
}

/// Elements of an output as numbers.
fn decode(bytes: &[u8], dtype: i32) -> Vec<f64> {
    let words = |width: usize| bytes.chunks_exact(width);
    let four = |word: &[u8]| <[u8; 4]>::try_from(word).unwrap();
    match dtype {
        F32 => words(4).map(|word| f64::from(f32::from_le_bytes(four(word)))).collect(),
        I32 => words(4).map(|word| f64::from(i32::from_le_bytes(four(word)))).collect(),
        I64 => words(8)
            .map(|word| i64::from_le_bytes(word.try_into().unwrap()) as f64)
            .collect(),
        BF16 => words(2)
            .map(|word| f64::from(f32::from_le_bytes([0, 0, word[0], word[1]])))
            .collect(),
        I8 => bytes.iter().map(|&byte| f64::from(byte as i8)).collect(),
        _ => bytes.iter().map(|&byte| f64::from(byte)).collect(),
    }
}

/// An output, where it lies, what it must be and how near.
struct Expected {
    argument: usize,
    address: Handle,
    dtype: i32,
    bytes: Vec<u8>,
    tolerance: f64,
}

struct Call<'a> {
    client: &'a Client,
    integers: Vec<u64>,
    reals: Vec<f64>,
    texts: Vec<CString>,
    expected: Vec<Expected>,
    named: &'a mut HashMap<String, Handle>,
}

impl Call<'_> {
    fn tensor(&mut self, argument: usize, value: &Value) -> Handle {
        let client = self.client;
        let (dims, dtype) = (numbers(&value["dims"]), value["dtype"].as_i64().unwrap() as i32);
        let wanted = value["expected"].as_str().map(bytes);
        let fresh = || match value["bytes"].as_str() {
            // A pattern is repeated up to the size.
            Some(hex) => {
                let pattern = bytes(hex);
                let size = value["size"].as_u64().map_or(pattern.len(), |size| size as usize);
                client.upload(&pattern.into_iter().cycle().take(size).collect::<Vec<u8>>())
            }
            None => client.allocate(
                value["size"]
                    .as_u64()
                    .map_or_else(|| wanted.as_ref().unwrap().len(), |size| size as usize),
            ),
        };
        let address = match value["name"].as_str() {
            Some(name) => *self.named.entry(name.to_owned()).or_insert_with(fresh),
            None => fresh(),
        };
        if let Some(wanted) = wanted {
            let tolerance = value["tolerance"].as_f64().unwrap_or(0.0);
            self.expected.push(Expected {
                argument,
                address,
                dtype,
                bytes: wanted,
                tolerance,
            });
        }
        match value["strides"].is_null() {
            true => client.tensor(&dims, dtype, address),
            false => {
                let (strides, storage) = (numbers(&value["strides"]), numbers(&value["storage"]));
                let format = value["format"].as_i64().unwrap_or(2) as i32;
                client.view(&dims, &strides, dtype, format, &storage, address)
            }
        }
    }

    fn add(&mut self, argument: usize, value: &Value) {
        let client = self.client;
        let handle = match value {
            Value::Null => null_mut(),
            Value::Bool(flag) => u64::from(*flag) as Handle,
            Value::Number(number) => number.as_i64().unwrap() as Handle,
            Value::String(text) => {
                self.texts.push(CString::new(text.as_str()).unwrap());
                self.texts.last().unwrap().as_ptr() as Handle
            }
            _ if !value["dims"].is_null() => self.tensor(argument, value),
            _ if !value["list"].is_null() => {
                let members: Vec<Handle> = value["list"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|member| self.tensor(argument, member))
                    .collect();
                type Create = extern "C" fn(*const Handle, u64) -> Handle;
                client.symbol::<Create>("aclCreateTensorList")(members.as_ptr(), members.len() as u64)
            }
            _ if !value["array"].is_null() => {
                let all = numbers(&value["array"]);
                client.symbol::<extern "C" fn(*const i64, u64) -> Handle>("aclCreateIntArray")(
                    all.as_ptr(),
                    all.len() as u64,
                )
            }
            _ if !value["scalar"].is_null() => {
                let number = value["scalar"].as_f64().unwrap() as f32;
                client.symbol::<extern "C" fn(*const f32, i32) -> Handle>("aclCreateScalar")(&number, F32)
            }
            _ if !value["real32"].is_null() => {
                let bits = (value["real32"].as_f64().unwrap() as f32).to_bits();
                return self.reals.push(f64::from_bits(u64::from(bits)));
            }
            _ => return self.reals.push(value["real"].as_f64().unwrap()),
        };
        self.integers.push(handle as u64);
    }
}

/// The calls of a case one after the other; tensors of one name share their memory.
fn check(case: &Value) -> Result<(), String> {
    let client = Client::new(case["chip"].as_str().unwrap(), &[]);
    let mut named = HashMap::new();
    let mut calls = case["calls"].as_array().unwrap().iter();
    calls.try_for_each(|call| check_call(&client, call, &mut named))
}

/// The first difference, or the refusal.
fn check_call(client: &Client, case: &Value, named: &mut HashMap<String, Handle>) -> Result<(), String> {
    let mut call_ = Call {
        client,
        named,
        integers: Vec::new(),
        reals: Vec::new(),
        texts: Vec::new(),
        expected: Vec::new(),
    };
    for (argument, value) in case["arguments"].as_array().unwrap().iter().enumerate() {
        call_.add(argument, value);
    }
    let (mut workspace_bytes, mut executor): (u64, Handle) = (0, null_mut());
    call_
        .integers
        .extend([&raw mut workspace_bytes as u64, &raw mut executor as u64]);
    let name = case["operator"].as_str().unwrap();
    let first = client.symbol::<Handle>(&format!("{name}GetWorkspaceSize"));
    let told = |code: i32| {
        if code == 0 {
            Ok(())
        } else {
            Err(format!("{name}: {code} {}", client.message()))
        }
    };
    told(call(first, &call_.integers, &call_.reals))?;
    told(client.launch(name, executor, client.stream))?;
    told(client.synchronise(client.stream))?;
    for expected in &call_.expected {
        let held = client.download::<u8>(expected.address, expected.bytes.len());
        let (found, wanted) = (decode(&held, expected.dtype), decode(&expected.bytes, expected.dtype));
        let near = |a: f64, b: f64| {
            a == b || (a - b).abs() <= expected.tolerance * b.abs().max(1.0) || a.is_nan() && b.is_nan()
        };
        if let Some(place) = (0..found.len()).find(|&place| !near(found[place], wanted[place])) {
            return Err(format!(
                "{name}: argument {} element {place} is {}, not {}",
                expected.argument, found[place], wanted[place]
            ));
        }
    }
    Ok(())
}

fn cases() -> Vec<Value> {
    include_str!("operator_cases.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn operators_agree_with_values_from_elsewhere() {
    let failures: Vec<String> = cases().iter().filter_map(|case| check(case).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_operator_is_checked() {
    let client = Client::new("910B3", &[]);
    let list = client.symbol::<extern "C" fn() -> *const c_char>("ascendEmulatorOperators")();
    // SAFETY: a text that lives as long as the library.
    let list = unsafe { CStr::from_ptr(list) }.to_str().unwrap();
    let checked: Vec<String> = cases()
        .iter()
        .flat_map(|case| case["calls"].as_array().unwrap().clone())
        .map(|call| call["operator"].as_str().unwrap().to_owned())
        .collect();
    let by_hand = concat!(include_str!("operators.rs"), include_str!("forward_pass.rs"));
    let missing: Vec<&str> = list
        .lines()
        .filter(|name| !checked.iter().any(|other| other == name) && !by_hand.contains(&format!("\"{name}\",")))
        .collect();
    assert!(
        list.lines().count() > 50 && missing.is_empty(),
        "nobody checks {missing:?}"
    );
}
