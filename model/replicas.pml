/*
 * The order of a change with several replicas over one database and one blob storage:
 * what is written where, in which order, and who may believe what when. docs/MODEL.md
 * says what this covers and what not; model/run.sh runs it, and holds that each of the
 * MUTATE_ switches below, every one a mistake that somebody could make, is found.
 *
 * Every option of a loop below is one atomic step of reality: one statement or
 * transaction of the database, one request to blob storage, or one step in memory.
 * Anything may happen between two of them, for as long as it likes.
 */
#ifndef N
#define N 2          /* replicas */
#endif
#ifndef E
#define E 2          /* places in the log: indices 0 to E-1 */
#endif
#ifndef C
#define C 3          /* commits in all, those of lost pasts too */
#endif
#ifndef RESTORES
#define RESTORES 0   /* of the database to an earlier point, or a failover that lost commits */
#endif
#ifndef REBUILDS
#define REBUILDS RESTORES
#endif

#if defined(MUTATE_SHORT_LEASE) || defined(MUTATE_YOUNG_SESSION) || defined(MUTATE_REBUILD_FORGETS) || defined(MUTATE_ONE_TRANSACTION) || defined(MUTATE_SHARED_NAME)
#define MUTATE_LEASE
#endif

#define NOBODY 255
#define DOWN 0
#define LISTED 1     /* starting: blob storage was listed */
#define RUNS 2

/*
 * An entry is a number: each commit makes a new one, as an entry's bytes hold its time. One
 * number stands for all entries before it too, as a root does: parent says what it was
 * judged upon.
 */
byte made;               /* entries committed so far */
byte parent[C + 1];
byte place[C + 1];       /* the entry's index */

/* The database: what is committed, and the published row. */
byte cat[E];
byte head;
byte pub, note;          /* note: the last entry that the published checkpoint covers */
byte lock = NOBODY;      /* who holds the published row */
#ifdef LEASES
byte seen[N];            /* the table of replicas: what each has seen */
#ifdef MUTATE_LEASE
bool gone[N];            /* its lease has ended, or was never there */
#endif
#endif

/* Blob storage: objects, 0 where there is none. */
byte ent[E];             /* log/entry/<index> */
byte cp[E + 1];          /* log/checkpoint/<size>: the last entry that it covers */

/* Each replica's memory. */
byte up[N];
byte shown[N];           /* the size of the log that it shows */
byte pc[N];              /* where its sequencer is */
byte my[N];              /* the entry whose submitter waits for an answer */
byte to[N], tail[N], at[N]; /* its publication: up to which size, the last entry, the next to be stored */
byte listed[N];          /* entries in blob storage, as it was listed at the start */
#ifdef LEASES
byte lpc[N];             /* where its heartbeat is */
bool sure[N];            /* it may answer reads */
byte most[N];            /* the largest checkpoint that blob storage had after the lease was written, unless shown already */
#endif

/* What happened, for the assertions. */
bool acked[C + 1];
byte vis[E];             /* what was ever shown at each index */
byte restores, rebuilds;
bool once[E + 1];         /* sizes that the database had published, in the past that it is in */
bool stuck;              /* some replica said `rebuild` */

byte x, k, j;            /* for loops within one step; 0 between steps */

#define me _pid
#ifdef MUTATE_SHARED_NAME
#define row(r) 0
#else
#define row(r) (r)
#endif

/* Blob storage alone says everything that was acknowledged, and no checkpoint lies. */
inline sound() {
	j = 1;
	do
	:: j <= E && cp[j] != 0 ->
		x = cp[j]; k = j;
		do
		:: k > 0 -> k--; assert(ent[k] == x); x = parent[x]
		:: else -> break
		od;
		j++
	:: j <= E && cp[j] == 0 -> j++
	:: else -> break
	od;
	j = 1;
	do
	:: j <= C && acked[j] ->
		x = j; k = place[j] + 1;
		do
		:: k > 0 -> k--; assert(ent[k] == x); x = parent[x]
		:: else -> break
		od;
		j++
	:: j <= C && !acked[j] -> j++
	:: else -> break
	od;
	x = 0; k = 0; j = 0
}

/* The size n, of which t is the last entry, becomes visible. */
inline reveal(r, n, t) {
	x = t; k = n;
	do
	:: k > 0 ->
		k--;
		assert(ent[k] == x);                  /* nothing visible is unlogged */
		assert(vis[k] == 0 || vis[k] == x);   /* there is one past */
		vis[k] = x;
		x = parent[x]
	:: else -> break
	od;
	assert(n == 0 || cp[n] == t);
	shown[r] = n;
	printf("replica %d shows %d\n", r, n);
	x = 0; k = 0
}

#ifdef LEASES
/*
 * A lease outlasts all that a replica makes of it: that is what it is long enough for. How
 * much longer does not matter, as one that nobody relies on can only hold up others; so it
 * ends here as soon as it may.
 */
inline lease_ends(r) {
	if
	:: lpc[r] == 0 && !sure[r] ->
		seen[row(r)] = 0;
#ifdef MUTATE_LEASE
		gone[row(r)] = false
#endif
	:: else -> skip
	fi
}

inline asks_again(r) { lpc[r] = 0; most[r] = 0; lease_ends(r) }

inline counts(r) {
	if
	:: shown[r] >= most[r] -> sure[r] = true; asks_again(r); printf("replica %d shows all that blob storage has, and may answer reads\n", r)
	:: else -> skip
	fi
}

#ifdef MUTATE_LEASE
#define LEASED(r) ((lpc[r] > 0 || sure[r]) && !gone[row(r)])
#else
#define LEASED(r) (lpc[r] > 0 || sure[r])
#endif
#endif

/* The process ends, whatever it was about; what it knew is gone. */
inline ends(r) {
	up[r] = DOWN; shown[r] = 0; pc[r] = 0; my[r] = 0; to[r] = 0; tail[r] = 0; at[r] = 0; listed[r] = 0;
	if
	:: lock == r -> lock = NOBODY
	:: else -> skip
	fi;
#ifdef LEASES
	lpc[r] = 0; most[r] = 0; sure[r] = false; lease_ends(r)
#endif
}

/* It found a fork, or a database that is behind: it stops and says `rebuild`. */
inline stops(r) { printf("replica %d stops: rebuild\n", r); ends(r); stuck = rebuilds < REBUILDS }

/* The sequencer goes back to where it takes records; nobody is told anything certain. */
inline gives_up(r) {
	printf("replica %d gives up entry %d\n", r, my[r]);
	pc[r] = 0; my[r] = 0; to[r] = 0; tail[r] = 0; at[r] = 0;
	if
	:: lock == r -> lock = NOBODY
	:: else -> skip
	fi
}

/* One more entry object is there; after the last one the checkpoint's turn comes. */
inline stored(r) {
	at[r]++;
	if
#ifdef MUTATE_ROW_FIRST
	:: at[r] == to[r] -> at[r] = 0; pc[r] = 4
#else
	:: at[r] == to[r] -> at[r] = 0; pc[r] = 3
#endif
	:: else -> skip
	fi
}

/* The publication is over; the follower shows it. */
inline told(r) { to[r] = 0; tail[r] = 0; pc[r] = (my[r] == 0 -> 0 : 6) }

/* x is the entry at index i of the past that ends with entry t. */
inline entry_of(t, i) {
	x = t;
	do
	:: place[x] > i -> x = parent[x]
	:: else -> break
	od
}

/* Blob storage's entries from pub on are those of the catalog that ends with t, of n entries; x != 0: not so. */
inline compare(n, t) {
	k = n; j = t; x = 0;
	do
	:: k > 0 ->
		k--;
		if
		:: ent[k] != 0 && ent[k] != j -> x = 1
		:: else -> skip
		fi;
		j = parent[j]
	:: else -> break
	od;
	k = 0; j = 0
}

/* The database's published row becomes the one before. */
inline unpublish() {
	once[pub] = false;
	do
	:: pub > 0 && !once[pub] -> pub--
	:: else -> break
	od;
	note = (pub == 0 -> 0 : cat[pub - 1])
}

/*
 * The database is another one: what it had granted since is not in its table. A session
 * that is younger than a lease acknowledges no act of authority, so until then the leases
 * are as good as there.
 */
inline other_database() {
	k = 0;
#ifdef LEASES
	do
	:: k < N ->
		seen[k] = 0;
#ifdef MUTATE_YOUNG_SESSION
		gone[k] = LEASED(k);
#endif
		k++
	:: else -> break
	od;
	k = 0
#endif
}

#ifdef MUTATE_NO_LOCK
#define FREE true
#else
#define FREE (lock == NOBODY)
#endif
#define last (head == 0 -> 0 : cat[head - 1])

/*
 * Replicas are alike: which of them is in which state does not matter, so that they are put
 * in order after each step (not in a replay, where each keeps its number).
 */
#ifdef ALIKE
hidden int ka, kb;
#ifdef LEASES
#define key_lease(r) ((((sure[r] * 4 + lpc[r]) * 4 + seen[r]) * 4 + most[r]))
#else
#define key_lease(r) 0
#endif
#define key(r) ((((((((((lock == (r)) * 4 + up[r]) * 4 + shown[r]) * 8 + pc[r]) * 8 + my[r]) * 4 + to[r]) * 8 + tail[r]) * 4 + at[r]) * 4 + listed[r]) * 128 + key_lease(r))

#define swap(field, r, q) x = field[r]; field[r] = field[q]; field[q] = x

inline order(r, q) {
	ka = key(r); kb = key(q);
	if
	:: ka > kb ->
		swap(up, r, q); swap(shown, r, q); swap(pc, r, q); swap(my, r, q); swap(to, r, q); swap(tail, r, q); swap(at, r, q); swap(listed, r, q);
#ifdef LEASES
		swap(sure, r, q); swap(lpc, r, q); swap(seen, r, q); swap(most, r, q);
#endif
#ifdef MUTATE_LEASE
		swap(gone, r, q);
#endif
		x = 0;
		if
		:: lock == r -> lock = q
		:: lock == q -> lock = r
		:: else -> skip
		fi
	:: else -> skip
	fi
}

inline alike() {
	d_step {
		order(0, 1);
#if N > 2
		order(1, 2);
		order(0, 1);
#endif
		ka = 0; kb = 0
	}
}
#else
inline alike() { skip }
#endif

active [N] proctype Replica() {
end:
	do :: atomic { if
	/* --- Start: blob storage is listed first, the catalog read afterwards. */
	:: d_step { up[me] == DOWN ->
		k = 0;
		do
		:: k < E && ent[k] != 0 -> k++
		:: else -> break
		od;
		listed[me] = k; k = 0; up[me] = LISTED;
		printf("replica %d starts; blob storage has %d entries\n", me, listed[me])
	}
	:: d_step { up[me] == LISTED ->
		x = 0;
#ifndef MUTATE_RESTORE_UNSEEN
		compare(head, last);
		if
		:: listed[me] > head -> x = 1
		:: else -> skip
		fi;
#endif
		if
		:: x != 0 -> x = 0; stops(me)
		:: else -> listed[me] = 0; up[me] = RUNS; reveal(me, pub, note)
		fi
	}

	/* --- A change: committed under the head's lock. */
	:: d_step { up[me] == RUNS && pc[me] == 0 && head < E && made < C ->
		made++;
		parent[made] = last; place[made] = head;
		cat[head] = made; head++;
		my[me] = made; pc[me] = 1;
		printf("replica %d commits entry %d at index %d\n", me, made, place[made])
	}
	/* What others committed, or a failure left, is published too. */
	:: d_step { up[me] == RUNS && pc[me] == 0 && head > pub -> pc[me] = 1 }

	/* --- Publication: the row's lock, and within its transaction what is to be published. */
	:: d_step { up[me] == RUNS && pc[me] == 1 && FREE ->
		if
#ifndef MUTATE_RESTORE_UNSEEN
		:: pub < shown[me] -> stops(me)
		:: pub >= shown[me] && head == pub -> pc[me] = (my[me] == 0 -> 0 : 6)
		:: pub >= shown[me] && head > pub ->
#else
		:: head <= pub -> pc[me] = (my[me] == 0 -> 0 : 6)
		:: head > pub ->
#endif
#ifdef MUTATE_NO_LOCK
			/* each for itself: only its own entry, whatever the others do */
			to[me] = (my[me] == 0 -> head : place[my[me]] + 1); tail[me] = cat[to[me] - 1];
			at[me] = to[me] - 1; pc[me] = 2
#else
			printf("replica %d publishes from %d to %d\n", me, pub, head);
			lock = me; to[me] = head; tail[me] = last; at[me] = pub; pc[me] = 2
#endif
		fi
	}
	/* Entry objects, in the order of their indices, each created only if absent. */
	:: d_step { up[me] == RUNS && pc[me] == 2 ->
#ifdef MUTATE_READ_OUTSIDE
		x = cat[at[me]];
#else
		entry_of(tail[me], at[me]);
#endif
		if
#ifndef MUTATE_OVERWRITE
		:: ent[at[me]] != 0 && ent[at[me]] != x -> x = 0; stops(me)
		:: ent[at[me]] == 0 || ent[at[me]] == x ->
#else
		:: true ->
#endif
#ifdef MUTATE_READ_OUTSIDE
			if
			:: x == 0 -> gives_up(me)
			:: else -> ent[at[me]] = x; x = 0; stored(me); sound()
			fi
#else
			ent[at[me]] = x;
			printf("replica %d stores entry object %d: entry %d\n", me, at[me], x);
			if
			:: at[me] > 0 -> assert(ent[at[me] - 1] == parent[x]) /* a rebuild takes it for what it was judged to be */
			:: else -> skip
			fi;
			x = 0; stored(me);
			sound()
#endif
		fi
	}
	/* The checkpoint object. */
	:: d_step { up[me] == RUNS && pc[me] == 3 ->
		x = tail[me];
#ifdef MUTATE_READ_OUTSIDE
		if
		:: to[me] <= head -> x = cat[to[me] - 1]
		:: else -> skip
		fi;
#endif
		if
		:: cp[to[me]] != 0 && cp[to[me]] != x -> x = 0; stops(me)
		:: else ->
			cp[to[me]] = x; x = 0; sound();
			printf("replica %d stores checkpoint %d\n", me, to[me]);
#ifdef MUTATE_ROW_FIRST
			told(me)
#else
			pc[me] = 4
#endif
		fi
	}
	/* The published row: only in the transaction that holds its lock still. */
	:: d_step { up[me] == RUNS && pc[me] == 4 ->
		if
#if !defined(MUTATE_NO_LOCK) && !defined(MUTATE_SET_UNLOCKED)
		:: lock != me -> gives_up(me)
		:: lock == me ->
#else
		:: true ->
#endif
			if
			:: lock == me -> lock = NOBODY
			:: else -> skip
			fi;
#ifdef MUTATE_NO_LOCK
			if
			:: to[me] > pub -> pub = to[me]; note = tail[me]; once[pub] = restores < RESTORES
			:: else -> skip
			fi;
#else
			assert(to[me] >= pub && to[me] <= head && cat[to[me] - 1] == tail[me]);
			pub = to[me]; note = tail[me]; once[pub] = restores < RESTORES;
			printf("replica %d sets the published row to %d\n", me, pub);
#endif
#ifdef MUTATE_ROW_FIRST
			pc[me] = 3
#else
			told(me)
#endif
		fi
	}
	/* --- The answer: our entry stands there, below what is published. One statement. */
	:: d_step { up[me] == RUNS && pc[me] == 6 ->
		if
#ifdef MUTATE_ACK_BY_SIZE
		:: pub > place[my[me]] -> pc[me] = 7
#else
		:: pub > place[my[me]] && cat[place[my[me]]] == my[me] -> pc[me] = 7
#endif
		:: else -> gives_up(me)
		fi
	}
	:: d_step { up[me] == RUNS && pc[me] == 7 && shown[me] > place[my[me]] ->
		x = 0;
#ifdef LEASES
		k = 0;
		do
		:: k < N ->
			if
#ifndef MUTATE_ACK_EARLY
			:: row(k) != row(me) && LEASED(k) && seen[row(k)] <= place[my[me]] -> x = 1
#endif
			:: else -> skip
			fi;
			k++
		:: else -> break
		od;
		k = 0;
#endif
		if
		:: x == 1 -> x = 0                  /* asked again later */
		:: else ->
			printf("replica %d acknowledges entry %d\n", me, my[me]);
			acked[my[me]] = true;
			my[me] = 0; pc[me] = 0;
			sound()
		fi
	}
	/* Who waits too long is told that nothing is certain. */
	:: d_step { up[me] == RUNS && pc[me] == 7 -> gives_up(me) }

	/* --- The follower: one statement, then verified over the replica's own catalog, then shown. */
	:: d_step { up[me] == RUNS && pub != shown[me] ->
		if
		:: pub > shown[me] -> reveal(me, pub, note)
#ifdef MUTATE_RESTORE_UNSEEN
		:: pub < shown[me] -> skip
#else
		:: pub < shown[me] -> stops(me)
#endif
		fi
	}

#ifdef LEASES
	/* --- The heartbeat: the lease is written, where nothing larger is published. Time counts
	   from the moment before. */
#ifdef MUTATE_ONE_TRANSACTION
	/* The row is read in the transaction that writes the lease, which others see once it has ended. */
	:: d_step { up[me] == RUNS && lpc[me] == 0 && pub <= shown[me] -> lpc[me] = 1; gone[me] = true; most[me] = shown[me] }
	:: d_step { up[me] == RUNS && lpc[me] == 1 -> seen[row(me)] = most[me]; sure[me] = true; gone[me] = false; asks_again(me) }
#else
	:: d_step { up[me] == RUNS && lpc[me] == 0 && pub <= shown[me] ->
		lpc[me] = 1; seen[row(me)] = shown[me];
#ifdef MUTATE_LEASE
		gone[row(me)] = false;
#endif
		printf("replica %d asks for a lease, having seen %d\n", me, shown[me])
	}
	/* Once that is committed the published row is read. A renewal in time counts at once, */
	:: d_step { up[me] == RUNS && lpc[me] == 1 ->
		if
		:: pub > shown[me] -> asks_again(me)
#ifdef MUTATE_NEW_LEASE_BLIND
		:: else -> sure[me] = true; asks_again(me); printf("replica %d may answer reads\n", me)
#else
		:: pub <= shown[me] && sure[me] -> asks_again(me)
		:: else -> lpc[me] = 2
#endif
		fi
	}
	/* a new one when the replica shows all that blob storage has a checkpoint of by then. */
	:: d_step { up[me] == RUNS && lpc[me] == 2 ->
		most[me] = E;
		do
		:: most[me] > 0 && cp[most[me]] == 0 -> most[me]--
		:: else -> break
		od;
		lpc[me] = 3;
		counts(me)
	}
	:: d_step { up[me] == RUNS && lpc[me] == 3 && shown[me] >= most[me] -> counts(me) }
	:: d_step { up[me] == RUNS && lpc[me] == 3 && head < most[me] -> stops(me) }
#endif
	/* Time passes: what a replica knows lasts for five seconds since before it asked. */
	:: d_step { sure[me] -> sure[me] = false; lease_ends(me); printf("replica %d may not answer reads any more\n", me) }
	:: d_step { lpc[me] != 0 && !sure[me] -> asks_again(me) }
#ifdef MUTATE_SHORT_LEASE
	:: d_step { LEASED(me) -> gone[me] = true; printf("the lease of replica %d ends\n", me) }
#endif
	/* --- A read that policy judges: who was removed is refused. */
	:: d_step { up[me] == RUNS && sure[me] ->
		j = 1;
		do
		:: j <= C -> assert(!acked[j] || place[j] < shown[me]); j++
		:: else -> break
		od;
		j = 0
	}
#endif

	/* --- kill -9, at any step. */
	:: d_step { up[me] != DOWN -> printf("replica %d is killed\n", me); ends(me) }
	fi; alike() } od
}

active proctype World() {
end:
	do :: atomic { if
	/* The database ends the session that holds the lock, while its holder does not know. */
	:: d_step { lock != NOBODY -> lock = NOBODY; printf("the database ends the publication's session\n") }

	/* The database is restored to an earlier point, or a standby that lacks the last commits
	   takes over: all sessions end, and leases are not what they were. */
	:: restores < RESTORES && head > 0 ->
		restores++; lock = NOBODY;
		do
		:: pub > 0 -> unpublish()
		:: head > pub -> head--; cat[head] = 0
		:: break
		od;
		other_database();
		do /* what will not be asked for any more is forgotten */
		:: k <= E -> once[k] = once[k] && restores < RESTORES; k++
		:: else -> break
		od;
		k = 0;
		printf("the database is restored to %d entries, %d of them published\n", head, pub)
	/* Somebody types `rebuild`, whoever may still be running. */
	:: d_step { stuck && rebuilds < REBUILDS ->
		rebuilds++; stuck = false; lock = NOBODY; printf("the database is rebuilt\n");
		do
		:: pub > 0 -> once[pub] = false; pub--
		:: else -> break
		od;
		head = 0; note = 0;
		do
		:: head < E ->
			cat[head] = ent[head];
			if
			:: ent[head] == 0 -> break
			:: else -> skip
			fi;
			assert(parent[ent[head]] == (head == 0 -> 0 : ent[head - 1]));
			head++;
			if
			:: cp[head] != 0 -> assert(cp[head] == ent[head - 1]); pub = head; note = cp[head]; once[pub] = restores < RESTORES
			:: else -> skip
			fi
		:: else -> break
		od;
		k = head;
		do
		:: k < E -> cat[k] = 0; k++
		:: else -> break
		od;
		k = 0;
		j = 1;
		do /* the state is the same for everything acknowledged */
		:: j <= C -> assert(!acked[j] || cat[place[j]] == j); j++
		:: else -> break
		od;
		j = 0;
#ifdef MUTATE_REBUILD_FORGETS
		do
		:: k < N -> seen[k] = 0; gone[k] = LEASED(k); k++
		:: else -> break
		od;
		k = 0
#endif
	}

	fi; alike() } od
}
