package cratesioproxy

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	// MaxIndexBytes bounds an index file, on the wire and decoded.
	MaxIndexBytes = cargo.MaxUpstreamFile
	// Of files beyond largeBytes so many are in memory at a time, of one upstream, until they
	// are entered.
	largeBytes = 1 << 20
	mostLarge  = 2

	mostEntries  = 20_000
	mostResting  = 10_000
	maxValidator = 1 << 10 // bytes of an ETag or a Last-Modified

	mostAlarms  = 20               // of one kind and one snapshot
	vanishedFor = 10 * time.Minute // that a crate is not there before that is believed

	indexTime   = 90 * time.Second // that a question may take in all, publication included
	answerTime  = 24 * time.Second // that an asker waits for an answer, however slowly it comes: cargo gives up after 30
	troubleRest = 2 * time.Second  // after a failure, where nothing is known
	slowFor     = 10 * time.Second // that nobody waits for news of what is known
	staleRest   = 15 * time.Second // where something is, or what came is of no use
	renewRest   = 5 * time.Second  // that is not asked again even where something is missing

	// mostAheadOf is how far ahead of this clock the one may be that entries have their time of.
	mostAheadOf = time.Minute
)

// entry is what is remembered of a crate's index file. It is replaced, never changed.
type entry struct {
	file File
	deps []string // to be fetched ahead, nil where that is not known
}

// rest is why upstream is not asked for a name until then.
type rest struct {
	err   error
	until time.Time
}

// refresh is Refresh that fetches that much ahead.
func (u *Upstream) refresh(ctx context.Context, name string, ahead cascade) error {
	return u.refreshOlder(ctx, name, ahead, u.proxy.Fresh)
}

// refreshOlder is refresh of what upstream was not asked for so long.
func (u *Upstream) refreshOlder(ctx context.Context, name string, ahead cascade, fresh time.Duration) error {
	if cargo.ValidateName(name) != nil || strings.ToLower(name) != name {
		return u.say(ErrNotFound)
	}
	canonical := cargo.CanonicalName(name)
	if u.proxy.Evidence.PrivateName(canonical) {
		return u.say(ErrNotFound)
	}
	known, ok, err := u.proxy.Evidence.Known(ctx, u.setting.Name, canonical)
	if err != nil {
		return err
	}
	if ok && known.elsewhere(name) {
		return u.say(ErrNotFound)
	}
	if u.proxy.Offline {
		if !ok {
			return u.say(ErrOffline)
		}
		return nil
	}
	err = u.renew(ctx, name, known, ok, fresh, ahead)
	if err == nil {
		u.fetchAhead(name, ahead)
	}
	return err
}

// elsewhere reports whether upstream has the crate under another spelling than name, in lower
// case. Where it has it no more, it may come back under any.
func (k Known) elsewhere(name string) bool {
	return strings.ToLower(k.Name) != name && k.Snapshot != storage.CIDOf(nil)
}

// renew sees to it that what is known is fresh, or cannot be made so now.
func (u *Upstream) renew(ctx context.Context, name string, known Known, ok bool, fresh time.Duration, ahead cascade) error {
	now := u.proxy.Clock()
	if e, _ := u.entries.get(name); ok && isFresh(e.file, known, now, fresh) {
		u.proxy.counts.fresh.Add(1)
		return nil
	}
	for _, key := range []string{name, shareOf(ahead.asker, name)} {
		if r, there := u.resting.get(key); there && now.Before(r.until) {
			u.proxy.counts.rested.Add(1)
			if ok {
				return nil
			}
			return r.err
		}
	}
	if ahead.behind && !u.mayAhead(ahead) {
		return errEnough
	}
	u.wantConfig()
	join := func() *flight {
		return u.flights.join(u.proxy, name, indexTime, func(ctx context.Context) error { return u.fetchIndex(ctx, name, fresh, ahead) })
	}
	if ok {
		return u.renewKnown(ctx, join())
	}
	return u.patiently(ctx, func(ctx context.Context) error {
		err := join().wait(ctx)
		for more := mostRounds; more > 1 && ofAnother(err, ahead.asker); more-- {
			err = join().wait(ctx)
		}
		return err
	})
}

// renewKnown waits for news of what is known already, but not for long, and not at all
// where somebody just waited in vain: what is known is served then, and whoever comes
// later gets the news.
func (u *Upstream) renewKnown(ctx context.Context, asked *flight) error {
	patience := u.proxy.Patience
	if u.proxy.Elapsed() < time.Duration(u.slow.Load()) {
		patience = 0
	}
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := asked.wait(patient)
	if err == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if patience > 0 && errors.Is(err, context.DeadlineExceeded) {
		u.slow.Store(int64(u.proxy.Elapsed() + slowFor))
	}
	u.proxy.counts.stale.Add(1)
	return nil
}

// isFresh reports whether what is known is what upstream said a moment ago: here, where f
// was looked at, or to whichever replica entered it. Replicas that are told different things
// would otherwise enter one after the other, as often as anybody asks.
func isFresh(f File, known Known, now time.Time, fresh time.Duration) bool {
	if age := now.Sub(known.Seen); age > -mostAheadOf && age < fresh {
		return true
	}
	age := now.Sub(f.Checked)
	return f.Status == http.StatusOK && f.Snapshot == known.Snapshot && age >= 0 && age < fresh
}

// fetchIndex asks upstream for a crate's index file and hands to the registry what is new. What it
// depends on is fetched ahead as soon as it is known.
func (u *Upstream) fetchIndex(ctx context.Context, name string, fresh time.Duration, ahead cascade) error {
	known, ok, err := u.proxy.Evidence.Known(ctx, u.setting.Name, cargo.CanonicalName(name))
	if err != nil {
		return err
	}
	if ok && known.elsewhere(name) {
		return u.say(ErrNotFound)
	}
	file := File{}
	if e, there := u.entries.get(name); there {
		file = e.file
	} else if ok {
		if file = u.noted(ctx, name); isFresh(file, known, u.proxy.Clock(), fresh) {
			u.entries.put(name, entry{file: file})
			return nil
		}
	}
	if !ok || file.Snapshot != known.Snapshot { // its validators are of something else
		file = File{Status: file.Status, Checked: file.Checked}
	}
	err = u.believed(ctx, ok, u.askIndex(ctx, name, known, ok, file, ahead))
	u.remember(ctx, name, known, ok, file, err)
	if errors.Is(err, errAskerShare) {
		u.resting.put(shareOf(ahead.asker, name), rest{err, u.proxy.Clock().Add(u.proxy.Fresh)})
	}
	return err
}

// shareOf is where it rests that asker had a share too small for name.
func shareOf(asker, name string) string { return asker + "\x00" + name }

// noted is what Facts has of a file, as this index said it; it is worth a request, not an error.
func (u *Upstream) noted(ctx context.Context, name string) File {
	file, _, err := u.proxy.Facts.File(ctx, u.setting.Name, name)
	if err != nil {
		u.proxy.Log.Warn("cannot look up when an index file was last asked for", "upstream", u.setting.Name, "crate", name, "error", err)
		return File{}
	}
	if file.IndexURL != u.setting.Index {
		return File{}
	}
	return file
}

// askIndex is fetchIndex with what is known, and validators where they are of that.
func (u *Upstream) askIndex(ctx context.Context, name string, known Known, ok bool, file File, ahead cascade) error {
	var found answer
	err := u.try(ctx, never, func(ctx context.Context, alone bool) (err error) {
		found, err = u.getIndex(ctx, name, file, alone)
		return err
	})
	if err != nil {
		return err
	}
	defer found.leave()
	u.slow.Store(0)
	found.file.Upstream, found.file.Name, found.file.IndexURL = u.setting.Name, name, u.setting.Index
	found.file.Checked, found.file.Status = u.proxy.Clock(), http.StatusOK
	if found.body == nil {
		u.proxy.counts.unchanged.Add(1)
		found.file.Snapshot = known.Snapshot
		u.learned(name, found.file, nil)
		return nil
	}
	var deps []string
	asker := ahead.asker
	if u.enteredMeanwhile(ctx, name, known) {
		return nil
	}
	if found.file.Snapshot = storage.CIDOf(found.body); !ok || found.file.Snapshot != known.Snapshot {
		ahead := func(deps []string) { u.spreadOnce(name, found.file.Checked, deps, ahead) }
		if deps, err = u.enter(ctx, name, asker, known, found.body, ahead); err != nil {
			return err
		}
	}
	u.learned(name, found.file, deps)
	return nil
}

// enteredMeanwhile reports whether another replica has entered a snapshot since known was looked up,
// which is as fresh as what came: where they are told different things, each would enter its own.
func (u *Upstream) enteredMeanwhile(ctx context.Context, name string, known Known) bool {
	now, ok, err := u.proxy.Evidence.Known(ctx, u.setting.Name, cargo.CanonicalName(name))
	return err == nil && ok && now.Snapshot != known.Snapshot
}

// enter hands a snapshot to the registry, and returns what it depends on, which it tells
// before: publication takes its time. One that is another crate's is not there: some file
// systems know one file by several names.
func (u *Upstream) enter(ctx context.Context, name, asker string, known Known, snapshot []byte, tell func(deps []string)) ([]string, error) {
	if err := u.public(name); err != nil {
		return nil, err
	}
	file, err := cargo.ParseUpstreamFile(name, snapshot)
	switch {
	case err != nil:
		return nil, u.say(fmt.Errorf("%w: %w: %s", ErrBroken, ErrSnapshot, words(err)))
	case len(file.Lines) == 0: // as good as none, and believed no sooner
		return nil, u.say(fmt.Errorf("%w: its index file is empty", ErrNotFound))
	case strings.ToLower(file.Name) != name:
		return nil, u.say(ErrNotFound)
	}
	if err := u.enters(name, asker, known, len(snapshot), len(file.Lines)); err != nil {
		return nil, err
	}
	deps := dependencies(file)
	tell(deps)
	in, err := u.proxy.Evidence.Import(ctx, u.setting.Name, name, snapshot)
	if errors.Is(err, ErrSnapshot) {
		err = u.say(fmt.Errorf("%w: %w", ErrBroken, err))
	}
	if err != nil {
		return nil, err
	}
	u.proxy.counts.imported.Add(1)
	u.alarms(name, AlarmChanged, in.Changed, "the index names another digest than it first did, which is not believed")
	u.alarms(name, AlarmAltered, in.Altered, "the index names other dependencies or features than it first did, which is not believed")
	u.alarms(name, AlarmDropped, in.Dropped, "the index does not list it any more")
	return deps, nil
}

// learned remembers what upstream said.
func (u *Upstream) learned(name string, file File, deps []string) {
	if e, there := u.entries.get(name); there && deps == nil {
		deps = e.deps
	}
	u.entries.put(name, entry{file: file, deps: deps})
	u.resting.drop(name)
	u.proxy.notes.file(file)
}

// believed is err, but for a 404 that is not to be believed since there is no config.json either,
// which every index has: a wrong URL, or an upstream out of order, has no crate at all. It is
// looked at before the first 404, and before each of a crate that upstream had.
func (u *Upstream) believed(ctx context.Context, known bool, err error) error {
	var a *answered
	if !errors.Is(err, ErrNotFound) || !errors.As(err, &a) || a.status != http.StatusNotFound {
		return err
	}
	now := u.proxy.Clock()
	if _, seen, _ := u.settings.get(now); seen && !known {
		return err
	}
	r, there := u.resting.get(configName)
	failed := r.err
	if !there || !now.Before(r.until) {
		failed = u.configs.join(u.proxy, configName, indexTime, u.fetchConfig).wait(ctx)
	}
	switch {
	case failed == nil:
		return err
	case errors.Is(failed, ErrNotFound), errors.Is(failed, ErrBroken):
		u.troubled(errNoIndex)
		failed = u.say(errNoIndex)
	}
	return failed
}

// remember sees to it that what failed, or is not there, is not asked for again at once.
func (u *Upstream) remember(ctx context.Context, name string, known Known, ok bool, file File, err error) {
	now := u.proxy.Clock()
	switch {
	case err == nil, u.proxy.ctx.Err() != nil, errors.Is(err, errPrivate):
		return
	case errors.Is(err, ErrNotFound):
		u.resting.put(name, rest{err, now.Add(u.proxy.Negative)})
		if ok && u.public(name) == nil {
			u.vanished(ctx, name, known, file, err)
		}
		return
	case errors.Is(err, errAskerShare): // which keeps nobody else from it
		u.exceeded(err)
	case errors.Is(err, errExcess):
		u.exceeded(err)
		u.resting.put(name, rest{err, now.Add(u.proxy.Fresh)})
	case errors.Is(err, ErrBroken):
		if errors.Is(err, ErrSnapshot) {
			u.alarm(Alarm{Name: name, Kind: AlarmSnapshot, Detail: words(err), At: now})
		}
		u.resting.put(name, rest{err, now.Add(staleRest)})
	case ok:
		u.resting.put(name, rest{err, now.Add(staleRest)})
	default:
		u.resting.put(name, rest{err, now.Add(troubleRest)})
	}
	if errors.As(err, new(*openError)) { // said when it came to that
		return
	}
	u.proxy.Log.WarnContext(ctx, "an upstream's index file cannot be had", "upstream", u.setting.Name, "crate", name, "known", ok, "error", err, "cause", inside(err))
}

// exceeded raises the alarm that more changes than is entered. It names no crate: it would be
// raised for each that somebody asks for then.
func (u *Upstream) exceeded(err error) {
	u.alarm(Alarm{Kind: AlarmExcess, Detail: words(err), At: u.proxy.Clock()})
}

// vanished takes in that upstream no longer has what it had. That it is gone is entered where
// upstream says so, or where it is not there for a while although the rest of upstream is:
// an upstream out of order also has nothing, and what is entered bears on what builds may use.
func (u *Upstream) vanished(ctx context.Context, name string, known Known, file File, err error) {
	if known.Snapshot == storage.CIDOf(nil) { // that is what is known
		return
	}
	status := http.StatusNotFound
	if a := (*answered)(nil); errors.As(err, &a) {
		status = a.status
	}
	now := u.proxy.Clock()
	gone := File{Upstream: u.setting.Name, Name: name, IndexURL: u.setting.Index, Snapshot: known.Snapshot, Checked: now, Status: status}
	if first := file.Status == 0 || file.Status == http.StatusOK; first {
		u.alarm(Alarm{Name: name, Kind: AlarmVanished, Detail: words(err), At: now})
	} else {
		gone.Checked = file.Checked
	}
	u.entries.put(name, entry{file: gone})
	u.proxy.notes.file(gone)
	if status == http.StatusNotFound && (now.Sub(gone.Checked) < vanishedFor || u.fetchConfig(ctx) != nil) {
		return
	}
	if err := u.enters(name, "", known, 0, 0); err != nil {
		u.exceeded(err)
		return
	}
	if _, err := u.proxy.Evidence.Import(ctx, u.setting.Name, name, nil); err != nil {
		u.proxy.Log.ErrorContext(ctx, "cannot enter that a crate has vanished", "upstream", u.setting.Name, "crate", name, "error", err)
		return
	}
	u.proxy.counts.imported.Add(1)
}

// answer is an index file, or that it is what it was (nil).
type answer struct {
	body  []byte
	file  File   // its validators
	leave func() // is called once body is of no more use
}

// getIndex makes one attempt at an index file.
func (u *Upstream) getIndex(ctx context.Context, name string, file File, alone bool) (answer, error) {
	if err := u.public(name); err != nil {
		return answer{}, err
	}
	header := acceptGzip()
	if file.ETag != "" {
		header.Set("If-None-Match", file.ETag)
	} else if isPast(file.LastModified, u.proxy.Clock()) {
		header.Set("If-Modified-Since", file.LastModified)
	}
	conditional := len(header) > 1
	found := answer{leave: func() {}}
	q := question{host: u.index, url: u.setting.Index + cargo.IndexPath(name), header: header, alone: alone}
	err := u.ask(ctx, q, func(resp *http.Response, body *watched) (err error) {
		found.file.ETag, found.file.LastModified = validator(resp, "ETag"), lastModified(resp, u.proxy.Clock())
		if resp.StatusCode == http.StatusNotModified && conditional {
			found.file.ETag, found.file.LastModified = cmp.Or(found.file.ETag, file.ETag), cmp.Or(found.file.LastModified, file.LastModified)
			return nil
		}
		found.body, found.leave, err = u.readBody(ctx, resp, body, MaxIndexBytes)
		return err
	})
	return found, err
}

// acceptGzip also keeps net/http from decoding on its own.
func acceptGzip() http.Header { return http.Header{"Accept-Encoding": {"gzip"}} }

// validator is a header that is sent back as it is, "" where it is too long for that.
func validator(resp *http.Response, name string) string {
	value := resp.Header.Get(name)
	if len(value) > maxValidator {
		return ""
	}
	return value
}

// lastModified is the Last-Modified of an answer where it may be sent back: one that lies ahead
// of when the answer was made, by its Date or now, would have a later change look like none, for
// ever perhaps, and so would one of the same second.
func lastModified(resp *http.Response, now time.Time) string {
	value := validator(resp, "Last-Modified")
	if made, err := http.ParseTime(resp.Header.Get("Date")); err == nil && made.Before(now) {
		now = made
	}
	if !isPast(value, now) {
		return ""
	}
	return value
}

// isPast reports whether value is a date of HTTP, and earlier than now.
func isPast(value string, now time.Time) bool {
	at, err := http.ParseTime(value)
	return err == nil && at.Before(now.Truncate(time.Second))
}

// readBody reads and decodes a whole answer of at most so many bytes. Where an answer does not say
// where it ends, a part of it looks like all: that is not taken. leave is called once the
// bytes are of no more use.
func (u *Upstream) readBody(ctx context.Context, resp *http.Response, body *watched, most int64) (data []byte, leave func(), err error) {
	held := func() {}
	leave = func() { held() }
	defer func() {
		if err != nil {
			leave()
			held = func() {}
		}
	}()
	if resp.StatusCode != http.StatusOK {
		return nil, leave, &answered{kind: ErrBroken, status: resp.StatusCode}
	}
	tooLarge := fmt.Errorf("%w: it has more than %d bytes", ErrBroken, most)
	if resp.ContentLength > most {
		return nil, leave, tooLarge
	}
	wire := bufio.NewReader(&bounded{r: body, left: most, err: tooLarge})
	var plain io.Reader = wire
	switch encoding := strings.ToLower(resp.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
		if resp.ProtoMajor == 1 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 {
			return nil, leave, fmt.Errorf("%w: it does not say where it ends", ErrBroken)
		}
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(wire)
		if err != nil {
			return nil, leave, damaged(err)
		}
		z.Multistream(false) // empty members without end cost time and yield nothing
		plain = &bounded{r: z, left: most, err: tooLarge}
	default:
		return nil, leave, fmt.Errorf("%w: it is encoded in a way that was not asked for", ErrBroken)
	}
	data, held, err = u.readAll(ctx, plain, max(resp.ContentLength, 0))
	if err != nil {
		return nil, leave, damaged(err)
	}
	switch _, err := wire.ReadByte(); {
	case err == nil:
		return nil, leave, fmt.Errorf("%w: there is more behind its gzip", ErrBroken)
	case !errors.Is(err, io.EOF):
		return nil, leave, damaged(err)
	}
	return data, leave, nil
}

// damaged is what reading failed with, or that what was read is no gzip: it changed on the way.
func damaged(err error) error {
	if errors.Is(err, ErrBroken) || errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: its answer is damaged: %s", ErrUnavailable, words(err))
}

// readAll reads r, which is bounded, to its end. Beyond largeBytes it waits for its turn, which
// lasts until leave is called (what was read stays in memory, and is parsed, until it is
// entered), and for a buffer that is large enough: one that grows would leave three times as
// much behind, also for what is found too large in the end.
func (u *Upstream) readAll(ctx context.Context, r io.Reader, about int64) (read []byte, leave func(), err error) {
	var data bytes.Buffer
	data.Grow(int(min(about, largeBytes)) + bytes.MinRead)
	leave = func() {}
	_, err = io.CopyN(&data, r, largeBytes)
	if errors.Is(err, io.EOF) {
		return data.Bytes(), leave, nil
	}
	if err != nil {
		return nil, leave, err
	}
	select {
	case u.large <- struct{}{}:
		leave = func() { <-u.large }
	case <-ctx.Done():
		return nil, leave, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
	buffer, ok := u.proxy.buffers.Get().(*[]byte)
	if !ok {
		buffer = new(make([]byte, MaxIndexBytes+1))
	}
	defer u.proxy.buffers.Put(buffer)
	for n := copy(*buffer, data.Bytes()); n < len(*buffer); {
		more, err := r.Read((*buffer)[n:])
		n += more
		if err == io.EOF { //nolint:errorlint // another that matches it is no end
			return bytes.Clone((*buffer)[:n]), leave, nil
		}
		if err != nil {
			return nil, leave, err
		}
	}
	return nil, leave, fmt.Errorf("%w: it has more than %d bytes", ErrBroken, MaxIndexBytes)
}

// bounded reads at most left bytes; one more is err.
type bounded struct {
	r    io.Reader
	left int64
	err  error
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		return int(b.left), b.err
	}
	b.left -= int64(n)
	return n, err
}
