#!/bin/sh
# Loads a snapshot of Redis into a running, empty Redis: a server of its own reads the file, and the other one replicates it. So it
# does not matter where that one keeps its data, and whether by RDB or AOF. Needs redis-server and redis-cli.
#   load_rdb.sh depth.rdb redis://:PASSWORD@localhost:6379
set -eu
[ $# -eq 2 ] || { echo "usage: load_rdb.sh FILE URL" >&2; exit 2; }
PORT=${PORT:-6399}    # of the server that reads the file, on loopback
cli() { ${REDIS_CLI:-redis-cli} --no-auth-warning -u "$URL" "$@"; }
source() { env -u REDISCLI_AUTH redis-cli -p "$PORT" "$@"; }
URL=$(printf %s "$2" | sed 's|://:|://default:|')    # older versions of redis-cli take no empty user
[ "$(cli ping)" = PONG ] || { echo "no Redis answers at the URL given" >&2; exit 1; }
work=$(mktemp -d)
trap 'source shutdown nosave > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
cp "$1" "$work/dump.rdb"
redis-server --bind 127.0.0.1 --port "$PORT" --dir "$work" --save '' --appendonly no --daemonize yes --logfile "$work/log" > /dev/null
until [ "$(source ping 2> /dev/null)" = PONG ]; do
    grep -q -e 'exiting' -e 'in use' "$work/log" && { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done

keys() { "$@" info keyspace | tr -d '\r' | sed -n 's/^\(db[0-9]*:keys=[0-9]*\).*/\1/p'; }
cli replicaof 127.0.0.1 "$PORT" > /dev/null
trap 'cli replicaof no one > /dev/null; source shutdown nosave > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
until cli info replication | tr -d '\r' | grep -q '^master_link_status:up$'; do sleep 0.1; done
cli replicaof no one > /dev/null
[ -n "$(keys cli)" ] || [ -z "$(keys source)" ] || { echo "nothing was loaded" >&2; exit 1; }
# With AOF on, what was loaded is on disk only once the file is written anew, in the background.
persistence() { cli info persistence | tr -d '\r' | grep -c -x "$@"; }
until [ "$(persistence -e aof_rewrite_in_progress:0 -e aof_rewrite_scheduled:0)" = 2 ]; do sleep 0.1; done
[ "$(persistence aof_last_bgrewrite_status:ok)" = 1 ] ||
    { echo "loaded, but the append-only file could not be written: Redis' log says why" >&2; exit 1; }
echo "loaded: $(keys cli | tr '\n' ' ')"
