#!/bin/sh
# Makes what compose.yaml reads, beside it: .env, settings.env, tws_password.txt, tws_settings/. IBKR's password is read from
# stdin (nothing is shown). A file that is there already is left as it is. Run it as root: the gateway's user is uid 1000.
#   sudo deploy/docker/prepare.sh
set -eu
cd "$(dirname "$0")"
GATEWAY_UID=${GATEWAY_UID:-1000}

if [ "$(id -u)" -ne 0 ] && [ "$(id -u)" -ne "$GATEWAY_UID" ]; then
    echo "run it as root: tws_password.txt and tws_settings/ become the property of the gateway's user, $GATEWAY_UID" >&2
    exit 1
fi

password() { head -c 64 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 32; }

umask 077
if [ ! -e .env ]; then
    sed "s/^REDIS_PASSWORD=$/REDIS_PASSWORD=$(password)/; s/^POSTGRES_PASSWORD=$/POSTGRES_PASSWORD=$(password)/" env.example > .env
    echo "made .env: set TWS_USERID and TRADING_MODE in it"
fi
if [ ! -e settings.env ]; then
    cp ../../.env.example settings.env
    echo "made settings.env: set ALERT_URLS in it"
fi
if [ ! -e tws_password.txt ]; then
    [ -t 0 ] && { echo "IBKR's password:"; stty -echo; trap 'stty echo' EXIT; }
    read -r secret
    printf %s "$secret" > tws_password.txt
    chown "$GATEWAY_UID" tws_password.txt
    chmod 400 tws_password.txt
fi
mkdir -p tws_settings
chown "$GATEWAY_UID" tws_settings
# The containers' user reads the universe, whatever the umask of the one who cloned.
chmod -R a+rX ../../config
chmod a+r dagster.yaml
