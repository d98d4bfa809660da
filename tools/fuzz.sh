#!/bin/sh
# Tests the parsers of untrusted input with a fuzzer:
#   tools/fuzz.sh [SECONDS] [TARGET...]     each target for SECONDS (default 60); default: all targets
# Needs cargo-fuzz (cargo install cargo-fuzz). With the stable compiler it sets RUSTC_BOOTSTRAP for unstable options.
# The fuzzer's corpus is in fuzz/target/corpus, its findings in fuzz/artifacts. A fixed finding is added to fuzz/corpus
# under a descriptive name: tests read that folder.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v '^sphereface-fuzz$')
export RUSTC_BOOTSTRAP=1
# The sanitizer keeps freed memory for a while to find uses of it, and that memory counts against the limit.
export ASAN_OPTIONS="quarantine_size_mb=16:${ASAN_OPTIONS:-}"

failed=
for target in "$@"; do
    grown=fuzz/target/corpus/$target
    mkdir -p "$grown"
    more=
    case $target in
    caffemodel | pickle) more=tests/fixtures/weights ;;
    onnx) more=tests/fixtures/networks ;;
    esac
    printf '\nfuzz: %s for %s s\n' "$target" "$seconds"
    # shellcheck disable=SC2086
    cargo fuzz run "$target" "$grown" "fuzz/corpus/$target" $more -- -max_total_time="$seconds" \
        -rss_limit_mb=1024 -max_len=65536 -timeout=20 -print_final_stats=1 -verbosity=1 || failed="$failed $target"
done
[ -z "$failed" ] || {
    printf '\nfuzz: finds in%s: see fuzz/artifacts\n' "$failed" >&2
    exit 1
}
