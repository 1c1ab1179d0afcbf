#!/bin/sh
# Programs that some tests need and no package index has. Where one is missing, its tests are skipped and say so.
# They are installed only as root on Debian, which is said in one line, and not at all with NO_INSTALL=1.
set -eu

missing=
for each in amqp-publish:amqp-tools ip:iproute2 kcat:kcat pgbouncer:pgbouncer strace:strace; do
    command -v "${each%:*}" > /dev/null || missing="$missing ${each#*:}"
done
[ -n "$missing" ] || exit 0

if [ "${NO_INSTALL:-}" = 1 ] || [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "not there, so that some tests are skipped:$missing"
    exit 0
fi
echo "installing for the tests, unless NO_INSTALL=1:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 - several names
apt="apt-get -qq -o Acquire::Retries=3"
if ! { $apt update && $apt install --yes --no-install-recommends $missing; } > /dev/null 2>&1; then
    echo "apt-get could not install them, so that some tests are skipped; with CI set, that is a failure"
    [ -z "${CI:-}" ]
fi
