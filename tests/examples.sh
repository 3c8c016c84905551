#!/bin/sh
# Builds and runs every example of every package; fails if one fails, or was not built.
#
# Examples check what they print and end by themselves. They are found, not listed here.
set -eu
cd "$(dirname "$0")/.."

# Longer than any of them takes on a busy machine; one that hangs must not hang the tests.
limit=120
output=$(mktemp)
messages=$(mktemp)
trap 'rm -f "$output" "$messages"' EXIT

failed=0
ran=0
for folder in examples */examples; do
    [ -d "$folder" ] || continue
    manifest=$(dirname "$folder")/Cargo.toml
    cargo build --quiet --manifest-path "$manifest" --examples --message-format json-render-diagnostics >"$messages"
    built=$(sed -n 's/.*"kind":\["example"\].*"executable":"\([^"]*\)".*/\1/p' "$messages")
    for source in "$folder"/*.rs "$folder"/*/main.rs; do
        [ -e "$source" ] || continue
        name=${source#"$folder"/}
        name=${name%/main.rs}
        name=${name%.rs}
        program=$(printf '%s\n' "$built" | grep -E "/$name(\.exe)?\$" || true)
        ran=$((ran + 1))
        if [ -z "$program" ]; then
            echo "not built: $source (does it require features?)"
            failed=$((failed + 1))
        elif timeout "$limit" "$program" >"$output" 2>&1; then
            echo "ok      $name"
        else
            echo "FAILED  $name"
            cat "$output"
            failed=$((failed + 1))
        fi
    done
done

echo "$ran examples, $failed failed"
[ "$ran" -gt 0 ] && [ "$failed" -eq 0 ]
