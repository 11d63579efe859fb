package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// patience bounds what the tests wait for.
const patience = 20 * time.Second

// one publishes size under note.
func one(size int64, note string) func(context.Context, *catalog.Publication) (catalog.Published, error) {
	return func(context.Context, *catalog.Publication) (catalog.Published, error) {
		return catalog.Published{Size: size, Checkpoint: []byte(note)}, nil
	}
}

func wantPublished(t *testing.T, db *catalog.DB, size int64, checkpoint string) {
	t.Helper()
	got, note, err := db.Published(t.Context())
	if err != nil || got != size || string(note) != checkpoint {
		t.Errorf("published is %d, %q, %v, want %d, %q", got, note, err, size, checkpoint)
	}
}

func testPublish(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	err := db.Publish(ctx, func(ctx context.Context, p *catalog.Publication) (catalog.Published, error) {
		if now := p.Now(); now.Size != 0 || now.Checkpoint != nil {
			t.Errorf("in a new catalog %v is published", now)
		}
		grow(t, db, nil) // entries may be made meanwhile
		grow(t, db, nil)
		if err := p.Hold(ctx); err != nil {
			t.Errorf("Hold: %v", err)
		}
		return catalog.Published{Size: 2, Checkpoint: []byte("two")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantPublished(t, db, 2, "two")
	for _, test := range []struct {
		name string
		f    func(context.Context, *catalog.Publication) (catalog.Published, error)
		want error
	}{
		{"ahead of the head", one(3, "three"), catalog.ErrPublishedAhead},
		{"smaller", one(1, "one"), catalog.ErrPublishedShrinks},
		{"refused", func(context.Context, *catalog.Publication) (catalog.Published, error) {
			return catalog.Published{Size: 2, Checkpoint: []byte("refused")}, errRefused
		}, errRefused},
		{"the same", func(_ context.Context, p *catalog.Publication) (catalog.Published, error) { return p.Now(), nil }, nil},
	} {
		if err := db.Publish(ctx, test.f); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", test.name, err, test.want)
		}
		wantPublished(t, db, 2, "two")
	}
	if err := db.Publish(ctx, one(2, "renewed")); err != nil {
		t.Error(err)
	}
	wantPublished(t, db, 2, "renewed")
}

// testPublishAlone has many publish one entry more than is published each.
func testPublishAlone(t *testing.T, db *catalog.DB) {
	const publishers, rounds = 4, 5
	for range publishers * rounds {
		grow(t, db, nil)
	}
	inside := make(chan struct{}, 1)
	done := make(chan error, publishers)
	for range publishers {
		go func() {
			for range rounds {
				err := db.Publish(t.Context(), func(ctx context.Context, p *catalog.Publication) (catalog.Published, error) {
					select {
					case inside <- struct{}{}:
						defer func() { <-inside }()
					default:
						t.Error("two publish at once")
					}
					size := p.Now().Size + 1
					return catalog.Published{Size: size, Checkpoint: fmt.Append(nil, size)}, p.Hold(ctx)
				})
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range publishers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	wantPublished(t, db, publishers*rounds, fmt.Sprint(publishers*rounds))
}

func testPublishPanic(t *testing.T, db *catalog.DB) {
	grow(t, db, nil)
	func() {
		defer func() {
			if r, _ := recover().(error); !errors.Is(r, errRefused) {
				t.Errorf("recovered %v, want the function's own panic", r)
			}
		}()
		_ = db.Publish(t.Context(), func(context.Context, *catalog.Publication) (catalog.Published, error) { panic(errRefused) })
	}()
	if err := db.Publish(t.Context(), one(1, "one")); err != nil { // the right is free again
		t.Error(err)
	}
}

func confirm(t *testing.T, db *catalog.DB, replica string, seen int64, lease time.Duration, want int64) {
	t.Helper()
	p, err := db.Confirm(t.Context(), replica, seen, lease)
	if err != nil || p.Size != want {
		t.Errorf("Confirm of %s: %d, %v, want %d", replica, p.Size, err, want)
	}
}

func wantUnconfirmed(t *testing.T, db *catalog.DB, size int64, want ...string) {
	t.Helper()
	if names, err := db.Unconfirmed(t.Context(), size); err != nil || !slices.Equal(names, want) {
		t.Errorf("Unconfirmed of %d: %v, %v, want %v", size, names, err, want)
	}
}

// lease is longer than what the tests do between asking for it and looking at it.
const lease = 10 * time.Second

// ripen waits until the catalog knows all leases there can be.
func ripen(t *testing.T, db *catalog.DB) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		_, err := db.Unconfirmed(t.Context(), 0)
		if err == nil {
			return
		}
		if !db.Shared() || !errors.Is(err, catalog.ErrUnavailable) || time.Since(start) > patience {
			t.Fatalf("Unconfirmed: %v", err)
		}
	}
}

func testLeases(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	grow(t, db, nil)
	grow(t, db, nil)
	ripen(t, db)
	confirm(t, db, "a", 0, lease, 0)
	confirm(t, db, "b", 0, lease, 0)
	wantUnconfirmed(t, db, 0)
	if _, err := db.Unconfirmed(ctx, 1); !errors.Is(err, catalog.ErrRestored) {
		t.Errorf("Unconfirmed of what is not published: error %v, want ErrRestored", err)
	}
	if err := db.Publish(ctx, one(1, "one")); err != nil {
		t.Fatal(err)
	}
	wantUnconfirmed(t, db, 1, "a", "b")
	// Who comes late has no lease, and learns why; who had one keeps it.
	confirm(t, db, "late", 0, lease, 1)
	confirm(t, db, "a", 0, lease, 1)
	wantUnconfirmed(t, db, 1, "a", "b")
	confirm(t, db, "a", 1, lease, 1)
	confirm(t, db, "late", 1, lease, 1)
	wantUnconfirmed(t, db, 1, "b")
	if err := db.Publish(ctx, one(2, "two")); err != nil {
		t.Fatal(err)
	}
	wantUnconfirmed(t, db, 2, "a", "b", "late")
	confirm(t, db, "a", 2, lease, 2)
	// Who starts anew has seen nothing again.
	confirm(t, db, "a", 0, lease, 2)
	wantUnconfirmed(t, db, 2, "a", "b", "late")
	for _, name := range []string{"a", "b", "late", "never there"} {
		if err := db.Leave(ctx, name); err != nil {
			t.Errorf("Leave: %v", err)
		}
	}
	wantUnconfirmed(t, db, 2)
	for _, name := range []string{"", "\x00", strings.Repeat("x", 2000)} {
		if _, err := db.Confirm(ctx, name, 0, lease); !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("a replica %.9q: error %v, want ErrBadText", name, err)
		}
	}
}

// testLeaseEnds looks at leases as time passes by the database's clock.
func testLeaseEnds(t *testing.T, db *catalog.DB) {
	grow(t, db, nil)
	ripen(t, db)
	start := time.Now()
	const short = 300 * time.Millisecond
	confirm(t, db, "long", 0, lease, 0)
	confirm(t, db, "long", 0, short, 0) // no lease becomes shorter
	confirm(t, db, "short", 0, short, 0)
	if err := db.Publish(t.Context(), one(1, "one")); err != nil {
		t.Fatal(err)
	}
	for {
		confirm(t, db, "short", 0, short, 1) // in vain: it has not seen what is published
		names, err := db.Unconfirmed(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		passed := time.Since(start)
		if slices.Equal(names, []string{"long"}) {
			if passed < short {
				t.Errorf("the lease was over after %s", passed)
			}
			return
		}
		if passed > lease {
			t.Fatalf("after %s %v have leases", passed, names)
		}
	}
}

func testWatch(t *testing.T, db *catalog.DB) {
	grow(t, db, nil)
	ctx, cancel := context.WithCancel(t.Context())
	signals := db.Watch(ctx)
	if db.Shared() {
		wantSignal(t, signals) // of what was missed before
		if err := db.Publish(t.Context(), one(1, "one")); err != nil {
			t.Fatal(err)
		}
		wantSignal(t, signals)
	}
	cancel()
	wantClosed(t, signals)
	signals = db.Watch(t.Context())
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wantClosed(t, signals)
}

func wantSignal(t *testing.T, signals <-chan struct{}) {
	t.Helper()
	select {
	case _, ok := <-signals:
		if !ok {
			t.Fatal("the channel is closed")
		}
	case <-time.After(patience):
		t.Fatal("no signal")
	}
}

func wantClosed(t *testing.T, signals <-chan struct{}) {
	t.Helper()
	for end := time.After(patience); ; {
		select {
		case _, ok := <-signals:
			if !ok {
				return
			}
		case <-end:
			t.Fatal("the channel is not closed")
		}
	}
}

func testStateKeys(t *testing.T, db *catalog.DB) {
	set(t, db, "b", "0")
	grow(t, db, nil)
	grow(t, db, func(tx *catalog.Tx, idx int64) error {
		return errors.Join(tx.PutState(t.Context(), "c", idx, nil), tx.PutState(t.Context(), "a", idx, nil), tx.PutState(t.Context(), "b", idx, nil))
	})
	set(t, db, "b", "3")
	for _, test := range []struct {
		from, to int64
		limit    int
		want     string
	}{
		{0, 9, 9, "b0 a2 b2 c2 b3 "}, {0, 1, 9, "b0 "}, {1, 2, 9, ""}, {1, 3, 9, "a2 b2 c2 "}, {3, 3, 9, ""}, {4, 9, 9, ""},
		{3, 0, 9, ""}, {-5, 9, 3, "b0 a2 b2 "}, {0, 9, 0, ""}, {0, 9, -1, ""},
	} {
		keys, err := db.StateKeys(t.Context(), test.from, test.to, test.limit)
		got := ""
		for _, k := range keys {
			got += fmt.Sprint(k.Key, k.Index, " ")
		}
		if err != nil || got != test.want {
			t.Errorf("from %d to %d, at most %d: %q, %v, want %q", test.from, test.to, test.limit, got, err, test.want)
		}
	}
}

func testCondemned(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	var ids []storage.CID
	for i := range 600 {
		ids = append(ids, storage.CIDOf(fmt.Append(nil, i)))
	}
	want := func(want ...storage.CID) {
		t.Helper()
		got, err := db.Condemned(ctx, ids)
		slices.SortFunc(want, func(a, b storage.CID) int { return strings.Compare(a.String(), b.String()) })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d are condemned, %v, want %d", len(got), err, len(want))
		}
	}
	start := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	want()
	update(t, db, func(tx *catalog.Tx) error {
		return errors.Join(tx.Condemn(ctx, ids[:400], start), tx.Condemn(ctx, nil, start), tx.Condemn(ctx, ids[:1], start.Add(time.Hour)), tx.Condemn(ctx, ids[:1], start))
	})
	want(slices.Clone(ids[:400])...)
	update(t, db, func(tx *catalog.Tx) error {
		return errors.Join(tx.Pardon(ctx, ids[3:500]), tx.Pardon(ctx, nil), tx.Condemn(ctx, ids[599:], start.Add(time.Minute)))
	})
	want(ids[0], ids[1], ids[2], ids[599])
	if got, err := db.Condemned(ctx, []storage.CID{ids[7], ids[1], ids[1]}); err != nil || !slices.Equal(got, []storage.CID{ids[1]}) {
		t.Errorf("of three: %v, %v", got, err)
	}
	update(t, db, func(tx *catalog.Tx) error { return tx.ForgetCondemned(ctx, start.Add(time.Minute)) })
	want(ids[0], ids[599])
	update(t, db, func(tx *catalog.Tx) error { return tx.ForgetCondemned(ctx, start.Add(2*time.Hour)) })
	want()
}

func testPublishedRecords(t *testing.T, db *catalog.DB) {
	for range 3 {
		grow(t, db, nil)
	}
	for _, test := range []struct {
		published int64
		want      map[int64]string
	}{
		{0, map[int64]string{}},
		{1, map[int64]string{0: entry(0).RecordID}},
		{3, map[int64]string{0: entry(0).RecordID, 2: entry(2).RecordID}},
	} {
		if err := db.Publish(t.Context(), one(test.published, fmt.Sprint(test.published))); err != nil {
			t.Fatal(err)
		}
		if found, err := db.PublishedRecords(t.Context(), []int64{2, 0, 7}); err != nil || !maps.Equal(found, test.want) {
			t.Errorf("of %d published: %v, %v, want %v", test.published, found, err, test.want)
		}
	}
}
