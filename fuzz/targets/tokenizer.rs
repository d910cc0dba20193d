//! The target `tokenizer` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydit_fuzz::tokenizer(bytes));
