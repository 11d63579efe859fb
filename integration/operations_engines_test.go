package integration

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newEnginesHost is the host of docs/OPERATIONS.md whose /etc/aln-registry/env names
// a PostgreSQL database and a bucket; the lab's server is all servers there are.
func newEnginesHost(t *testing.T) *host {
	t.Helper()
	l := newLabOn(t, pair{}.onPostgres(t).onMinIO(t))
	h := newHost(t, l)
	lines := append([]string{"ALN_DB='" + l.engines.db + "'", "ALN_BLOBS='" + l.engines.blobs + "'", "ALN_KEY=" + l.engines.key}, l.engines.env...)
	writeFiles(t, h.folder, map[string]string{"env": strings.Join(lines, "\n") + "\n"})
	h.paths = append(h.paths, "/etc/aln-registry/env", filepath.Join(h.folder, "env"), "/etc/aln-registry/registry.jwk", l.engines.key)
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(programs) == 0 {
		t.Fatalf("no programs of PostgreSQL: %v", err)
	}
	h.operator.extra = append(h.operator.extra, "PATH="+programs[len(programs)-1]+":"+h.path)
	return h
}

// ends waits until the server ends by itself, which it must, saying want last.
func (l *lab) ends(want ...string) {
	l.t.Helper()
	select {
	case <-l.exited:
	case <-time.After(30 * time.Second):
		l.t.Fatalf("it goes on\n%s", l.log())
	}
	if code := l.cmd.ProcessState.ExitCode(); code != 1 {
		l.t.Errorf("it ended with status %d", code)
	}
	l.cmd = nil
	l.saysLast(want...)
}

func (h *host) publishes(name string) {
	h.t.Helper()
	writeFiles(h.t, h.folder, map[string]string{name: "bytes of " + name})
	must(h.t, h.operator.aln(h.folder, "publish", name, "--kind", "manifest", "--name", name, "--version", "0.1.0"))
}

// A database that was restored to an earlier point is refused, and derived anew; one
// that was lost is, too. Nothing that was acknowledged is missing.
func TestALostOrRestoredDatabaseIsDerivedAnew(t *testing.T) {
	t.Parallel()
	h := newEnginesHost(t)
	h.publishes("before")
	must(t, h.operator.run(h.folder, "pg_dump", "--format=custom", "--file", filepath.Join(h.folder, "catalog.dump"), h.engines.db))
	h.paths = append(h.paths, "/var/backups/aln-registry/catalog.dump", filepath.Join(h.folder, "catalog.dump"))
	h.publishes("after")
	size := h.logSize()

	must(t, h.operator.run(h.folder, "pg_restore", "--clean", "--if-exists", "--dbname", h.engines.db, filepath.Join(h.folder, "catalog.dump")))
	h.ends("the catalog is behind blob storage", "type `aln-registry rebuild --db ")
	h.refuses("the catalog is behind blob storage", "type `aln-registry rebuild --db ")
	restored := must(t, h.types("database restored", ""))
	if !strings.Contains(restored.stdout, "kept as public_before_rebuild_") || h.logSize() != size {
		t.Errorf("%d entries were made, %d are there\n%s", size, h.logSize(), restored)
	}
	must(t, h.operator.aln(t.TempDir(), "get", "manifest/after@0.1.0"))

	h.stop()
	h.removeCatalog()
	must(t, h.types("database lost", ""))
	must(t, h.operator.aln(h.folder, "log", "check", "--full"))
	h.publishes("later")
	if h.logSize() != size+1 {
		t.Errorf("%d entries are there after one more than %d", h.logSize(), size)
	}
	must(t, h.types("migrate", "")) // there is nothing to do
}

// The log's key is exchanged for all servers that share the file.
func TestTheLogKeyOfSeveralServersIsReplaced(t *testing.T) {
	t.Parallel()
	h := newEnginesHost(t)
	other := h.replica()
	other.start()
	h.mu.Lock()
	h.others = append(h.others, other)
	h.mu.Unlock()
	must(t, h.types("log key of several", ""))
	h.publishes("signed-anew")
	must(t, h.operator.aln(h.folder, "log", "check", "--full"))
}
