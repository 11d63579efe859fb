package cratesioproxy

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

// Upstream is one registry that this one takes crates from.
type Upstream struct {
	proxy     *Proxy
	setting   Setting
	transport *http.Transport
	client    *http.Client
	alone     *http.Client           // of which each request has its own connection
	index     *circuit               // of the index's host
	files     *circuit               // of the host that has the crates
	settings  settings               // its config.json
	flights   flights                // of index files
	configs   flights                // of its config.json
	entries   *recent[string, entry] // by names in lower case, as are the next two
	resting   *recent[string, rest]
	waves     *recent[string, wave]
	downloads downloads
	proven    *recent[storage.CID, struct{}] // blobs that are noted as upstreams'
	slow      atomic.Int64                   // until when, as time.Duration of Elapsed, nobody waits for news of what is known
	bulk      chan struct{}                  // holds a place for every crate being received
	spool     *budget                        // of bytes of those
	short     atomic.Int64                   // who wait for either
	large     chan struct{}                  // holds a place for every large index file in memory
	ahead     chan struct{}                  // holds a place for every name being fetched ahead
	waiting   atomic.Int64                   // names that are to be fetched ahead
	patience  time.Duration                  // that an asker waits for its answer
	asked     tally                          // names fetched ahead within a minute
	entered   tally                          // bytes of index files within a day
	trouble   atomic.Pointer[Trouble]        // the last one
	alarmed   *recent[string, time.Time]     // alarms that were raised, so that one that goes on is not raised again and again
}

// noToken says without the file's place, which is not for everybody, what is wrong with it.
const noToken = "its token_file cannot be used now (missing, unreadable, or not one line of text)"

// Trouble is why an upstream did not give what it was asked for.
type Trouble struct {
	At time.Time
	// What says it in a few words: no secret, URL or name of a crate is in them.
	What string
	// Over: upstream has given something since.
	Over bool
}

// LastTrouble is what last kept the upstream from answering, false where nothing did since
// the start. That it has not got something is none. A token_file that cannot be used is one
// at this moment, whether anybody has asked for anything yet or not.
func (u *Upstream) LastTrouble() (Trouble, bool) {
	if _, err := u.setting.token(); err != nil && !u.proxy.Offline {
		return Trouble{At: u.proxy.Clock().UTC(), What: noToken}, true
	}
	t := u.trouble.Load()
	if t == nil {
		return Trouble{}, false
	}
	return *t, true
}

// troubled takes in how a question went.
func (u *Upstream) troubled(err error) {
	switch last := u.trouble.Load(); {
	case err == nil && last != nil && !last.Over:
		u.trouble.CompareAndSwap(last, &Trouble{last.At, last.What, true})
	case err != nil && !errors.Is(err, ErrNotFound):
		u.trouble.Store(&Trouble{At: u.proxy.Clock().UTC(), What: words(err)})
	}
}

// newUpstream makes one of that many, which share what is bounded.
func newUpstream(p *Proxy, s Setting, of int) (*Upstream, error) {
	transport, err := newTransport(s)
	if err != nil {
		return nil, err
	}
	if _, err := s.token(); err != nil {
		return nil, err
	}
	u := &Upstream{
		proxy: p, setting: s, transport: transport,
		index: newCircuit(p.Elapsed), files: newCircuit(p.Elapsed),
		entries: newRecent[string, entry](mostEntries), resting: newRecent[string, rest](mostResting),
		waves: newRecent[string, wave](mostEntries), proven: newRecent[storage.CID, struct{}](mostProven), bulk: make(chan struct{}, mostBulk),
	}
	u.client, u.alone, u.patience = newClient(transport), newClient(aloneOf(transport)), answerTime
	u.spool = newBudget(max(p.SpoolBytes/int64(of), p.CrateBytes))
	u.alarmed = newRecent[string, time.Time](mostAlarmed)
	u.large, u.ahead = make(chan struct{}, mostLarge), make(chan struct{}, mostAhead)
	u.flights.places = make(chan struct{}, mostFlights)
	u.downloads.all = map[storage.CID]*download{}
	u.downloads.failed = newRecent[storage.CID, rest](mostFailed)
	return u, nil
}

// Setting says where it is.
func (u *Upstream) Setting() Setting { return u.setting }

// Name is the name it has here.
func (u *Upstream) Name() string { return u.setting.Name }

// Source is how policy and records call what comes from it.
func (u *Upstream) Source() string { return u.setting.Source() }

// Want is a crate as it was asked for: a version that upstream's index has, as the
// registry knows it, and the digest that stands there.
type Want struct {
	Name, Version string // as upstream spells them
	ID            storage.CID
}

// Refresh sees to it that what the registry knows of a crate, by its name in lower
// case, is what upstream says now, and returns when it may be served: at once where
// that was asked a moment ago, and after a while at most where upstream is slow and
// something is known. It returns ErrNotFound where there is nothing to serve, which
// includes names that are never asked of an upstream, and ErrUnavailable, ErrRefused
// or ErrBroken where nothing is known and upstream did not tell.
func (u *Upstream) Refresh(ctx context.Context, name string) error {
	return u.refresh(ctx, name, u.newCascade(ctx))
}

// Renew is Refresh for who misses something in what is known: upstream is asked anew, unless
// it was a few seconds ago.
func (u *Upstream) Renew(ctx context.Context, name string) error {
	return u.refreshOlder(ctx, name, u.newCascade(ctx), min(renewRest, u.proxy.Fresh))
}

// public is errPrivate where a name became a private one while its turn, or upstream, was waited for.
func (u *Upstream) public(name string) error {
	if u.proxy.Evidence.PrivateName(cargo.CanonicalName(name)) {
		return u.say(errPrivate)
	}
	return nil
}
