#!/bin/sh
# Feeds the readers of foreign bytes with inputs that a fuzzer makes up:
#   tools/fuzz.sh [SECONDS] [TARGET...]     all targets without names, each for so many seconds (60)
# Takes cargo-fuzz (cargo install cargo-fuzz) and, with the stable compiler, its leave to use what is unstable. What the
# fuzzer learns stays in fuzz/target/corpus, what it finds in fuzz/artifacts. A find that is mended goes into fuzz/corpus
# under a name that says what it is: tests read that folder.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v '^sphereface-fuzz$')
export RUSTC_BOOTSTRAP=1
# Freed memory is kept for a while to find uses of it, and counts against the limit.
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
