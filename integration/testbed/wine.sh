#!/bin/bash
# wine.sh FOLDER PROGRAM [ARGUMENT...] runs a program for Windows, here, in a
# folder of this repository. The Wine is Debian 13's: Debian 12's lacks what Go's
# runtime asks of Windows. So it is not installed but unpacked, with the C library
# that it needs, into .cache/wine, and runs in there as in a computer of its own:
# every run begins with the same empty one. Needs root and apt-get; ends with
# status 1 and a reason where the packages cannot be had.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
wine=$repository/.cache/wine
root=$wine/root
packages="wine64 libwine libz-mingw-w64 libc6 libc-bin libgcc-s1 libunwind8 liblzma5"

fail() {
	echo "wine.sh: $*" >&2
	exit 1
}

# inside runs a command with the unpacked packages as its root, and with its own
# processes and mounts, which end with it.
inside() {
	unshare --mount --pid --fork --kill-child bash -c '
		root=$1 folder=$2
		mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount --bind "$3" "$root/src" || exit 1
		shift 3
		exec env -i HOME=/root LC_ALL=C.UTF-8 WINEPREFIX=/prefix WINEDEBUG=-all PATH=/usr/bin unshare --root="$root" --wd="$folder" /usr/lib/wine/wine64 "$@"
	' wine.sh "$root" "$1" "$repository" "${@:2}" 2> >(grep -v -e FreeType -e TrueType -e 'equal to 2.0.5' -e freetype.org >&2)
}

# unpack gets the packages and unpacks them.
unpack() {
	rm -rf "$wine" && mkdir -p "$root" "$wine/lists/partial" "$wine/archives/partial"
	local mirror
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | sort -u | head -n 1)
	[ -n "$mirror" ] || fail "apt-get knows no mirror of Debian"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$wine/sources.list"
	cat >"$wine/apt.conf" <<-EOF
		Dir::Etc::SourceList "$wine/sources.list";
		Dir::Etc::SourceParts "/nonexistent";
		Dir::State::Lists "$wine/lists";
		Dir::Cache "$wine";
		APT::Sandbox::User "root";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
	EOF
	(cd "$wine/archives" && export APT_CONFIG=$wine/apt.conf && apt-get -q update >&2 && apt-get -q download $packages >&2) || fail "the packages of Wine cannot be had"
	for package in "$wine"/archives/*.deb; do dpkg -x "$package" "$root"; done
	for name in bin lib lib64; do [ -e "$root/$name" ] || ln -s "usr/$name" "$root/$name"; done
	mkdir -p "$root"/{dev,proc,root,src,tmp,etc}
	echo '127.0.0.1 localhost' >"$root/etc/hosts"
	# What the packages do when they are installed: a zlib that Wine takes for its own.
	local zlib=$root/usr/x86_64-w64-mingw32/lib/zlib1.dll
	{ head -c 64 "$zlib"; printf 'Wine builtin DLL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'; tail -c +97 "$zlib"; } >"$root/usr/lib/x86_64-linux-gnu/wine/x86_64-windows/zlib1.dll"
	ln -sf wineserver64 "$root/usr/lib/wine/wineserver"
	inside / 'C:\windows\system32\cmd.exe' /c exit || fail "Wine does not start"
	mv "$root/prefix" "$wine/new" && rm -rf "$wine/archives" "$wine/lists" && touch "$wine/.done"
}

[ $# -ge 2 ] || fail "usage: wine.sh FOLDER PROGRAM [ARGUMENT...]"
[ "$(id -u)" -eq 0 ] || fail "not root"
[ "$wine/.done" -nt "$0" ] || unpack
rm -rf "$root/prefix" && cp -a "$wine/new" "$root/prefix"
inside "/src/$1" "/src/$2" "${@:3}"
