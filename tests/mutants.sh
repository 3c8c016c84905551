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

# Runs tests $1 on the changes that the other arguments select.
run() {
    tests=$1
    shift
    rm -rf "$output"
    # 2: some were missed; 3: some ran out of time, which also notices them.
    # shellcheck disable=SC2086 # $tests is a list
    cargo mutants --package bulkman-core --output "$output" --colors never --no-shuffle \
        --file 'bulkman-core/src/queue/**' --file 'bulkman-core/src/call/**' \
        --file 'bulkman-core/src/circuit_breaker/**' --file 'bulkman-core/src/fleet/**' \
        --exclude '**/tests.rs' --exclude '**/model_tests.rs' \
        --exclude '**/loom_tests.rs' --exclude '**/loom_tests/**' \
        "$@" -- --lib $tests || [ $? -le 3 ]
    noticed=$((noticed + $(cat "$found/caught.txt" "$found/timeout.txt" | wc -l)))
}

noticed=0
run "$suites" --all-features --shard "$1" --sharding round-robin
if [ -s "$found/missed.txt" ]; then
    echo "  models of concurrency on what was missed"
    sed 's/[^A-Za-z0-9_ <>]/\\&/g; s/.*/^&$/' "$found/missed.txt" >target/missed
    set --
    while read -r mutant; do
        set -- "$@" --re "$mutant"
    done <target/missed
    RUSTFLAGS="--cfg bulkman_loom" run "--release loom_tests" "$@"
fi
echo "  $noticed noticed, $(wc -l <"$found/missed.txt") not"

# The list holds a mutant without its line and column, which change with every edit.
unknown=$(sed 's/:[0-9]*:[0-9]*: /: /' "$found/missed.txt" | while read -r mutant; do
    grep -qF "\`$mutant\`" tests/mutants.md || echo "$mutant"
done)
[ -z "$unknown" ] || {
    echo "$unknown" | sed 's/^/  /'
    echo "FAILED: no test notices these changes"
    exit 1
}
