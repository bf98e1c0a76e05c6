# The commands of this repository. Each body is one line that works without just, from this folder.

# List them
default:
    @just --list

# Build the demo handlers alone (a build of the host does it by itself)
guests:
    cd guests && cargo build --release --locked --bins --target wasm32-wasip1

# Build the handlers in Python into guests/dist, from where the demo serves them (needs python3)
guests-python:
    guests/python/build.sh

# Build the handlers in JavaScript into guests/dist (needs node and npm)
guests-javascript:
    guests/javascript/build.sh

# Serve the demo handlers and their native twins on http://127.0.0.1:8080
run:
    cargo run --release -- demo

# Everything that needs no browser, database or peer
test:
    cargo test

# All hostile handlers at once beside good ones (five minutes)
soak:
    SOAK_SECONDS=300 cargo test --test it soak:: -- --nocapture

# Feed the analysis and the rewriting of modules for so many minutes; finds go to target/fuzz
fuzz MINUTES="10":
    cargo run --locked --example fuzz -- --minutes {{MINUTES}}

# The demo's handlers against their native twins (40 seconds)
bench *FLAGS:
    cargo run --release -- bench {{FLAGS}}

# One of benches/scenarios, such as `just scenario peers`
scenario NAME *FLAGS:
    cargo run --release -- bench --scenario benches/scenarios/{{NAME}}.toml {{FLAGS}}

# Install the servers that the scenarios compare with, all or some (20 minutes)
peers *NAMES:
    benches/peers/install.sh {{NAMES}}

# Micro-benchmarks of the request path, with instruction counts where valgrind works
hot-path *WORDS:
    cargo bench --bench hot_path -- {{WORDS}}

# Measure the figures and say which miss their targets (two hours), or some, as with `--quick`
figures *FLAGS:
    cargo run --release -- bench --figures benches/figures.toml {{FLAGS}}

# Draw the tables of figures in the READMEs from their runs; with `--check`, only compare them
tables *FLAGS:
    cargo run --release -- bench --tables benches/figures.toml {{FLAGS}}

# Format the host and the guests
fmt:
    cargo fmt --all && cargo fmt --manifest-path guests/Cargo.toml

# Lint everything, natively
lint:
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Build the documentation
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

# Check licences, sources, banned versions and advisories of the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check

# All that a change has to pass
ci:
    .ci/run
