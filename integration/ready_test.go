package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// watched is where the server answers its supervisor.
func (l *lab) watched() (url string) {
	l.t.Helper()
	address := steadyAddress(l.t)
	l.flags = append(l.flags[:len(l.flags):len(l.flags)], "--metrics-listen", address)
	return "http://" + address
}

// becomesUnready waits until the server is not ready, by its supervisor's asking, for the
// reason why; clients are told none.
func (l *lab) becomesUnready(watched, why string) {
	l.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r := l.engines.server.aln(l.engines.server.folder, "doctor", "--ready", watched)
		if r.status == 1 && strings.Contains(r.stderr, why) {
			break
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("the supervisor is not told %q: %s", why, r)
		}
	}
	begun := time.Now()
	status, _, said := l.get("/readyz", "")
	if status != 503 || !strings.Contains(string(said), "the registry cannot do this now") || strings.Contains(string(said), why) {
		l.t.Errorf("clients are told %d: %s", status, said)
	}
	if took := time.Since(begun); took > 4*time.Second { // 3, and what a busy computer adds
		l.t.Errorf("the answer took %s", took)
	}
}

// Who supervises a server is told which engine it is, and soon.
func TestTheSupervisorIsToldWhichEngineItIs(t *testing.T) {
	pg, s3 := testbed.Postgres(t), testbed.MinIO(t)
	l := prepareLabOn(t, pair{db: pg.URL}.onBucket(t, s3))
	watched := l.watched()
	t.Cleanup(l.stop)
	l.start()
	if err := s3.Stop(); err != nil {
		t.Fatal(err)
	}
	l.becomesUnready(watched, "blob storage does not do its work now")
	pg.Kill()
	l.becomesUnready(watched, "the database does not do its work now")
}

// A server whose key file lacks the key that signs by now says so, in its log and to who
// supervises it, before anybody asks.
func TestAServerWithoutTheNewLogKeySaysSo(t *testing.T) {
	l := newLabOn(t, pair{}.onPostgres(t).onMinIO(t))
	other, front := l.replica(), l.engines.front
	front.mu.Lock()
	front.servers = front.servers[:1] // people come to the first alone
	front.mu.Unlock()
	old := filepath.Join(t.TempDir(), "registry.jwk")
	if err := os.WriteFile(old, []byte(textOf(t, l.engines.key)), 0o600); err != nil {
		t.Fatal(err)
	}
	other.flags = replaced(other.flags, "--key", old)
	watched := other.watched()
	other.start()
	key := must(t, l.engines.server.aln(t.TempDir(), "log", "new-key", "--key", l.engines.key)).stdout
	l.stop()
	l.start()
	must(t, l.operator.aln(l.operator.folder, "settings", "set", "--log-key", multikey(t, key)))
	const warns = `msg="this server cannot sign the log, and is not ready"`
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(other.log(), warns); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("its log does not say it:\n%s", other.log())
		}
	}
	other.becomesUnready(watched, "the key that signs the log is not in the registry's key file")
	if n := strings.Count(other.log(), warns); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}

// multikey is the key that a command printed.
func multikey(t *testing.T, text string) string {
	t.Helper()
	for _, word := range strings.Fields(text) {
		if word = strings.Trim(word, "`.,;"); strings.HasPrefix(word, "z6Mk") {
			return word
		}
	}
	t.Fatalf("no key is printed: %s", text)
	return ""
}
