#!/bin/sh
# Saves what a recorder needs to go on elsewhere: Redis, the archive (if it is a folder), Dagster's history. Nothing is stopped.
#   sudo /opt/ibkr_depth_pipeline/deploy/backup.sh /srv/backup/2026-01-05       a folder that is not there yet
# restore.sh reads it. Settings are those of /etc/ibkr-depth.env (another file: SETTINGS), or the environment's: REDIS_URL,
# ARCHIVE_URL, DAGSTER_HOME. Redis' user needs the right to replicate; for TLS and such set REDIS_CLI='redis-cli --cacert FILE'.
set -eu
HERE=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
SETTINGS=${SETTINGS:-/etc/ibkr-depth.env}
if [ -z "${SETTINGS_READ:-}" ] && [ -e "$SETTINGS" ]; then
    SETTINGS_READ=1 exec "$HERE/.venv/bin/dotenv" --file "$SETTINGS" run --no-override -- "$0" "$@"
fi
[ $# -eq 1 ] || { echo "usage: backup.sh FOLDER" >&2; exit 2; }
TO=$1
ARCHIVE=${ARCHIVE_URL:-/var/lib/ibkr-depth/archive}
export DAGSTER_HOME="${DAGSTER_HOME:-/var/lib/ibkr-depth/dagster_home}"
umask 077
mkdir "$TO"

# Redis first: what the archive takes in meanwhile it has on top, and raise-ids lets the numbers go on behind that.
url=$(printf %s "${REDIS_URL:-redis://localhost:6379/0}" | sed 's|://:|://default:|')    # no empty user for redis-cli
${REDIS_CLI:-redis-cli} --no-auth-warning -u "$url" --rdb "$TO/depth.rdb" > /dev/null

case $ARCHIVE in
    *://*) echo "the archive is at $ARCHIVE: save it by that store's own means" ;;
    *)
        if [ -d "$ARCHIVE" ]; then
            # No file of the archive is ever changed, so links to all of them are its state at one moment. A compaction that
            # begins meanwhile is refused, so the links are made at once and copied afterwards.
            state="$ARCHIVE/.tmp/backup-$$"
            trap 'rm -rf "$state"' EXIT
            mkdir -p "$state"
            flock "$ARCHIVE/.tmp/compaction.lock" find "$ARCHIVE" -mindepth 1 -maxdepth 1 ! -name .tmp -exec cp -al -t "$state" {} +
            cp -a "$state" "$TO/archive"
        fi
        ;;
esac

postgres=$("$HERE/.venv/bin/python" -m ibkr_depth_pipeline.orchestration.storage)
if [ -n "$postgres" ]; then
    pg_dump --format custom --file "$TO/dagster.dump" "$postgres"
elif [ -d "$DAGSTER_HOME/history" ]; then
    mkdir "$TO/dagster_home"
    cd "$DAGSTER_HOME"
    find history schedules -name '*.db' | while read -r database; do
        mkdir -p "$TO/dagster_home/$(dirname "$database")"
        sqlite3 "$database" ".timeout 10000" ".backup '$TO/dagster_home/$database'"
    done
fi
[ ! -d "$DAGSTER_HOME/storage" ] || cp -a "$DAGSTER_HOME/storage" "$TO/storage"    # the runs' logs
echo "saved in $TO"
