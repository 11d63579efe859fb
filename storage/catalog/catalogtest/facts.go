package catalogtest

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage/catalog"
)

func testPublished(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	for range 3 {
		grow(t, db, nil)
	}
	for _, step := range []struct {
		size       int64
		checkpoint string
		want       error
	}{
		{4, "ahead", catalog.ErrPublishedAhead},
		{-1, "negative", catalog.ErrPublishedShrinks},
		{2, "two", nil},
		{2, "two, renewed", nil},
		{1, "back", catalog.ErrPublishedShrinks},
		{3, "three", nil},
		{4, "ahead", catalog.ErrPublishedAhead},
	} {
		sizeBefore, checkpointBefore, err := db.Published(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Publish(ctx, one(step.size, step.checkpoint)); !errors.Is(err, step.want) {
			t.Errorf("Publish %q: error %v, want %v", step.checkpoint, err, step.want)
		}
		size, checkpoint, err := db.Published(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if step.want == nil && (size != step.size || string(checkpoint) != step.checkpoint) {
			t.Errorf("published is %d, %q, want %d, %q", size, checkpoint, step.size, step.checkpoint)
		}
		if step.want != nil && (size != sizeBefore || !bytes.Equal(checkpoint, checkpointBefore)) {
			t.Errorf("refusing %q changed what is published to %d, %q", step.checkpoint, size, checkpoint)
		}
	}
}

func testAssertions(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	start := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	for i, step := range []struct {
		issuer, jti string
		now, ends   time.Duration // since start
		fresh       bool
	}{
		{"did:key:a", "1", 0, time.Minute, true},
		{"did:key:a", "1", 0, time.Minute, false},
		{"did:key:a", "1", time.Second, time.Hour, false},
		{"did:key:b", "1", 0, time.Minute, true},
		{"did:key:a", "2", 0, time.Minute, true},
		{"did:key:a", "1", 59 * time.Second, time.Minute, false},
		// Forgotten only some time after it expired: the clock may have been set back.
		{"did:key:c", "x", 5 * time.Minute, 6 * time.Minute, true},
		{"did:key:a", "1", 30 * time.Second, time.Minute, false},
		{"did:key:c", "y", 5 * time.Hour, 6 * time.Hour, true},
		{"did:key:a", "1", 5 * time.Hour, 6 * time.Hour, true},
		// A part of a second is not lost.
		{"did:key:d", "1", 5 * time.Hour, 5*time.Hour + time.Millisecond, true},
		{"did:key:d", "1", 5 * time.Hour, 5*time.Hour + time.Millisecond, false},
	} {
		fresh, err := db.UseAssertion(ctx, step.issuer, step.jti, start.Add(step.ends), start.Add(step.now))
		if err != nil || fresh != step.fresh {
			t.Errorf("step %d: fresh %t, %v, want %t", i, fresh, err, step.fresh)
		}
	}
	for _, ends := range []time.Duration{0, -time.Second} {
		fresh, err := db.UseAssertion(ctx, "did:key:e", "1", start.Add(ends), start)
		if fresh || !errors.Is(err, catalog.ErrAssertionExpired) {
			t.Errorf("expired: fresh %t, error %v, want ErrAssertionExpired", fresh, err)
		}
	}
}

func testAssertionRace(t *testing.T, db *catalog.DB) {
	now := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	var group sync.WaitGroup
	results := make(chan bool, 16)
	for range cap(results) {
		group.Go(func() {
			fresh, err := db.UseAssertion(t.Context(), "did:key:a", "1", now.Add(time.Minute), now)
			if err != nil {
				t.Errorf("UseAssertion: %v", err)
			}
			results <- fresh
		})
	}
	group.Wait()
	close(results)
	n := 0
	for fresh := range results {
		if fresh {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it was fresh %d times, want once", n)
	}
}

func testMeta(t *testing.T, db *catalog.DB) {
	for _, value := range []string{"one", "two", "", "Für \"alle\"\n"} {
		if err := db.SetMeta(t.Context(), "key", value); err != nil {
			t.Fatal(err)
		}
		if err := db.SetMeta(t.Context(), "other", "x"); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := db.Meta(t.Context(), "key"); err != nil || !ok || got != value {
			t.Errorf("Meta: %q, %t, %v, want %q", got, ok, err, value)
		}
	}
}
