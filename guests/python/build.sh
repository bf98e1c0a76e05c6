#!/usr/bin/env bash
# Builds the guests in Python into guests/dist/python, or one handler: build.sh SOURCE.py OUT.wasm
#
# Needs python3 (3.10 or later) with its module venv. The tool that makes components of them goes
# into the target folder, not into the system.
set -euo pipefail

fail() {
    echo "guests/python/build.sh: $*" >&2
    exit 1
}

case $# in
0 | 2) ;;
*) fail "give nothing, or a source and where its component goes: build.sh handler.py handler.wasm" ;;
esac
source=${1:+$(realpath -- "$1")}
out=${2:+$(realpath -m -- "$2")}
cd "$(dirname "$0")"

python=$(command -v python3) || fail "there is no python3; install Python 3.10 or later (Debian: apt install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version) is too old: componentize-py takes 3.10 or later"

# A folder for each version of the tool, so that what is there is never out of date.
venv=${CARGO_TARGET_DIR:-../../target}/guests-python/$(cksum < requirements.txt | tr ' ' -)
if [ ! -e "$venv/ready" ]; then
    "$python" -m venv --clear "$venv" ||
        fail "python3 cannot make a virtual environment; install its module venv (Debian: apt install python3-venv)"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements.txt ||
        fail "pip cannot install what requirements.txt names; is there a network?"
    touch "$venv/ready"
fi

# build NAME OUT: makes a component of a module that is in this folder or in the source's.
build() {
    mkdir -p "$(dirname "$2")"
    # Under another name until it is whole: a host may be looking at the folder.
    "$venv/bin/componentize-py" --quiet --wit-path wit --world handler componentize \
        --python-path . --python-path "${source:+$(dirname "$source")}" "$1" --output "$2.part"
    mv "$2.part" "$2"
    echo "built $2"
}

if [ -n "$source" ]; then
    build "$(basename "$source" .py)" "$out"
else
    source=$PWD/hello.py
    dist=$(realpath -m ../dist/python)
    for name in hello fib; do
        build "$name" "$dist/$name.wasm"
    done
fi
