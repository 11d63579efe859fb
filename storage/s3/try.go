package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/storage"
)

const (
	slowest     = 256 << 10 // bytes a second; a transfer that is slower in all is given up
	settling    = 64 << 20  // bytes that a store may need one more second for before it answers
	firstPause  = 50 * time.Millisecond
	longest     = 2 * time.Second
	mostRefused = 3 // tries of what the store refuses: bytes may have changed on the way
)

// settled is an error that trying again would not change.
type settled struct{ error }

func (s settled) Unwrap() error { return s.error }

var (
	// errTaken: something is stored under the key, says the store.
	errTaken   = errors.New("the key is taken")
	errStalled = errors.New("nothing moves")
	errSlow    = errors.New("it takes too long in all")
)

// pace is how an operation gets on. Every attempt is cut when nothing has moved
// for a while, and the operation given up when nothing has moved for longer, or
// when it is slower than any transfer may be.
type pace struct {
	patience time.Duration
	stall    time.Duration
	begun    time.Time
	last     atomic.Int64 // when something moved, in nanoseconds since begun
	attempt  *time.Timer  // cuts the attempt
	whole    *time.Timer  // ends the operation
}

// moved is called when bytes went or came.
func (p *pace) moved() {
	p.attempt.Reset(p.stall)
	p.last.Store(int64(time.Since(p.begun)))
}

func (p *pace) still() time.Duration { return time.Since(p.begun) - time.Duration(p.last.Load()) }

// expect gives the operation the time that size bytes may take.
func (p *pace) expect(size int64) {
	p.whole.Reset(p.patience + time.Duration(size/slowest)*time.Second - time.Since(p.begun))
}

// try makes attempts at something that sends size bytes until one succeeds or
// fails for good (settled). Between them it waits, twice as long each time and
// never exactly as long as others do. When nothing has moved for the store's
// patience, or all takes too long, the error is storage.ErrUnavailable; when ctx
// ends, its.
func (s *Store) try(ctx context.Context, what string, size int64, attempt func(context.Context, *pace) error) error {
	extra := time.Duration(size/settling) * time.Second
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &pace{patience: s.patience + extra, stall: s.patience*2/3 + extra, begun: time.Now()}
	p.whole = time.AfterFunc(p.patience+time.Duration(size/slowest)*time.Second, func() { cancel(errSlow) })
	defer p.whole.Stop()
	var told error // the last that says more than that time is over
	for tries, refused := 1, 0; ; tries++ {
		err := once(limited, p, attempt)
		if told == nil || !errors.Is(err, errSlow) {
			told = err
		}
		var final settled
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case errors.As(err, &final):
			return fmt.Errorf("%s: %w", what, final.error)
		}
		if isRefusal(err) {
			refused++
		}
		wait := pause(tries)
		if refused >= mostRefused || limited.Err() != nil || p.still()+wait > p.patience {
			return fmt.Errorf("%s: %w after %d tries: %s", what, storage.ErrUnavailable, tries, words(told))
		}
		select {
		case <-time.After(wait):
		case <-limited.Done():
		}
	}
}

// once makes one attempt, which is cut when nothing moves.
func once(ctx context.Context, p *pace, attempt func(context.Context, *pace) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.attempt = time.AfterFunc(p.stall, func() { cancel(errStalled) })
	defer p.attempt.Stop()
	err := attempt(ctx, p)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.As(err, new(settled)) {
		return cause // more telling than that something was canceled
	}
	return err
}

// pause is how long to wait after so many tries.
func pause(tries int) time.Duration {
	d := min(firstPause<<min(tries-1, 10), longest)
	return d/2 + rand.N(d/2)
}

// answer is what an error of minio-go means: settled where the store has said
// something that stays.
func (s *Store) answer(err error) error {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return settled{fmt.Errorf("%w: %s", storage.ErrUnavailable, words(err))}
	}
	if errors.Is(err, errEndless) {
		return settled{fmt.Errorf("%w: %w", storage.ErrUnavailable, errEndless)}
	}
	var e minio.ErrorResponse
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == minio.NoSuchKey:
		return settled{storage.ErrNotFound}
	case e.Code == minio.NoSuchBucket:
		return settled{fmt.Errorf("%w: the bucket %s is not there", storage.ErrUnavailable, s.place.bucket)}
	case isFull(e):
		return settled{fmt.Errorf("%w: the object store says %s", storage.ErrFull, words(err))}
	}
	return err
}

// isFull knows MinIO's full disk and full bucket, and RGW's quotas.
func isFull(e minio.ErrorResponse) bool {
	switch e.Code {
	case "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded":
		return true
	}
	return e.StatusCode == http.StatusInsufficientStorage
}

// isTaken: the condition that nothing is stored there was not met.
func isTaken(err error) bool {
	var e minio.ErrorResponse
	return errors.As(err, &e) && (e.StatusCode == http.StatusPreconditionFailed || e.Code == minio.PreconditionFailed)
}

// isRefusal: the store does not want this request: the keys, the rights, the
// clock, or bytes that changed on the way.
func isRefusal(err error) bool {
	var e minio.ErrorResponse
	if !errors.As(err, &e) {
		return false
	}
	switch e.StatusCode {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	}
	return e.StatusCode >= 400 && e.StatusCode < 500
}

const mostWords = 300

// signatures are what a signed URL has that nobody may see.
var signatures = regexp.MustCompile(`(?i)x-amz-(signature|security-token|credential)(=|%3d)[^&\s"'<>]*`)

// words is what an error says, in one short line without the request's URL.
func words(err error) string {
	var e minio.ErrorResponse
	var u *url.Error
	text := err.Error()
	switch {
	case errors.As(err, &e):
		text = fmt.Sprintf("%s (HTTP %d, %s)", e.Message, e.StatusCode, e.Code)
	case errors.As(err, &u):
		text = u.Err.Error()
	}
	text = signatures.ReplaceAllString(text, "x-amz-$1 (not shown)")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > mostWords {
		text = text[:mostWords] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
