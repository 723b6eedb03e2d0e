#!/bin/sh
# Installs the recorder from this checkout on Debian 12 or a system like it, as root. Repeatable; settings are left alone.
#   sudo apt-get install git python3 python3-venv redis-server sqlite3
#   sudo git clone REPOSITORY /opt/ibkr_depth_pipeline-1 && sudo /opt/ibkr_depth_pipeline-1/deploy/systemd/install.sh
# Each version has a folder of its own; the link /opt/ibkr_depth_pipeline names the one that runs. switch.sh changes it.
set -eu
cd "$(dirname "$(readlink -f "$0")")/../.."
LINK=/opt/ibkr_depth_pipeline
STATE=/var/lib/ibkr-depth

id ibkr-depth > /dev/null 2>&1 || useradd --system --home-dir "$STATE" --shell /usr/sbin/nologin ibkr-depth
if [ ! -x .venv/bin/python ]; then
    python3 -m venv .venv
    # the universe and the gateways of the version that runs
    for file in "$LINK"/config/*.yaml; do
        case ${file##*/} in
            dagster.yaml | *.example.yaml | '*.yaml') ;;
            *) cp "$file" config/ ;;
        esac
    done
fi
version=$(.venv/bin/python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
constraints="constraints/$version.txt"
# the versions that were tested, where this Python has any
.venv/bin/pip install --quiet $([ -e "$constraints" ] && echo --constraint "$constraints") '.[archive,postgres]'
install -d -o ibkr-depth -g ibkr-depth "$STATE" "$STATE/dagster_home"
install -o ibkr-depth -g ibkr-depth config/dagster.yaml "$STATE/dagster_home/"
if [ ! -e /etc/ibkr-depth.env ]; then
    install -m 640 -g ibkr-depth .env.example /etc/ibkr-depth.env
    sed -i "s|^ARCHIVE_URL=archive\$|ARCHIVE_URL=$STATE/archive|" /etc/ibkr-depth.env
    sed -i "s|^IBKR_FLIGHT_RECORDER_DIR=.*|IBKR_FLIGHT_RECORDER_DIR=$STATE/flight_recorder|" /etc/ibkr-depth.env
    echo "made /etc/ibkr-depth.env: set IBKR_PORT, REDIS_URL, ALERT_URLS and DEADMAN_URL in it"
fi
chmod -R a+rX config deploy
if [ ! -e "$LINK" ]; then
    # Dagster's tables are made here: by three services at once they would be made twice over
    (cd "$STATE" && runuser -u ibkr-depth -- env DAGSTER_HOME="$STATE/dagster_home" "$OLDPWD/.venv/bin/dagster" instance info) > /dev/null
    ln -s "$PWD" "$LINK"
    cp deploy/systemd/ibkr-depth*.service deploy/systemd/ibkr-depth.target /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable ibkr-depth.target ibkr-depth-code.service ibkr-depth-daemon.service ibkr-depth-web.service
    echo "start it with: systemctl start ibkr-depth.target"
else
    echo "installed beside $(readlink -f "$LINK"); to change over: $PWD/deploy/systemd/switch.sh"
fi
