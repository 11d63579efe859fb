package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// panicking is a store in which one blob panics where it is read, as a parser
// might that nobody expected to.
type panicking struct {
	storage.Blobs
	at atomic.Pointer[storage.CID]
}

type panickingBlob struct{ storage.Blob }

func (panickingBlob) Read([]byte) (int, error) { panic("choked on secret-crate") }

func (p *panicking) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	blob, err := p.Blobs.Open(ctx, id)
	if at := p.at.Load(); err == nil && at != nil && *at == id {
		return panickingBlob{blob}, nil
	}
	return blob, err
}

func TestACrateThatPanicsEndsNothing(t *testing.T) {
	store := &panicking{}
	var log bytes.Buffer
	l := newLab(t, func(c *registry.Config) {
		store.Blobs, c.Blobs = c.Blobs, store
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	l.fill()
	token := l.session(l.member, "read")
	v := must(l.registry.Version(t.Context(), knowing(l.member), record.KindCrate, "secret-crate", "0.2.0"))
	store.at.Store(&v.CID)
	for range mostReadmes + 1 { // the places come free again
		l.get("/artifacts/crate/secret-crate", token).want(t, 200, "cannot be read", "Identity and proof")
	}
	if !strings.Contains(log.String(), "panickingBlob") {
		t.Errorf("the log does not say where: %s", &log)
	}
	if strings.Contains(log.String(), "secret-crate") {
		t.Errorf("the log names the crate: %s", &log)
	}
	store.at.Store(nil)
	l.get("/artifacts/crate/secret-crate", token).want(t, 200, "Secret handbook")
}

// much is a part of a manifest, of about so many bytes.
func much(bytes int, line func(i int) string) string {
	var b strings.Builder
	for i := 0; b.Len() < bytes; i++ {
		b.WriteString(line(i))
	}
	return b.String()
}

// What is kept of crates is counted as the memory that it takes, whatever they are made of.
func TestKeptDescriptionsAreCountedAsWhatTheyTake(t *testing.T) {
	l := newLab(t)
	for name, c := range map[string]struct{ manifest, readme string }{
		"features":         {"[features]\n" + much(80<<10, func(i int) string { return fmt.Sprintf("f%d = []\n", i) }), ""},
		"enables":          {"[features]\nb = []\na = [\n" + much(100<<10, func(int) string { return "\"b\",\n" }) + "]\n", ""},
		"dependencies":     {"[dev-dependencies]\n" + much(7<<10, func(i int) string { return fmt.Sprintf("d%d = \"1\"\n", i) }), ""},
		"requirements":     {"[dev-dependencies]\n" + much(20<<10, func(i int) string { return fmt.Sprintf("d%d = \"%s1\"\n", i, strings.Repeat("1,", 31)) }), ""},
		"wanted-of-others": {"[dev-dependencies]\na = { version = \"1\", features = [" + much(100<<10, func(int) string { return "\"b\"," }) + "] }\n", ""},
		"words":            {"readme = \"README.txt\"\n", much(400<<10, func(int) string { return "many words\n" })},
	} {
		l.publish(name, "1.0.0", c.manifest, [2]string{"README.txt", c.readme})
		v := must(l.registry.Version(t.Context(), knowing(l.member), record.KindCrate, name, "1.0.0"))
		const copies = 8
		kept := make([]described, copies)
		before := inUse()
		for i := range kept {
			kept[i] = describe(must(l.registry.Describe(t.Context(), v)))
		}
		takes := int(inUse()-before) / copies
		if counted := kept[0].bytes(); takes > counted*6/5 {
			t.Errorf("%s: counted as %d bytes, takes %d", name, counted, takes)
		}
		runtime.KeepAlive(kept)
	}
}

func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Items stand in items and headings in headings: whoever asked each for its whole
// text would read the innermost as often as it is deep.
func TestNestingDoesNotMultiplyWhatAReadmeCosts(t *testing.T) {
	text := "\n\n" + strings.Repeat("word word word\n\n", 14000)
	cost := func(source string) int64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, ok := renderMarkdown([]byte(source)); !ok {
			t.Fatalf("%.20q is not rendered", source)
		}
		runtime.ReadMemStats(&after)
		return int64(after.TotalAlloc - before.TotalAlloc)
	}
	flat := cost(text)
	for _, nest := range []string{"<ul><li>", "<h1><b>"} {
		if deep := cost(strings.Repeat(nest, 120) + text); deep > 3*flat {
			t.Errorf("%s: %d bytes allocated, flat %d", nest, deep, flat)
		}
	}
}

// Pages that read much are made a few at a time; who finds no place is told so.
func TestPagesThatReadMuchAreBounded(t *testing.T) {
	p := places(make(chan struct{}, 1))
	leave := must(p.enter(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	leave()
	must(p.enter(t.Context()))()

	l := newLab(t)
	l.fill()
	pages := newPages(Config{Registry: l.registry, Log: slog.New(slog.DiscardHandler), Clock: l.now, Version: "v0"})
	l.pages = pages.routes()
	token := l.session(l.member, "read")
	for path, bound := range map[string]places{
		"/search?q=a": pages.searching, "/artifacts/crate": pages.searching, "/artifacts/manifest": pages.searching,
		"/artifacts/crate/secret-crate": pages.looking, "/artifacts/crate/secret-crate/0.1.0": pages.looking,
	} {
		for range cap(bound) {
			bound <- struct{}{}
		}
		if answer := l.getWithin(path, token, 50*time.Millisecond); answer.Code == 200 {
			t.Errorf("%s is made though all places are taken", path)
		}
		for range cap(bound) {
			<-bound
		}
		l.get(path, token).want(t, 200)
		if len(bound) != 0 {
			t.Errorf("%s keeps its place", path)
		}
	}
	// A README that takes its time holds up no page of another crate.
	for range cap(pages.readmes.places) {
		pages.readmes.places <- struct{}{}
	}
	l.publish("another", "1.0.0", "")
	waits := make(chan reply, mostArtifacts)
	for range mostArtifacts {
		go func() { waits <- l.get("/artifacts/crate/another", token) }()
	}
	l.get("/artifacts/crate/secret-crate", token).want(t, 200, "Secret handbook")
	for range mostArtifacts {
		(<-waits).want(t, 200, "is being read")
	}
}
