#!/bin/sh
# Packages the five crates as `cargo publish` does, and checks what is in them.
#
#   tests/package.sh            only packages and checks: seconds
#   tests/package.sh --verify   also `cargo publish --dry-run`, which builds each package from its
#                               packed files, in dependency order: minutes
#
# The crates need not be published yet: cargo resolves their dependencies on each other among the
# packages of the same run.
set -eu
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0

crates="bulkman-core bulkman-tokio bulkman-smol bulkman-postgres bulkman"
target=${CARGO_TARGET_DIR:-target}

# The files that package $1 must have beside its sources.
expected_files() {
    for file in Cargo.lock Cargo.toml Cargo.toml.orig LICENSE-APACHE LICENSE-MIT README.md; do
        echo "$file"
    done
    case $1 in
    bulkman) echo CHANGELOG.md ;;
    bulkman-postgres)
        echo sql/roles.sql
        echo sql/schema.sql
        ;;
    esac
}

# Prints file $2 of package $1.
packed() {
    tar -xzOf "$target/package/$1-$version.crate" "$1-$version/$2"
}

fail() {
    echo "FAILED: $*"
    exit 1
}

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
arguments=
for crate in $crates; do
    arguments="$arguments -p $crate"
    rm -f "$target/package/$crate-$version.crate"
done

mkdir -p target
# shellcheck disable=SC2086 # a list of arguments
cargo package --no-verify --allow-dirty --quiet $arguments >target/package.log 2>&1 || {
    cat target/package.log
    exit 1
}

for crate in $crates; do
    file=$target/package/$crate-$version.crate
    [ -s "$file" ] || fail "cargo package has not made $file"
    tar -tzf "$file" | sed 's,^[^/]*/,,' | LC_ALL=C sort >target/packed-files
    expected_files "$crate" | LC_ALL=C sort >target/expected-files
    # The second is only there if this is a git repository.
    grep -v -e '^src/' -e '^\.cargo_vcs_info\.json$' target/packed-files | diff target/expected-files - ||
        fail "$crate: these files are missing (<) or do not belong there (>)"
    grep -q '^src/lib\.rs$' target/packed-files || fail "$crate has no src/lib.rs"
    for license in LICENSE-MIT LICENSE-APACHE; do
        packed "$crate" "$license" | cmp -s - "$license" || fail "$crate: $license is not the text of the repository"
    done
    # Its own front page, not that of another crate.
    packed "$crate" README.md | grep -q "^# $crate\$" || fail "$crate: README.md has no heading \"# $crate\""
    packed "$crate" Cargo.toml >target/packed-manifest
    for key in description license repository rust-version readme keywords categories; do
        grep -q "^$key = " target/packed-manifest || fail "$crate: no $key in Cargo.toml"
    done
    grep -q '^\[package.metadata.docs.rs\]' target/packed-manifest || fail "$crate: no metadata for docs.rs"
    echo "  $crate $version: $(wc -l <target/packed-files) files, $(($(wc -c <"$file") / 1024)) KiB"
done

if [ "${1-}" = --verify ]; then
    # Packages with `publish = false` are left out.
    cargo publish --workspace --dry-run --allow-dirty --all-features >target/package.log 2>&1 || {
        cat target/package.log
        exit 1
    }
    uploads=$(grep -c 'aborting upload due to dry run' target/package.log) || true
    [ "$uploads" -eq 5 ] || fail "cargo publish would upload $uploads packages, not 5"
    sed -n 's/^ *Uploading \([^ ]* [^ ]*\).*/  ready to publish: \1/p' target/package.log
fi
