#!/bin/sh
# Builds the libraries with the oldest Rust that they promise (`rust-version` in their Cargo.toml).
#
#   tests/msrv.sh            with rustup's toolchains if rustup has or gets them, else with Debian's
#   tests/msrv.sh --debian   with Debian's toolchain in any case
#
# Debian 13 ships Rust 1.85, so any machine that has root and debootstrap can build with it. For
# bulkman-postgres, which needs a newer one, there is only rustup.
# What did not run is printed, and added to target/not-run. With NO_SKIP=1 it is a failure.
set -eu
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0
root=$PWD
suite=trixie
chroot_folder=$root/target/$suite

# The oldest Rust that the package in folder $1 promises.
rust_version_of() {
    version=$(sed -n 's/^rust-version = "\([0-9.]*\)"$/\1/p' "$1/Cargo.toml")
    if [ -z "$version" ]; then
        echo "no rust-version in $1/Cargo.toml" >&2
        exit 1
    fi
    echo "$version"
}

skip() {
    echo "  NOT RUN: $*"
    echo "msrv: $*" >>target/not-run
    [ "${NO_SKIP-}" != 1 ]
}

# Prints the cargo command of Rust $1, if this machine has it or rustup can get it.
installed_cargo() {
    case "$(rustc --version 2>/dev/null)" in
    "rustc $1."*)
        echo cargo
        return
        ;;
    esac
    command -v rustup >/dev/null || return 1
    # Installs nothing if the toolchain is there. Does not update rustup itself.
    timeout 300 rustup toolchain install "$1" --profile minimal --no-self-update >target/msrv.log 2>&1 || return 1
    echo "cargo +$1"
}

# Makes a minimal Debian with Rust, once: target/ keeps it.
debian_chroot() {
    [ ! -e "$chroot_folder/complete" ] || return 0
    # An unfinished one may still have its /proc mounted: never remove through a mount.
    umount "$chroot_folder/proc" "$chroot_folder/sys" 2>/dev/null || true
    rm -rf --one-file-system "$chroot_folder"
    debootstrap --variant=minbase "$suite" "$chroot_folder" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} &&
        chroot "$chroot_folder" apt-get install --yes --no-install-recommends rustc cargo gcc libc6-dev &&
        chroot "$chroot_folder" apt-get clean &&
        touch "$chroot_folder/complete"
}

# Runs cargo of the chroot with the arguments. The mounts are private to this process, so they end
# with it. The crates come from this machine's cargo, so the chroot needs no network.
chroot_cargo() {
    mkdir -p "$chroot_folder/source" "$chroot_folder/target" "$chroot_folder/cargo-home" target/msrv-debian
    CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} unshare --mount sh -euc '
        root=$1 folder=$2
        shift 2
        mount --bind "$root" "$folder/source"
        mount --bind "$root/target/msrv-debian" "$folder/target"
        mount --bind "$CARGO_HOME" "$folder/cargo-home"
        mount -t proc proc "$folder/proc"
        exec chroot "$folder" env PATH=/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/cargo-home CARGO_TARGET_DIR=/target \
            sh -euc "cd /source; exec cargo \"\$@\"" cargo "$@"
    ' sh "$root" "$chroot_folder" "$@"
}

# Builds package $1 with the features $2, by the command `$cargo`.
build() {
    echo "  $1, ${2:-no features}"
    # shellcheck disable=SC2086 # a command and its first argument
    $cargo build --locked --quiet -p "$1" ${2:+--features "$2"}
}

# All features of the package in folder $1 that do not lead to bulkman-postgres.
features_without_postgres() {
    sed -n '/^\[features\]/,/^\[/p' "$1/Cargo.toml" | sed -n 's/^\([a-z][a-z-]*\) = .*/\1/p' |
        grep -vE '^(default|postgres|tls-.*)$' | paste -sd, -
}

build_all_but_postgres() {
    for folder in bulkman-core bulkman-tokio bulkman-smol .; do
        package=$folder
        [ "$folder" != . ] || package=bulkman
        build "$package" ""
        features=$(features_without_postgres "$folder")
        [ -z "$features" ] || build "$package" "$features"
    done
}

mkdir -p target
: >target/msrv.log
version=$(rust_version_of .)
for folder in bulkman-core bulkman-tokio bulkman-smol; do
    if [ "$(rust_version_of "$folder")" != "$version" ]; then
        echo "$folder and bulkman promise different versions of Rust"
        exit 1
    fi
done

cargo=
[ "${1-}" = --debian ] || cargo=$(installed_cargo "$version") || true
if [ -n "$cargo" ]; then
    echo "  with $($cargo --version)"
    export CARGO_TARGET_DIR=target/msrv
    build_all_but_postgres
elif ! command -v debootstrap >/dev/null || ! command -v unshare >/dev/null || [ "$(id -u)" -ne 0 ]; then
    skip "no Rust $version: rustup has none, and building in a chroot needs root, debootstrap and unshare"
elif ! debian_chroot >target/msrv.log 2>&1; then
    tail -20 target/msrv.log
    skip "no Rust $version: rustup has none, and debootstrap failed"
else
    cargo="chroot_cargo"
    found=$(chroot_cargo --version)
    case "$found" in
    "cargo $version."*) echo "  with $found in a chroot" ;;
    *)
        echo "Debian $suite has $found, but the crates promise $version"
        exit 1
        ;;
    esac
    cargo fetch --locked --quiet
    export CARGO_NET_OFFLINE=true
    build_all_but_postgres
    unset CARGO_NET_OFFLINE
fi

version=$(rust_version_of bulkman-postgres)
if cargo=$(installed_cargo "$version"); then
    echo "  with $($cargo --version)"
    export CARGO_TARGET_DIR=target/msrv
    for features in "" tokio,smol,tls-rustls,cli tokio,smol,tls-native; do
        build bulkman-postgres "$features"
    done
else
    skip "bulkman-postgres: no Rust $version"
fi
