package cratesioproxy

import (
	"bytes"
	"errors"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// evict takes a crate away as whoever makes room does: its row, and then its bytes.
func (l *lab) evict(id storage.CID, bytes bool) {
	l.facts.mu.Lock()
	delete(l.facts.blobs, id)
	l.facts.mu.Unlock()
	if bytes {
		l.blobs.mu.Lock()
		delete(l.blobs.held, id)
		l.blobs.mu.Unlock()
	}
}

// Who asks for what was just evicted gets it anew; who needs it held has it held again, even
// while the bytes of before are still there.
func TestWhatIsEvictedIsFetchedAgain(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	for n, whole := range []bool{true, false, true} {
		if err := l.upstream.Hold(t.Context(), want); err != nil || l.requests(dlPath(want)) != n+1 {
			t.Fatalf("asked %d times, %v", l.requests(dlPath(want)), err)
		}
		if ok, err := l.facts.HasBlob(t.Context(), CratesIO, want.ID); !ok || err != nil {
			t.Errorf("it is not noted: %v", err)
		}
		l.evict(want.ID, whole)
	}
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) || l.requests(dlPath(want)) != 4 {
		t.Errorf("%d bytes, asked %d times, %v", len(got), l.requests(dlPath(want)), err)
	}
}

// What is removed between being stored and being noted is stored once more, from the spool; it
// delays nobody who came with it, and is given up in the end.
func TestWhatIsRemovedWhileItIsStoredIsStoredAnew(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	l.facts.taken = map[storage.CID]int{want.ID: mostStores - 1}
	if err := l.upstream.Hold(t.Context(), want); err != nil || l.blobs.puts.Load() != mostStores || l.requests(dlPath(want)) != 1 {
		t.Errorf("stored %d times, asked %d times, %v", l.blobs.puts.Load(), l.requests(dlPath(want)), err)
	}
	l.evict(want.ID, true)
	l.facts.taken[want.ID] = mostStores
	if err := l.upstream.Hold(t.Context(), want); !errors.Is(err, ErrGone) || l.proxy.Figures().Unstored != 1 {
		t.Errorf("%v, %+v", err, l.proxy.Figures())
	}
}

// On engines what was evicted cannot be kept again for some minutes: meanwhile it is served to
// whoever asks, verified, and neither stored nor told as an error.
func TestWhatCannotBeKeptYetIsServed(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	l.facts.settling = map[storage.CID]bool{want.ID: true}
	for range 2 {
		if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		until(t, "it is over", func() bool { return l.proxy.Figures().Receiving == 0 })
	}
	f := l.proxy.Figures()
	if l.requests(dlPath(want)) != 2 || l.blobs.puts.Load() != 0 || f.Passed != 2 || f.Unstored != 0 {
		t.Errorf("asked %d times, stored %d times, %+v", l.requests(dlPath(want)), l.blobs.puts.Load(), f)
	}
	if err := l.upstream.Hold(t.Context(), want); !errors.Is(err, ErrSettling) {
		t.Errorf("held, and it is not: %v", err)
	}
	l.facts.mu.Lock()
	delete(l.facts.settling, want.ID)
	l.facts.mu.Unlock()
	if err := l.upstream.Hold(t.Context(), want); err != nil || !l.blobs.has(want.ID) {
		t.Errorf("when it can be kept again: %v", err)
	}
}

// What is stored and could not be noted is not served from storage, where nothing keeps it: the
// next one who asks has it noted, and so has who pins it.
func TestWhatCouldNotBeNotedIsNotTakenForHeld(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	l.on(dlPath(want), sends(data))
	if err := l.upstream.Hold(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) { // it is known to be held now
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	l.evict(want.ID, true)
	l.facts.mu.Lock()
	l.facts.taken = map[storage.CID]int{want.ID: mostStores}
	l.facts.mu.Unlock()
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	until(t, "it is over", func() bool { return l.proxy.Figures().Receiving == 0 })
	if _, err := l.upstream.Open(t.Context(), want); !errors.Is(err, storage.ErrNotFound) || !l.blobs.has(want.ID) {
		t.Errorf("what is stored and not noted is opened as held: %v", err)
	}
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	until(t, "it is over", func() bool { return l.proxy.Figures().Receiving == 0 })
	if ok, err := l.facts.HasBlob(t.Context(), CratesIO, want.ID); !ok || err != nil || l.requests(dlPath(want)) != 3 {
		t.Errorf("it is not noted, asked %d times: %v", l.requests(dlPath(want)), err)
	}
	if err := l.upstream.Hold(t.Context(), want); err != nil || l.requests(dlPath(want)) != 3 {
		t.Errorf("asked %d times, %v", l.requests(dlPath(want)), err)
	}
}
