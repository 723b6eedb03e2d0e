#!/bin/sh
# Stops the recorder and returns when nothing of it runs any more. `systemctl stop ibkr-depth.target` alone returns while the
# session still drains: the services are stopped by their dependency on the target, which that command does not wait for.
set -eu
UNITS="ibkr-depth-daemon.service ibkr-depth-web.service ibkr-depth-code.service ibkr-depth-archive.service ibkr-depth-page.service"
systemctl stop ibkr-depth.target
systemctl stop $UNITS
for unit in $UNITS; do
    while :; do
        case $(systemctl show --property=ActiveState --value "$unit") in
            inactive | failed) break ;;
        esac
        sleep 0.5
    done
done
