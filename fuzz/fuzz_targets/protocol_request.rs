#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cachalot_fuzz::protocols::request(data));
