#!/usr/bin/env bash
# Builds the guests in JavaScript into guests/dist/javascript, or one handler:
# build.sh SOURCE.js OUT.wasm
#
# Needs node (20 or later) and npm. The tools that make components of them go into the target
# folder, not beside the sources.
set -euo pipefail

fail() {
    echo "guests/javascript/build.sh: $*" >&2
    exit 1
}

case $# in
0 | 2) ;;
*) fail "give nothing, or a source and where its component goes: build.sh handler.js handler.wasm" ;;
esac
source=${1:+$(realpath -- "$1")}
out=${2:+$(realpath -m -- "$2")}
cd "$(dirname "$0")"

for program in node npm; do
    command -v "$program" > /dev/null ||
        fail "there is no $program; install Node.js 20 or later with npm"
done
node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' ||
    fail "Node.js $(node --version) is too old: jco takes 20 or later"

# A folder for each version of the tools, so that what is there is never out of date.
tools=$(realpath -m "${CARGO_TARGET_DIR:-../../target}/guests-javascript/$(cat package*.json | cksum | tr ' ' -)")
if [ ! -e "$tools/ready" ]; then
    mkdir -p "$tools"
    cp package.json package-lock.json "$tools/"
    # Not `npm ci`, which wants the optional packages of all platforms to be in the lock file.
    npm install --prefix "$tools" --no-save --loglevel error --no-audit --no-fund > /dev/null ||
        fail "npm cannot install what package-lock.json names; is there a network?"
    touch "$tools/ready"
fi

# build SOURCE OUT: makes a component of a handler.
build() {
    mkdir -p "$(dirname "$2")"
    # Under another name until it is whole: a host may be looking at the folder.
    NO_UPDATE_NOTIFIER=1 "$tools/node_modules/.bin/jco" componentize "$1" --bundle \
        --wit wit --world-name handler --out "$2.part" > /dev/null
    mv "$2.part" "$2"
    echo "built $2"
}

if [ -n "$source" ]; then
    build "$source" "$out"
else
    dist=$(realpath -m ../dist/javascript)
    for name in hello fib; do
        build "$name.js" "$dist/$name.wasm"
    done
fi
