#!/bin/sh
# Changes over to the version in whose folder this script lies, which install.sh has installed; back again: the same script of
# the old folder. The session is drained, and the watchdog starts the next one, which goes on with its numbering.
set -eu
cd "$(dirname "$(readlink -f "$0")")/../.."
LINK=${LINK:-/opt/ibkr_depth_pipeline}
HOME_DIR=${DAGSTER_HOME:-/var/lib/ibkr-depth/dagster_home}
UNITS=${UNITS:-/etc/systemd/system}
as_user() { if [ "$(id -u)" -eq 0 ] && id ibkr-depth > /dev/null 2>&1; then runuser -u ibkr-depth -- "$@"; else "$@"; fi; }

old=$(readlink -f "$LINK")
echo "was: $old"
for file in "$old"/config/*.yaml; do
    [ ! -e "config/${file##*/}" ] || cmp -s "$file" "config/${file##*/}" || echo "note: config/${file##*/} differs from that of $old"
done
deploy/systemd/stop.sh
ln -sfn "$PWD" "$LINK"
cp deploy/systemd/ibkr-depth*.service deploy/systemd/ibkr-depth.target "$UNITS/"
systemctl daemon-reload
as_user env DAGSTER_HOME="$HOME_DIR" .venv/bin/dagster instance migrate
systemctl start ibkr-depth.target
echo "now: $PWD"
