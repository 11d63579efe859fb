package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/content"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

const cratesIO = particle.SourceCratesIO

// thereLine is a line of crates.io's index file; of is what the bytes are of, and more
// are members, with a comma before each.
func thereLine(name, version, of, more string) string {
	return fmt.Sprintf(`{"name":%q,"vers":%q,"deps":[],"cksum":%q,"features":{"yanked":[]}%s}`+"\n", name, version, storage.CIDOf([]byte(of)).Hex(), more)
}

const (
	notYankedThere = `,"yanked":false`
	yankedThere    = `,"yanked":true`
)

// versionsOf are those that differ, whatever is said of that.
func versionsOf(all []Difference) (versions []string) {
	for _, d := range all {
		versions = append(versions, d.Version)
	}
	return versions
}

// wantSaid wants one version to differ, and that to be said, in no more than an alarm keeps.
func wantSaid(t *testing.T, all []Difference, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if len(all) != 1 || !strings.Contains(all[0].Detail, text) || len(all[0].Detail) > 900 {
			t.Errorf("%q is not said in %+v", text, all)
		}
	}
}

// imported imports file as it was seen at crates.io. Nothing is to be found in its crates.
func (c *court) imported(crate, file string) Imported {
	c.t.Helper()
	seen, err := cargo.ParseUpstreamFile(crate, []byte(file))
	for _, l := range seen.Lines {
		err = errors.Join(err, c.r.Catalog.PutScan(c.t.Context(), catalog.Scan{CID: storage.CIDFromDigest(l.Digest), Recognisers: content.Version, Time: c.now()}))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	in, err := c.r.Import(c.t.Context(), cratesIO, crate, []byte(file))
	if err != nil {
		c.t.Fatal(err)
	}
	return in
}

// there is what asker sees of a crate of crates.io, "" for nothing.
func (c *court) there(asker policy.Asker, name string) string {
	c.t.Helper()
	file, err := c.r.UpstreamIndexFile(c.t.Context(), asker, cratesIO, name, nil)
	if errors.Is(err, ErrNotFound) {
		return ""
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return string(file.Plain.Bytes)
}

// thereVersion is a version of crates.io whose bytes are of.
func (c *court) thereVersion(asker policy.Asker, name, version, of string) (Judged, error) {
	c.t.Helper()
	return c.r.UpstreamVersion(c.t.Context(), asker, cratesIO, name, version, storage.CIDOf([]byte(of)).Digest())
}

func TestAnImportIsSeenOnceItIsEntered(t *testing.T) {
	c := newCourt(t)
	file := thereLine("Serde", "1.0.0", "a", notYankedThere)
	if _, ok, err := c.r.UpstreamCrate(t.Context(), cratesIO, "serde"); ok || err != nil {
		t.Fatalf("before: %v, %v", ok, err)
	}
	first := c.imported("serde", file)
	again := c.imported("serde", file)
	if first.Repeated || !again.Repeated || again.Record != first.Record || again.Index != first.Index {
		t.Errorf("%+v, then %+v", first, again)
	}
	for _, name := range []string{"serde", "Serde"} {
		u, ok, err := c.r.UpstreamCrate(t.Context(), cratesIO, name)
		if err != nil || !ok || u.Name != "Serde" || u.Snapshot != storage.CIDOf([]byte(file)) || u.Record != first.Record || u.Index != first.Index {
			t.Errorf("%s: %+v, %v, %v", name, u, ok, err)
		}
	}
	if got := c.there(reader, "serde"); got != file {
		t.Errorf("the index file is\n%s", got)
	}
	for _, name := range []string{"Serde", "ser_de", "a/b", "\x00", ""} {
		if got := c.there(reader, name); got != "" {
			t.Errorf("%q: %s", name, got)
		}
	}
	if _, err := c.r.UpstreamIndexFile(t.Context(), reader, "another", "serde", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("of another upstream: %v", err)
	}
	next := file + thereLine("Serde", "1.1.0", "b", notYankedThere)
	if c.imported("serde", next); c.there(reader, "serde") != next {
		t.Error("the index file is not the new one")
	}
	if _, err := c.r.UpstreamIndexFile(t.Context(), policy.Asker{}, cratesIO, "serde", nil); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("for nobody: %v", err)
	}
	c.w.rebuilds(c.r)
}

func TestWhatIsNoIndexFileIsNotImported(t *testing.T) {
	c := newCourt(t)
	settings := c.r.Settings().Registry
	settings.PrivateNames = []string{"Lab-"}
	c.admin.enter(c.registrySubject(), &settings)
	c.imported("left-pad", thereLine("left-pad", "1.0.0", "a", notYankedThere))
	size := c.r.Size()
	for name, test := range map[string]struct {
		upstream, crate, file string
		want                  error
	}{
		"another crate's":          {cratesIO, "serde", thereLine("rand", "1.0.0", "a", notYankedThere), ErrSnapshot},
		"not JSON":                 {cratesIO, "serde", "<html>\n", ErrSnapshot},
		"nothing of nothing":       {cratesIO, "serde", "", ErrSnapshot},
		"spelled otherwise":        {cratesIO, "left_pad", thereLine("left_pad", "1.0.0", "a", notYankedThere), nil},
		"a private name":           {cratesIO, "lab_tools", thereLine("lab_tools", "1.0.0", "a", notYankedThere), ErrRequest},
		"an upstream of no name":   {"", "serde", thereLine("serde", "1.0.0", "a", notYankedThere), ErrSnapshot},
		"an upstream with a slash": {"a/b", "serde", thereLine("serde", "1.0.0", "a", notYankedThere), ErrSnapshot},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.r.Import(t.Context(), test.upstream, test.crate, []byte(test.file))
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("%v, want %v", err, test.want)
			}
			if test.want != nil && c.r.Size() != size {
				t.Error("it was entered")
			}
			size = c.r.Size()
		})
	}
}

func TestVersionsOfUpstreamsCratesAreBounded(t *testing.T) {
	c := newCourt(t)
	var all strings.Builder
	for i := range state.MaxUpstreamVersions {
		all.WriteString(thereLine("big", fmt.Sprintf("1.0.%d", i), "big", notYankedThere))
	}
	if _, err := c.r.Import(t.Context(), cratesIO, "big", []byte(all.String())); err != nil {
		t.Fatal(err)
	}
	if got := c.there(reader, "big"); got != all.String() {
		t.Errorf("%d bytes, not %d", len(got), all.Len())
	}
	for version, want := range map[string]error{"2.0.0": ErrSnapshot, "1.0.7+other": nil} {
		if _, err := c.r.Import(t.Context(), cratesIO, "big", []byte(thereLine("big", version, "one more", notYankedThere))); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// A cold resolve is a few batches' worth of waiting.
func TestImportsShareBatches(t *testing.T) {
	const crates = 60
	var batches, records atomic.Int64
	c := newCourt(t, func(config *Config) {
		config.Batch = func(b Batch) { batches.Add(1); records.Add(int64(b.Records)) }
	})
	batches.Store(0)
	records.Store(0)
	var all sync.WaitGroup
	for i := range crates {
		all.Go(func() {
			name := fmt.Sprintf("crate%d", i)
			if _, err := c.r.Import(t.Context(), cratesIO, name, []byte(thereLine(name, "1.0.0", name, notYankedThere))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if records.Load() != crates || batches.Load() > crates/3 {
		t.Errorf("%d records in %d batches", records.Load(), batches.Load())
	}
}

// Who imports the same crate at the same time is not told so.
func TestImportsOfOneCrateDoNotFail(t *testing.T) {
	c := newCourt(t)
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			file := thereLine("serde", "1.0.0", "a", notYankedThere) + thereLine("serde", fmt.Sprintf("1.%d.0", 1+i/2), "b", notYankedThere)
			if _, err := c.r.Import(t.Context(), cratesIO, "serde", []byte(file)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := strings.Count(c.there(reader, "serde"), "\n"); got != 4 {
		t.Errorf("%d versions", got)
	}
}

// Who first publishes a name that another registry has is told so, and so are admins.
func TestAFirstPublishIsToldOfUpstreams(t *testing.T) {
	var asked []string
	c := newCourt(t, func(config *Config) {
		config.KnownUpstream = func(ctx context.Context, name string) (has, untold []string) {
			asked = append(asked, name)
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("it may take for ever")
			}
			switch name {
			case "serde":
				return []string{cratesIO}, []string{"lame"}
			case "ours":
				return nil, []string{"lame"}
			}
			return nil, nil
		}
	})
	settings := c.r.Settings().Registry
	settings.PrivateNames = []string{"lab-"}
	c.admin.enter(c.registrySubject(), &settings)
	for _, test := range []struct {
		name string
		want []string
	}{{"serde", []string{cratesIO}}, {"serde", nil}, {"ours", nil}, {"lab-serde", nil}} {
		p, err := c.w.publish(c.r, newUpload(test.name))
		if err != nil || !slices.Equal(p.Upstreams, test.want) {
			t.Errorf("%s: %q, %v", test.name, p.Upstreams, err)
		}
	}
	if !slices.Equal(asked, []string{"serde", "ours"}) {
		t.Errorf("asked for %q", asked)
	}
	entries, _, err := c.r.Audit(t.Context(), 0, 10)
	for _, want := range [][3]string{
		{"crate/serde@1.0.0", RuleKnownUpstream, cratesIO}, {"crate/serde@1.0.0", RuleUntoldUpstream, "lame"}, {"crate/ours@1.0.0", RuleUntoldUpstream, "lame"},
	} {
		if err != nil || !slices.ContainsFunc(entries, func(e AuditEntry) bool {
			return [3]string{e.What, e.Rule, e.RuleID} == want && e.Outcome == OutcomeAccepted
		}) {
			t.Errorf("%q is not in %+v, %v", want, entries, err)
		}
	}
}
