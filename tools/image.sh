#!/bin/sh
# Builds the image with docker, podman or buildah, whichever works here. Usage: tools/image.sh TAG [OPTION...]
#
# The options go to the builder, e.g. --build-arg PYTHON_IMAGE=registry.example/python:3.13-slim@sha256:... BUILDER names
# the builder. Every file has the time of the last commit (SOURCE_DATE_EPOCH says another), so that whoever builds this
# commit from the same base gets the same bytes.
set -eu

tag=$1
shift
cd "$(dirname "$0")/.."

works() { # a client alone builds nothing
    command -v "$1" >/dev/null 2>&1 && { [ "$1" = buildah ] || "$1" info >/dev/null 2>&1; }
}

find_builder() {
    for each in ${BUILDER:-docker podman buildah}; do
        works "$each" && { echo "$each"; return; }
    done
    echo "None of these works here: ${BUILDER:-docker podman buildah}. One of them is needed to build an image." >&2
    echo "  Debian or Ubuntu, as root: apt-get install buildah" >&2
    exit 1
}

builder=$(find_builder)
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' gateway/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision-dirty
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1580601600)}
[ "$builder" = docker ] || set -- --timestamp "$epoch" "$@"

echo "Building $tag with $builder: version $version, revision $revision" >&2
exec "$builder" build --tag "$tag" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
    --build-arg "SOURCE_DATE_EPOCH=$epoch" "$@" .
