package client

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// A registry may be several servers behind one URL, each of which shows what was
// published within about a second of the others. So what one has shown the next may not
// know yet, and one that cannot vouch for what it knows says so (503) while another can.
// Both pass by waiting: an older state of the log that is proved to be one, a tile that
// is not there yet and a server that says when to come back are asked for again, within
// the bounds below. What contradicts what was seen is never asked for twice.
const (
	// lagBound is how long an answer may be behind what was seen before, in all that
	// is asked for one checkpoint; lagPause is between two questions.
	lagBound = 3 * time.Second
	lagPause = 200 * time.Millisecond
	// busyBound is how long a registry is waited for that cannot answer now.
	busyBound = 10 * time.Second
)

// sleep waits for d, or until ctx ends: ctx's error then.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patience is what is left of lagBound. Safe for concurrent use.
type patience struct {
	sleep func(context.Context, time.Duration) error

	mu   sync.Mutex
	left time.Duration
}

func (w web) patience() *patience { return &patience{sleep: w.sleep, left: lagBound} }

// pause waits a moment; false: it did not, and there is no use in asking again.
func (p *patience) pause(ctx context.Context) bool {
	p.mu.Lock()
	spent := p.left < lagPause
	if !spent {
		p.left -= lagPause
	}
	p.mu.Unlock()
	return !spent && p.sleep(ctx, lagPause) == nil
}

// covered fetches tiles that a checkpoint covers: a server that does not have one
// is behind who showed that checkpoint, or hides it.
func (w web) covered(p *patience) func(context.Context, string) ([]byte, error) {
	return func(ctx context.Context, path string) ([]byte, error) {
		for {
			data, err := w.tile(ctx, path)
			if statusOf(err) != http.StatusNotFound || !p.pause(ctx) {
				return data, err
			}
		}
	}
}

// lags reports whether err is of an older state of the log than was seen, that is
// proved to be one.
func lags(err error) bool {
	var refused *Unproved
	if !errors.As(err, &refused) {
		return false
	}
	check, _ := refused.Verdict.Failure()
	return check.Name == verify.CheckStale
}

// untilReady does once, and again as long as the registry answers that it cannot now,
// and says when to come back, within busyBound. do may be done several times.
func (w web) untilReady(ctx context.Context, do func() error) error {
	for left := busyBound; ; {
		err := do()
		var refused *APIError
		if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || refused.RetryAfter <= 0 || refused.RetryAfter > left {
			return err
		}
		left -= refused.RetryAfter
		if w.sleep(ctx, refused.RetryAfter) != nil {
			return err
		}
	}
}

// enteredBefore finds a record that was sent and is refused as if somebody else had
// changed the thing: an answer that nothing was certain may have been about a record
// that went in. It proves nothing that the answer to a submission would not.
func (r *Registry) enteredBefore(ctx context.Context, rec *record.Record, refusal error) (Submitted, bool) {
	if statusOf(refusal) != http.StatusConflict {
		return Submitted{}, false
	}
	_, index, err := r.Record(ctx, string(rec.ID()))
	return Submitted{Record: rec.ID(), Index: index}, err == nil
}

// overtaken returns the heads as they are after a record of our own that the ones
// given do not know: the server that told them was behind. ok is false where the thing
// was changed by somebody else, or nothing newer is told within lagBound.
func (r *Registry) overtaken(ctx context.Context, s record.Subject, before Heads) (now Heads, ok bool) {
	for p := r.web.patience(); ; {
		now, err := r.Heads(ctx, s)
		if err != nil {
			return Heads{}, false
		}
		if now.Prev != before.Prev {
			rec, _, err := r.Record(ctx, string(now.Prev))
			return now, err == nil && rec.Header().Prev == before.Prev && rec.Header().Signer.DID == r.identity.DID()
		}
		if !p.pause(ctx) {
			return Heads{}, false
		}
	}
}
