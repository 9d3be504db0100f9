//! Arbitrary bytes as a module's `.eh_frame`: always a table, whose rules lead no walk astray.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hsi_profiling::fuzzing::cfi_compile(bytes));
