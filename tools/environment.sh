#!/bin/sh
# Makes .venv hold what one lock file says, and the project itself. Usage: tools/environment.sh LOCK_FILE
#
# Does nothing when that was done before for the same lock, project file, Python and folder. Needs Python 3.11 or newer
# with venv, and a package index that pip can reach; says in plain words what is missing. PYTHON names a Python
# to use, SYSTEM_PYTHON the one that is looked at first without it.
set -eu

lock=$1
cd "$(dirname "$0")/.."
venv=.venv
system_python=${SYSTEM_PYTHON:-/usr/bin/python3}
stamp=$venv/.stamp-$(basename "$lock" .lock)

works() { # a Python that starts (a pyenv shim may not), is new enough, and is no environment's own
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

has_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

say_no_venv() {
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$1 has no venv module with pip in it." >&2
    echo "  Debian or Ubuntu: apt-get install python3-venv (or python$version-venv)" >&2
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        if ! works "$PYTHON"; then
            echo "PYTHON=$PYTHON does not start, or is older than Python 3.11." >&2
            exit 1
        fi
        has_venv "$PYTHON" || { say_no_venv "$PYTHON"; exit 1; }
        echo "$PYTHON"
        return
    fi
    # A distribution builds Python with profile-guided optimisation; version managers mostly do not, and the gateway
    # then costs a fifth more CPU per request. So the system's Python first, where it is new enough and has venv.
    without_venv=
    for candidate in "$system_python" python3.13 python3.12 python3.11 python3 python3.14 python; do
        works "$candidate" || continue
        has_venv "$candidate" && { command -v "$candidate"; return; }
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        say_no_venv "$without_venv"
        exit 1
    fi
    found=$(python3 --version 2>/dev/null || echo "no python3 at all")
    echo "Python 3.11 or newer is needed; found $found." >&2
    echo "  Debian or Ubuntu: apt-get install python3 python3-venv    macOS: brew install python" >&2
    echo "  or name one: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
}

make_venv() {
    echo "Creating .venv with $("$python" --version)" >&2
    "$python" -m venv --clear "$venv"
}

install() {
    # </dev/null: pip must never wait for a password
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip --no-input install -qq "$@" </dev/null
}

# An environment cannot follow its project to another place on disk, nor change its Python; without PYTHON it keeps it.
have=
if works "$venv/bin/python" && [ "$(cat "$venv/.place" 2>/dev/null)" = "$PWD" ]; then
    have=$("$venv/bin/python" --version)
fi
if [ -z "$have" ] || { [ -n "${PYTHON:-}" ] && [ "$("$PYTHON" --version 2>/dev/null)" != "$have" ]; }; then
    python=$(find_python)
    make_venv
    echo "$PWD" >"$venv/.place"
fi

key=$(cat "$lock" pyproject.toml | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
    exit 0
fi
echo "Installing $lock (once; it takes a minute or two)" >&2
# A lock is whole, so nothing is resolved again: what its packages say of each other uv has judged, or was told better.
if ! install --no-deps --require-hashes -r "$lock"; then
    echo "The packages could not be installed: is a package index (PyPI) reachable? See pip's words above." >&2
    exit 1
fi
# The lock holds the build backend, so this needs no network.
install --no-index --no-deps --no-build-isolation -e .
echo "$key" >"$stamp"
