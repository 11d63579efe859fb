//go:build unix

package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// group is a registry of several replicas: one database, one folder of blobs, one key.
type group struct {
	*world
	t   *testing.T
	pg  *testbed.PG
	url string
}

// replica is one of them, as its own process would be.
type replica struct {
	*Registry
	blobs *faultyBlobs
	db    *catalog.DB
}

func newGroup(t *testing.T) *group {
	t.Helper()
	pg := testbed.SharedPostgres(t)
	g := &group{world: newWorld(t), t: t, pg: pg, url: pg.URL}
	c := g.configOf("genesis", g.url)
	if err := Genesis(context.Background(), c.Config, g.admin.Signer(g.admin.Public().URL())); err != nil {
		t.Fatal(err)
	}
	if err := c.Catalog.Close(); err != nil {
		t.Fatal(err)
	}
	return g
}

// parts are the stores that a replica is made of.
type parts struct {
	Config
	faulty *faultyBlobs
}

func (g *group) configOf(name, url string) parts {
	g.t.Helper()
	db, err := catalog.OpenPostgres(context.Background(), url)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { db.Close() })
	store, err := disk.Open(filepath.Join(g.folder, "store"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { store.Close() })
	blobs := &faultyBlobs{Blobs: store}
	return parts{Config{
		Catalog: db, Blobs: blobs, Keys: g.keys, PublicURL: "http://127.0.0.1:8585", Replica: name,
		Clock: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Spool: g.folder,
	}, blobs}
}

// openAt opens a replica that reaches the database by url, changed by change.
func (g *group) openAt(name, url string, change func(*Config)) (*replica, error) {
	g.t.Helper()
	p := g.configOf(name, url)
	if change != nil {
		change(&p.Config)
	}
	r, err := Open(context.Background(), p.Config)
	if err != nil {
		return nil, err
	}
	g.t.Cleanup(r.Close)
	return &replica{r, p.faulty, p.Catalog}, nil
}

func (g *group) replica(name string) *replica {
	g.t.Helper()
	r, err := g.openAt(name, g.url, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// behindProxy opens a replica that reaches the database through a proxy.
func (g *group) behindProxy(name string) (*replica, *testbed.Proxy) {
	g.t.Helper()
	proxy := testbed.NewProxy(g.t, g.pg.Address(), 1)
	r, err := g.openAt(name, through(g.t, g.url, proxy.Address()), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return r, proxy
}

// through is database with another address.
func through(t testing.TB, database, address string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = address
	return u.String()
}

// shows waits until r shows u as a whole.
func (g *group) shows(r *replica, u upload, most time.Duration) {
	g.t.Helper()
	eventually(g.t, most, func() error {
		if g.visible(r.Registry, u) == "" {
			return fmt.Errorf("%s is not there", u.name)
		}
		return nil
	})
}

// session is a session of p's, for reading.
func (g *group) session(r *replica, p person) string {
	g.t.Helper()
	token, _, err := r.Mint(context.Background(), assert(g.t, r.Registry, p.key, nil))
	if err != nil {
		g.t.Fatal(err)
	}
	return token
}

// remove ends p's membership.
func (g *group) remove(r *replica, p person) error {
	g.t.Helper()
	admin := person{g.admin}
	rec := admin.sign(g.t, r.Registry, record.MemberSubject(p.did()), &record.Member{Roles: []string{}, Tier: "guest", StakeholderAddrs: []string{}}, nil)
	_, err := r.Submit(context.Background(), admin.asker("admin"), rec.Envelope(), nil)
	return err
}

func (g *group) admit(r *replica, p person) {
	g.t.Helper()
	admit(g.t, r.Registry, person{g.admin}, p, state.RolePublisher)
}

// refuses is nil if r does not let the holder of token in.
func refuses(r *replica, token string) error {
	_, err := r.Authenticate(context.Background(), token)
	var denial *policy.Denial
	if errors.Is(err, ErrUnauthenticated) || errors.As(err, &denial) || errors.Is(err, ErrUnavailable) {
		return nil
	}
	return fmt.Errorf("a removed member is let in (%v)", err)
}

// oneLog holds what all replicas show, and blob storage, against one another: one log,
// without a gap, and everything that was acknowledged once, where its receipt says.
func (g *group) oneLog(acknowledged []Receipt, replicas ...*replica) {
	g.t.Helper()
	ctx := context.Background()
	first := replicas[0]
	head, err := first.db.Head(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, r := range replicas {
		eventually(g.t, 10*time.Second, func() error {
			if r.Size() != head {
				return fmt.Errorf("%s shows %d of %d entries", r.Replica, r.Size(), head)
			}
			return nil
		})
		if got, want := r.published.Load().Root, first.published.Load().Root; got != want {
			g.t.Errorf("%s shows the root %s, not %s", r.Replica, got, want)
		}
	}
	if err := first.checkEntries(ctx, head); err != nil {
		g.t.Error(err)
	}
	rows, err := first.db.Entries(ctx, 0, head)
	if err != nil || int64(len(rows)) != head {
		g.t.Fatalf("%d of %d entries, %v", len(rows), head, err)
	}
	at := map[string]int64{}
	for _, row := range rows {
		if other, twice := at[row.RecordID]; twice {
			g.t.Errorf("the record %s is at %d and at %d", row.RecordID, other, row.Index)
		}
		at[row.RecordID] = row.Index
	}
	for _, receipt := range acknowledged {
		if index, ok := at[string(receipt.Record)]; !ok || index != receipt.Index {
			g.t.Errorf("%s was acknowledged at %d and is at %d (%t)", receipt.Record, receipt.Index, index, ok)
		}
	}
	g.rebuiltAlike(first)
}

// rebuiltAlike rebuilds from blob storage alone, into another make of database.
func (g *group) rebuiltAlike(r *replica) {
	g.t.Helper()
	ctx := context.Background()
	c := g.configOf("rebuild", g.url).Config
	db, err := catalog.OpenSQLite(ctx, filepath.Join(g.t.TempDir(), "again.db"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer db.Close()
	c.Catalog = db
	done, err := Rebuild(ctx, c, func(int64) {})
	if err != nil || len(done.Refused)+len(done.Withheld) > 0 || done.Entries != r.Size() || done.Root != r.published.Load().Root {
		g.t.Fatalf("rebuild of %d entries: %+v, %v", r.Size(), done, err)
	}
	want, err := r.db.StateDigest(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	if got, err := db.StateDigest(ctx); err != nil || got != want {
		g.t.Errorf("state %x was rebuilt as %x, %v", want, got, err)
	}
}

// failsWith waits until r has stopped for one of the reasons.
func (g *group) failsWith(r *replica, most time.Duration, reasons ...error) {
	g.t.Helper()
	select {
	case err := <-r.Failed():
		for _, reason := range reasons {
			if errors.Is(err, reason) {
				return
			}
		}
		g.t.Errorf("%s has stopped: %v", r.Replica, err)
	case <-time.After(most):
		g.t.Fatalf("%s goes on", r.Replica)
	}
	if err := r.Current(); !errors.Is(err, ErrUnavailable) {
		g.t.Errorf("%s has stopped and answers: %v", r.Replica, err)
	}
}

func receiptsOf(published []Published, errs []error) (receipts []Receipt) {
	for i, p := range published {
		if errs[i] == nil {
			receipts = append(receipts, p.Receipt)
		}
	}
	return receipts
}

func uploads(prefix string, n int) (all []upload) {
	for i := range n {
		all = append(all, newUpload(strings.ToLower(fmt.Sprint(prefix, i))))
	}
	return all
}
