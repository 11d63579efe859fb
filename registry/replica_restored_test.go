//go:build unix

package registry

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// maintenance runs statements in the database that every server has.
func (g *group) maintenance(statements ...string) {
	g.t.Helper()
	u, err := url.Parse(g.url)
	if err != nil {
		g.t.Fatal(err)
	}
	u.Path = "/postgres"
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		g.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			g.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (g *group) database() string {
	g.t.Helper()
	u, err := url.Parse(g.url)
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// shut ends all sessions and lets none in, but for whoever may not be kept out.
func (g *group) shut(database string) {
	g.t.Helper()
	g.maintenance("ALTER DATABASE "+database+" WITH ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"'")
}

// copyNow takes a copy of the database; replicas lose their connections for a moment.
func (g *group) copyNow() {
	g.t.Helper()
	name := g.database()
	g.shut(name)
	g.maintenance("CREATE DATABASE "+name+"_copy TEMPLATE "+name, "ALTER DATABASE "+name+" WITH ALLOW_CONNECTIONS true")
}

// restore puts the copy in the place of the database.
func (g *group) restore() {
	g.t.Helper()
	name := g.database()
	g.shut(name)
	g.maintenance("ALTER DATABASE "+name+" RENAME TO "+name+"_gone", "ALTER DATABASE "+name+"_copy RENAME TO "+name)
}

// wait waits until r knows that it shows all there is.
func (g *group) wait(replicas ...*replica) {
	g.t.Helper()
	for _, r := range replicas {
		eventually(g.t, 20*time.Second, r.Current)
	}
}

// A database that is put back under running replicas is noticed by whoever has shown more,
// and by whoever is about to enter anything; and no replica starts on it.
func TestADatabaseThatWasPutBackStopsTheReplicas(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	if _, err := g.publish(a.Registry, newUpload("before")); err != nil {
		t.Fatal(err)
	}
	g.copyNow()
	g.wait(a, b)
	if _, err := g.publish(a.Registry, newUpload("after")); err != nil {
		t.Fatal(err)
	}
	g.shows(b, newUpload("after"), 5*time.Second)
	g.restore()
	g.failsWith(a, 20*time.Second, ErrBehind)
	g.failsWith(b, 20*time.Second, ErrBehind)
	if _, err := g.publish(b.Registry, newUpload("later")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a publish after that: %v", err)
	}
	if _, err := g.openAt("c", g.url, nil); !errors.Is(err, ErrBehind) {
		t.Errorf("a start on it: %v", err)
	}
}

// A replica that was cut off, and comes back to a database that was put back to exactly what
// it shows itself, does not take that for all there is: what it missed was acknowledged.
func TestALaggingReplicaDoesNotTrustADatabaseThatWasPutBack(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a := g.replica("a")
	b, proxy := g.behindProxy("b")
	p := newPerson(t)
	g.admit(a, p)
	g.copyNow()
	g.wait(a, b)
	token := g.session(b, p)
	proxy.Use(testbed.Plan{Apart: true})
	if err := g.remove(a, p); err != nil {
		t.Fatal(err)
	}
	if err := refuses(b, token); err != nil {
		t.Fatal(err)
	}
	a.Close()
	g.restore()
	proxy.CutAll()
	proxy.Use(testbed.Plan{})
	deadline := time.Now().Add(20 * time.Second)
	for stopped := false; !stopped; {
		if err := refuses(b, token); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-b.Failed():
			if stopped = true; !errors.Is(err, ErrBehind) {
				t.Error(err)
			}
		default:
			if time.Now().After(deadline) {
				t.Fatal("the replica goes on")
			}
		}
	}
}

// What was committed into a database that is put back before it is published is not
// acknowledged, though another replica may have entered and published in its place.
func TestWhatWasPutBackIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a := g.replica("a")
	g.copyNow()
	g.wait(a)
	held := &heldBlobs{Blobs: a.Blobs, at: make(chan struct{}), on: make(chan struct{})}
	a.Blobs = held
	answer := make(chan error, 1)
	go func() {
		_, err := g.publish(a.Registry, newUpload("lost"))
		answer <- err
	}()
	<-held.at // it is committed, and about to be stored
	g.restore()
	b, err := g.openAt("b", g.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.publish(b.Registry, newUpload("other"))
	if err != nil {
		t.Fatal(err)
	}
	close(held.on)
	if err := <-answer; !errors.Is(err, ErrUnavailable) {
		t.Errorf("what is lost was acknowledged: %v", err)
	}
	g.failsWith(a, 20*time.Second, ErrBehind, ErrFork)
	g.oneLog([]Receipt{p.Receipt}, b)
}

// heldBlobs holds up the first object that is created.
type heldBlobs struct {
	storage.Blobs
	at, on chan struct{}
	held   bool
}

func (b *heldBlobs) Create(ctx context.Context, key string, data []byte) error {
	if !b.held {
		b.held = true
		close(b.at)
		<-b.on
	}
	return b.Blobs.Create(ctx, key, data)
}

// A receipt is believed only where what is published has the record at its place.
func TestAReceiptIsHeldAgainstWhatIsPublished(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a := g.replica("a")
	p, err := g.publish(a.Registry, newUpload("there"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		receipt Receipt
		want    error
	}{
		"its place":             {p.Receipt, nil},
		"another place":         {Receipt{Record: p.Record, Index: p.Index - 1}, ErrBehind},
		"another record":        {Receipt{Record: record.ID(strings.Repeat("0", len(p.Record))), Index: p.Index}, ErrBehind},
		"above what is visible": {Receipt{Record: p.Record, Index: p.Index + 1}, ErrBehind},
	} {
		err := a.stillEntered(t.Context(), []*submission{{refusal: errors.New("refused")}, {receipt: c.receipt}})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Checkpoints of larger trees that this catalog does not have, and of other roots, are told
// from those of other replicas.
func TestWhatOthersPublishedIsBelievedOnlyAsOurOwn(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a := g.replica("a")
	if _, err := g.publish(a.Registry, newUpload("there")); err != nil {
		t.Fatal(err)
	}
	size, note, err := a.db.Published(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shown := a.published.Load()
	forged := checkpoint{Checkpoint: shown.Checkpoint, note: []byte("of another log")}
	forged.Root[0] ^= 1
	smaller := forged
	smaller.Size--
	other, err := a.sign(forged.Checkpoint, shown.settings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	spoiled := []byte(strings.Replace(string(note), "\n— ", "\n— x", 1))
	for name, c := range map[string]struct {
		shown *checkpoint
		size  int64
		note  []byte
		want  error
	}{
		"ours":                     {shown, size, note, nil},
		"smaller":                  {shown, size - 1, note, ErrBehind},
		"of another root":          {shown, size, other, ErrFork},
		"of another size":          {shown, size + 1, note, ErrFork},
		"by nobody":                {shown, size, spoiled, ErrFork},
		"not what was shown":       {&forged, size, note, ErrFork},
		"nor what began with that": {&smaller, size, note, ErrFork},
	} {
		err := a.look(t.Context(), c.shown, catalog.Published{Size: c.size, Checkpoint: c.note})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a.Size() != size {
		t.Errorf("%d entries are shown, %d are published", a.Size(), size)
	}
}
