#!/bin/sh
# Runs the tests of the code with `unsafe` blocks and threads under a tool that watches memory or threads:
#   tools/memory.sh address|memcheck|thread|miri [FILTER...]
# A filter is a part of the names of tests. docs/fuzzing.md has the runs and their results.
#
# address   address sanitizer over the kernels and the team of threads
# memcheck  Valgrind's memcheck over kernels, threads and the pipeline graph
# thread    thread sanitizer over the team of threads and, with the sources of the standard library (rustup component add
#           rust-src), the pipeline graph
# miri      Miri with tree borrows over the same; needs a nightly compiler with Miri (rustup component add miri)
set -eu
cd "$(dirname "$0")/.."

tool=${1:-}
[ $# -eq 0 ] || shift
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_INCREMENTAL=0

# The program with the tests of the library, the same as for `make test`.
program() {
    cargo test --workspace --lib --no-run --message-format=json |
        sed -n 's/.*"name":"sphereface".*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

# Enters the crate target/NAME, with the dependencies of ours whose lines match PATTERN: enter NAME PATTERN
enter() {
    cp Cargo.lock "target/$1/"
    cat >"target/$1/Cargo.toml" <<END
[package]
name = "$1"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
$(grep -E "$2" Cargo.toml | grep -v opt-level)

[profile.dev]
opt-level = 1
END
    cd "target/$1"
}

# A crate of the team of threads and the pipeline graph alone, almost without dependencies, in the folder target/threads.
# Both tools need all code to be compiled for them, and the whole library would be far more than these two parts.
alone() {
    mkdir -p target/threads/src/pipeline
    cp src/nn/team.rs target/threads/src/
    cp -r src/pipeline/graph src/pipeline/graph.rs src/pipeline/statistics.rs target/threads/src/pipeline/
    cat >target/threads/src/lib.rs <<END
#![allow(dead_code, unexpected_cfgs)]
mod team;
mod pipeline {
    pub mod graph;
    pub mod statistics;
}
END
    enter threads '^(crossbeam-channel|thiserror|serde) = '
}

# A crate of the module `nn` alone, in the folder target/kernels, for the same reason. Its other features are off.
kernels() {
    mkdir -p target/kernels/src
    cp -r src/nn target/kernels/src/
    printf '#![allow(dead_code, unexpected_cfgs, unused_imports)]\nmod nn;\n' >target/kernels/src/lib.rs
    enter kernels '^(gemm|half|memmap2|serde|serde_json|thiserror) = |^rand = "'
}

case $tool in
address)
    # Memory that is not freed at the end belongs to threads that still run.
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
    kernels
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --lib --target "$host" -- "$@"
    ;;
memcheck)
    [ $# -gt 0 ] || set -- nn::team pipeline::graph nn::buffer nn::conv nn::gemm nn::layers nn::simd
    tests=$(program)
    # Valgrind does not support AVX-512. It runs one thread at a time.
    SPHEREFACE_ISA=${SPHEREFACE_ISA:-avx2} valgrind --error-exitcode=1 --quiet --fair-sched=yes "$tests" --test-threads=1 "$@"
    ;;
thread)
    # Without its sources, the standard library is not instrumented. The tool then does not see its locks and
    # channels, and only the team, which uses none, can be checked.
    std=-Zbuild-std
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
        std=
        [ $# -gt 0 ] || set -- team::
        export TSAN_OPTIONS="suppressions=$PWD/tools/thread.supp:${TSAN_OPTIONS:-}"
    fi
    alone
    # shellcheck disable=SC2086
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
        cargo test $std --lib --target "$host" -- "$@"
    ;;
miri)
    alone
    MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-disable-isolation" cargo +nightly miri test --lib -- "$@"
    ;;
*)
    echo "memory: choose address, memcheck, thread or miri" >&2
    exit 2
    ;;
esac
