#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkman_fuzz::literals(data));
