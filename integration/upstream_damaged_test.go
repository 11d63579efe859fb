package integration

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// rotFolder changes a bit of every file below folder that is of some size: half way through it,
// or it cuts the file there.
func rotFolder(t testing.TB, folder string, cut bool) {
	t.Helper()
	changed := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil || len(data) < 10<<10 {
			return err
		}
		changed++
		if cut {
			return os.Truncate(path, int64(len(data)/2))
		}
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
		return os.WriteFile(path, data, 0o600)
	})
	if err != nil || changed == 0 {
		t.Fatalf("%d files changed in %s: %v", changed, folder, err)
	}
}

// blobFile is where the folder of blobs has the crate that line is of.
func (l *upstreamLab) blobFile(line testbed.IndexLine) string {
	name := cidOf(l.t, line).String()
	return filepath.Join(l.data, "store", "blobs", name[len(name)-3:len(name)-1], name)
}

// A crate that is held and rots on storage is fetched anew by who asks for it, and held again;
// where upstream is never asked it is told that it is damaged, and everything else is served.
func TestAHeldCrateThatRotsIsFetchedAnew(t *testing.T) {
	t.Run("a folder", func(t *testing.T) {
		t.Parallel()
		l, scraped := measuredUpstreamLab(t)
		lines := l.offer("rotten", 4, 100<<10)
		l.taker().takeAll(t, lines, 2)
		l.received(scraped)
		damage := func() {
			rotFolder(t, l.blobFile(lines[0]), false)
			rotFolder(t, l.blobFile(lines[1]), true)
			if err := os.Remove(l.blobFile(lines[2])); err != nil {
				t.Fatal(err)
			}
		}
		damage()
		l.mendsBy(scraped, lines, 3)
		damage()
		l.stop()
		l.flags = append(l.flags, "--offline")
		l.start()
		taker := l.taker()
		for i, line := range lines {
			err := taker.take(t.Context(), line)
			var refused *refusal
			if i == 3 {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.As(err, &refused) || refused.status != 503 || !strings.Contains(refused.text, "damaged on its storage, and it cannot be fetched anew: this registry asks no upstream;") {
				t.Errorf("offline, %s: %v", line.Name, err)
			}
		}
		// fsck names them, and lets go of them: nobody is told any more that they are held.
		mustFail(t, l.mend("fsck"), "held-corrupt", "held-missing", "upstream/crates-io/rotten-0@1.0.0", "upstream/crates-io/rotten-2@1.0.0", "fsck --repair", "3 findings")
		wantSays(t, must(t, l.mend("fsck", "--repair")).stdout, "3 findings, 3 repaired")
		l.fsck()
		if held := l.checkHeld(); len(held) != 1 {
			t.Errorf("%d are held, want the one that is whole", len(held))
		}
		for _, line := range lines[:3] {
			var refused *refusal
			if err := taker.take(t.Context(), line); !errors.As(err, &refused) || refused.status != 404 {
				t.Errorf("not held any more, %s: %v", line.Name, err)
			}
		}
	})
	t.Run("MinIO", func(t *testing.T) {
		t.Parallel()
		server := testbed.MinIO(t)
		l, scraped := upstreamLabOn(t, pair{}.onBucket(t, server))
		lines := l.offer("rotten", 2, 300<<10)
		l.taker().takeAll(t, lines, 2)
		l.received(scraped)
		found := 0
		err := filepath.WalkDir(server.Folder(), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == cidOf(t, lines[0]).String() {
				found++
				rotFolder(t, path, false)
				return fs.SkipDir
			}
			return err
		})
		if err != nil || found != 1 {
			t.Fatalf("%d objects: %v", found, err)
		}
		l.mendsBy(scraped, lines, 1)
	})
}

// received waits until nothing is being received.
func (l *upstreamLab) received(scraped string) {
	l.t.Helper()
	eventually(l.t, time.Minute, "nothing is received any more", func() bool { return figuresNow(l.t, scraped)("aln_upstream_receiving") == 0 })
}

// mendsBy takes lines, of which as many are damaged, twice: that many are asked for again, once.
func (l *upstreamLab) mendsBy(scraped string, lines []testbed.IndexLine, damaged int) {
	l.t.Helper()
	asked := func() (n int) {
		for _, line := range lines {
			n += l.crates.Requests(testbed.Download(line.Name, line.Vers))
		}
		return n
	}
	before := asked()
	for range 2 {
		l.taker().takeAll(l.t, lines, 2)
		l.received(scraped)
	}
	if n := asked() - before; n != damaged {
		l.t.Errorf("%d were asked for again of %d that are damaged", n, damaged)
	}
	if n := figuresNow(l.t, scraped)("aln_upstream_damaged_total"); int(n) != damaged {
		l.t.Errorf("%.0f are counted as damaged, and %d are", n, damaged)
	}
	if held := l.checkHeld(); len(held) != len(lines) {
		l.t.Errorf("%d are held of %d", len(held), len(lines))
	}
}
