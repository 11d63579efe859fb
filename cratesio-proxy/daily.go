package cratesioproxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const day = 24 * time.Hour

// tally counts what comes within a span of time that begins with the first of it.
type tally struct {
	mu    sync.Mutex
	since time.Time
	taken int64
	// shares are what those have of it who have a share.
	shares *recent[sharer, int64]
}

// mostShares is how many sharers are known at a time. One is forgotten only when so many others
// have entered something since.
const mostShares = 20_000

// sharer is a crate, or who asks for crates.
type sharer struct{ crate, asker string }

// versionBytes is about what an import writes of each version that is known of its crate, listed
// or not, besides the snapshot.
const versionBytes = 400

// claimBytes is the same of each other digest that was said of one.
const claimBytes = 200

// Why an index file is not entered. All of them are errExcess.
var (
	errExcess     = fmt.Errorf("%w: its index files change more than this registry enters within a day", ErrBusy)
	errCrateShare = fmt.Errorf("%w: one crate has half of what is left at most", errExcess)
	errAskerShare = fmt.Errorf("%w: who asks has half of what is left at most", errExcess)
)

// askerKey is of the context of a question.
type askerKey struct{}

// AskedBy is ctx of a question that is asked for asker, whatever tells one from another. It is used
// for giving each a fair share alone, and leaves this process by no way.
func AskedBy(ctx context.Context, asker string) context.Context {
	return context.WithValue(ctx, askerKey{}, asker)
}

func askerOf(ctx context.Context) string {
	asker, _ := ctx.Value(askerKey{}).(string)
	return asker
}

// enters counts what is about to be entered of a crate, which asker is told first, "" for nobody in
// particular. It is an error, and nothing counted, where that is too much.
func (u *Upstream) enters(name, asker string, known Known, snapshot, versions int) error {
	n := int64(snapshot) + versionBytes*int64(max(known.Versions, versions)) + claimBytes*int64(known.Claims)
	sharers := []sharer{{crate: name}}
	if asker != "" {
		sharers = append(sharers, sharer{asker: asker})
	}
	now, most := u.proxy.Clock(), u.proxy.DayBytes
	switch short, ok := u.entered.share(now, day, n, most, sharers); {
	case ok:
		return nil
	case short.crate != "":
		return u.say(errCrateShare)
	case short.asker != "":
		return u.say(&askerShare{asker})
	}
	return u.say(errExcess)
}

// askerShare is errAskerShare of one asker: another may have the same at once.
type askerShare struct{ asker string }

func (e *askerShare) Error() string { return errAskerShare.Error() }
func (e *askerShare) Unwrap() error { return errAskerShare }

// ofAnother reports whether err is about the share of another asker.
func ofAnother(err error, asker string) bool {
	var share *askerShare
	return errors.As(err, &share) && share.asker != asker
}

// take counts n more, unless these would be more than most within span. One of them may be larger
// than that.
func (t *tally) take(now time.Time, span time.Duration, n, most int64) bool {
	_, ok := t.share(now, span, n, most, nil)
	return ok
}

// share is take for sharers, none of whom gets more than half of what is left to them: so nobody
// takes all of it, and there is something left for who comes next. It returns whose share does not
// suffice, the zero one where there is not so much left for anybody.
func (t *tally) share(now time.Time, span time.Duration, n, most int64, sharers []sharer) (sharer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if age := now.Sub(t.since); age < 0 || age >= span {
		t.since, t.taken, t.shares = now, 0, newRecent[sharer, int64](mostShares)
	}
	left := most - t.taken
	if t.taken > 0 {
		if n > left {
			return sharer{}, false
		}
		for _, s := range sharers {
			if has, _ := t.shares.get(s); 2*(has+n) > left+has {
				return s, false
			}
		}
	}
	t.taken += n
	for _, s := range sharers {
		has, _ := t.shares.get(s)
		t.shares.put(s, has+n)
	}
	return sharer{}, true
}
