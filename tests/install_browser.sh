#!/bin/sh
# A real browser for the tests of Flower's pages: the one on PATH, else Debian's packages where we may install them.
# Without one, those tests are skipped and say so.
#
# usage: install_browser.sh
set -eu

if command -v chromedriver >/dev/null 2>&1; then
    for browser in chromium chromium-browser google-chrome; do
        if command -v "$browser" >/dev/null 2>&1; then
            exit 0
        fi
    done
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing chromium and chromium-driver with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1; then
        exit 0
    fi
fi
echo "There is no chromium and chromedriver on PATH: the tests of Flower's pages will be skipped"
