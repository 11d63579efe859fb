package cratesioproxy

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// Errors that callers branch on. What is wrapped around them says which upstream,
// and what it answered; never a secret.
var (
	// ErrSetting: the setting of an upstream is refused.
	ErrSetting = errors.New("bad setting of an upstream")
	// ErrNotFound: upstream has no such thing, or is never asked for it.
	ErrNotFound = errors.New("not found upstream")
	// errPrivate: the name has become one that no upstream is asked for.
	errPrivate = fmt.Errorf("%w: it is not asked for this name", ErrNotFound)
	// ErrUnavailable: upstream cannot be reached, does not answer in time, or says that it
	// is troubled; trying again later is right (RetryAfter).
	ErrUnavailable = errors.New("upstream is unavailable")
	// ErrRefused: upstream does not let this registry have it.
	ErrRefused = errors.New("upstream refuses")
	// ErrBroken: what upstream answered cannot be used.
	ErrBroken = errors.New("upstream's answer cannot be used")
	// errNoIndex: nothing is where the setting says that the index is.
	errNoIndex = fmt.Errorf("%w: there is no index at its URL, since config.json is not there either; is the URL right?", ErrBroken)
	// ErrMismatch: the bytes that upstream serves are not those that its index names.
	// None of them was stored. It is an ErrBroken too.
	ErrMismatch = fmt.Errorf("%w: its bytes do not hash to what the index names", ErrBroken)
	// ErrSnapshot: an index file is not that of the crate it was asked for.
	ErrSnapshot = errors.New("not the index file of this crate")
	// ErrBusy: this registry has as much under way as it may; trying again soon is right.
	ErrBusy = errors.New("too much is being fetched from upstreams")
	// ErrGone: what was just stored was removed before it could be noted.
	ErrGone = errors.New("removed while it was being stored")
	// ErrSettling: what is stored now might be removed by what was asked for before. It is
	// served, and not kept, for some minutes.
	ErrSettling = errors.New("not to be kept yet, since it was removed a short while ago")
	// ErrDamaged: a crate is held, and is damaged on storage. What is wrapped beside it says why it
	// could not be fetched anew.
	ErrDamaged = errors.New("what this registry holds of it is damaged on its storage")
	// ErrOffline: what is not held is not to be had, since no upstream is asked.
	// It is an ErrNotFound too.
	ErrOffline = fmt.Errorf("%w: it is not held, and this registry asks no upstream; ask its operator to have it fetched where there is a way out (aln-registry prefetch)", ErrNotFound)
)

// answered is an upstream's answer that is none of use.
type answered struct {
	kind   error // one of the above
	status int
	after  time.Duration // what Retry-After says, 0 for nothing
}

func (a *answered) Error() string {
	text := fmt.Sprintf("%s: HTTP %d", a.kind, a.status)
	if known := http.StatusText(a.status); known != "" {
		text += " " + known
	}
	if errors.Is(a.kind, ErrRefused) {
		text += " (the upstream's token_file, or what it allows)"
	}
	return text
}

func (a *answered) Unwrap() error { return a.kind }

// RetryAfter is how long an error of this package says to wait before trying again; 0 where
// it does not.
func RetryAfter(err error) time.Duration {
	var a *answered
	if errors.As(err, &a) {
		return a.after
	}
	var o *openError
	if errors.As(err, &o) {
		return o.wait
	}
	return 0
}

const mostWords = 300

// words is what an error says in one short line that can be shown. Who calls has taken URLs out of it.
func words(err error) string {
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, err.Error())
	if len(text) > mostWords {
		text = text[:mostWords] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
