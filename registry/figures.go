package registry

import "time"

// Figures are what an operator watches, for /metrics: levels of this moment and
// counts since the start.
type Figures struct {
	// Published is the number of entries that are visible, Committed how many are in
	// the catalog; the second is larger while a batch is being published, or cannot be.
	Published, Committed int64
	// Cosigned is when the visible checkpoint's cosignature was made.
	Cosigned time.Time
	// Queue is how many changes wait for the sequencer, of at most QueueLimit.
	Queue, QueueLimit int
	// Batch is how long the batch under way has taken, zero where there is none.
	Batch time.Duration
	// State is the cache of the published state and of index files, Artifacts that of
	// artifacts' bytes, Sessions that of verified signatures, Grants that of EnvGrants
	// made ready.
	State, Artifacts, Sessions, Grants Stats
	// Audit is the audit trail's.
	Audit AuditFigures
	// Replica is all zero where this server has its catalog for itself.
	Replica ReplicaFigures
}

// ReplicaFigures are those of a server among several on one catalog. Times are negative
// for what has not happened yet.
type ReplicaFigures struct {
	// Confirmed is how long ago it last asked, with success, for a confirmation that it
	// shows all there is: without one for 5 seconds it refuses what is judged. Looked is
	// how long ago the database last said what is published.
	Confirmed, Looked time.Duration
	// Behind is how many entries it knows to be published and does not show yet.
	Behind int64
}

// Figures returns those of this moment.
func (r *Registry) Figures() Figures {
	p := r.published.Load()
	f := Figures{
		Published: p.Size, Committed: max(r.committed.Load(), p.Size), Cosigned: p.cosigned, Queue: len(r.queue), QueueLimit: cap(r.queue),
		State: r.cache.stats(), Artifacts: r.artifacts.stats(), Sessions: r.verified.stats(), Grants: r.grants.stats(),
		Audit: r.trail.figures(),
	}
	if since := r.batchBegun(); !since.IsZero() {
		f.Batch = time.Since(since)
	}
	if r.lease != nil {
		f.Replica = r.replicaFigures()
	}
	return f
}

// replicaFigures are those of a server that shares its catalog.
func (r *Registry) replicaFigures() ReplicaFigures {
	f := ReplicaFigures{Confirmed: r.since(r.lease.confirmed.Load()), Looked: r.since(r.follower.looked.Load())}
	f.Behind = max(r.follower.known.Load()-r.Size(), 0)
	return f
}

// since is how long ago m was, negative where it never was.
func (r *Registry) since(m *moment) time.Duration {
	if m == nil {
		return -1
	}
	return r.Elapsed() - m.elapsed
}

// batchBegun is when the oldest batch under way was begun, zero where there is none.
func (r *Registry) batchBegun() time.Time {
	since := r.publishingSince.Load()
	if since == 0 {
		since = r.enteringSince.Load()
	}
	if since == 0 {
		return time.Time{}
	}
	return time.Unix(0, since)
}

// Batch is what became of changes that were judged and entered together.
type Batch struct {
	// Records is how many there were, Took how long until they were visible.
	Records int
	Took    time.Duration
	// Refused are the reasons of those that were judged and not entered.
	Refused []error
	// Err is why nothing of it became visible, nil where it did.
	Err error
}

// tell tells Config.Batch of a batch, which failed with err, nil for not.
func (r *Registry) tell(b batch, err error) {
	if r.Batch == nil {
		return
	}
	told := Batch{Records: len(b.submissions), Took: time.Since(b.begun), Err: err}
	for _, s := range b.submissions {
		if err == nil && s.refusal != nil {
			told.Refused = append(told.Refused, s.refusal)
		}
	}
	r.Batch(told)
}
