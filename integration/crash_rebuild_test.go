package integration

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// rebuilt is what `rebuild --json` prints.
type rebuilt struct {
	Origin     string   `json:"origin"`
	Entries    int64    `json:"entries"`
	Checkpoint int64    `json:"checkpoint"`
	State      string   `json:"state"`
	Before     string   `json:"state_before"`
	Refused    []string `json:"refused"`
	Withheld   []string `json:"withheld"`
}

func (l *lab) removeCatalog() {
	l.t.Helper()
	if l.engines != nil && l.engines.db != "" {
		execPostgres(l.t, l.engines.db, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
		return
	}
	files, err := filepath.Glob(filepath.Join(l.data, "catalog.db*"))
	if err != nil || len(files) == 0 {
		l.t.Fatalf("no catalog to remove: %v", err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			l.t.Fatal(err)
		}
	}
}

// rebuild runs the command and checks that it found nothing wrong.
func (l *lab) rebuild() rebuilt {
	l.t.Helper()
	var r rebuilt
	out := must(l.t, l.mend("rebuild", "--json"))
	if err := json.Unmarshal([]byte(out.stdout), &r); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	if len(r.Refused)+len(r.Withheld) != 0 || r.Entries < r.Checkpoint {
		l.t.Errorf("rebuild: %+v", r)
	}
	return r
}

// killRebuild starts a rebuild and kills it after d.
func (s *survivor) killRebuild(d time.Duration) {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"rebuild"}, s.stores()...)...)
	cmd.Env = s.environment()
	cmd.Run() // it was killed, or it had finished: both are good
}

// stores are the flags that name what the registry keeps its things in.
func (l *lab) stores() []string {
	var flags []string
	if l.engines != nil {
		flags = l.engines.flags()
	}
	if l.data != "" {
		flags = append(flags, "--data", l.data)
	}
	return flags
}

// mend runs one of the commands on a registry's stores, as whom the server runs as.
func (l *lab) mend(command string, args ...string) result {
	l.t.Helper()
	u := l.operator
	if l.engines != nil {
		u = l.engines.server
	}
	return u.run(u.folder, cmp.Or(l.program, binary), append(append([]string{command}, args...), l.stores()...)...)
}

// openCatalog opens the catalog beside, or in the place of, the server.
func (l *lab) openCatalog() *catalog.DB {
	l.t.Helper()
	var db *catalog.DB
	var err error
	if l.engines != nil && l.engines.db != "" {
		db, err = catalog.OpenPostgres(l.t.Context(), l.engines.db)
	} else {
		db, err = catalog.OpenSQLite(l.t.Context(), filepath.Join(l.data, "catalog.db"))
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return db
}

// execPostgres runs statements in the database at url.
func execPostgres(t testing.TB, url string, statements ...string) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// rebuildSame deletes the database, derives it again, and compares.
func (l *lab) rebuildSame() {
	l.t.Helper()
	digest, size, root := l.stored()
	l.removeCatalog()
	r := l.rebuild()
	if r.State != digest || r.Entries != size || r.Checkpoint != size {
		l.t.Errorf("state %s over %d entries was rebuilt as %+v", digest, size, r)
	}
	if again, sizeAgain, rootAgain := l.stored(); again != digest || sizeAgain != size || rootAgain != root {
		l.t.Errorf("state %s, %d entries, root %s became %s, %d, %s", digest, size, root, again, sizeAgain, rootAgain)
	}
}

// stored reads the catalog of a server that is not running.
func (l *lab) stored() (digest string, size int64, root string) {
	l.t.Helper()
	ctx := l.t.Context()
	db := l.openCatalog()
	defer db.Close()
	sum, err := db.StateDigest(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	size, root = publishedRoot(l.t, db)
	return hex.EncodeToString(sum[:]), size, root
}

// publishedRoot is the checkpoint that a catalog holds for published.
func publishedRoot(t testing.TB, db *catalog.DB) (size int64, root string) {
	t.Helper()
	size, note, err := db.Published(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	body, _, _ := bytes.Cut(note, []byte("\n\n"))
	cp, err := translog.ParseCheckpoint(append(body, '\n'))
	if err != nil {
		t.Fatal(err)
	}
	return size, cp.Root.String()
}

// A first start that is killed leaves nothing that the next one cannot finish:
// the pair of entries 0 and 1, under keys that were never replaced.
func TestFirstStartThatWasKilledIsFinishedByTheNext(t *testing.T) {
	seed := crashSeed(t)
	for n := range genesisKills {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			s := newSurvivor(t, rng)
			keys := filepath.Join(s.data, "keys", "registry.jwk")
			for range 1 + n%2 {
				s.killFirstStart(n)
			}
			before, _ := os.ReadFile(keys)
			s.start()
			t.Cleanup(s.stop)
			after, err := os.ReadFile(keys)
			if err != nil || before != nil && !bytes.Equal(before, after) {
				t.Fatalf("the key file was made anew (%v)\n%s", err, s.log())
			}
			s.people = s.lab.people(s.ctx, 1)
			if _, size, err := s.people[0].checkpoint(s.ctx); err != nil || size != 3 { // the pair and the publisher's member record
				t.Fatalf("the log has %d entries, %v\n%s", size, err, s.log())
			}
			if err := s.release(s.ctx, newRelease(rng, 0, "first", "1.0.0", 100)); err != nil {
				t.Fatal(err)
			}
			s.check()
			if t.Failed() {
				t.Logf("the server said:\n%s", s.log())
			}
		})
	}
}

// killFirstStart kills at a step that leaves a trace, or after some time.
func (s *survivor) killFirstStart(n int) {
	traces := []string{"", "keys/registry.jwk", "store/lock", "catalog.db", "catalog.db-wal", "store/blobs", "store/log/entry", "store/log/checkpoint", "store/log/entry/0000000000000001", "store/log/checkpoint/0000000000000002"}
	trace := traces[n%len(traces)]
	extra := time.Duration(s.rng.IntN(40_000)) * time.Microsecond
	if err := s.launch(); err != nil {
		s.t.Fatal(err)
	}
	if trace == "" {
		time.Sleep(time.Duration(s.rng.IntN(500)) * time.Millisecond)
	} else {
		path, deadline := filepath.Join(s.data, trace), time.Now().Add(3*time.Second)
		for modified(path) == "none" && time.Now().Before(deadline) {
			time.Sleep(20 * time.Microsecond)
		}
		if n%3 == 0 {
			extra = 0
		}
		time.Sleep(extra)
	}
	s.kill()
}
