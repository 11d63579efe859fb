package cratesioproxy

import "sync/atomic"

// counts are since the start.
type counts struct {
	requests, retries, joined                                 atomic.Int64
	fresh, unchanged, imported, stale, rested                 atomic.Int64
	ahead                                                     atomic.Int64
	held, crates, bytes, mismatches, unstored, passed, alarms atomic.Int64
	damaged                                                   atomic.Int64
}

// Figures are what an operator watches, for /metrics: counts since the start, but where
// they are said to be of this moment.
type Figures struct {
	// Requests were made of upstreams, Retries of them after another had failed. Joined are
	// askers who waited for what somebody else had asked for.
	Requests, Retries, Joined int64
	// Of index files: Fresh were served as they had been seen a moment ago, Unchanged
	// upstream said are what they were, Imported were new, Stale were served although
	// upstream did not tell, Rested were not asked for since that had just failed (crates, too).
	Fresh, Unchanged, Imported, Stale, Rested int64
	// Ahead were fetched before they were asked for.
	Ahead int64
	// Of crates: Held were served from blob storage, Crates received, which had Bytes;
	// Mismatches were not what the index names, Unstored could not be stored or noted, Passed
	// were not kept since they were evicted a short while ago.
	Held, Crates, Bytes, Mismatches, Unstored, Passed int64
	// Damaged are crates that were held, and found damaged on storage.
	Damaged int64
	Alarms  int64
	// Receiving are the crates under way and Spool the bytes that they take, at this moment.
	Receiving, Spool int64
	// Dead are the names of upstreams that are taken for dead at this moment.
	Dead []string
}

// Figures returns those of this moment.
func (p *Proxy) Figures() Figures {
	c := &p.counts
	f := Figures{
		Requests: c.requests.Load(), Retries: c.retries.Load(), Joined: c.joined.Load(),
		Fresh: c.fresh.Load(), Unchanged: c.unchanged.Load(), Imported: c.imported.Load(), Stale: c.stale.Load(), Rested: c.rested.Load(),
		Ahead: c.ahead.Load(),
		Held:  c.held.Load(), Crates: c.crates.Load(), Bytes: c.bytes.Load(), Mismatches: c.mismatches.Load(), Unstored: c.unstored.Load(), Passed: c.passed.Load(),
		Alarms: c.alarms.Load(), Damaged: c.damaged.Load(),
	}
	for _, u := range p.upstreams {
		f.Spool += u.spool.used()
		if u.index.isDead() || u.files.isDead() {
			f.Dead = append(f.Dead, u.setting.Name)
		}
		u.downloads.mu.Lock()
		f.Receiving += int64(len(u.downloads.all))
		u.downloads.mu.Unlock()
	}
	return f
}
