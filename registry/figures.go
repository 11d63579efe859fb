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
}

// Figures returns those of this moment.
func (r *Registry) Figures() Figures {
	p := r.published.Load()
	f := Figures{
		Published: p.Size, Committed: max(r.committed.Load(), p.Size), Cosigned: p.cosigned, Queue: len(r.queue), QueueLimit: cap(r.queue),
		State: r.cache.stats(), Artifacts: r.artifacts.stats(), Sessions: r.verified.stats(), Grants: r.grants.stats(),
		Audit: r.trail.figures(),
	}
	if since := r.batchSince.Load(); since != 0 {
		f.Batch = time.Since(time.Unix(0, since))
	}
	return f
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

// tell tells Config.Batch of a batch.
func (r *Registry) tell(batch []*submission, took time.Duration, err error) {
	if r.Batch == nil {
		return
	}
	told := Batch{Records: len(batch), Took: took, Err: err}
	for _, s := range batch {
		if err == nil && s.refusal != nil {
			told.Refused = append(told.Refused, s.refusal)
		}
	}
	r.Batch(told)
}
