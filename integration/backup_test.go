package integration

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// backedUp is what `backup --json` prints.
type backedUp struct {
	Entries   int64 `json:"entries"`
	Published int64 `json:"published"`
	Copied    int64 `json:"copied"`
}

// backUp makes or updates the backup at to.
func (l *lab) backUp(to string) backedUp {
	l.t.Helper()
	out := must(l.t, l.mend("backup", "--json", "--to", to))
	var b backedUp
	if err := json.Unmarshal([]byte(out.stdout), &b); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	return b
}

// killBackup begins one, and kills it after d.
func (l *lab) killBackup(to string, d time.Duration) {
	ctx, cancel := context.WithTimeout(l.t.Context(), d)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"backup", "--to", to}, l.stores()...)...)
	cmd.Env = l.environment()
	cmd.Run() // it was killed, or it had finished: both are good
}

// wholeBackup looks at the backup at to, if there is one, and returns its size.
func (l *lab) wholeBackup(to string) int64 {
	l.t.Helper()
	if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	var seen struct{ Size, Pending int64 }
	out := must(l.t, l.operator.aln(l.operator.folder, "fsck", "--json", "--data", to))
	if err := json.Unmarshal([]byte(out.stdout), &seen); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	return seen.Size + seen.Pending
}

// A backup is killed at any point, and so is the server that people publish to
// meanwhile: what has the backup's name is whole whenever one looks, the next one goes on, and
// what was acknowledged before the last one began is in it.
func TestABackupThatIsKilledGoesOn(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(crashSeed(t), 5))
	s := newSurvivor(t, rng)
	s.start()
	t.Cleanup(s.stop)
	s.people = s.lab.people(s.ctx, 2)
	s.foundShared()
	ctx, cancel := context.WithCancel(s.ctx)
	var load sync.WaitGroup
	s.dying.Store(true) // its server comes and goes
	for i := range s.people {
		own := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		load.Go(func() {
			for ctx.Err() == nil {
				if s.change(ctx, i, own) != nil { // another was faster, or the server is gone
					s.people[i].reconnect()
				}
				time.Sleep(60 * time.Millisecond)
			}
		})
	}
	to, size, took := filepath.Join(t.TempDir(), "backup"), int64(0), time.Second
	for round := range 4 {
		for range 3 {
			s.killBackup(to, time.Duration(rng.Int64N(int64(took))))
			now := s.wholeBackup(to)
			if now < size {
				t.Fatalf("the backup had %d entries, and has %d", size, now)
			}
			size = now
		}
		if round%2 == 1 {
			s.kill()
			s.start()
		}
		begun := time.Now()
		b := s.backUp(to)
		took = time.Since(begun)
		if now := s.wholeBackup(to); now != b.Entries || b.Entries < size {
			t.Fatalf("the backup says %d entries, fsck %d; there were %d before", b.Entries, now, size)
		}
		size = b.Entries
	}
	s.mu.Lock()
	var want []acknowledged
	for _, a := range s.acknowledged {
		want = append(want, a)
	}
	s.mu.Unlock()
	last := s.backUp(to)
	cancel()
	load.Wait()
	if len(want) < 5 || last.Entries <= size {
		t.Errorf("%d releases were acknowledged, %d entries after %d", len(want), last.Entries, size)
	}
	s.servesBackup(to, want)
}

// servesBackup starts the backup at to in the place of the lab, and looks for what was
// acknowledged before it.
func (s *survivor) servesBackup(to string, want []acknowledged) {
	s.t.Helper()
	s.stop()
	s.data = filepath.Join(s.t.TempDir(), "restored")
	if err := os.CopyFS(s.data, os.DirFS(to)); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(s.data, "keys", "registry.jwk"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.start()
	db := s.openCatalog()
	defer db.Close()
	for _, a := range want {
		if e, ok, err := db.EntryByRecord(s.ctx, string(a.record)); err != nil || !ok || e.Index != a.index {
			s.t.Errorf("%s was acknowledged as entry %d before the backup began; in it: %t, entry %d, %v", a.key(), a.index, ok, e.Index, err)
		}
	}
	s.stop()
	if n := s.wholeBackup(s.data); n == 0 {
		s.t.Error("nothing was restored")
	}
}
