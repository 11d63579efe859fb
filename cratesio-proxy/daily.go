package cratesioproxy

import (
	"fmt"
	"sync"
	"time"
)

// daily counts bytes that stay for ever, within a day that begins with the first of them.
type daily struct {
	mu    sync.Mutex
	since time.Time
	taken int64
}

// errExcess is why an index file is not entered.
var errExcess = fmt.Errorf("%w: its index files change more than this registry enters within a day", ErrBusy)

// take counts n more, unless these would be more than most. One of them may be larger than that.
func (d *daily) take(now time.Time, n, most int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if age := now.Sub(d.since); age < 0 || age >= 24*time.Hour {
		d.since, d.taken = now, 0
	}
	if d.taken > 0 && d.taken+n > most {
		return false
	}
	d.taken += n
	return true
}
