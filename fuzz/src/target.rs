//! All targets of the fuzzer: each binary is the target of `sphereface::fuzzing` whose name it has.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: std::sync::LazyLock<sphereface::fuzzing::Target> =
        std::sync::LazyLock::new(|| sphereface::fuzzing::target(env!("CARGO_BIN_NAME")).expect("a known name"));
    TARGET(bytes);
});
