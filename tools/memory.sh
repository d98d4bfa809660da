#!/bin/sh
# Runs the tests of the code with `unsafe` blocks and threads under a tool that watches memory or threads:
#   tools/memory.sh address|memcheck|helgrind|thread|miri [FILTER...]
# A filter is a part of the names of tests. docs/fuzzing.md says what was run and what came of it.
#
# address   address sanitizer; any compiler
# memcheck  Valgrind's memcheck
# helgrind  Valgrind's helgrind, for the team of threads
# thread    thread sanitizer; takes a nightly compiler with its sources (rustup component add rust-src)
# miri      Miri with tree borrows and portable kernels; takes a nightly compiler with it (rustup component add miri)
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

case $tool in
address)
    [ $# -gt 0 ] || set -- nn:: align:: detect:: embed:: gallery:: identify:: track::
    # Bytes that cannot be freed at the end are those of threads that still run.
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/address \
        cargo test --lib --no-default-features --target "$host" -- "$@"
    ;;
memcheck | helgrind)
    if [ $# -eq 0 ]; then
        set -- nn::team pipeline::graph
        [ "$tool" = helgrind ] || set -- "$@" nn::buffer nn::conv nn::gemm nn::maps nn::simd
    fi
    tests=$(program)
    # Valgrind knows no AVX-512. One test at a time: it runs one thread at a time anyway.
    SPHEREFACE_ISA=${SPHEREFACE_ISA:-avx2} valgrind --tool="$tool" --error-exitcode=1 --quiet --fair-sched=yes \
        "$tests" --test-threads=1 "$@"
    ;;
thread)
    [ $# -gt 0 ] || set -- nn::team nn::conv pipeline::graph
    RUSTFLAGS=-Zsanitizer=thread CARGO_TARGET_DIR=target/thread cargo +nightly test -Zbuild-std --lib \
        --no-default-features --features label --target "$host" -- "$@"
    ;;
miri)
    [ $# -gt 0 ] || set -- nn::team nn::buffer nn::simd
    SPHEREFACE_ISA=portable MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-disable-isolation -Zmiri-permissive-provenance" \
        CARGO_TARGET_DIR=target/miri cargo +nightly miri test --lib --no-default-features -- "$@"
    ;;
*)
    echo "memory: say address, memcheck, helgrind, thread or miri" >&2
    exit 2
    ;;
esac
