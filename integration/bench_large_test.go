package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// largeVersion is part of the name under which made data folders are kept in
// .cache; another one makes them anew.
const largeVersion = "v1"

// largeCatalog and smallCatalog are how many crates are compared.
const (
	largeCatalog = 100_000
	smallCatalog = 100
)

// Aims of BenchmarkLargeCatalog.
const (
	mostStart = 2.0 // seconds
	mostBytes = 500 << 20
)

// BenchmarkLargeCatalog: the start, the memory and the index GETs of a registry
// with 100,000 crates, and the latter in comparison with one of 100.
func BenchmarkLargeCatalog(b *testing.B) {
	small, large := catalogServer(b, smallCatalog), catalogServer(b, largeCatalog)
	say(b, "100,000 crates against 100")
	machine(b)
	var starts series // in seconds
	for range benchRounds {
		large.stop()
		began := time.Now()
		large.start()
		starts = append(starts, time.Since(began).Seconds())
	}
	idle := memory(b, large, "VmRSS")
	small.stop()
	small.start()
	few, many := sameNames(b, small), sameNames(b, large)
	var latency series
	for b.Loop() {
		latency = nil
		for range benchRounds {
			s := loadAll(b, small.url, few, 8_000)
			latency = append(latency, float64(loadAll(b, large.url, many, 8_000))/float64(s))
		}
	}
	against(b, "index GET, time of 100's", latency, 1.1, true)
	all := names(b, large, largeCatalog, 20_000)
	took := loadAll(b, large.url, all, len(all))
	say(b, "  %-34s %.0f µs each, of any crate, mostly not in memory", "index GET", float64(took.Microseconds())/float64(len(all)))
	say(b, "  %-34s %.2f s, from %.2f to %.2f; aim at most %.0f: %s", "start, until it answers",
		starts.median(), slices.Min(starts), slices.Max(starts), mostStart, metIf(starts.median() <= mostStart))
	peak := memory(b, large, "VmHWM")
	say(b, "  %-34s %d MiB at rest, %d MiB at most; aim at most %d: %s", "memory", idle>>20, peak>>20, int64(mostBytes)>>20, metIf(peak <= mostBytes))
}

func metIf(ok bool) string {
	if ok {
		return "met"
	}
	return "missed"
}

// sameNames are requests for the first 100 crates.
func sameNames(b *testing.B, l *lab) []request { return names(b, l, smallCatalog, smallCatalog) }

// names are requests for some of the first n crates, all of them if some is n.
func names(b *testing.B, l *lab, n, some int) []request {
	b.Helper()
	rng := mathrand.New(mathrand.NewPCG(5, 6))
	var all []request
	for _, i := range rng.Perm(n)[:some] {
		all = append(all, asking(l.url, "/public/index/"+cargo.IndexPath(largeName(i)), http.StatusOK))
	}
	return all
}

// loadAll is load for several requests in turn.
func loadAll(b *testing.B, base string, requests []request, n int) time.Duration {
	b.Helper()
	var next atomic.Int64
	var clients sync.WaitGroup
	start := time.Now()
	for range benchClients {
		clients.Go(func() {
			err := askEach(strings.TrimPrefix(base, "http://"), func() (request, bool) {
				i := int(next.Add(1)) - 1
				return requests[i%len(requests)], i < n
			})
			if err != nil {
				b.Errorf("%s: %v", base, err)
			}
		})
	}
	clients.Wait()
	return time.Since(start)
}

// memory is a figure of the server's /proc/<pid>/status, in bytes.
func memory(b *testing.B, l *lab, figure string) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, figure+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib << 10
		}
	}
	b.Fatalf("no %s", figure)
	return 0
}

// catalogServer runs the program over a data folder with n crates.
func catalogServer(b *testing.B, n int) *lab {
	b.Helper()
	folder, err := filepath.Abs(filepath.Join("..", ".cache", fmt.Sprintf("bench-catalog-%s-%d", largeVersion, n)))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		makeCatalog(b, folder, n)
	}
	log, err := os.Create(filepath.Join(benchFolder(b), "server.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	l := &lab{t: b, data: folder, flags: []string{"--anonymous-read"}, url: "http://" + steadyAddress(b), pinned: true, logTo: log}
	l.operator = newUserIn(b, benchFolder(b))
	l.start()
	b.Cleanup(l.stop)
	return l
}

func largeName(i int) string { return fmt.Sprintf("crate-%06d", i) }

// makeCatalog publishes n crates into a new data folder, by the registry's own
// ways, but for one: blobs are not synced. What is interrupted begins again.
func makeCatalog(b *testing.B, folder string, n int) {
	b.Helper()
	began := time.Now()
	making := folder + ".making"
	if err := errors.Join(os.RemoveAll(making), os.MkdirAll(filepath.Join(making, "keys"), 0o700)); err != nil {
		b.Fatal(err)
	}
	if _, err := fillCatalog(making, n, 0); err != nil {
		b.Fatal(err)
	}
	if err := os.Rename(making, folder); err != nil {
		b.Fatal(err)
	}
	say(b, "made %d crates in %s, kept in %s", n, time.Since(began).Round(time.Second), folder)
}

// fillCatalog publishes n crates of about size bytes and returns a read session of their owner's.
func fillCatalog(folder string, n, size int) (token string, err error) {
	ctx := context.Background()
	keys, err := registry.OpenKeys(filepath.Join(folder, "keys", "registry.jwk"), "", rand.Reader)
	if err != nil {
		return "", err
	}
	store, err := disk.Open(filepath.Join(folder, "store"))
	if err != nil {
		return "", err
	}
	defer store.Close()
	db, err := catalog.OpenSQLite(ctx, filepath.Join(folder, "catalog.db"))
	if err != nil {
		return "", err
	}
	defer db.Close()
	admin, err := did.GenerateEd25519(rand.Reader)
	if err != nil {
		return "", err
	}
	config := registry.Config{
		Catalog: db, Blobs: unsynced{store, filepath.Join(folder, "store")}, Keys: keys, PublicURL: "http://127.0.0.1:8585",
		Limits: cargo.DefaultLimits(), Clock: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Spool: folder,
	}
	if err := registry.Genesis(ctx, config, admin.Signer(admin.Public().URL())); err != nil {
		return "", err
	}
	r, err := registry.Open(ctx, config)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if err := publishMany(ctx, r, admin, n, size); err != nil {
		return "", err
	}
	assertion, err := policy.SignAssertion(policy.Assertion{
		Issuer: admin.Public().DID(), Subject: admin.Public().DID(), Audience: r.SessionURL(),
		IssuedAt: time.Now().Unix(), Expiry: time.Now().Add(time.Minute).Unix(), ID: rand.Text(),
		Lifetime: int64(policy.MaxSession / time.Second), Scope: particle.ScopeRead,
	}, did.EdDSA, admin.Signer(admin.Public().URL()))
	if err != nil {
		return "", err
	}
	token, _, err = r.Mint(ctx, assertion)
	return token, err
}

// publishMany publishes crates by many at once, so that they share transactions.
func publishMany(ctx context.Context, r *registry.Registry, admin did.PrivateKey, n, size int) error {
	var next atomic.Int64
	failed := make(chan error, 64)
	for range cap(failed) {
		go func() {
			var err error
			for i := int(next.Add(1)) - 1; i < n && err == nil; i = int(next.Add(1)) - 1 {
				err = publishLarge(ctx, r, admin, largeName(i), size)
			}
			failed <- err
		}()
	}
	var err error
	for range cap(failed) {
		err = errors.Join(err, <-failed)
	}
	return err
}

func publishLarge(ctx context.Context, r *registry.Registry, admin did.PrivateKey, name string, size int) error {
	me := admin.Public().DID()
	crate := newRelease(mathrand.New(mathrand.NewPCG(7, 8)), 0, name, "1.0.0", size)
	heads, err := r.HeadsFor(ctx, policy.Asker{DID: me, Tier: particle.TierCoreStakeholder, Scopes: []string{particle.ScopeRead}}, "crate/"+name)
	if err != nil {
		return err
	}
	subject, err := record.VersionSubject(record.KindCrate, name, "1.0.0")
	if err != nil {
		return err
	}
	now := time.Now()
	rec, err := record.Sign(record.Draft{
		Subject: subject, Digest: crate.cid.Digest(), Body: &record.Publish{},
		Header: record.Header{Registry: heads.Origin, IssuedAt: now, Expires: now.Add(time.Hour), Prev: heads.Prev, By: heads.By},
	}, admin.Signer(admin.Public().URL()))
	if err != nil {
		return err
	}
	asker := policy.Asker{DID: me, Tier: particle.TierCoreStakeholder, Scopes: []string{particle.ScopePublish}, Until: now.Add(time.Hour)}
	_, err = r.PublishCrate(ctx, asker, rec.Envelope(), bytes.NewReader(frameOf(crate)))
	return err
}

// unsynced is a disk store whose writes are not synced: for data folders that
// are thrown away when their making is interrupted.
type unsynced struct {
	*disk.Store
	root string
}

// Put implements storage.Blobs.
func (u unsynced) Put(_ context.Context, id storage.CID, _ int64, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	name := id.String()
	return u.write(filepath.Join("blobs", name[len(name)-3:len(name)-1], name), data)
}

// Create implements storage.Blobs.
func (u unsynced) Create(_ context.Context, key string, data []byte) error {
	return u.write(filepath.FromSlash(key), data)
}

func (u unsynced) write(name string, data []byte) error {
	path := filepath.Join(u.root, name)
	err := os.WriteFile(path, data, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
	}
	return err
}
