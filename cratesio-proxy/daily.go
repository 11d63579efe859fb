package cratesioproxy

import (
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
}

// versionBytes is about what an import writes of each version that is known of its crate, listed
// or not, besides the snapshot.
const versionBytes = 400

// enters counts what is about to be entered of a crate, and is false where that is too much.
func (u *Upstream) enters(known Known, snapshot, versions int) bool {
	n := int64(snapshot) + versionBytes*int64(max(known.Versions, versions))
	return u.entered.take(u.proxy.Clock(), day, n, u.proxy.DayBytes)
}

// errExcess is why an index file is not entered.
var errExcess = fmt.Errorf("%w: its index files change more than this registry enters within a day", ErrBusy)

// take counts n more, unless these would be more than most within span. One of them may be larger
// than that.
func (t *tally) take(now time.Time, span time.Duration, n, most int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if age := now.Sub(t.since); age < 0 || age >= span {
		t.since, t.taken = now, 0
	}
	if t.taken > 0 && t.taken+n > most {
		return false
	}
	t.taken += n
	return true
}
