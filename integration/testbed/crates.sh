#!/bin/sh
# crates.sh PACKAGE... installs Debian's packages of Rust sources
# (librust-NAME-dev), which land in /usr/share/cargo/registry. Debian 12's
# versions are the ones meant. Needs root and apt-get; ends with status 1 and
# a reason where the packages cannot be had.
set -eu

if [ $# -eq 0 ]; then
	echo "usage: crates.sh PACKAGE..." >&2
	exit 1
fi
missing=
for package in "$@"; do
	case $package in
	librust-*-dev) ;;
	*)
		echo "crates.sh: $package is not a librust-NAME-dev package" >&2
		exit 1
		;;
	esac
	if ! dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$'; then
		missing="$missing $package"
	fi
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "crates.sh: not root; as root, run: apt-get install --no-install-recommends$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install() {
	# Other tests may be installing at the same time: wait for the lock.
	apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $missing >&2
}
# The lists of a fresh machine may be absent or old.
install || { apt-get -q -o DPkg::Lock::Timeout=300 update >&2 && install; }
