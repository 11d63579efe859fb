package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// upstreamFacts is all that the catalog has of other registries and the log has not.
func (l *lab) upstreamFacts() (facts []string) {
	l.t.Helper()
	db, ctx := l.openCatalog(), l.t.Context()
	defer db.Close()
	held, err := db.UpstreamBlobsAfter(ctx, storage.CID{}, 1000)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, b := range held {
		facts = append(facts, fmt.Sprintf("held %+v", b))
	}
	served, err := db.UpstreamSourcesAfter(ctx, catalog.UpstreamSource{}, 1000)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, s := range served {
		facts = append(facts, fmt.Sprintf("served %+v", s))
	}
	pins, err := db.UpstreamPins(ctx, "ci", storage.CID{}, 1000)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range pins {
		facts = append(facts, fmt.Sprintf("pinned %+v", p))
	}
	lacks, err := db.UpstreamLacks(ctx, catalog.UpstreamLack{Lock: "ci"}, 1000)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, k := range lacks {
		facts = append(facts, fmt.Sprintf("lacking %+v", k))
	}
	alarms, err := db.UpstreamAlarms(ctx, "crates-io", 1<<62, 1000)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, a := range alarms {
		facts = append(facts, fmt.Sprintf("alarm %+v", a))
	}
	if len(held) == 0 || len(served) != len(held) || len(pins) == 0 || len(lacks) == 0 || len(alarms) == 0 {
		l.t.Errorf("there are %d crates, %d pins, %d lacking, %d alarms", len(held), len(pins), len(lacks), len(alarms))
	}
	return facts
}

// What is held, pinned, lacking and was alarming outlives a rebuild, on either pair of engines; a backup
// has it, and serves it without upstream. Where no catalog is left, what is held is found again.
func TestWhatIsHeldOutlivesRebuildAndIsBackedUp(t *testing.T) {
	t.Run("SQLite and a folder", func(t *testing.T) {
		t.Parallel()
		l, scraped := measuredUpstreamLab(t)
		lines := l.fillAndRebuild(scraped)
		to := filepath.Join(t.TempDir(), "backup")
		l.backUp(to)
		if err := os.RemoveAll(l.data); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(l.data, os.DirFS(to)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(l.data, "keys", "registry.jwk"), 0o600); err != nil {
			t.Fatal(err)
		}
		l.flags = append(l.flags, "--offline")
		l.start()
		l.taker().takeAll(t, lines, 2)
		l.stop()
		l.fsck()
	})
	t.Run("PostgreSQL and MinIO", func(t *testing.T) {
		t.Parallel()
		l, scraped := upstreamLabOn(t, pair{}.onPostgres(t).onMinIO(t))
		lines := l.fillAndRebuild(scraped)
		l.flags = append(l.flags, "--offline")
		l.start()
		l.taker().takeAll(t, lines, 2)
		l.stop()
		l.fsck()
	})
}

// fillAndRebuild has a lab hold crates, pin two of them, lack one and raise an alarm, ends it, and
// rebuilds its catalog; upstream is gone then.
func (l *upstreamLab) fillAndRebuild(scraped string) []testbed.IndexLine {
	l.t.Helper()
	lines := l.offer("kept", 5, 100<<10)
	taker := l.taker()
	taker.takeAll(l.t, lines, 3)
	text := fmt.Sprintf("%s %s\n%s %s\n", lines[0].Name, lines[0].Vers, lines[1].Name, lines[1].Vers)
	writeFiles(l.t, l.operator.folder, map[string]string{"list": text})
	must(l.t, l.operator.aln(l.operator.folder, "prefetch", "list", "--pin", "ci"))
	writeFiles(l.t, l.operator.folder, map[string]string{"list": "nobody-has-this 1.0.0\n"})
	mustFail(l.t, l.operator.aln(l.operator.folder, "prefetch", "list", "--pin", "ci"), "FAIL nobody-has-this 1.0.0: absent: ")
	bad := l.offer("bad", 1, 50<<10)[0]
	l.crates.Use(testbed.Download(bad.Name, bad.Vers), testbed.Corrupted(), 0)
	if err := taker.take(l.t.Context(), bad); err == nil {
		l.t.Error("a corrupt crate was served")
	}
	l.awaitAlarm("mismatch " + bad.Name)
	eventually(l.t, 20*time.Second, "nothing is received any more", func() bool { return figuresNow(l.t, scraped)("aln_upstream_receiving") == 0 })
	l.crates.Stop()
	l.stop()
	before := l.upstreamFacts()
	l.rebuild()
	if after := l.upstreamFacts(); !slices.Equal(before, after) {
		l.t.Errorf("before the rebuild\n%q\nand after it\n%q", before, after)
	}
	l.rebuildSame() // without the catalog of before: what is held is found again
	if held := l.checkHeld(); len(held) != len(lines) {
		l.t.Errorf("%d are held of %d", len(held), len(lines))
	}
	return lines
}
