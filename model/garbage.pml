/*
 * How a blob that nothing names is removed while others publish what names it, on a store
 * that cannot remove on a condition: tombstones, claims, and removal under the head's
 * lock. docs/MODEL.md says what this covers; model/run.sh runs it.
 *
 * One blob, as each is alone. Every option of a loop is one atomic step of reality.
 */
#ifndef PUBLISHERS
#define PUBLISHERS 2
#endif
#ifndef COLLECTORS
#define COLLECTORS 2
#endif

#define NOBODY 255
/* Whose a tombstone is: publishers, then collectors by their numbers; somebody's who knows it no more. */
#define NONE 0
#define LOST 100
#define mine (_pid + 1)

bool there = true;       /* the blob: left behind long ago, and named by nothing */
bool named;              /* an entry that names it is committed */
byte tomb = NONE;        /* the tombstone: each that is written is another one */
byte alike = NONE;       /* the publisher, with 1 more, whose the tombstone looks like besides: it is of the same second */
bool since[PUBLISHERS];  /* a tombstone was taken away since a publisher wrote its last: another may be of that second */
byte lock = NOBODY;      /* the head's lock, where it is held for longer than one step */
byte under_way;          /* removals asked for, that have not happened yet */

/* Who has written a tombstone and gives up knows it no more. */
inline forgets() {
	if
	:: tomb == mine -> tomb = LOST
	:: else -> skip
	fi
}

/*
 * Writes a tombstone: later than the one that is there, and told from others by its second. Where
 * nobody waits before a claim, one that a publisher wrote may be gone by then, without its knowing.
 */
inline writes() {
#ifdef EMBEDDED
	if
	:: alike = NONE
	:: since[0] && tomb != 1 && alike != 1 -> alike = 1
	:: since[PUBLISHERS - 1] && tomb != PUBLISHERS && alike != PUBLISHERS -> alike = PUBLISHERS
	fi;
	if
	:: _pid < PUBLISHERS -> since[_pid] = false
	:: else
	fi;
#endif
	tomb = mine
}

inline enters() {
	assert(there);
	named = true;
	printf("publisher %d enters what names it\n", _pid)
}

active [PUBLISHERS] proctype Publisher() {
	bool brings;         /* it has the bytes, and does not only name them */
begin:
end:
	atomic {
		brings = false;
		if
		:: there = true; brings = true; printf("publisher %d stores it\n", _pid)
		:: there -> printf("publisher %d finds it\n", _pid)
		fi
	}
enter:
	if
#ifdef MUTATE_ENTER_BLIND
	:: d_step { lock == NOBODY -> enters() } goto begin
#else
	:: d_step { lock == NOBODY && tomb == NONE -> enters() } goto begin
	:: lock == NOBODY && tomb != NONE
#endif
	:: goto begin /* it is killed */
	fi;
	/* The tombstone is written anew, once whatever was asked for by the one before has happened. */
	if
#ifdef MUTATE_CLAIM_EARLY
	:: atomic { lock == NOBODY -> writes(); printf("publisher %d claims it\n", _pid) }
#else
	:: atomic { lock == NOBODY && under_way == 0 -> writes(); printf("publisher %d claims it\n", _pid) }
#endif
	:: goto begin
	fi;
	if
	:: d_step { brings -> there = true; printf("publisher %d stores it again\n", _pid) }
	:: !brings
	:: atomic { forgets(); goto begin }
	fi;
	if
#ifdef MUTATE_UNLOOKED
	:: true
#endif
	:: there
	:: atomic { !there -> forgets(); goto begin } /* it has to be published first */
	:: atomic { forgets(); goto begin }
	fi;
	if
#ifdef MUTATE_RELEASE_BLIND
	:: d_step { lock == NOBODY -> tomb = NONE } goto enter
#else
	:: d_step { lock == NOBODY ->
		if
#if !defined(EMBEDDED)
		:: tomb == mine ->
#elif defined(MUTATE_RELEASE_UNLOOKED)
		:: tomb == mine || alike == mine ->
#else
		:: (tomb == mine || alike == mine) && there ->
#endif
			tomb = NONE; alike = NONE;
#ifdef EMBEDDED
			since[0] = true; since[PUBLISHERS - 1] = true;
#endif
			printf("publisher %d takes its tombstone away\n", _pid)
		:: else -> skip
		fi
	} goto enter
#endif
	:: atomic { forgets(); goto begin }
	fi
}

active [COLLECTORS] proctype Collector() {
begin:
end:
#ifdef MUTATE_CONDEMN_UNLOCKED
	!named;
	atomic { writes(); printf("collector %d condemns it\n", _pid) }
#else
	atomic { lock == NOBODY && !named -> writes(); printf("collector %d condemns it\n", _pid) }
#endif
	/* Asked for under the lock; it may be lost before that has happened, with the session or the process. */
	if
#ifdef EMBEDDED /* where all is on one host it has happened by then */
	:: atomic { lock == NOBODY && tomb == mine -> there = false; printf("collector %d removes it\n", _pid); assert(!named) }
#elif defined(MUTATE_REMOVE_BLIND)
	:: atomic { lock == NOBODY && tomb != NONE && under_way < 2 -> lock = _pid; under_way++ }
#else
	:: atomic { lock == NOBODY && tomb == mine && under_way < 2 -> lock = _pid; under_way++; printf("collector %d asks for its removal\n", _pid) }
#endif
	:: atomic { tomb != mine -> goto begin }
	:: atomic { forgets(); goto begin }
	fi;
	d_step {
		if
		:: lock == _pid -> lock = NOBODY
		:: else -> skip
		fi;
#ifdef MUTATE_FORGET
		if
		:: tomb == mine -> tomb = NONE
		:: else -> skip
		fi
#else
		forgets()
#endif
	}
	goto begin
}

active proctype World() {
end:
	do
	/* A removal happens, in time for whoever waits for it; or never. */
	:: d_step { under_way > 0 -> under_way--; there = false; printf("it is removed\n"); assert(!named) }
	:: d_step { under_way > 0 -> under_way-- }
	/* The database ends the session that holds the lock. */
	:: d_step { lock != NOBODY -> lock = NOBODY }
#ifdef MUTATE_RESTORED
	/* The database is restored to where nobody had condemned anything. */
	:: d_step { tomb != NONE && !named -> tomb = NONE; lock = NOBODY; printf("the database is restored\n") }
#endif
	od
}
