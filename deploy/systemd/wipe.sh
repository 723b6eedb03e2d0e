#!/bin/sh
# Empties Dagster's history of runs, events and checks, between two sessions; Redis and the archive stay. With storage in
# SQLite it needs the package sqlite3. Everything is stopped meanwhile.
set -eu
HERE=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
HOME_DIR=${DAGSTER_HOME:-/var/lib/ibkr-depth/dagster_home}
as_user() { if [ "$(id -u)" -eq 0 ] && id ibkr-depth > /dev/null 2>&1; then runuser -u ibkr-depth -- "$@"; else "$@"; fi; }

[ -d "$HOME_DIR/history" ] && { command -v sqlite3 > /dev/null || { echo "apt-get install sqlite3" >&2; exit 1; }; }
"$HERE/deploy/systemd/stop.sh"
cd "$HOME_DIR"
as_user env DAGSTER_HOME="$HOME_DIR" "$HERE/.venv/bin/dagster" run wipe --force
if [ -d history ]; then
    rm -f history/runs/.db history/runs/.db-wal history/runs/.db-shm    # events without a run: the wipe leaves this one file
    # The wipe takes the pools' slots away and leaves their limits, so that no run would ever get one; they are made anew.
    as_user sqlite3 history/runs/index.db 'DELETE FROM concurrency_limits'
    for database in history/runs/index.db history/runs.db schedules/schedules.db; do
        [ ! -e "$database" ] || as_user sqlite3 "$database" 'VACUUM; PRAGMA wal_checkpoint(TRUNCATE);' > /dev/null
    done
fi
systemctl start ibkr-depth.target
