package cratesioproxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	// Of a crate that is still being verified, the last heldBack bytes are not read, and
	// none of a small one: it takes no longer so, and is sent at once.
	heldBack   = 512
	smallCrate = 64 << 10

	copyBytes  = 64 << 10
	spoolStep  = 1 << 20 // by which what a crate takes of the spool grows, as it comes
	storeTime  = 5 * time.Minute
	mostStored = 4                // at a time
	closeTime  = 10 * time.Second // of it, once the proxy is closed
	budgetTime = 15 * time.Second // that room in the spool is waited for
)

var (
	// errHeld: it was stored meanwhile.
	errHeld = errors.New("held")
	// errLeft: nobody wants it any more.
	errLeft = errors.New("nobody waits for it")
)

// download is a crate being received into a file, and read there by all who asked for it.
type download struct {
	u      *Upstream
	want   Want
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	changed  chan struct{} // closed when something below changes
	arrived  chan struct{} // closed when verified is set
	readers  int
	linger   *time.Timer // that it is received on without readers; nil where it never was
	file     *os.File
	taken    int64 // of the budget
	given    bool  // somebody has read some of it
	started  bool  // upstream has answered, and size is what it said
	size     int64 // -1 where it did not say
	written  int64
	verified bool
	err      error // for readers; what was read before is of no use then
	unstored error // why it could not be stored; readers need not care
	over     bool  // run has ended
	// stored is read in place of the file, once it was handed over.
	stored storedBlob
	// reading is held by who reads, and taken by who hands over; before mu.
	reading sync.RWMutex
}

// change does something to d and tells who waits.
func (d *download) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// wait waits until is, which is called under the lock, or the download has failed. Once
// the proxy is about to be closed it waits no longer than grace for anything new.
func (d *download) wait(ctx context.Context, grace time.Duration, is func() bool) error {
	for {
		d.mu.Lock()
		err, ok, changed := d.err, d.err == nil && is(), d.changed
		d.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
			return ctx.Err()
		case <-d.u.proxy.Stopping:
		}
		stalled := time.NewTimer(grace)
		select {
		case <-changed:
			stalled.Stop()
		case <-ctx.Done():
			return ctx.Err()
		case <-stalled.C:
			return errClosed
		}
	}
}

func (d *download) length() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.verified {
		return d.written
	}
	return d.size
}

// readable is how many bytes may be read now. It is called under the lock.
func (d *download) readable() int64 {
	switch {
	case d.verified:
		return d.written
	case d.size < 0:
		return max(d.written-heldBack, 0)
	case d.size <= smallCrate:
		return 0
	}
	return min(d.written, d.size-heldBack)
}

// leave is called by every reader once.
func (d *download) leave() {
	all := &d.u.downloads
	all.mu.Lock()
	defer all.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readers--
	if d.readers > 0 {
		return
	}
	if d.over {
		d.release()
		return
	}
	if d.verified || d.err != nil {
		return
	}
	d.u.proxy.Log.Info("who asked for an upstream's crate left before it was there", "upstream", d.u.setting.Name, "crate", d.want.Name,
		"version", d.want.Version, "received", d.written, "of", d.size, "goes_on", d.started)
	// It has no place, so that nothing bounds how many of these there are; or somebody waits for it.
	if !d.started || d.u.short.Load() > 0 {
		d.abandon()
		return
	}
	d.linger = time.AfterFunc(d.u.proxy.Linger, func() {
		all.mu.Lock()
		defer all.mu.Unlock()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.abandon()
	})
}

// join is called under the lock of downloads.
func (d *download) join() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readers++
	if d.linger != nil {
		d.linger.Stop()
	}
}

// abandon ends what nobody waits for, unless more than half is there. It is called under both
// locks, and reports whether it did.
func (d *download) abandon() bool {
	if d.readers > 0 || d.over || d.verified || d.err != nil || d.size >= 0 && 2*d.written > d.size {
		return false
	}
	d.forget()
	d.cancel(errLeft)
	return true
}

// makeWay ends one of the downloads that nobody waits for, so that they hold no place and no
// spool that somebody waits for.
func (u *Upstream) makeWay() {
	u.downloads.mu.Lock()
	defer u.downloads.mu.Unlock()
	for _, d := range u.downloads.all {
		d.mu.Lock()
		ended := d.abandon()
		d.mu.Unlock()
		if ended {
			return
		}
	}
}

// forget makes the next asker begin anew. It is called under the lock of downloads.
func (d *download) forget() {
	if d.u.downloads.all[d.want.ID] == d {
		delete(d.u.downloads.all, d.want.ID)
	}
}

// release gives back what d took. It is called under its lock, when nobody reads or writes.
func (d *download) release() {
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
	if d.stored != nil {
		d.stored.Close()
		d.stored = nil
	}
	if d.taken > 0 {
		d.u.spool.give(d.taken)
		d.taken = 0
	}
}

// run receives, verifies and stores the crate.
func (d *download) run(ctx context.Context) {
	err := d.fetch(ctx)
	if err == nil {
		d.change(func() { d.verified = true })
		close(d.arrived)
		err = d.store(context.WithoutCancel(ctx))
	}
	d.finish(ctx, err)
}

// finish is the end of run, whatever became of it.
func (d *download) finish(ctx context.Context, err error) {
	u := d.u
	if err != nil && u.proxy.ctx.Err() != nil {
		err = errClosed
	} else if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, cause)
	}
	verified := d.verified // only run writes it
	if err != nil && !verified && !isNobodys(err) {
		d.failed(err)
	}
	switch {
	case err == nil:
		u.proven.put(d.want.ID, struct{}{})
		if u.proxy.damages.mend(d.want.ID) {
			u.proxy.Log.Info("a damaged crate of an upstream was stored anew", "upstream", u.setting.Name, "crate", d.want.Name, "version", d.want.Version, "blob", d.want.ID.String())
		}
	case verified: // it was held once, or stored a moment ago, and is not noted: then nothing keeps it
		u.proven.drop(d.want.ID)
	}
	read := false
	defer func() {
		if read && err == nil {
			u.proxy.tasks.begin(d.handOver)
		}
	}()
	u.downloads.mu.Lock()
	defer u.downloads.mu.Unlock()
	d.forget()
	d.change(func() {
		d.over, read = true, d.readers > 0
		if d.linger != nil {
			d.linger.Stop()
		}
		if verified { // who reads what was verified gets all of it, stored or not
			d.unstored = err
		} else {
			d.err = err
		}
		if d.readers == 0 {
			d.release()
		}
	})
}

// isNobodys reports whether err says nothing of upstream, nor of the crate.
func isNobodys(err error) bool {
	for _, of := range []error{errHeld, errLeft, errClosed, errPrivate} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// failed sees to it that what failed is not tried again at once, and is known.
func (d *download) failed(err error) {
	u, now := d.u, d.u.proxy.Clock()
	log := u.proxy.Log.With("upstream", u.setting.Name, "crate", d.want.Name, "version", d.want.Version)
	switch {
	case errors.Is(err, ErrMismatch):
		u.proxy.counts.mismatches.Add(1)
		u.downloads.failed.put(d.want.ID, rest{err, now.Add(mismatchFor)})
		u.alarm(Alarm{Name: d.want.Name, Version: d.want.Version, Kind: AlarmMismatch, Detail: words(err), At: now})
		return
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrRefused), errors.Is(err, ErrBroken):
		u.downloads.failed.put(d.want.ID, rest{err, now.Add(u.proxy.Negative)})
	case errors.Is(err, ErrUnavailable):
		u.downloads.failed.put(d.want.ID, rest{err, now.Add(troubleRest)})
	}
	log.Warn("an upstream's crate cannot be had", "error", err, "cause", inside(err))
}

// fetch receives all bytes and verifies them.
func (d *download) fetch(ctx context.Context) error {
	u := d.u
	switch err := u.stat(ctx, d.want.ID); {
	case err == nil:
		return errHeld
	case !errors.Is(err, storage.ErrNotFound):
		return err
	}
	c, err := u.config(ctx)
	if err != nil {
		return err
	}
	if err := u.takeBulk(ctx); err != nil {
		return err
	}
	defer func() { <-u.bulk }()
	in := &incoming{download: d, hash: sha256.New()}
	err = in.from(ctx, c)
	if now, ok := u.moved(ctx, c, err); ok {
		err = in.from(ctx, now)
	}
	if err != nil {
		return err
	}
	if got := [sha256.Size]byte(in.hash.Sum(nil)); got != d.want.ID.Digest() {
		return u.say(fmt.Errorf("%w: %d bytes hash to %x, and not to %s", ErrMismatch, in.at, got, d.want.ID.Hex()))
	}
	if in.size >= 0 && in.at != in.size { // which those who read it pass on
		return u.say(fmt.Errorf("%w: it said %d bytes, and they are %d", ErrBroken, in.size, in.at))
	}
	u.proxy.counts.crates.Add(1)
	u.proxy.counts.bytes.Add(in.at)
	return nil
}

// incoming is what goes on between upstream and the file, over several attempts.
type incoming struct {
	*download
	url  string
	open bool
	hash hash.Hash
	at   int64         // bytes in the file
	came time.Duration // when the last of them came, by Elapsed
	etag string        // a strong one of what is there
}

// from receives it from where c says that it is.
func (in *incoming) from(ctx context.Context, c IndexConfig) (err error) {
	if in.url, err = c.url(in.want.Name, in.want.Version, in.want.ID.Hex()); err != nil {
		return in.u.say(err)
	}
	in.open = !c.authRequired || !in.u.mayHaveToken(in.url)
	in.etag = "" // what is there came from another place, which may have called other bytes so
	return in.u.try(ctx, func() time.Duration { return in.came }, in.attempt)
}

// attempt receives what is missing.
func (in *incoming) attempt(ctx context.Context, alone bool) error {
	if err := in.u.public(in.want.Name); err != nil {
		return err
	}
	header := http.Header{"Accept-Encoding": {"identity"}}
	if in.at > 0 && in.etag != "" {
		header.Set("Range", fmt.Sprintf("bytes=%d-", in.at))
		header.Set("If-Range", in.etag)
	}
	q := question{host: in.u.files, url: in.url, header: header, open: in.open, alone: alone}
	return in.u.ask(ctx, q, func(resp *http.Response, body *watched) error {
		return in.take(ctx, resp, body)
	})
}

// take reads an answer: all of the crate, of which what is there already is passed
// over, or what is missing.
func (in *incoming) take(ctx context.Context, resp *http.Response, body *watched) error {
	size := resp.ContentLength
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusPartialContent && resp.Request.Header.Get("Range") != "":
		var ok bool
		if size, ok = continues(resp, in.at); !ok {
			return fmt.Errorf("%w: it sends another part than it was asked for", ErrBroken)
		}
	default:
		return &answered{kind: ErrBroken, status: resp.StatusCode}
	}
	again := resp.StatusCode == http.StatusOK && in.at > 0 && !in.anew()
	if err := in.begin(ctx, size); err != nil {
		return err
	}
	if etag := validator(resp, "ETag"); !strings.HasPrefix(etag, "W/") {
		in.etag = etag
	}
	if again {
		if err := in.compare(body); err != nil {
			return err
		}
	}
	return in.copy(ctx, body)
}

// anew forgets what is there for an answer that brings all of it, which may be another, and
// reports false where somebody has read some of it.
func (in *incoming) anew() bool {
	done := false
	in.change(func() {
		if done = !in.given; done {
			in.written, in.size = 0, -1
		}
	})
	if done {
		in.at = 0
		in.hash.Reset()
	}
	return done
}

// compare passes over what is there already, if it comes as it came before.
func (in *incoming) compare(body io.Reader) error {
	came, had := make([]byte, copyBytes), make([]byte, copyBytes)
	for at := int64(0); at < in.at; {
		n := min(in.at-at, copyBytes)
		if _, err := io.ReadFull(body, came[:n]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: it sent less than before", ErrBroken)
		} else if err != nil {
			return err
		}
		if _, err := in.file.ReadAt(had[:n], at); err != nil {
			return fmt.Errorf("read a spooled crate: %w", err)
		}
		if !bytes.Equal(came[:n], had[:n]) {
			return fmt.Errorf("%w: it sent other bytes than before", ErrBroken)
		}
		at += n
	}
	return nil
}

// continues reports whether a partial answer is all from at on, and of how many bytes then all is.
func continues(resp *http.Response, at int64) (size int64, ok bool) {
	part, isBytes := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	part, total, _ := strings.Cut(part, "/")
	first, last, _ := strings.Cut(part, "-")
	from, err := strconv.ParseUint(first, 10, 62)
	to, err2 := strconv.ParseUint(last, 10, 62)
	size = int64(to) + 1
	ok = isBytes && err == nil && err2 == nil && int64(from) == at && size > at &&
		(total == "*" || total == strconv.FormatInt(size, 10)) &&
		(resp.ContentLength < 0 || resp.ContentLength == size-at)
	return size, ok
}

// begin makes the file for a crate of that size, -1 for not known. A later attempt finds it.
func (in *incoming) begin(ctx context.Context, size int64) error {
	tooLarge := fmt.Errorf("%w: the crate has more than %d bytes", ErrBroken, in.u.proxy.CrateBytes)
	if size > in.u.proxy.CrateBytes {
		return tooLarge
	}
	if in.file != nil {
		switch {
		case in.at == 0:
			in.change(func() { in.size = size })
		case in.size != size && size >= 0 && in.size >= 0:
			return fmt.Errorf("%w: it said %d bytes, and then %d", ErrBroken, in.size, size)
		}
		return nil
	}
	if err := in.reserve(ctx, 1); err != nil { // so that it is told before anything is sent
		return err
	}
	file, err := durable.CreateUnnamed(in.u.proxy.Spool)
	if err != nil {
		return fmt.Errorf("spool a crate: %w", storage.Full(err))
	}
	in.change(func() { in.file, in.size, in.started = file, size, true })
	return nil
}

// reserve takes of the spool what a crate of that many bytes needs, a step at a time: what
// upstream only says that it sends takes nothing of what others need.
func (in *incoming) reserve(ctx context.Context, bytes int64) error {
	for in.taken < bytes {
		if err := in.u.takeSpool(ctx); err != nil {
			return err
		}
		in.change(func() { in.taken += spoolStep })
	}
	return nil
}

// copy takes what comes into the file, and lets readers know.
func (in *incoming) copy(ctx context.Context, body io.Reader) error {
	buffer := make([]byte, copyBytes)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if err := in.write(ctx, buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (in *incoming) write(ctx context.Context, p []byte) error {
	end := in.at + int64(len(p))
	if end > in.u.proxy.CrateBytes {
		return fmt.Errorf("%w: the crate has more than %d bytes", ErrBroken, in.u.proxy.CrateBytes)
	}
	if err := in.reserve(ctx, end); err != nil {
		return err
	}
	if _, err := in.file.WriteAt(p, in.at); err != nil {
		return fmt.Errorf("spool a crate: %w", storage.Full(err))
	}
	in.hash.Write(p) //nolint:errcheck // a hash takes everything
	in.at, in.came = end, in.u.proxy.Elapsed()
	in.change(func() { in.written = end })
	return nil
}

// store puts the verified crate into blob storage, and notes it. Readers do not wait for that.
func (d *download) store(ctx context.Context) error {
	u := d.u
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	defer context.AfterFunc(u.proxy.ctx, func() { time.AfterFunc(closeTime, cancel) })()
	err := u.proxy.Facts.Settling(ctx, d.want.ID)
	for tries := 1; err == nil; tries++ {
		if err = d.put(ctx); err == nil || !errors.Is(err, ErrGone) || tries == mostStores {
			break
		}
		err = nil // it met somebody who makes room
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrSettling):
		u.proxy.counts.passed.Add(1)
		return err
	}
	u.proxy.counts.unstored.Add(1)
	u.proxy.Log.Error("a crate of an upstream was served, and cannot be stored", "upstream", u.setting.Name, "crate", d.want.Name, "version", d.want.Version, "error", err)
	return err
}

// put stores it when it is its turn, for who waits for some goes first, and notes it, once. What is
// stored and cannot be noted is taken for garbage some day, and fetched again.
func (d *download) put(ctx context.Context) error {
	u, size := d.u, d.written
	select {
	case u.proxy.storing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := u.proxy.Blobs.Put(ctx, d.want.ID, size, io.NewSectionReader(d.file, 0, size))
	<-u.proxy.storing
	if err != nil {
		return err
	}
	return u.proxy.notes.store(ctx, Blob{ID: d.want.ID, Upstream: u.setting.Name, Name: d.want.Name, Version: d.want.Version, Size: size, Fetched: u.proxy.Clock()})
}
