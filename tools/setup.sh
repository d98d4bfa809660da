#!/bin/sh
# Installs the missing packages to build, run and test sphereface on Debian or Ubuntu:
#   tools/setup.sh [run|test]
# Prints each installation, asks no questions, and does nothing if all packages are installed.
set -eu

say() { printf '%s\n' "setup: $*"; }
die() { printf '%s\n' "setup: $*" >&2; exit 1; }

# As in Cargo.toml: of all dependencies, sqlx needs the newest compiler.
rust_minor=94

run_packages="
build-essential pkg-config ca-certificates curl
libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x"
# ffmpeg makes the test clips, djpeg decodes photos as the reference did, Xvfb replaces a screen, and the RTSP server a
# camera. PostgreSQL stores a library of many workers, mosquitto is the broker and chromium the browser for the tests of
# the service, exiftool names faces in photos, and gst-launch runs the element. The Python package is tested in a virtual
# environment.
test_packages="ffmpeg libjpeg-turbo-progs xvfb libgstrtspserver-1.0-dev mosquitto chromium postgresql
libimage-exiftool-perl gstreamer1.0-tools python3 python3-venv"

case "${1:-run}" in
run) packages=$run_packages ;;
test) packages="$run_packages $test_packages" ;;
*) die "unknown set '$1': use run or test" ;;
esac

missing=
if command -v dpkg-query >/dev/null; then
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
            missing="$missing $package"
    done
else
    die "this is not Debian or Ubuntu: install GStreamer 1.20 or newer with its base, good, bad, ugly and libav plugins and their development files, and Rust 1.$rust_minor or newer, then run 'cargo build --release'"
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
fi
apt() {
    if [ -n "$as_root" ]; then
        command -v sudo >/dev/null || die "these packages are missing and there is no sudo to install them with:$missing"
    fi
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get "$@"
}

if [ -n "$missing" ]; then
    say "installing the system packages$missing"
    apt -qq update
    # shellcheck disable=SC2086
    apt -qq -y install --no-install-recommends $missing >/dev/null
fi

new_enough() {
    minor=$(cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
    [ -n "$minor" ] && [ "$minor" -ge "$rust_minor" ]
}

PATH="$HOME/.cargo/bin:$PATH"
if ! new_enough; then
    if command -v rustup >/dev/null || { apt-cache show rustup >/dev/null 2>&1 && apt -qq -y install rustup >/dev/null; }; then
        say "installing the stable Rust toolchain with rustup"
        rustup -q toolchain install stable --profile minimal -c rustfmt -c clippy
        rustup -q default stable
    else
        say "installing the stable Rust toolchain with the installer of the Rust project"
        curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs |
            sh -s -- -q -y --profile minimal -c rustfmt -c clippy --no-modify-path ||
            die "Rust could not be installed: install Rust 1.$rust_minor or newer by hand and try again"
    fi
    new_enough || die "cargo is still older than 1.$rust_minor: put the new toolchain first on PATH"
fi

# The checks before the tests need two more components of the toolchain.
if [ "${1:-run}" = test ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    hint="install rustfmt and clippy of the toolchain of $(command -v cargo) (Debian: rustfmt and rust-clippy), or run 'cargo test' for the tests alone"
    command -v rustup >/dev/null || die "cargo fmt or cargo clippy is missing and there is no rustup to install them with: $hint"
    say "installing rustfmt and clippy with rustup"
    rustup -q component add rustfmt clippy || die "rustup could not install rustfmt and clippy: $hint"
fi
