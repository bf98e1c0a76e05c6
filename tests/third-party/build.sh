#!/usr/bin/env bash
# Builds components that others have written, as a user of their toolchains would: the examples that
# come with the crates wstd, wasip2 and wasip3 and with componentize-py, into the folder `third-party`
# of the target folder. Nothing of them is kept in this repository.
#
# usage: tests/third-party/build.sh [NAME...]
set -euo pipefail

# The versions: of each crate, and of the source archive of componentize-py with its checksum. The
# tool itself is the one that builds our own guests in Python.
wstd=0.6.8
wasip2=2.0.1
wasip3=0.10.0
componentize_py=0.25.1
componentize_py_sum=e4087e916b06171303f803c8ffdd5f177e2422e87d9bed6ffe55cc41b2248aa8

all=(wstd wasip2 wasip3 componentize-py)

root=$(cd "$(dirname "$0")/../.." && pwd)
out=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}/third-party")
# A build of its own: flags and profiles of the one around this are not for it.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
for name in $(compgen -v CARGO_PROFILE_ || true); do
    unset "$name"
done

say() { echo "tests/third-party/build.sh: $*" >&2; }

# crate NAME VERSION EXAMPLE...: builds examples from the sources of a crate.
crate() {
    local name=$1 version=$2 sources
    shift 2
    mkdir -p "$out/fetch/src"
    # Cargo knows where it unpacks a crate, once a package depends on it.
    cat > "$out/fetch/Cargo.toml" <<END
[package]
name = "fetch"
version = "0.0.0"
edition = "2024"
[dependencies]
$name = "=$version"
[workspace]
END
    touch "$out/fetch/src/lib.rs"
    sources=$(cd "$out/fetch" && cargo metadata --format-version 1 |
        python3 -c 'import json, os, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == sys.argv[1]:
        print(os.path.dirname(package["manifest_path"]))' "$name" | head -n 1)
    rm -rf "$out/$name"
    cp -r "$sources" "$out/$name"
    # It is built with our toolchain, and with what its own lock file names; and it is no part of the
    # workspace around the target folder.
    rm -f "$out/$name/rust-toolchain.toml"
    grep -q '^\[workspace\]' "$out/$name/Cargo.toml" || printf '\n[workspace]\n' >> "$out/$name/Cargo.toml"
    for example in "$@"; do
        (cd "$out/$name" && cargo build --quiet --release --target wasm32-wasip2 \
            --target-dir "$out/build" --example "$example")
        cp "$out/build/wasm32-wasip2/release/examples/${example//-/_}.wasm" "$out/$name-$example.wasm" 2> /dev/null ||
            cp "$out/build/wasm32-wasip2/release/examples/$example.wasm" "$out/$name-$example.wasm"
    done
}

build_wstd() { crate wstd "$wstd" http_server; }

build_wasip2() { crate wasip2 "$wasip2" http-proxy http-proxy-no_std; }

build_wasip3() { crate wasip3 "$wasip3" http-proxy; }

build_componentize_py() {
    local archive=componentize_py-$componentize_py.tar.gz venv
    # Leaves the tool in the target folder.
    "$root/guests/python/build.sh" "$root/guests/python/hello.py" "$out/python-hello.wasm" > /dev/null
    venv=$(echo "$(dirname "$out")"/guests-python/*/bin | tr ' ' '\n' | tail -n 1)
    if [ ! -e "$out/$archive" ]; then
        "$venv/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
            --dest "$out" "componentize-py==$componentize_py"
    fi
    echo "$componentize_py_sum  $out/$archive" | sha256sum --check --quiet
    tar -xzf "$out/$archive" -C "$out"
    for example in http:wasi:http/proxy@0.2.0 http-p3:wasi:http/service@0.3.0; do
        (cd "$out/componentize_py-$componentize_py/examples/${example%%:*}" &&
            "$venv/componentize-py" --quiet -d ../../wit -w "${example#*:}" componentize app \
                -o "$out/componentize-py-${example%%:*}.wasm")
    done
}

names=("$@")
[ "$#" != 0 ] || names=("${all[@]}")
mkdir -p "$out"
for name in "${names[@]}"; do
    if [[ " ${all[*]} " != *" $name "* ]]; then
        say "nothing is called $name; there are: ${all[*]}"
        exit 1
    fi
    say "$name"
    "build_${name//-/_}"
done
