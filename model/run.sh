#!/usr/bin/env bash
# Checks the models exhaustively within the bounds below, and that each mistake that they
# can be told to make is found. Installs spin and gcc where they are missing (Debian).
# `run.sh NAME…` checks those alone; with REPLAY=1 a counterexample is told step by step.
set -euo pipefail
cd "$(dirname "$0")"
self=$PWD/run.sh

need() {
	command -v "$1" >/dev/null && return
	apt-get install -y -q --no-install-recommends "$1" >/dev/null 2>&1 ||
		{ apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends "$1" >/dev/null; }
}
need spin
need gcc
command -v cc >/dev/null && echo 'int main(void){return 0;}' | cc -x c - -o /dev/null 2>/dev/null || apt-get install -y -q --no-install-recommends libc6-dev >/dev/null

# name | holds or fails | model | switches
table() {
	cat <<'END'
three replicas, three entries    | holds | replicas | -DALIKE -DN=3 -DE=3 -DC=3
restored, three entries          | holds | replicas | -DALIKE -DN=2 -DE=3 -DC=3 -DRESTORES=1
restored twice                   | holds | replicas | -DALIKE -DN=2 -DE=2 -DC=3 -DRESTORES=2
leases                           | holds | replicas | -DALIKE -DN=2 -DE=2 -DC=2 -DLEASES
leases, three replicas           | holds | replicas | -DALIKE -DN=3 -DE=1 -DC=1 -DLEASES
leases, restored                 | holds | replicas | -DALIKE -DN=2 -DE=2 -DC=2 -DLEASES -DRESTORES=1
row before the checkpoint        | fails | replicas | -DN=2 -DE=1 -DC=1 -DMUTATE_ROW_FIRST
entries written over             | fails | replicas | -DN=2 -DE=1 -DC=2 -DRESTORES=1 -DMUTATE_OVERWRITE
published without the lock       | fails | replicas | -DN=2 -DE=2 -DC=2 -DMUTATE_NO_LOCK
row set after the lock was lost  | fails | replicas | -DN=2 -DE=2 -DC=2 -DMUTATE_SET_UNLOCKED
f reads outside its transaction  | fails | replicas | -DN=2 -DE=3 -DC=5 -DRESTORES=1 -DMUTATE_READ_OUTSIDE
acknowledged by size alone       | fails | replicas | -DN=2 -DE=1 -DC=2 -DRESTORES=1 -DMUTATE_ACK_BY_SIZE
acknowledged before the leases   | fails | replicas | -DN=2 -DE=1 -DC=1 -DLEASES -DMUTATE_ACK_EARLY
lease shorter than the belief    | fails | replicas | -DN=2 -DE=1 -DC=1 -DLEASES -DMUTATE_SHORT_LEASE
lease and row in one transaction | fails | replicas | -DN=2 -DE=1 -DC=1 -DLEASES -DMUTATE_ONE_TRANSACTION
two replicas of one name         | fails | replicas | -DN=2 -DE=1 -DC=1 -DLEASES -DMUTATE_SHARED_NAME
new lease not compared           | fails | replicas | -DN=2 -DE=1 -DC=1 -DLEASES -DRESTORES=1 -DMUTATE_NEW_LEASE_BLIND
restored database not noticed    | fails | replicas | -DN=2 -DE=1 -DC=1 -DLEASES -DRESTORES=1 -DMUTATE_RESTORE_UNSEEN -DMUTATE_NEW_LEASE_BLIND
acknowledged by a young session  | fails | replicas | -DALIKE -DN=2 -DE=2 -DC=2 -DLEASES -DRESTORES=1 -DMUTATE_YOUNG_SESSION
rebuild forgets the leases       | fails | replicas | -DALIKE -DN=2 -DE=2 -DC=2 -DLEASES -DRESTORES=1 -DMUTATE_REBUILD_FORGETS
garbage                          | holds | garbage |
garbage on one host              | holds | garbage | -DEMBEDDED
entered without a look           | fails | garbage | -DMUTATE_ENTER_BLIND
claimed while removals are due   | fails | garbage | -DMUTATE_CLAIM_EARLY
others' tombstones taken away    | fails | garbage | -DMUTATE_RELEASE_BLIND
released without a look          | fails | garbage | -DEMBEDDED -DMUTATE_RELEASE_UNLOOKED
claimed without a look           | fails | garbage | -DMUTATE_UNLOOKED
condemned without the lock       | fails | garbage | -DMUTATE_CONDEMN_UNLOCKED
removed by any tombstone         | fails | garbage | -DMUTATE_REMOVE_BLIND
tombstone gone with its blob     | fails | garbage | -DMUTATE_FORGET
restored while garbage is removed | fails | garbage | -DMUTATE_RESTORED
END
}

# check NAME EXPECTED MODEL SWITCHES: one line of what came out.
check() {
	local name=$1 expected=$2 model=$3.pml switches=$4 folder status=0
	folder=$(mktemp -d)
	# shellcheck disable=SC2064
	trap "rm -rf '$folder'" RETURN
	cp "$model" "$folder/" && cd "$folder"
	# shellcheck disable=SC2086
	spin -a $switches "$model" >spin.out 2>&1 || { cat spin.out; return 1; }
	# A mistake is looked for breadth first where that is feasible: its counterexample is then the shortest.
	local search=-DCOLLAPSE
	[[ $expected != fails || $switches = *-DALIKE* ]] || search="-DCOLLAPSE -DBFS"
	# shellcheck disable=SC2086
	gcc -O2 -w -DSAFETY $search -DMEMLIM=3000 -o pan pan.c
	timeout 900 ./pan -m100000 -w23 >pan.out 2>&1 || status=$?
	local states errors
	states=$(sed -nE 's/^ *([0-9]+) states, stored.*/\1/p' pan.out)
	errors=$(sed -nE 's/.*errors: ([0-9]+).*/\1/p' pan.out)
	local whole=yes
	grep -qE 'Search not completed|max search depth too small|out of memory|aborting' pan.out && whole=no
	case $expected in
	holds) [ "$status" = 0 ] && [ "$errors" = 0 ] && [ $whole = yes ] ;;
	fails) [ "${errors:-0}" -gt 0 ] && grep -q 'assertion violated' pan.out ;;
	esac && printf 'ok    %-34s %s, %s states\n' "$name" "$expected" "${states:-?}" || {
		printf 'WRONG %-34s should be: %s\n' "$name" "$expected"
		cat pan.out
		# shellcheck disable=SC2086
		spin $switches -t "$model" || true
		return 1
	}
	# shellcheck disable=SC2086
	if [ "$expected" = fails ] && [ -n "${REPLAY:-}" ]; then spin $switches -t "$model" | grep -E 'replica|database|lease|publisher|collector|removed|failed'; fi
}

if [ "${1:-}" = --one ]; then
	shift
	check "$@"
	exit
fi

chosen=$(mktemp)
trap 'rm -f "$chosen"' EXIT
while IFS='|' read -r name expected model switches; do
	name=$(sed 's/ *$//' <<<"$name")
	[ $# = 0 ] || printf '%s\n' "$@" | grep -qxF -- "$name" || continue
	printf '%s\0%s\0%s\0%s\0' "$name" "$(tr -d ' ' <<<"$expected")" "$(tr -d ' ' <<<"$model")" "$switches"
done < <(table) >"$chosen"
[ -s "$chosen" ] || { echo "no such configuration; they are:"; table | cut -d'|' -f1; exit 2; }
begun=$SECONDS
xargs -0 -n4 -P"$(nproc)" "$self" --one <"$chosen" || { echo "model: something is not as it should be"; exit 1; }
echo "model: $(($(tr -cd '\0' <"$chosen" | wc -c) / 4)) configurations as they should be, in $((SECONDS - begun)) s"
