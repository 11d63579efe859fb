package registry

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// However many wait for looks into crates when a registry is about to be closed, they are told so
// within seconds, and the registry is closed as soon.
func TestNobodyWaitsForALookOnceTheRegistryEnds(t *testing.T) {
	const all = 14
	var uploads []upload
	for i := range all {
		uploads = append(uploads, newUpload(fmt.Sprint("plain", i)))
	}
	w, r, b := watched(t, uploads...)
	r.Close()
	ending := make(chan struct{})
	w.config.Ending = ending
	b.set(make(chan struct{}), nil) // nobody will open any
	r, err := Open(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	forget(t, r, uploads...)
	ended := make(chan error, all)
	for _, u := range uploads {
		go func() {
			_, _, err := r.findings(t.Context(), u.version())
			ended <- err
		}()
	}
	for deadline := time.Now().Add(20 * time.Second); b.opened() < scansAtOnce; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no look begins")
		}
	}
	close(ending)
	late := time.After(lookGrace + 10*time.Second)
	for range all {
		select {
		case err := <-ended:
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("told %v", err)
			}
		case <-late:
			t.Fatal("somebody waits on")
		}
	}
	if n := b.opened(); n != scansAtOnce {
		t.Errorf("%d looks were begun, and %d may be under way", n, scansAtOnce)
	}
	if _, _, err := r.findings(t.Context(), uploads[0].version()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a look is begun: %v", err)
	}
}
