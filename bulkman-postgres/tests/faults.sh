#!/bin/sh
# The faults of a database that need a privilege, a tool, or a process to kill. The others are
# ordinary tests.
#
# Installs what it needs where it may. What this machine does not permit is counted as not run,
# never as passed.
set -eu
cd "$(dirname "$0")/../.."

passed=0
failed=0
not_run=
binary=
# In a network namespace of its own.
alone="unshare --net"
[ "$(id -u)" -eq 0 ] || alone="unshare --map-current-user --keep-caps --net"

main() {
    prepare
    # The schema's own clock stands for the server's: nothing else in it is read.
    run "clock steps, by the schema's clock" cargo test --locked --quiet -p bulkman-postgres --test database a_clock_that_steps
    run "read-only server, hot standby" cargo test --locked --quiet -p bulkman-postgres --test fleet _is_waited_for
    run "holder of a lease killed" "$binary" killed-holder
    run "a given server" "$binary" given-server \
        cargo test --locked --quiet -p bulkman-postgres --test conformance --test database
    if ! program pgbouncer pgbouncer; then
        skip "transaction-pooling PgBouncer" "there is no pgbouncer, and it can't be installed"
    else
        pgbouncer --version | sed -n '1s/^/  /p'
        run "transaction-pooling PgBouncer" "$binary" pooler
    fi
    if ! program ip iproute2 || ! program nft nftables; then
        skip "silent partition" "there is no ip or nft, and it can't be installed"
    elif ! $alone sh -c 'ip link set lo up && nft list ruleset' >/dev/null 2>&1; then
        skip "silent partition" "this machine permits no network namespace with a packet filter"
    else
        # The namespace ends with the last of its processes.
        # shellcheck disable=SC2016 # for the inner shell
        run "silent partition, in a network namespace" \
            $alone sh -c 'ip link set lo up && exec "$0" partition' "$binary"
    fi

    [ -z "$not_run" ] || printf 'not run:\n%s' "$not_run"
    echo "$passed passed, $failed failed, $(printf '%s' "$not_run" | grep -c .) not run"
    [ "$failed" -eq 0 ]
}

prepare() {
    binary=$(cargo test --locked --quiet -p bulkman-postgres --test faults --no-run --message-format=json |
        sed -n 's/.*"name":"faults".*"executable":"\([^"]*\)".*/\1/p')
    [ -x "$binary" ] || { echo "the test binary was not built"; exit 1; }
}

run() {
    name=$1
    shift
    echo "  $name"
    log=$(mktemp)
    if timeout 300 "$@" >"$log" 2>&1 </dev/null; then
        passed=$((passed + 1))
        grep '^    ' "$log" || true
    else
        failed=$((failed + 1))
        cat "$log"
        echo "FAILED: $name"
    fi
    rm -f "$log"
}

skip() {
    echo "  NOT RUN: $1: $2"
    not_run="$not_run  $1: $2
"
}

# Whether program $1 is there, or could be had by Debian's package $2.
program() {
    command -v "$1" >/dev/null && return
    { [ "$(id -u)" -eq 0 ] && command -v apt-get; } >/dev/null || return
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$2"; } \
        >/dev/null 2>&1 || return
    # A package of Debian's may start what it brings.
    if [ "$2" = pgbouncer ] && command -v service >/dev/null; then
        service pgbouncer stop >/dev/null 2>&1 || true
    fi
    command -v "$1" >/dev/null
}

main
