#!/bin/sh
# Brings back what backup.sh has saved, on a host where the recorder is installed and stopped, and Redis is up.
#   sudo /opt/ibkr_depth_pipeline/deploy/restore.sh /srv/backup/2026-01-05
# What is still there is left as it is: a Redis that holds keys, an archive with files, a history of Dagster's. Settings as for
# backup.sh. At the end the numbers in Redis are raised to the archive's, so that none is given to a second snapshot.
set -eu
HERE=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
SETTINGS=${SETTINGS:-/etc/ibkr-depth.env}
if [ -z "${SETTINGS_READ:-}" ] && [ -e "$SETTINGS" ]; then
    SETTINGS_READ=1 exec "$HERE/.venv/bin/dotenv" --file "$SETTINGS" run --no-override -- "$0" "$@"
fi
[ $# -eq 1 ] && [ -d "$1" ] || { echo "usage: restore.sh FOLDER, one that backup.sh has made" >&2; exit 2; }
FROM=$(readlink -f "$1")
export ARCHIVE_URL="${ARCHIVE_URL:-/var/lib/ibkr-depth/archive}"
export DAGSTER_HOME="${DAGSTER_HOME:-/var/lib/ibkr-depth/dagster_home}"
URL=$(printf %s "${REDIS_URL:-redis://localhost:6379/0}" | sed 's|://:|://default:|')    # no empty user for redis-cli
is_root() { [ "$(id -u)" -eq 0 ] && id ibkr-depth > /dev/null 2>&1; }
owned() { if is_root; then chown -R ibkr-depth:ibkr-depth "$@"; fi; }
as_user() { if is_root; then runuser -u ibkr-depth -- "$@"; else "$@"; fi; }

if ${REDIS_CLI:-redis-cli} --no-auth-warning -u "$URL" info keyspace | grep -q '^db'; then
    echo "Redis holds keys: left as it is"
else
    "$HERE/deploy/load_rdb.sh" "$FROM/depth.rdb" "$URL"
fi

if [ -d "$FROM/archive" ]; then
    if [ -d "$ARCHIVE_URL/books" ]; then
        echo "$ARCHIVE_URL has books: left as it is"
    else
        mkdir -p "$ARCHIVE_URL"
        cp -a "$FROM/archive/." "$ARCHIVE_URL/"
        owned "$ARCHIVE_URL"
    fi
fi

if [ -e "$FROM/dagster.dump" ]; then
    postgres=$("$HERE/.venv/bin/python" -m ibkr_depth_pipeline.orchestration.storage)
    if [ -z "$postgres" ]; then
        echo "$FROM/dagster.dump is of Postgres, and $DAGSTER_HOME/dagster.yaml names none" >&2
        exit 1
    elif [ -n "$(psql "$postgres" -Atc "SELECT to_regclass('runs')")" ]; then
        echo "Dagster's database has tables: left as it is"
    else
        pg_restore --no-owner --exit-on-error --dbname "$postgres" "$FROM/dagster.dump"
    fi
elif [ -d "$FROM/dagster_home" ]; then
    if [ -d "$DAGSTER_HOME/history" ]; then
        echo "$DAGSTER_HOME has a history: left as it is"
    else
        mkdir -p "$DAGSTER_HOME"
        cp -a "$FROM/dagster_home/." "$DAGSTER_HOME/"
    fi
fi
if [ -d "$FROM/storage" ] && [ ! -d "$DAGSTER_HOME/storage" ]; then
    cp -a "$FROM/storage" "$DAGSTER_HOME/storage"
fi
owned "$DAGSTER_HOME"

as_user "$HERE/.venv/bin/ibkr_depth_archive" raise-ids
echo "restored; start it with: systemctl start ibkr-depth.target"
