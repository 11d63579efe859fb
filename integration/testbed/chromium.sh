#!/bin/sh
# chromium.sh installs Debian's chromium, headless, in which the tests of the
# web pages run. Needs root and apt-get; ends with status 1 and a reason where
# it cannot be had.
set -eu

command -v chromium >/dev/null 2>&1 && exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "chromium.sh: not root; as root, run: apt-get install --no-install-recommends chromium" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install() {
	# Other tests may be installing at the same time: wait for the lock.
	apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends chromium >&2
}
# The lists of a fresh machine may be absent or old.
install || { apt-get -q -o DPkg::Lock::Timeout=300 update >&2 && install; }
