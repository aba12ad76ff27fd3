#!/usr/bin/env bash
# Prometheus and promtool for the tests, as Debian packages them, unpacked below .tools/prometheus. Nothing is installed:
# no service starts, no user is made, nothing of it is there after `make clean`. Does nothing where both programs are on
# the PATH or unpacked already.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=.tools/prometheus
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit 0; fi
if [ -x "$folder/usr/bin/prometheus" ] && [ -x "$folder/usr/bin/promtool" ]; then exit 0; fi
command -v apt-get >/dev/null || { echo "no apt-get here: put prometheus and promtool on the PATH" >&2; exit 1; }
[ "$(id -u)" != 0 ] || apt-get update -qq

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
(cd "$fresh" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb unpacked)
mkdir -p "$folder/usr/bin"
mv "$fresh"/unpacked/usr/bin/prometheus "$fresh"/unpacked/usr/bin/promtool "$folder/usr/bin/"
