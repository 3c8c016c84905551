#!/bin/sh
# Faults of a database that need a privilege, a tool, or a process to kill. The other faults are
# ordinary tests.
#
# It installs missing tools if it can. Tests that this machine does not permit are counted as not run,
# never as passed.
set -eu
cd "$(dirname "$0")/../.."

passed=0
failed=0
not_run=
binary=
# Runs a command in a separate network namespace.
isolated="unshare --net"
[ "$(id -u)" -eq 0 ] || isolated="unshare --map-current-user --keep-caps --net"

main() {
    prepare
    # The clock function of the schema replaces the server's clock, which is not read otherwise.
    run "clock steps, by the schema's clock" cargo test --locked --quiet -p bulkman-postgres --test database clock_steps_are_clamped
    run "read-only server, hot standby" cargo test --locked --quiet -p bulkman-postgres --test fleet read
    run "holder of a lease killed" "$binary" killed-holder
    run "a fleet of 8 processes" "$binary" fleet 8
    # Four times as many processes, three times.
    if [ "${1-}" = --long ]; then
        for round in 1 2 3; do
            run "a fleet of 32 processes, round $round" "$binary" fleet 32
        done
    fi
    run "an external server" "$binary" external-server \
        cargo test --locked --quiet -p bulkman-postgres --test conformance --test database
    if ! program pgbouncer pgbouncer; then
        skip "transaction-pooling PgBouncer" "pgbouncer is missing and can't be installed"
    else
        pgbouncer --version | sed -n '1s/^/  /p'
        run "transaction-pooling PgBouncer" "$binary" pooler
    fi
    if ! program ip iproute2 || ! program nft nftables; then
        skip "silent partition" "ip or nft is missing and can't be installed"
    elif ! $isolated sh -c 'ip link set lo up && nft list ruleset' >/dev/null 2>&1; then
        skip "silent partition" "network namespaces with packet filters are not permitted"
    else
        # The namespace is removed with its last process.
        # shellcheck disable=SC2016 # for the inner shell
        run "silent partition, in a network namespace" \
            $isolated sh -c 'ip link set lo up && exec "$0" partition' "$binary"
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

# Succeeds if program $1 exists or could be installed from the Debian package $2.
program() {
    command -v "$1" >/dev/null && return
    { [ "$(id -u)" -eq 0 ] && command -v apt-get; } >/dev/null || return
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$2"; } \
        >/dev/null 2>&1 || return
    # The Debian package may start the service.
    if [ "$2" = pgbouncer ] && command -v service >/dev/null; then
        service pgbouncer stop >/dev/null 2>&1 || true
    fi
    command -v "$1" >/dev/null
}

main "$@"
