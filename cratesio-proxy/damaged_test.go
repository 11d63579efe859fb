package cratesioproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// rots makes what is stored of id such that it cannot be opened; nil takes it away.
func (b *blobs) rots(id storage.CID, as error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if as == nil {
		delete(b.held, id)
		return
	}
	b.rotten = map[storage.CID]error{id: as}
}

// rots are the ways in which a store says that what it had is not that any more; the last is
// MinIO's, which has it and never gives it.
var rots = map[string]error{
	"other bytes": fmt.Errorf("blob x: %w", storage.ErrCorrupt),
	"gone":        nil,
	"unreadable":  fmt.Errorf("blob x: %w after 9 tries: Resource requested is unreadable", storage.ErrUnavailable),
}

// A held crate that rotted on storage is fetched anew, once for all who ask, and stored in place
// of what was there; that is told in the log, and counted.
func TestAHeldCrateThatRottedIsFetchedAnew(t *testing.T) {
	for name, as := range rots {
		t.Run(name, func(t *testing.T) {
			log := &written{}
			l := newLab(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
			data, want := crate("some", 100_000)
			l.on(dlPath(want), sends(data))
			if err := l.upstream.Hold(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			l.blobs.rots(want.ID, as)
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%d bytes, %v", len(got), err)
					}
				})
			}
			group.Wait()
			until(t, "it is stored", func() bool { return l.proxy.Figures().Receiving == 0 })
			before := l.requests(dlPath(want))
			if got, err := l.read(want); err != nil || !bytes.Equal(got, data) || l.requests(dlPath(want)) != before {
				t.Errorf("once it was stored anew: %d bytes, asked %d times more, %v", len(got), l.requests(dlPath(want))-before, err)
			}
			if f := l.proxy.Figures(); before != 2 || l.blobs.puts.Load() != 2 || f.Damaged != 1 || f.Alarms != 0 {
				t.Errorf("asked %d times, stored %d times, %d damaged, %d alarms", before, l.blobs.puts.Load(), f.Damaged, f.Alarms)
			}
			if text := log.String(); !strings.Contains(text, "damaged") || !strings.Contains(text, want.ID.String()) || !strings.Contains(text, "crate=some") {
				t.Errorf("the log does not tell of it:\n%s", text)
			}
			if _, err := l.upstream.Open(t.Context(), want); err != nil {
				t.Error(err)
			}
		})
	}
}

// Where it cannot be fetched anew that is said, and that it is damaged; once the bytes are there
// again, from a backup say, they are served.
func TestAHeldCrateThatRottedAndCannotBeFetchedIsToldSo(t *testing.T) {
	for name, as := range rots {
		for _, offline := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, offline %v", name, offline), func(t *testing.T) {
				l := newLab(t, nil)
				data, want := crate("some", 100_000)
				l.on(dlPath(want), sends(data))
				if err := l.upstream.Hold(t.Context(), want); err != nil {
					t.Fatal(err)
				}
				l.proxy.Offline = offline
				l.on(dlPath(want), status(503))
				l.blobs.rots(want.ID, as)
				why := ErrUnavailable
				if offline {
					why = ErrOffline
				}
				for range 2 {
					if _, err := l.read(want); !errors.Is(err, ErrDamaged) || !errors.Is(err, why) {
						t.Errorf("read: %v", err)
					}
				}
				if err := l.upstream.Hold(t.Context(), want); !errors.Is(err, ErrDamaged) || !errors.Is(err, why) {
					t.Errorf("held: %v", err)
				}
				if f := l.proxy.Figures(); f.Damaged != 1 {
					t.Errorf("%d damaged", f.Damaged)
				}
				if err := l.blobs.Put(t.Context(), want.ID, int64(len(data)), bytes.NewReader(data)); err != nil {
					t.Fatal(err)
				}
				if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
					t.Errorf("once it is there again: %d bytes, %v", len(got), err)
				}
				if err := l.upstream.Hold(t.Context(), want); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A store that is not there has damaged nothing: nobody is sent upstream for what it holds.
func TestAStoreThatIsAwayHasDamagedNothing(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	if err := l.upstream.Hold(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	l.blobs.mu.Lock()
	l.blobs.away = fmt.Errorf("blob x: %w", storage.ErrUnavailable)
	l.blobs.mu.Unlock()
	if _, err := l.read(want); !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if f := l.proxy.Figures(); l.requests(dlPath(want)) != 1 || f.Damaged != 0 {
		t.Errorf("asked %d times, %d damaged", l.requests(dlPath(want)), f.Damaged)
	}
}

// What was evicted is not damaged, though it was found so before.
func TestWhatWasEvictedIsNotDamaged(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	if err := l.upstream.Hold(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if _, err := l.read(want); err != nil {
		t.Fatal(err)
	}
	l.proxy.Offline = true
	l.blobs.rots(want.ID, rots["other bytes"])
	if _, err := l.read(want); !errors.Is(err, ErrDamaged) {
		t.Errorf("before it was: %v", err)
	}
	l.evict(want.ID, true)
	if _, err := l.read(want); !errors.Is(err, ErrOffline) || errors.Is(err, ErrDamaged) || l.proxy.Figures().Damaged != 1 {
		t.Errorf("%v, %d damaged", err, l.proxy.Figures().Damaged)
	}
}

// written is a log.
type written struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// busy blobs take long to say that something cannot be opened: another crate is stored meanwhile.
type busy struct {
	*blobs
	meanwhile func()
}

func (b *busy) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	blob, err := b.blobs.Open(ctx, id)
	if err != nil && b.meanwhile != nil {
		b.meanwhile()
	}
	return blob, err
}

// However much else is stored while a store finds out that a crate is damaged, which may take it many
// seconds, the crate is fetched anew.
func TestWhatIsStoredMeanwhileSaysNothingOfADamagedCrate(t *testing.T) {
	store := &busy{}
	l := newLab(t, func(c *Config) { store.blobs = c.Blobs.(*blobs); c.Blobs = store })
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	if err := l.upstream.Hold(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	l.blobs.rots(want.ID, rots["unreadable"])
	others := 0
	store.meanwhile = func() {
		others++
		other, wanted := crate(fmt.Sprint("other", others), 1000)
		l.on(dlPath(wanted), sends(other))
		if err := l.upstream.Hold(t.Context(), wanted); err != nil {
			t.Error(err)
		}
	}
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) || others == 0 {
		t.Errorf("%d bytes, %d others, %v", len(got), others, err)
	}
	until(t, "it is stored", func() bool { return l.proxy.Figures().Receiving == 0 })
	if f := l.proxy.Figures(); f.Damaged != 1 || l.requests(dlPath(want)) != 2 {
		t.Errorf("%d damaged, asked %d times", f.Damaged, l.requests(dlPath(want)))
	}
}

// silent blobs are in a store that says nothing more.
type silent struct{ *blobs }

func (silent) Open(context.Context, storage.CID) (storage.Blob, error) {
	return nil, fmt.Errorf("blob x: %w after 9 tries", storage.ErrUnavailable)
}

func (silent) Stat(ctx context.Context, _ storage.CID) (int64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// A store that has not answered for as long as it is waited for is not waited for once more.
func TestAStoreThatIsAwayIsWaitedForOnce(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	if err := l.upstream.Hold(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	l.proxy.Blobs = silent{l.blobs}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := l.upstream.Crate(ctx, want); !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, ErrDamaged) || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	if asked := l.requests(dlPath(want)); asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// That there is no room to read a crate, which the store has, says nothing of it: it is not fetched anew.
func TestACrateThatThereIsNoRoomToReadIsNotDamaged(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	if err := l.upstream.Hold(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	l.blobs.rots(want.ID, fmt.Errorf("blob x: %w: open blobs take it all", storage.ErrNoRoom))
	if _, err := l.read(want); !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if f := l.proxy.Figures(); l.requests(dlPath(want)) != 1 || f.Damaged != 0 {
		t.Errorf("asked %d times, %d damaged", l.requests(dlPath(want)), f.Damaged)
	}
}
