#!/bin/sh
# Makes .venv-frameworks hold the agent frameworks of requirements-frameworks.lock, for the tests that use them.
# Does nothing when that was done before for the same lock.
set -eu

cd "$(dirname "$0")/.."
venv=.venv-frameworks
key=$(cksum <requirements-frameworks.lock)
if [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$key" ]; then
    exit 0
fi
echo "Installing requirements-frameworks.lock into $venv (once; it takes a minute or two)" >&2
"${PYTHON:-.venv/bin/python}" -m venv --clear "$venv"
PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip --no-input install -qq --no-deps --require-hashes \
    -r requirements-frameworks.lock </dev/null
echo "$key" >"$venv/.stamp"
