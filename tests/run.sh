#!/bin/sh
# Everything that must hold before a change lands, on a machine that may be new.
#
#   tests/run.sh            set-up and all checks and tests: under 20 minutes on two cores
#   tests/run.sh STEP..     only these steps, see `steps` below; no set-up
#   tests/run.sh --extra    checks with tools that take minutes to install: dependencies, minimal
#                           versions, other platforms, badges of features, miri, a dry run of
#                           publishing
#   tests/run.sh --long     the property tests with 20,000 cases each, and the load tests
#   tests/run.sh --faults [--long]   the database's faults that need processes, privileges or
#                                    further tools: under five minutes; with --long larger fleets
#   tests/run.sh --repeat [N]     all tests N times (20), four copies at once: finds those that fail
#                                 by chance
#   tests/run.sh --mutants [K/N]  changes core's code in every way that cargo-mutants knows, and lists
#                                 the changes that no test notices; with K/N only a sample
set -eu
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
# What is built once gains nothing from it, and it takes as much of the disk as the programs.
export CARGO_INCREMENTAL=0
# Where `tool` installs what is missing.
export PATH="$PWD/target/tools/bin:$PATH"

steps="fmt tree package msrv clippy features docs tests doctests examples loom fuzz instructions"
extra_steps="deny features platforms badges minimal_versions miri fuzz_coverage publish_dry_run"

# Prints what is run and how long it took; its output only if it fails.
quietly() {
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log"
        rm -f "$log"
        echo "FAILED: $*"
        exit 1
    fi
    rm -f "$log"
}

# Notes that a part of a step did not run, and why. With NO_SKIP=1 that is a failure.
skip() {
    echo "  NOT RUN: $*"
    echo "$*" >>target/not-run
    [ "${NO_SKIP-}" != 1 ]
}

# Installs the cargo subcommand $1 if it is missing. Fails if that is not possible.
tool() {
    command -v "cargo-$1" >/dev/null ||
        cargo install --quiet --locked --root target/tools "cargo-$1" >target/tool.log 2>&1
}

# The packages of this workspace that users depend on.
libraries="bulkman-core bulkman-tokio bulkman-smol bulkman-postgres bulkman"

# The features of the package in folder $1.
features_of() {
    sed -n '/^\[features\]/,/^\[/p' "$1/Cargo.toml" | sed -n 's/^\([a-z][a-z-]*\) = .*/\1/p' | grep -v '^default$'
}

setup() {
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install Rust 1.94 or newer with rustup, clippy and rustfmt included"
        exit 1
    fi
    missing=
    # A server for the tests of bulkman-postgres; valgrind counts instructions; a compiler and
    # OpenSSL's headers for the crates that build C.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$missing postgresql"
    command -v valgrind >/dev/null || missing="$missing valgrind"
    command -v cc >/dev/null || missing="$missing gcc libc6-dev"
    command -v pkg-config >/dev/null || missing="$missing pkg-config"
    # Without rustup, root can still build with the oldest Rust that the crates promise.
    [ "$(id -u)" -ne 0 ] || command -v rustup >/dev/null || command -v debootstrap >/dev/null ||
        missing="$missing debootstrap"
    { command -v pkg-config >/dev/null && pkg-config --exists openssl; } || missing="$missing libssl-dev"
    if [ -n "$missing" ]; then
        if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
            echo "missing, please install:$missing"
            exit 1
        fi
        quietly apt-get update
        # shellcheck disable=SC2086 # a list of packages
        quietly env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing
    fi
    quietly cargo fetch --locked
}

fmt() {
    cargo fmt --all --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check
}

# Core must run under any executor: nothing in it may bring one.
tree() {
    if cargo tree -p bulkman-core -e normal --all-features --prefix none | grep -E '^(tokio|async-io|async-executor|smol|async-std) '; then
        echo "the tree of bulkman-core holds a runtime"
        exit 1
    fi
}

# What each crate would be published with.
package() {
    tests/package.sh
}

# Builds the libraries with the oldest Rust that each promises.
msrv() {
    tests/msrv.sh
}

clippy() {
    # One package at a time: together, their features would be unified.
    for package in $libraries bulkman-test-support bulkman-bench bulkman-bench-listeners; do
        echo "  $package"
        quietly cargo clippy --locked -p "$package" --all-targets -- -D warnings
    done
}

# Each feature alone, each pair, none and all; by cargo-hack where it is installed (--extra does it).
features() {
    if command -v cargo-hack >/dev/null; then
        for package in bulkman-core bulkman; do
            echo "  $package, by $(cargo hack --version)"
            quietly cargo hack clippy --locked -p "$package" --lib --feature-powerset --depth 2 --skip default -- -D warnings
        done
        # `cli` is the only feature of its program.
        echo "  bulkman-postgres"
        quietly cargo hack clippy --locked -p bulkman-postgres --lib --bins --feature-powerset --depth 2 --skip default -- -D warnings
        return
    fi
    for folder in bulkman-core .; do
        package=bulkman
        [ "$folder" = . ] || package=$folder
        echo "  $package: none, all"
        quietly cargo clippy --locked -p "$package" --lib -- -D warnings
        quietly cargo clippy --locked -p "$package" --lib --all-features -- -D warnings
        done=
        for one in $(features_of "$folder"); do
            echo "  $package: $one, and with those before it"
            quietly cargo clippy --locked -p "$package" --lib --features "$one" -- -D warnings
            for other in $done; do
                quietly cargo clippy --locked -p "$package" --lib --features "$one,$other" -- -D warnings
            done
            done="$done $one"
        done
    done
    for one in "" tokio smol tls-rustls tls-native cli tokio,smol,tls-rustls,tls-native,cli; do
        echo "  bulkman-postgres: ${one:-none}"
        quietly cargo clippy --locked -p bulkman-postgres --lib --bins --features "$one" -- -D warnings
    done
}

docs() {
    quietly env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features \
        -p bulkman-core -p bulkman-tokio -p bulkman-smol -p bulkman-postgres -p bulkman
}

tests() {
    # Without features, then with all of them; the unit tests of core must not depend on any.
    cargo test --locked -p bulkman-core --lib --quiet
    cargo test --locked --workspace --all-features --lib --bins --tests --quiet
    # All features together mean one TLS library; each by itself, and none.
    for tls in "" tls-rustls tls-native; do
        cargo test --locked -p bulkman-postgres --test tls --features "$tls" --quiet
    done
}

doctests() {
    cargo test --locked --workspace --all-features --doc --quiet
}

examples() {
    tests/examples.sh
}

# Every interleaving of what is lock-free. Fails if no model was run.
loom() {
    RUSTFLAGS="--cfg bulkman_loom" cargo test --locked -p bulkman-core --lib --release \
        --target-dir target/loom loom_tests >target/loom.log 2>&1 || { cat target/loom.log; exit 1; }
    models=$(sed -n 's/^test result: ok\. \([0-9]*\) passed; 0 failed; 0 ignored.*/\1/p' target/loom.log)
    echo "  ${models:-0} models"
    [ "${models:-0}" -gt 0 ]
}

# The fuzz targets with generated inputs: the same ones in each run.
fuzz() {
    RUSTFLAGS="--cfg fuzzing" cargo test --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --lib --quiet
}

# The fuzz targets, guided by coverage: half a minute each.
fuzz_coverage() {
    if ! rustup toolchain list 2>/dev/null | grep -q nightly || ! tool fuzz; then
        skip "fuzz_coverage: needs nightly Rust and cargo-fuzz"
        return
    fi
    for target in $(sed -n 's/^name = "\([a-z]*\)"$/\1/p' fuzz/Cargo.toml); do
        echo "  $target"
        quietly cargo +nightly fuzz run --target-dir target/fuzz-coverage "$target" --features libfuzzer -- -max_total_time=30
    done
}

# The instructions of the paths that every call takes, against the recorded figures.
instructions() {
    cargo run --locked --quiet --release -p bulkman-bench -- instructions
}

# Licenses, sources, duplicates and known vulnerabilities of the dependencies.
deny() {
    if ! tool deny; then
        skip "deny: cargo-deny is not installed and cannot be"
        return
    fi
    quietly cargo deny --locked check licenses bans sources
    echo "  licenses, bans, sources"
    if cargo deny fetch db >target/deny.log 2>&1; then
        quietly cargo deny --locked check --disable-fetch advisories
        echo "  advisories"
    else
        skip "deny: advisories, since their database cannot be reached"
    fi
}

# Core compiles where the standard library has a clock. Where it has none, the error states it.
platforms() {
    for target in wasm32-wasip1 wasm32-wasip2 wasm32-unknown-unknown; do
        if ! rustup target add "$target" >target/rustup.log 2>&1; then
            skip "platforms: rustup cannot add $target"
            return
        fi
    done
    for target in wasm32-wasip1 wasm32-wasip2; do
        quietly cargo check --locked -p bulkman-core --target "$target"
        echo "  $target: compiles"
    done
    if cargo check --locked -p bulkman-core --target wasm32-unknown-unknown >target/platform.log 2>&1; then
        echo "FAILED: core compiles for wasm32-unknown-unknown, which has no clock"
        exit 1
    fi
    # No second error hides the first.
    grep -q '^error: bulkman needs `std::time::Instant`' target/platform.log &&
        [ "$(grep -c '^error' target/platform.log)" -eq 2 ] || {
        cat target/platform.log
        exit 1
    }
    echo "  wasm32-unknown-unknown: the error states the reason"
}

# Each item names the features that it needs, in core's documentation and in the facade's.
badges() {
    if ! cargo +nightly --version >/dev/null 2>&1; then
        skip "badges: no nightly Rust"
        return
    fi
    tests/badges.sh
}

minimal_versions() {
    if ! cargo +nightly --version >/dev/null 2>&1; then
        skip "minimal_versions: no nightly Rust"
        return
    fi
    tests/minimal-versions.sh
}

# Core's queue and circuit breaker in an interpreter that finds undefined behavior and data races.
# Fails if no test was run. Tests with many calls would take hours.
miri() {
    if ! cargo +nightly miri --version >/dev/null 2>&1; then
        skip "miri: no nightly Rust with the component miri"
        return
    fi
    slow="--skip memory --skip a_million --skip searched_twice --skip follow_the_model"
    # One test's hook owns its circuit breaker, which is a cycle: leaks are not reported.
    # shellcheck disable=SC2086 # a list of arguments
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" PROPTEST_CASES=4 cargo +nightly miri test --locked -p bulkman-core --lib \
        --target-dir target/miri -- queue:: circuit_breaker:: $slow >target/miri.log 2>&1 || {
        cat target/miri.log
        exit 1
    }
    passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed; 0 failed.*/\1/p' target/miri.log)
    echo "  ${passed:-0} tests"
    [ "${passed:-0}" -gt 0 ]
}

publish_dry_run() {
    tests/package.sh --verify
}

faults() {
    for script in */tests/faults.sh; do
        # shellcheck disable=SC2086 # no argument, or one
        "$script" $faults_option
    done
}

long() {
    PROPTEST_CASES=20000 cargo test --locked -p bulkman-core --release --quiet
    PROPTEST_CASES=20000 cargo test --locked -p bulkman --release --quiet --tests
}

# Prints the tests that failed in any of $rounds runs. What runs together shares nothing but the
# machine: each copy starts its own servers on free ports.
repeat() {
    cargo test --locked --workspace --all-features --lib --bins --tests --no-run --quiet
    rm -rf target/repeat
    mkdir -p target/repeat
    round=0
    while [ "$round" -lt "$rounds" ]; do
        copies=
        for _ in 1 2 3 4; do
            [ "$round" -lt "$rounds" ] || break
            round=$((round + 1))
            nice cargo test --locked --workspace --all-features --lib --bins --tests --no-fail-fast \
                >"target/repeat/$round" 2>&1 &
            copies="$copies $!:$round"
        done
        for copy in $copies; do
            wait "${copy%:*}" || echo "  run ${copy#*:} failed" | tee -a target/repeat/failed
        done
        echo "  $round of $rounds"
    done
    [ ! -e target/repeat/failed ] || {
        sed -n 's/^test \(.*\) \.\.\. FAILED$/  \1/p' target/repeat/[0-9]* | sort | uniq -c
        echo "FAILED: the output is in target/repeat"
        exit 1
    }
}

# Changes that the tests of core and its models of concurrency do not notice, except for those that
# tests/mutants.md gives a reason for. The whole list takes hours; a sample of it minutes.
mutants() {
    if ! command -v patch >/dev/null || ! tool mutants; then
        skip "mutants: needs patch and cargo-mutants"
        return
    fi
    tests/mutants.sh "$sample"
}

mkdir -p target
faults_option=
case "${1-}" in
"") setup ;;
--faults)
    setup
    steps=faults
    faults_option=${2-}
    ;;
--extra)
    setup
    tool hack || true
    steps=$extra_steps
    ;;
--long) steps=long ;;
--repeat)
    steps=repeat
    rounds=${2:-20}
    ;;
--mutants)
    steps=mutants
    sample=${2:-0/1}
    ;;
-*)
    sed -n '2,15p' "$0"
    exit 2
    ;;
*) steps=$* ;;
esac

rm -f target/not-run
began=$(date +%s)
for step in $steps; do
    before=$(date +%s)
    echo "== $step"
    "$step"
    echo "   $step: $(($(date +%s) - before)) s"
done
echo "all passed in $(($(date +%s) - began)) s: $steps"
# What a step could not do on this machine. With NO_SKIP=1 it has failed instead.
if [ -s target/not-run ]; then
    echo "NOT RUN:"
    sed 's/^/  /' target/not-run
fi
