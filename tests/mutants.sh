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
rm -rf "$output"
# shellcheck disable=SC2086 # $3 is a list
run() {
    # 2: some were missed; 3: some ran out of time, which also notices them.
    cargo mutants --package bulkman-core --output "$output" --colors never --no-shuffle \
        --shard "$1" --sharding round-robin \
        --file 'bulkman-core/src/queue/**' --file 'bulkman-core/src/call/**' \
        --file 'bulkman-core/src/circuit_breaker/**' --file 'bulkman-core/src/fleet/**' \
        --exclude '**/tests.rs' --exclude '**/model_tests.rs' \
        --exclude '**/loom_tests.rs' --exclude '**/loom_tests/**' \
        "$2" -- --lib $3 || [ $? -le 3 ]
}

run "$1" --all-features "$suites"
echo "  models of concurrency on what was missed"
RUSTFLAGS="--cfg bulkman_loom" run "$1" --iterate "--release loom_tests"

found=$output/mutants.out
caught=$(cat "$found/caught.txt" "$found/timeout.txt" "$found/previously_caught.txt" 2>/dev/null | wc -l)
missed=$(wc -l <"$found/missed.txt")
echo "  $caught noticed, $missed not"

# The list holds a mutant without its line and column, which change with every edit.
unknown=$(sed 's/:[0-9]*:[0-9]*: /: /' "$found/missed.txt" | while read -r mutant; do
    grep -qF "\`$mutant\`" tests/mutants.md || echo "$mutant"
done)
[ -z "$unknown" ] || {
    echo "$unknown" | sed 's/^/  /'
    echo "FAILED: no test notices these changes"
    exit 1
}
