#!/bin/sh
# Builds the libraries with the oldest releases of their direct dependencies that Cargo.toml allows,
# in a copy of the workspace without tests and benchmarks. Only nightly's cargo can choose them.
set -eu
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0
root=$PWD
copy=$root/target/minimal-versions
crates="bulkman-core bulkman-tokio bulkman-smol bulkman-postgres"

mkdir -p "$copy"
# All but what was built there.
find "$copy" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
for folder in . $crates; do
    mkdir -p "$copy/$folder"
    cp -R "$folder/src" "$folder/README.md" "$copy/$folder/"
    [ ! -d "$folder/sql" ] || cp -R "$folder/sql" "$copy/$folder/"
    # The versions that tests need are no business of users.
    awk -v members="members = [\"$(echo "$crates" | sed 's/ /", "/g')\"]" '
        /^\[/ { leave_out = /^\[dev-dependencies\]/ || /^\[\[(test|bench|example)\]\]/ || /^\[profile/ }
        /^members = / { print members; next }
        !leave_out
    ' "$folder/Cargo.toml" >"$copy/$folder/Cargo.toml"
done

cd "$copy"
cargo +nightly update --quiet -Z direct-minimal-versions
export CARGO_TARGET_DIR="$copy/target"
for crate in $crates bulkman; do
    echo "  $crate"
    # Alone, so that no other crate raises a version or turns on a feature.
    cargo check --locked --quiet -p "$crate" --all-features
done
