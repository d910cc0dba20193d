//! The target `oip` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(init: hydit_fuzz::start_server(), |bytes: &[u8]| hydit_fuzz::oip(bytes));
