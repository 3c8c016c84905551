#!/bin/sh
# Builds the documentation as docs.rs does, with nightly Rust, and compares each page of the facade
# with the page of the same item in bulkman-core: both must name the same features. An item that is
# re-exported keeps the badge of a feature only if the item itself has the attribute `cfg`.
set -eu
cd "$(dirname "$0")/.."

target=target/docsrs
RUSTDOCFLAGS="--cfg docsrs -D warnings" cargo +nightly doc --locked --no-deps --all-features --quiet \
    -p bulkman-core -p bulkman --target-dir "$target"

# The badge of page $1's item: it stands before the item's own text.
badge() {
    tr '\n' ' ' <"$1" | sed 's/<details class="toggle top-doc".*//' |
        grep -o '<div class="stab portability">.*</div>' | sed 's/<[^>]*>//g'
}

pages=0
badges=0
different=
for page in $(cd "$target/doc/bulkman" && find . -name '*.html' ! -name index.html | LC_ALL=C sort); do
    core=$target/doc/bulkman_core/$page
    [ -e "$core" ] || continue
    pages=$((pages + 1))
    expected=$(badge "$core") || true
    [ -z "$expected" ] || badges=$((badges + 1))
    found=$(badge "$target/doc/bulkman/$page") || true
    [ "$found" = "$expected" ] || different="$different $page"
done
echo "  $pages pages, $badges with features"
[ -z "$different" ] || {
    echo "FAILED: other features than in bulkman-core:$different"
    exit 1
}
[ "$badges" -gt 0 ]
