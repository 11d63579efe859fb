package cratesioproxy

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Upstream is one registry that this one takes crates from.
type Upstream struct {
	proxy     *Proxy
	setting   Setting
	transport *http.Transport
	client    *http.Client
	index     *circuit // of the index's host
	files     *circuit // of the host that has the crates
	settings  settings // its config.json
	flights   flights
	entries   *recent[string, entry] // by names in lower case, as are the next two
	resting   *recent[string, rest]
	waves     *recent[string, wave]
	downloads downloads
	proven    *recent[storage.CID, struct{}] // blobs that are noted as upstreams'
	slow      atomic.Int64                   // until when, as time.Duration of Elapsed, nobody waits for news of what is known
	bulk      chan struct{}                  // holds a place for every crate being received
	trouble   atomic.Pointer[Trouble]        // the last one
}

// Trouble is why an upstream did not give what it was asked for.
type Trouble struct {
	At time.Time
	// What says it in a few words: no secret, URL or name of a crate is in them.
	What string
}

// LastTrouble is what last kept the upstream from answering, false where nothing did since
// the start. That it has not got something is none.
func (u *Upstream) LastTrouble() (Trouble, bool) {
	t := u.trouble.Load()
	if t == nil {
		return Trouble{}, false
	}
	return *t, true
}

func (u *Upstream) troubled(err error) {
	if err != nil && !errors.Is(err, ErrNotFound) {
		u.trouble.Store(&Trouble{u.proxy.Clock().UTC(), words(err)})
	}
}

func newUpstream(p *Proxy, s Setting) (*Upstream, error) {
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
	u.client = newClient(transport)
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
	return u.refresh(ctx, name, u.proxy.Ahead)
}
