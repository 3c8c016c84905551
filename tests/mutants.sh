#!/bin/sh
# Changes the code of core's queue, calls, circuit breaker and fleet in every way that cargo-mutants
# knows. First core's own tests run on each change, then the models of concurrency on those that the
# tests did not notice. Fails if a change stays unnoticed that tests/mutants.md gives no reason for.
#
#   tests/mutants.sh K/N    only every Nth change, from number K on, which starts at 0
set -eu
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=1

output=target/mutants
# The simulations of `adaptive` need a minute and test none of the folders below.
suites=
for suite in bulkman-core/tests/*.rs bulkman-core/tests/*/main.rs; do
    suite=$(basename "${suite%/main.rs}" .rs)
    [ "$suite" = adaptive ] || suites="$suites --test $suite"
done
found=$output/mutants.out
rm -rf "$output"
# 2: some were missed; 3: some ran out of time, which also notices them.
# shellcheck disable=SC2086 # $suites is a list
cargo mutants --package bulkman-core --all-features --output "$output" --colors never --no-shuffle \
    --shard "$1" --sharding round-robin \
    --file 'bulkman-core/src/queue/**' --file 'bulkman-core/src/call/**' \
    --file 'bulkman-core/src/circuit_breaker/**' --file 'bulkman-core/src/fleet/**' \
    --exclude '**/tests.rs' --exclude '**/model_tests.rs' --exclude '**/model_tests/**' \
    --exclude '**/loom_tests.rs' --exclude '**/loom_tests/**' --exclude-re 'tests::' \
    -- --lib $suites || [ $? -le 3 ]
noticed=$(cat "$found/caught.txt" "$found/timeout.txt" | wc -l)

# Runs the models of concurrency of the copy, or builds them with --no-run.
models() {
    RUSTFLAGS="--cfg bulkman_loom" timeout 300 cargo test --locked --manifest-path "$copy/Cargo.toml" "$@" \
        -p bulkman-core --lib --release --target-dir target/loom loom_tests >>target/mutants-models.log 2>&1
}

# Succeeds if the models notice change $1. `cargo mutants` can't select a list of changes, so this
# makes them in a copy.
models_notice() {
    path=${1%%:*}
    place=${1#*:}
    diff=$(echo "$path" | sed 's,/,__,g')_line_${place%%:*}_col_$(echo "$place" | cut -d: -f2)
    diff=$(grep -lxF -e "+++ ${1#*: }" "$found/diff/$diff"*.diff)
    patch --quiet "$copy/$path" "$diff"
    passed=1
    if models --no-run && ! models; then
        passed=
    fi
    patch --quiet --reverse "$copy/$path" "$diff"
    [ -z "$passed" ]
}

: >target/missed
if [ -s "$found/missed.txt" ]; then
    echo "  models of concurrency on what was missed"
    copy=target/mutated
    rm -rf "$copy" target/mutants-models.log
    mkdir "$copy"
    tar -c --exclude=./target --exclude=./.git . | tar -x -C "$copy"
    models || {
        echo "FAILED: the models fail without a change: target/mutants-models.log"
        exit 1
    }
    while read -r mutant; do
        if models_notice "$mutant" </dev/null; then
            noticed=$((noticed + 1))
            echo "  noticed by the models: $mutant"
        else
            echo "$mutant" >>target/missed
        fi
    done <"$found/missed.txt"
    rm -rf "$copy"
fi
echo "  $noticed noticed, $(wc -l <target/missed) not"

# The list holds a mutant without its line and column, which change with every edit.
unknown=$(sed 's/:[0-9]*:[0-9]*: /: /' target/missed | while read -r mutant; do
    sed 's/\\|/|/g' tests/mutants.md | grep -qF "\`$mutant\`" || echo "$mutant"
done)
[ -z "$unknown" ] || {
    echo "$unknown" | sed 's/^/  /'
    echo "FAILED: no test notices these changes"
    exit 1
}
