package server

import (
	"context"
	"errors"
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
