#!/bin/sh
# Does what a newcomer does: the README's two commands, on a bare Debian with Rust and its linker
# and nothing else. As root both must pass. As a user without sudo the first must pass, and the
# second must say what to install.
#
#   tests/newcomer.sh            Debian 12 and Debian 13
#   tests/newcomer.sh trixie     only this release
#   tests/newcomer.sh --user bookworm, --root bookworm    only this part
#
# Needs root, git, debootstrap and unshare. Takes about half an hour and 10 GB for each release, in
# target/newcomer or the folder that NEWCOMER_FOLDER names. All mounts are private to one child
# process and end with it, however it ends.
set -eu
cd "$(dirname "$0")/.."

first="cargo run --example quickstart"
second="tests/run.sh"
parts="user root"
case "${1-}" in
--user | --root)
    parts=${1#--}
    shift
    ;;
--inside) ;;
-*)
    sed -n '2,12p' "$0"
    exit 2
    ;;
esac

fail() {
    echo "FAILED: $*"
    exit 1
}

# Runs command $2 as user $1 in the folder of that user's clone.
as() {
    echo "== $suite, $1: $2"
    began=$(date +%s)
    # Nothing of this machine's environment but the way to the network.
    result=0
    chroot "$folder" su "$1" --shell /bin/sh --command "
        export PATH=/opt/rust/bin:\$PATH CARGO_TERM_COLOR=never
        ${http_proxy:+export http_proxy='$http_proxy'}
        ${https_proxy:+export https_proxy='$https_proxy'}
        cd ~/bulkman && $2" </dev/null 2>&1 || result=$?
    echo "   exit code $result after $(($(date +%s) - began)) s"
}

# Everything that mounts, in a mount and process namespace of its own.
inside() {
    suite=$1
    folder=$2
    parts=$3
    debootstrap --variant=minbase --include=gcc,libc6-dev "$suite" "$folder" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} \
        >"$folder.log" 2>&1 || {
        tail -20 "$folder.log"
        fail "debootstrap $suite"
    }
    # A chroot is not a mount point, but the root folder of a machine is.
    mount --bind "$folder" "$folder"
    mkdir -p "$folder/opt/rust" "$folder/etc/ssl/certs"
    mount --bind "$(rustc --print sysroot)" "$folder/opt/rust"
    mount -o remount,bind,ro "$folder/opt/rust"
    mount -t proc proc "$folder/proc"
    mount -t tmpfs tmpfs "$folder/dev/shm"
    # Cargo downloads by HTTPS.
    cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$folder/etc/ssl/certs/ca-certificates.crt"
    chroot "$folder" useradd --create-home newcomer

    for user in root newcomer; do
        home=$(chroot "$folder" su "$user" --shell /bin/sh --command 'echo ~')
        mkdir -p "$folder$home/bulkman"
        # The work tree, with what is not committed yet.
        git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- |
            tar --extract --directory "$folder$home/bulkman"
        chroot "$folder" chown -R "$user" "$home/bulkman"
    done

    # The user first: what root installs would be there for the user, too.
    case " $parts " in *" user "*)
        as newcomer "$first"
        [ "$result" -eq 0 ] || fail "$suite: \`$first\` as a user"
        as newcomer "$second" >"$folder.log"
        cat "$folder.log"
        grep -q 'exit code 1 ' "$folder.log" || fail "$suite: \`$second\` as a user does not fail"
        grep -q '^missing, please install:.* postgresql' "$folder.log" ||
            fail "$suite: \`$second\` as a user does not say what to install"
        # One copy at a time: a build takes gigabytes.
        rm -rf "$folder/home/newcomer/bulkman"
        ;;
    esac
    case " $parts " in *" root "*)
        as root "$first"
        [ "$result" -eq 0 ] || fail "$suite: \`$first\` as root"
        as root "$second"
        [ "$result" -eq 0 ] || fail "$suite: \`$second\` as root"
        ;;
    esac
}

if [ "${1-}" = --inside ]; then
    shift
    inside "$@"
    exit
fi

for program in git debootstrap unshare rustc; do
    command -v "$program" >/dev/null || fail "did not run: $program is missing"
done
[ "$(id -u)" -eq 0 ] || fail "did not run: needs root"
for command in "$first" "$second"; do
    grep -q "^$command\( .*\)\?\$" README.md || fail "README.md has no longer the command \`$command\`"
done

mkdir -p "${NEWCOMER_FOLDER:-target/newcomer}"
parent=$(cd "${NEWCOMER_FOLDER:-target/newcomer}" && pwd)
folder=
child=
# Out here nothing is mounted, so that nothing outside of the folder can be removed.
clean_up() {
    if [ -n "$child" ]; then
        # It ignores TERM. With it all of its processes end.
        kill -KILL "$child" 2>/dev/null || true
        wait "$child" || true
    fi
    [ -z "$folder" ] || rm -rf "$folder" "$folder.log"
}
trap clean_up EXIT
trap 'exit 1' INT TERM
for suite in ${*:-bookworm trixie}; do
    folder=$parent/$suite
    rm -rf "$folder"
    unshare --mount --pid --fork --kill-child -- "$0" --inside "$suite" "$folder" "$parts" &
    child=$!
    wait "$child"
    child=
    rm -rf "$folder" "$folder.log"
done
echo "all passed: ${*:-bookworm trixie}"
