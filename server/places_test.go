package server

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"phoenix-lab.org/aln-registry/registry"
)

func TestNobodyTakesAllPlaces(t *testing.T) {
	p := newPlaces(3, 2)
	first, err := p.take(t.Context(), "did:key:a")
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.take(t.Context(), "did:key:a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.take(t.Context(), "did:key:a"); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("a third place for one asker of two: %v", err)
	}
	third, err := p.take(t.Context(), "did:key:b")
	if err != nil {
		t.Errorf("no place for another asker: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.take(ended, "did:key:c"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a place when the client has gone: %v", err)
	}
	first()
	second()
	third()
	if len(p.taken) != 0 || len(p.free) != 0 {
		t.Errorf("places are not given back: %v, %d", p.taken, len(p.free))
	}
}

// Where places are patient, who has all of theirs waits for one of those, and others need not.
func TestWhoHasAllOfTheirsWaitsPatiently(t *testing.T) {
	p := patientPlaces(3, 1)
	first, err := p.take(t.Context(), "did:key:a")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		release, err := p.take(t.Context(), "did:key:a")
		if err == nil {
			release()
		}
		got <- err
	}()
	for p.waiting.Load() != 1 {
		runtime.Gosched()
	}
	other, err := p.take(t.Context(), "did:key:b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.take(ended, "did:key:a"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for one's own place when the client has gone: %v", err)
	}
	select {
	case err := <-got:
		t.Fatalf("a second one in one place: %v", err)
	default:
	}
	first()
	if err := <-got; err != nil || len(p.taken) != 0 || len(p.free) != 0 || p.turnedAway.Load() != 0 {
		t.Errorf("%v; %v are taken, %d, %d turned away", err, p.taken, len(p.free), p.turnedAway.Load())
	}
	again, err := p.take(t.Context(), "did:key:a")
	if err != nil {
		t.Fatal(err)
	}
	defer again()
	p.wait = 0
	if _, err := p.take(t.Context(), "did:key:a"); !errors.Is(err, registry.ErrUnavailable) || p.turnedAway.Load() != 1 {
		t.Errorf("one's own place is waited for without an end: %v", err)
	}
}

// Who finds all places taken waits, is seen to wait, and gets the next one that is free.
func TestAPlaceIsWaitedFor(t *testing.T) {
	p := newPlaces(1, 1)
	first, err := p.take(t.Context(), "did:key:a")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		release, err := p.take(t.Context(), "did:key:b")
		if err == nil {
			release()
		}
		got <- err
	}()
	for p.waiting.Load() != 1 {
		runtime.Gosched()
	}
	select {
	case err := <-got:
		t.Fatalf("a second one in one place: %v", err)
	default:
	}
	first()
	if err := <-got; err != nil || p.waiting.Load() != 0 || p.turnedAway.Load() != 0 {
		t.Errorf("%v; %d wait, %d were turned away", err, p.waiting.Load(), p.turnedAway.Load())
	}
}
