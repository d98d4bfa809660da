#!/bin/sh
# Installs the Debian package in a bare Debian, runs it there on the bundled sample, and removes it again:
#   tools/deb/try.sh [PACKAGE.deb]      default: the one in target/debian (make deb)
# Needs root and debootstrap. RELEASE is the release of Debian (default: that of this machine, for which the package is
# built), MIRROR its mirror. The bare Debian is made in a temporary folder and removed at the end.
set -eu
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "try: $*"; }
die() { printf '%s\n' "try: $*" >&2; exit 1; }

package=${1:-$(ls target/debian/sphereface_*.deb 2>/dev/null | head -1)}
[ -f "${package:-}" ] || die "there is no package: run 'make deb' first"
[ "$(id -u)" = 0 ] || die "a bare Debian can be made by root only: run it with sudo"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt install debootstrap"
release=${RELEASE:-$(. /etc/os-release && echo "${VERSION_CODENAME:-}")}
[ -n "$release" ] || die "name the release of Debian: RELEASE=bookworm $0"

root=$(mktemp -d)
trap 'rm -rf "$root" "$root.log"' EXIT
# apt reads files as a user of its own.
chmod 755 "$root"
say "making a bare Debian $release"
debootstrap --variant=minbase "$release" "$root" ${MIRROR:+"$MIRROR"} >"$root.log" 2>&1 ||
    { tail -20 "$root.log" >&2; die "debootstrap failed, see above"; }
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

say "installing $package"
cp "$package" "$root/tmp/sphereface.deb"
# With recommended packages, as apt does by default. Packages print many messages in a system that is not booted.
{ inside apt-get -qq update && inside apt-get -qq -y install /tmp/sphereface.deb; } >"$root.log" 2>&1 ||
    { tail -20 "$root.log" >&2; die "the package cannot be installed, see above"; }
say "size of the package $(stat -c %s "$package") bytes; it depends on: $(dpkg-deb -f "$package" Depends)"

say "running it"
inside sphereface --version
for file in /usr/share/man/man1/sphereface.1.gz /usr/share/man/man1/sphereface-label.1.gz \
    /usr/share/bash-completion/completions/sphereface /usr/share/zsh/vendor-completions/_sphereface \
    /usr/share/fish/vendor_completions.d/sphereface.fish /usr/share/doc/sphereface/copyright \
    /usr/share/doc/sphereface/models/NOTICE.md /usr/lib/systemd/system/sphereface.service; do
    # The path exclusions of small installations omit manual pages.
    [ -s "$root$file" ] || dpkg-deb -c "$package" | grep -q " \.$file$" || die "$file is missing"
done
cp -r samples "$root/tmp/samples"
inside sphereface enroll --dir /tmp/samples/people --gallery /tmp/gallery
inside sphereface label /tmp/samples/sample.mp4 -o /tmp/named.mp4 --gallery /tmp/gallery --appearances /tmp/who.csv --quiet
[ -s "$root/tmp/named.mp4" ] || die "no video was written"
for name in Ada Boris Chloé; do
    grep -q "$name" "$root/tmp/who.csv" || die "$name was not named"
done

say "running the plugin"
inside apt-get -qq -y install gstreamer1.0-tools >"$root.log" 2>&1 || die "gstreamer1.0-tools cannot be installed"
inside gst-inspect-1.0 sphereface >"$root.log" 2>&1 || { cat "$root.log" >&2; die "GStreamer does not find the plugin"; }
for text in "Face recognition" "gallery  " "threshold  " "redact  "; do
    grep -q "$text" "$root.log" || die "gst-inspect-1.0 does not mention '$text'"
done
inside gst-launch-1.0 -m filesrc location=/tmp/samples/sample.mp4 ! decodebin ! videoconvert \
    ! sphereface gallery=/tmp/gallery ! fakesink sync=false >"$root.log" 2>&1 ||
    { tail -20 "$root.log" >&2; die "the pipeline does not run"; }
for name in Ada Boris Chloé; do
    # gst-launch writes characters beyond ASCII in octal, so the name is found by its beginning.
    # A person may be a stranger for the first frames.
    grep -Eq "sphereface-event, event=.string.(appeared|renamed), name=.string.\"?${name%é}" "$root.log" ||
        die "the plugin did not name $name"
done

say "removing it"
inside apt-get -qq -y purge sphereface >"$root.log" 2>&1 || die "the package cannot be removed"
[ ! -e "$root/usr/bin/sphereface" ] && [ ! -e "$root/usr/share/doc/sphereface" ] &&
    [ -z "$(find "$root/usr/lib" -name 'libgstsphereface*')" ] || die "something was left behind"
say "everything went well"
