//! The target `config` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydit_fuzz::config(bytes));
