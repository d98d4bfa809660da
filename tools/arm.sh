#!/bin/sh
# Builds sphereface for 64-bit ARM on an x86-64 Debian or Ubuntu and runs it, or tests, under emulation:
#   sudo tools/arm.sh test [TEST...]      tests of the library by (parts of) their names
#   sudo tools/arm.sh run [ARGUMENTS...]  the program, as 'sphereface ARGUMENTS' from the project's folder
# Compiler and GStreamer are in a separate Debian system under target/arm (3 GB;
# SPHEREFACE_ARM_ROOT chooses another folder). Only mmdebstrap and qemu-user-static are installed on this machine.
set -eu
cd "$(dirname "$0")/.."

root=${SPHEREFACE_ARM_ROOT:-$PWD/target/arm}
say() { printf '%s\n' "arm: $*" >&2; }
die() { printf '%s\n' "arm: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "a system of its own takes root: use sudo"
case "${1:-}" in
test) shift && set -- test --lib -- "$@" ;;
run) shift && set -- run --quiet --bin sphereface -- "$@" ;;
*) die "say test or run" ;;
esac

if [ ! -e "$root/complete" ]; then
    [ ! -e "$root" ] || die "$root is no complete system: remove it, or choose another with SPHEREFACE_ARM_ROOT"
    say "making a Debian system with an ARM compiler in $root"
    if ! { command -v mmdebstrap && command -v qemu-aarch64-static; } >/dev/null; then
        apt-get -qq update
        apt-get -qq -y install mmdebstrap qemu-user-static >/dev/null
    fi
    mkdir -p "$(dirname "$root")"
    # Debian testing, because the compiler of stable may be too old. The lists of a mirror may be out of date.
    mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' --variant=apt --architectures=amd64,arm64 \
        --include=rustc,cargo,libstd-rust-dev:arm64,gcc,gcc-aarch64-linux-gnu,pkg-config,ca-certificates \
        --include=libgstreamer1.0-dev:arm64,libgstreamer-plugins-base1.0-dev:arm64,libgstrtspserver-1.0-dev:arm64 \
        --include=gstreamer1.0-plugins-base:arm64,gstreamer1.0-plugins-good:arm64,gstreamer1.0-plugins-bad:arm64 \
        --include=gstreamer1.0-plugins-ugly:arm64,gstreamer1.0-libav:arm64 testing "$root"
    cp "$(command -v qemu-aarch64-static)" "$root/usr/bin/"
    mkdir -p "$root/w" "$root/data" "$root/tgt" "$root/chome"
    touch "$root/complete"
fi

# Only packages that compute are optimised; it is not worth the time for the others.
flags='--config profile.dev.package."*".opt-level=0'
for package in candle-core gemm gemm-common gemm-f16 gemm-f32 gemm-f64 image zune-jpeg blake3; do
    flags="$flags --config profile.dev.package.$package.opt-level=3"
done
data=${SPHEREFACE_DATA:-$PWD/../shared/data}
[ -d "$data" ] || data=$root/data

# shellcheck disable=SC2016
exec unshare --mount sh -eu -c '
root=$1 project=$2 data=$3 && shift 3
mount --bind "$project" "$root/w"
mount --bind "$data" "$root/data"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for file in /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || cat "$file" >"$root$file"
done
exec chroot "$root" /usr/bin/env HOME=/root PATH=/usr/bin:/bin SPHEREFACE_DATA=/data CARGO_HOME=/chome \
    CARGO_TARGET_DIR=/tgt CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static \
    PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig \
    sh -c "cd /w && exec \"\$@\"" sh "$@"
' sh "$root" "$PWD" "$data" cargo $flags "$@"
