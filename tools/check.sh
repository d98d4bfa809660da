#!/bin/sh
# Runs all checks of `make test`, the fast ones first:
#   tools/check.sh [lint|test|python]     one part of it; all without an argument
# Afterwards lists the ten slowest tests, and the tests that were skipped because data or tools were missing.
# The bindings are checked by the same commands as the rest: alone, their dependencies would have
# other features and would be built a second time.
set -eu
cd "$(dirname "$0")/.."

# Every feature beside the default, one combination per line, without the features that they turn on. Features on one line have
# nothing to do with each other. cuda is not listed because it needs NVIDIA's compiler: see tools/cuda.sh.
combinations='--no-default-features
--no-default-features --features=bundled-models,candle,download,xmp
--no-default-features --features=label
--no-default-features --features=video
--no-default-features --features=library
--no-default-features --features=serve
--no-default-features --features=s3,train
--no-default-features --features=rtsp
--no-default-features --features=cli'

say() { printf '\n%s\n' "check: $*"; }

lint() {
    say "cargo fmt --check"
    cargo fmt --all --check
    say "cargo clippy --all-targets"
    cargo clippy --workspace --all-targets -- -D warnings
    while read -r combination; do
        say "cargo clippy $combination"
        # shellcheck disable=SC2086
        cargo clippy --lib --bins --examples $combination -- -D warnings </dev/null
    done <<END
$combinations
END
    # cargo-deny is not installed only for this: tests/integration/licences.rs checks its rule about licences, too.
    if cargo deny --version >/dev/null 2>&1; then
        say "cargo deny check licenses bans sources"
        cargo deny check licenses bans sources
    fi
    say "cargo doc --no-deps"
    # Links to private items are allowed: they help readers of the code.
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps
}

# Shows the output of the test runner without the output of passing tests. Of both it
# keeps one line per test: the seconds or the reason for skipping, a tab, the name.
watch_tests() {
    awk -v times="$notes/times" -v skipped="$notes/skipped" '
        /^ +Running / { binary = $2 == "unittests" ? $3 : $2 }
        /^successes:$/ { quiet = 1 }
        /^failures:$/ || /^test result:/ { quiet = 0 }
        quiet && /^---- .* stdout ----$/ { name = $2 }
        quiet && /^skipped/ { print $0 "\t" binary " " name >>skipped }
        /^test .* <[0-9.]+s>$/ {
            time = $NF
            gsub(/[<>s]/, "", time)
            print time "\t" binary " " $2 >>times
        }
        !quiet { print; fflush() }
    '
}

tell() {
    say "the slowest tests, in seconds"
    sort -rn "$notes/times" | head -10
    say "$(cut -f 2 "$notes/skipped" | sort -u | wc -l) tests skipped, or a part of them, for lack of data or tools"
    sort -u "$notes/skipped" | awk -F '\t' '
        $1 != reason { reason = $1; print reason }
        { print "    " $2 }
    '
    echo
}

# The Python package, as an editable installation in target/python. It uses the development build
# of the other tests.
python() {
    say "pytest"
    make -s python-tools &&
        VIRTUAL_ENV="$PWD/target/python" target/python/bin/maturin develop --quiet \
            --features sphereface/default --manifest-path bindings/python/Cargo.toml &&
        target/python/bin/pytest -q --durations=5 bindings/python
}

run_tests() {
    say "cargo test"
    # The examples, too: a test runs them. In one command, so that the library and its tests are compiled side by side.
    cargo test --workspace --no-run
    # With DuckDB: a test reads analyses with it as the documentation describes.
    make -s python-tools
    export SPHEREFACE_PYTHON="$PWD/target/python/bin/python"
    notes=$(mktemp -d)
    trap 'rm -rf "$notes"' EXIT
    : >"$notes/times"
    : >"$notes/skipped"
    # The times of the test runner are an unstable option. RUSTC_BOOTSTRAP is set only for running the tests,
    # not for compiling them.
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    {
        env "CARGO_TARGET_${host}_RUNNER=env RUSTC_BOOTSTRAP=1" \
            cargo test --workspace --tests --no-fail-fast -- -Z unstable-options --report-time --show-output 2>&1 ||
            touch "$notes/failed"
    } | watch_tests
    tell
    python || touch "$notes/failed"
    # With the features of the workspace; otherwise the library would be built again.
    cargo test --workspace --doc || touch "$notes/failed"
    [ ! -e "$notes/failed" ]
}

case "${1:-all}" in
all)
    lint
    run_tests
    ;;
lint) lint ;;
test) run_tests ;;
python) python ;;
*) say "say lint, test or python" >&2 && exit 2 ;;
esac
