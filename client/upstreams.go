package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// Upstream is another registry that this one takes crates from.
type Upstream struct {
	Name string `json:"name"`
	// Source is how rules and decisions call what comes from it.
	Source string `json:"source"`
	// Upstream is its own index, IndexURL the one that cargo is given for it.
	Upstream string `json:"upstream"`
	IndexURL string `json:"index_url"`
	// Down: it did not answer a moment ago.
	Down bool `json:"down"`
	// Trouble is why it last gave nothing, and TroubleAt when; "" and nil where it has given
	// something since.
	Trouble   string     `json:"trouble"`
	TroubleAt *time.Time `json:"trouble_at"`
}

// Upstreams returns the other registries that this one takes crates from; offline says
// that none of them is ever asked.
func (r *Registry) Upstreams(ctx context.Context) (all []Upstream, offline bool, err error) {
	var answer struct {
		Offline   bool       `json:"offline"`
		Upstreams []Upstream `json:"upstreams"`
	}
	err = r.Bare().readJSON(ctx, "/v1/upstreams", maxAnswer, &answer)
	return answer.Upstreams, answer.Offline, err
}

// Prefetched is a version to be fetched; "" as checksum is any.
type Prefetched struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Checksum string `json:"checksum"`
}

// Outcomes of a Prefetched.
const (
	PrefetchHeld    = "held" // it was
	PrefetchFetched = "fetched"
	PrefetchDenied  = "denied"
	PrefetchAbsent  = "absent"
	PrefetchFailed  = "failed"
)

// PrefetchOutcome is what became of one.
type PrefetchOutcome struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Outcome string `json:"outcome"`
	// Bytes is its size, where it is held now.
	Bytes int64 `json:"bytes"`
	// Detail is why it is not held.
	Detail string `json:"detail"`
	// Checksum is as it was asked for, "" for any.
	Checksum string `json:"checksum"`
}

// PrefetchList is what to fetch of one upstream.
type PrefetchList struct {
	Upstream string
	// Pin is under which name they are kept from being evicted, "" for not at all.
	Pin    string
	Crates []Prefetched
	// Whole are crates of which all versions are fetched.
	Whole []string
	// Alive, unless nil, is called every few seconds while nothing comes, with how many
	// outcomes there are to be.
	Alive func(of int)

	began   *time.Time   // of the first answer
	lacking []Prefetched // what is asked for later, of the first part; nil for the others
}

const (
	// prefetchChunk is how much of a list is sent at once: a session has to last for it.
	prefetchChunk = 1000
	// mostLacking is of how many more crates of a list it is said ahead that they are to come.
	mostLacking = 10_000
	// prefetchRounds is how often what failed is tried.
	prefetchRounds = 3
	// prefetchSilence is how long the registry may say nothing: it gives a sign of life every few seconds.
	prefetchSilence = time.Minute
	maxPrefetchLine = 64 << 10
	prefetchLife    = 30 * time.Minute
)

// Prefetch has the registry fetch what l names, as far as we may have it, and tells each of
// every outcome as it comes, and of how many there are to be, as far as that is known. What is
// cut goes on where it was; what failed for a reason that may pass is tried again. began is
// when the registry began: what l.Pin kept before may be let go then (Unpin).
func (r *Registry) Prefetch(ctx context.Context, l PrefetchList, each func(o PrefetchOutcome, of int)) (began time.Time, err error) {
	if r.identity == nil {
		return began, r.nobody()
	}
	l.began = &began
	told := map[[3]string]bool{}
	of := len(l.Crates)
	lacking := []Prefetched{}
	for _, name := range l.Whole {
		lacking = append(lacking, Prefetched{Name: name})
	}
	lacking = append(lacking, l.Crates...)
	for _, name := range l.Whole { // one by one: how many versions each has is not known
		failed, err := r.prefetchAll(ctx, PrefetchList{Upstream: l.Upstream, Pin: l.Pin, Whole: []string{name}, began: l.began, lacking: lacking}, told, func(o PrefetchOutcome, all int) { each(o, of+all) })
		if err != nil {
			return began, err
		}
		lacking = nil
		for _, o := range failed {
			each(o, of)
		}
	}
	alive := func(int) { // a part of the list knows of itself alone
		if l.Alive != nil {
			l.Alive(of)
		}
	}
	for len(l.Crates) > 0 {
		n := min(len(l.Crates), prefetchChunk)
		if lacking != nil {
			lacking = lacking[n:]
		}
		part := PrefetchList{Upstream: l.Upstream, Pin: l.Pin, Crates: l.Crates[:n], Alive: alive, began: l.began, lacking: lacking}
		failed, err := r.prefetchAll(ctx, part, told, func(o PrefetchOutcome, _ int) { each(o, of) })
		if err != nil {
			return began, err
		}
		lacking = nil
		for _, o := range failed {
			each(o, of)
		}
		l.Crates = l.Crates[n:]
	}
	return began, nil
}

// prefetchAll does a part of a list in several rounds, and returns what failed in the last one.
func (r *Registry) prefetchAll(ctx context.Context, l PrefetchList, told map[[3]string]bool, each func(o PrefetchOutcome, of int)) ([]PrefetchOutcome, error) {
	for round := 1; ; round++ {
		var failed []PrefetchOutcome
		err := r.prefetchOnce(ctx, l, func(o PrefetchOutcome, of int) {
			switch key := [3]string{o.Name, o.Version, o.Checksum}; {
			case o.Outcome == PrefetchFailed:
				failed = append(failed, o)
			case !told[key]:
				told[key] = true
				each(o, of)
			}
		})
		var refused *APIError
		final := err == nil && len(failed) == 0 || ctx.Err() != nil || round == prefetchRounds
		if errors.As(err, &refused) && refused.Status == http.StatusBadRequest && l.tellsLacking() != nil {
			l.lacking = nil // a registry of the release before does not know what is lacking
			continue
		}
		if errors.As(err, &refused) && refused.Status < http.StatusInternalServerError && refused.Status != http.StatusUnauthorized && refused.Status != http.StatusTooManyRequests {
			final = true
		}
		if final {
			return failed, err
		}
		if err := r.web.sleep(ctx, time.Duration(round)*time.Second); err != nil {
			return nil, err
		}
	}
}

// errSilent: the registry says nothing any more.
var errSilent = fmt.Errorf("%w: it has stopped answering in the middle of a list", ErrUnreachable)

func (r *Registry) prefetchOnce(ctx context.Context, l PrefetchList, each func(o PrefetchOutcome, of int)) error {
	scope := particle.ScopeRead
	if l.Pin != "" {
		scope += " " + particle.ScopePublish
	}
	session, err := r.NewSession(ctx, scope, prefetchLife)
	if err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		Lock   string       `json:"lock"`
		Crates []Prefetched `json:"crates"`
		Whole  []string     `json:"all_versions_of"`
		// Lacking is left out where it was said before, and by whom nothing is kept: servers
		// that do not know it take such a list too.
		Lacking *[]Prefetched `json:"lacking,omitzero"`
	}{l.Pin, append([]Prefetched{}, l.Crates...), append([]string{}, l.Whole...), l.tellsLacking()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(prefetchSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	var resp *http.Response
	err = r.web.untilReady(ctx, func() (err error) {
		silence.Reset(prefetchSilence)
		resp, err = r.web.sendOnce(ctx, call{ //nolint:bodyclose // below
			method: http.MethodPost, path: "/v1/upstreams/" + url.PathEscape(l.Upstream) + "/prefetch", token: session.Token, contentType: "application/json", body: body,
		})
		return err
	})
	if err != nil {
		return causeOf(ctx, err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), maxPrefetchLine)
	of := len(l.Crates)
	for lines.Scan() {
		silence.Reset(prefetchSilence)
		var line struct {
			PrefetchOutcome
			Counts *struct {
				Done  bool      `json:"done"`
				Error string    `json:"error"`
				Of    int       `json:"of"`
				Began time.Time `json:"began"`
			} `json:"counts"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("%w: a line of the answer to a list: %w", ErrAnswer, err)
		}
		if c := line.Counts; c != nil && l.began != nil && l.began.IsZero() {
			*l.began = c.Began
		}
		switch c := line.Counts; {
		case c == nil:
			each(line.printable(), of)
		case c.Done && c.Error != "":
			return &APIError{Status: http.StatusServiceUnavailable, Detail: printable(c.Error)}
		case c.Done:
			return nil
		default:
			if of = max(of, c.Of); l.Alive != nil {
				l.Alive(of)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return causeOf(ctx, fmt.Errorf("%w at %s: %w", ErrUnreachable, r.pin.URL, err))
	}
	return fmt.Errorf("%w at %s: it ended in the middle of a list", ErrUnreachable, r.pin.URL)
}

// tellsLacking is what is said of the rest of a list that is kept: what it names by its bytes, and of
// which crates all versions, as the registry notes nothing else of that, and of a list that is very
// long the next of it.
func (l PrefetchList) tellsLacking() *[]Prefetched {
	if l.Pin == "" || l.lacking == nil {
		return nil
	}
	rest := []Prefetched{}
	for _, c := range l.lacking {
		if (c.Checksum != "" || c.Version == "") && len(rest) < mostLacking {
			rest = append(rest, c)
		}
	}
	return &rest
}

// causeOf is err, or why ctx ended where we ended it.
func causeOf(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

func (o PrefetchOutcome) printable() PrefetchOutcome {
	return PrefetchOutcome{printable(o.Name), printable(o.Version), printable(o.Outcome), o.Bytes, printable(o.Detail), printable(o.Checksum)}
}

// Lock is a name under which crates are kept from being evicted.
type Lock struct {
	Lock string `json:"lock"`
	// DID is whoever pinned last, Since when.
	DID   string        `json:"did"`
	Since particle.Time `json:"since"`
	// Pins is how many crates it keeps, Held and Bytes how many of them are held.
	Pins  int64 `json:"pins"`
	Held  int64 `json:"held"`
	Bytes int64 `json:"bytes"`
	// Lacking is how many others it names, that were not to be had.
	Lacking int64 `json:"lacking"`
	// Denied is how many of those held would not be served to us now.
	Denied int64 `json:"denied"`
}

// Lack is a crate that a lock names and does not keep.
type Lack struct {
	Upstream string `json:"upstream"`
	Name     string `json:"name"`
	// Version is "" where all versions lack.
	Version string `json:"version"`
	// Why is an outcome, "" where it was not asked for yet; of what is held and denied now, the rule.
	Why string `json:"why"`
}

// Lacks lists what a lock lacks, and what it keeps and would not be served to us now, the first
// of it, as far as we may know.
func (r *Registry) Lacks(ctx context.Context, lock string) (lacking, denied []Lack, err error) {
	var answer struct {
		Lacking []Lack `json:"lacking"`
		Denied  []Lack `json:"denied"`
	}
	err = r.Bare().readJSON(ctx, "/v1/locks/"+escapePath(lock), maxAnswer, &answer)
	return answer.Lacking, answer.Denied, err
}

// Locks lists all locks, by name.
func (r *Registry) Locks(ctx context.Context) (all []Lock, err error) {
	for after := ""; ; {
		var page struct {
			Locks []Lock `json:"locks"`
			Next  string `json:"next"`
		}
		if err := r.Bare().readJSON(ctx, "/v1/locks?limit=1000&after="+url.QueryEscape(after), maxAnswer, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Locks...)
		switch {
		case page.Next == "":
			return all, nil
		case page.Next <= after:
			return nil, fmt.Errorf("%w: its locks go round in a circle", ErrAnswer)
		}
		after = page.Next
	}
}

// Unpin lets go what a lock pinned last before before (zero: all of it), and says how many
// crates that were. It takes a publisher or an admin.
func (r *Registry) Unpin(ctx context.Context, lock string, before time.Time) (unpinned int64, err error) {
	session, err := r.Bare().NewSession(ctx, particle.ScopePublish, changeLifetime)
	if err != nil {
		return 0, err
	}
	path := "/v1/locks/" + escapePath(lock)
	if !before.IsZero() {
		path += "?before=" + url.QueryEscape(before.UTC().Truncate(time.Second).Format(time.RFC3339))
	}
	var done struct {
		Unpinned int64 `json:"unpinned"`
	}
	err = r.web.json(ctx, call{method: http.MethodDelete, path: path, token: session.Token}, maxAnswer, &done)
	return done.Unpinned, err
}
