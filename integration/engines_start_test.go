package integration

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// Servers that start at once on an empty database begin one log, whether they hold
// the first admin's key or not.
func TestServersThatStartAtOnceBeginOneLog(t *testing.T) {
	t.Parallel()
	for _, held := range []int{0, 1, 6} {
		for round := range 3 {
			t.Run(fmt.Sprintf("%d of 6 hold the key, %d", held, round), func(t *testing.T) {
				t.Parallel()
				beginAtOnce(t, held)
			})
		}
	}
}

func beginAtOnce(t *testing.T, held int) {
	url, folder := testbed.SharedPostgres(t).URL, t.TempDir()
	keyFile := filepath.Join(folder, "registry.jwk")
	if err := registry.CreateKeys(keyFile, "", rand.Reader); err != nil {
		t.Fatal(err)
	}
	keys, err := registry.ReadKeys(keyFile, "")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := did.GenerateEd25519(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := admin.Signer(admin.Public().URL())
	store, err := disk.Open(filepath.Join(folder, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var servers sync.WaitGroup
	for i := range 6 {
		servers.Go(func() {
			var own []did.Signer
			if i < held {
				own = append(own, signer)
			}
			if err := beginOne(t, url, store, keys, i, signer.KeyID().DID, own); err != nil {
				t.Errorf("server %d: %v", i, err)
			}
		})
	}
	servers.Wait()
	want := 1
	if held > 0 {
		want = 2
	}
	if entries, err := os.ReadDir(filepath.Join(folder, "store", "log", "entry")); err != nil || len(entries) != want {
		t.Errorf("%d entries are stored, %v; want %d", len(entries), err, want)
	}
	db, err := catalog.OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if head, err := db.Head(t.Context()); err != nil || head != int64(want) {
		t.Errorf("the head is %d, %v; want %d", head, err, want)
	}
	if size, _ := publishedRoot(t, db); size != int64(want) {
		t.Errorf("%d entries are published; want %d", size, want)
	}
}

// beginOne is what serve does at its start.
func beginOne(t *testing.T, url string, store storage.Blobs, keys registry.Keys, i int, admin did.DID, own []did.Signer) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	db, err := catalog.OpenPostgres(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	config := registry.Config{
		Catalog: db, Blobs: store, Keys: keys, PublicURL: "https://registry.example", Replica: fmt.Sprint("server-", i),
		Limits: cargo.DefaultLimits(), Clock: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	}
	if _, err := registry.Begun(ctx, config); err != nil {
		return err
	}
	if _, err := registry.Begin(ctx, config, admin, own...); err != nil {
		return err
	}
	r, err := registry.Open(ctx, config)
	if err == nil {
		r.Close()
	}
	return err
}

// Three processes start at once on empty engines; the log waits for its admin, whose
// login by any of them completes it for all.
func TestReplicasThatStartAtOnceServeOneLog(t *testing.T) {
	t.Parallel()
	l := prepareLabOn(t, pair{}.onPostgres(t).onMinIO(t))
	t.Cleanup(l.stop)
	servers := []*lab{l, l.replica(), l.replica()}
	var starting sync.WaitGroup
	for _, s := range servers {
		starting.Go(func() {
			if err := s.tryStart(); err != nil {
				t.Errorf("%v\n%s", err, s.log())
			}
		})
	}
	starting.Wait()
	u := l.operator
	must(t, u.aln(u.folder, "login", l.engines.public))
	for _, s := range servers {
		if text := s.log(); !strings.Contains(text, "The log waits for its first admin") {
			t.Errorf("a server does not say whom the log waits for:\n%s", text)
		}
		if note := s.awaitSize(2); !strings.Contains(note, "\n2\n") {
			t.Errorf("one shows the checkpoint\n%s", note)
		}
	}
	must(t, u.aln(u.folder, "log", "check", "--full"))
	u.login(servers[2], u.folder) // where it calls itself by its public URL
}

// awaitSize waits until the server shows so many entries, for at most 5 seconds, and
// returns its checkpoint.
func (l *lab) awaitSize(size int) string {
	l.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, _, note := l.get("/log/checkpoint", "")
		if strings.Contains(string(note), fmt.Sprintf("\n%d\n", size)) || time.Now().After(deadline) {
			return string(note)
		}
	}
}

// refuses starts the server, which must refuse, and returns its last line.
func (l *lab) refuses(want ...string) string {
	l.t.Helper()
	if err := l.tryStart(); err == nil {
		l.t.Fatalf("it starts, but must not\n%s", l.log())
	}
	<-l.exited
	l.cmd = nil
	return l.saysLast(want...)
}

// saysLast is the last line that the server said, which must hold want.
func (l *lab) saysLast(want ...string) string {
	l.t.Helper()
	lines := strings.Split(strings.TrimSpace(l.log()), "\n")
	last := lines[len(lines)-1]
	for _, w := range want {
		if !strings.Contains(last, w) {
			l.t.Errorf("it does not say %q: %s", w, last)
		}
	}
	return last
}

// offered is the command that a refusal offers.
var offered = regexp.MustCompile("type `aln-registry ([^`]+)`")

// typesOffered types the command that a refusal offers, with the password in the environment.
func (l *lab) typesOffered(refusal string) result {
	l.t.Helper()
	found := offered.FindStringSubmatch(refusal)
	if found == nil {
		l.t.Fatalf("it offers no command: %s", refusal)
	}
	return l.engines.server.run(l.engines.server.folder, "sh", "-euc", binary+" "+found[1])
}

// What is missing on one side is told apart: a catalog that is behind is derived anew
// by the command that the refusal names, and what the bucket has lost is not papered over.
func TestARefusalNamesTheCommandThatMends(t *testing.T) {
	t.Parallel()
	l := newLabOn(t, pair{}.onPostgres(t).onMinIO(t))
	l.stop()
	full := l.engines.pair

	empty := withSecret(testbed.SharedPostgres(t).URL)
	mustFail(t, l.engines.server.aln(l.engines.server.folder, "gc", "--key", l.engines.key, "--blobs", l.engines.blobs, "--db", empty),
		"there is no catalog here yet: type `aln-registry rebuild --db 'postgres://postgres@")
	l.flags = replaced(l.flags, "--db", empty)
	l.engines.db = l.flags[indexOf(l.flags, "--db")+1]
	line := l.refuses("the catalog is behind blob storage", "rebuild --db 'postgres://postgres@127.0.0.1", "--blobs 's3://", "--key /")
	must(t, l.typesOffered(line))
	l.start()
	must(t, l.operator.aln(l.operator.folder, "log", "check", "--full"))
	l.stop()

	l.flags = replaced(l.flags, "--blobs", pair{}.onMinIO(t).blobs)
	l.refuses("blob storage has lost part of the log, or is not this registry's", "fsck --repair --db ")
	l.engines.blobs = l.flags[indexOf(l.flags, "--blobs")+1]
	mustFail(t, l.mend("rebuild"), "the log of did:key:", "holds nothing of it; correct --blobs")
	mustFail(t, l.mend("fsck"), "log-absent  log: ", "1 finding\n")
	l.engines.blobs = full.blobs
	l.flags = replaced(l.flags, "--blobs", full.blobs)

	other := filepath.Join(t.TempDir(), "other.jwk")
	must(t, l.engines.server.aln(t.TempDir(), "key", "registry", "--out", other))
	l.flags = replaced(l.flags, "--key", other)
	l.engines.key = other
	l.refuses("the key file is that of did:key:", "but the log here is that of did:key:")
	l.flags = replaced(l.flags, "--db", withSecret(testbed.SharedPostgres(t).URL))
	l.engines.db = l.flags[indexOf(l.flags, "--db")+1]
	others := []string{"the key file is that of did:key:", "but blob storage holds the log of did:key:"}
	l.refuses(others...)
	mustFail(t, l.mend("rebuild"), others...)
	mustFail(t, l.mend("fsck"), others...)
}

// replaced is flags with another value for one of them.
func replaced(flags []string, flag, value string) []string {
	other := append([]string{}, flags...)
	other[indexOf(other, flag)+1] = value
	return other
}

func indexOf(list []string, word string) int {
	for i, w := range list {
		if w == word {
			return i
		}
	}
	panic(word)
}

// Empty engines begin a log only for an admin who is named.
func TestEmptyEnginesNeedAnAdmin(t *testing.T) {
	t.Parallel()
	for _, p := range pairsOfEngines {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			l := prepareLabOn(t, p.open(t))
			all := l.flags
			i := indexOf(all, "--admin")
			l.flags = append(append([]string{}, all[:i]...), all[i+2:]...)
			l.refuses("the catalog and the blob storage are empty", "--admin DID")
			l.flags = all
			t.Cleanup(l.stop)
			l.start()
			l.stop()
			l.flags = append(append([]string{}, all[:i]...), all[i+2:]...)
			l.start()
		})
	}
}

// The greeting names the engines, and nothing that is secret.
func TestTheGreetingNamesTheEngines(t *testing.T) {
	t.Parallel()
	p := pair{}.onPostgres(t).onMinIO(t)
	l := newLabOn(t, p, "--json")
	var g struct{ Data, Catalog, Blobs, Key_file string }
	if err := json.NewDecoder(strings.NewReader(l.log())).Decode(&g); err != nil {
		t.Fatalf("%v\n%s", err, l.log())
	}
	want := strings.Replace(p.db, ":"+dbSecret, "", 1)
	if g.Data != "" || g.Catalog != want || g.Blobs != p.blobs || g.Key_file != l.engines.key {
		t.Errorf("it greets with %+v", g)
	}
	for _, args := range [][]string{{"migrate", "status", "--db", p.db}, {"migrate", "up", "--db", p.db}, {"migrate", "status", "--json", "--db", p.db}} {
		r := must(t, l.engines.server.aln(t.TempDir(), args...))
		p.tellsNoSecret(t, r.stdout+r.stderr)
	}
}

// A schema with pending migrations is not served before somebody migrates it, and
// one of a newer release never.
func TestASchemaIsMigratedOnPurpose(t *testing.T) {
	t.Parallel()
	l := newLabOn(t, pair{}.onPostgres(t).onMinIO(t))
	l.stop()
	execPostgres(t, l.engines.db, "DELETE FROM goose_db_version WHERE version_id >= 4",
		"DROP TABLE upstream_source", "DROP TABLE upstream_lack", "DROP TABLE upstream_file", "DROP TABLE upstream_blob", "DROP TABLE upstream_pin", "DROP TABLE upstream_alarm", "DROP INDEX scan_found")
	migrate := func(verb string) result {
		return l.engines.server.aln(t.TempDir(), "migrate", verb, "--db", l.engines.db)
	}
	line := l.refuses("type `aln-registry migrate up --db 'postgres://postgres@127.0.0.1")
	mustFail(t, migrate("status"), "has schema 3, this release", "pending: 00004_upstream.sql", "pending: 00005_upstream_more.sql")
	must(t, l.typesOffered(line))
	must(t, migrate("status"))
	must(t, migrate("up")) // again
	l.start()
	l.stop()
	execPostgres(t, l.engines.db, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, true)")
	l.refuses("a newer release of aln-registry has written it")
	mustFail(t, migrate("status"), "has schema 99")
	mustFail(t, migrate("up"), "a newer release of aln-registry")
}

// A server that is started together with its engines waits for them.
func TestAStartWaitsForTheEngines(t *testing.T) {
	pg, s3 := testbed.Postgres(t), testbed.MinIO(t)
	p := pair{db: withSecret(pg.URL)}.onBucket(t, s3)
	l := prepareLabOn(t, p)
	t.Cleanup(l.stop)
	pg.Stop()
	if err := s3.Stop(); err != nil {
		t.Fatal(err)
	}
	started := make(chan error)
	go func() { started <- l.tryStart() }()
	if err := s3.Start(); err != nil {
		t.Fatal(err)
	}
	const waits = `msg="an engine cannot be reached; waiting for it" engine="the database"`
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(l.log(), waits); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not say that it waits:\n%s", l.log())
		}
	}
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/readyz": http.StatusServiceUnavailable, "/index/config.json": http.StatusServiceUnavailable} {
		status, header, said := l.get(path, "")
		if status != want || (want == http.StatusServiceUnavailable) != (header.Get("Retry-After") == "2") {
			t.Errorf("while it waits %s is %d, %v: %s", path, status, header, said)
		}
	}
	pg.Start()
	if err := <-started; err != nil {
		t.Fatalf("%v\n%s", err, l.log())
	}
	must(t, l.operator.aln(l.operator.folder, "login", l.engines.public))
}
