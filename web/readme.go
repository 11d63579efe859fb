package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/microcosm-cc/bluemonday"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	extast "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/renderer"
	gmhtml "github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/util"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

// Bounds on READMEs. goldmark takes time quadratic in the length of a
// paragraph for some texts, and pads table rows; what would cost more than
// some tenths of a second is shown as the plain text that it is.
const (
	maxMarkdown  = 256 << 10
	maxWork      = 4e8 // sum of squares of the lengths of what stands between blank lines
	maxCells     = 40_000
	maxNesting   = 96 // characters of a line's quote and list marks, indentation included
	maxMarks     = 4000
	maxRendered  = 2 << 20
	maxCached    = 16 << 20 // bytes of all rendered READMEs that are kept
	mostReadmes  = 2        // read and rendered at once
	readmePeriod = 5 * time.Second
)

// described is what a page shows of a crate beyond the registry's state.
type described struct {
	Crate  *cargo.Crate
	Readme template.HTML // sanitised
	// Plain is the README as text, where it is not Markdown or too involved.
	Plain string
}

// bytes is how much memory d takes, counted so that it is not more than that.
func (d described) bytes() int {
	const (
		fixed      = 1 << 10
		dependency = 256 // its fields, without what they refer to
		feature    = 128 // its place in the map
		perReqByte = 32  // "1, " is a term, which takes 72 bytes
	)
	c := d.Crate
	n := fixed + len(d.Readme) + len(d.Plain) + textBytes([]string{c.Links, c.Description, c.License, c.LicenseFile,
		c.Homepage, c.Documentation, c.Repository, c.ReadmePath}) + textBytes(c.Keywords) + textBytes(c.Categories)
	for _, d := range c.Dependencies {
		n += dependency + perReqByte*len(d.Req.String()) + textBytes([]string{d.Name, d.Package, d.Target, d.RegistryIndex}) + textBytes(d.Features)
	}
	for name, enables := range c.Features {
		n += feature + len(name) + textBytes(enables)
	}
	return n
}

// textBytes is what texts take, with their places in a slice.
func textBytes(texts []string) int {
	const place = 16
	n := 0
	for _, s := range texts {
		n += place + len(s)
	}
	return n
}

// readmes renders what crates say of themselves, a few at a time, and keeps
// the results: a CID's never change.
type readmes struct {
	log    *slog.Logger
	places chan struct{}

	mu    sync.Mutex
	kept  map[storage.CID]described
	bytes int
}

func newReadmes(log *slog.Logger) *readmes {
	return &readmes{log: log, places: make(chan struct{}, mostReadmes), kept: map[storage.CID]described{}}
}

var (
	// errBusy: no place came free in time, or the crate took too long.
	errBusy = errors.New("too many READMEs are being rendered")
	// errPanicked: reading or rendering failed in a way that nobody foresaw; the log says how.
	errPanicked = errors.New("reading or rendering the crate panicked")
)

// get returns what is kept under id, or what read and rendering give.
func (c *readmes) get(ctx context.Context, id storage.CID, read func(context.Context) (*cargo.Crate, error)) (described, error) {
	if d, ok := c.lookUp(id); ok {
		return d, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readmePeriod)
	defer cancel()
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		return described{}, errBusy
	}
	type result struct {
		described
		err error
	}
	done := make(chan result, 1)
	go func() { // the place is free again only when the work has ended, however long it takes
		defer func() { <-c.places }()
		d, err := c.make(ctx, id, read)
		done <- result{d, err}
	}()
	select {
	case r := <-done:
		if errors.Is(r.err, context.DeadlineExceeded) {
			return described{}, errBusy
		}
		return r.described, r.err
	case <-ctx.Done():
		return described{}, errBusy
	}
}

// make reads and renders. The libraries that do so are given whatever somebody
// published: what makes one of them panic must not end the server, which no
// handler's recovery would prevent in a goroutine of ours.
func (c *readmes) make(ctx context.Context, id storage.CID, read func(context.Context) (*cargo.Crate, error)) (d described, err error) {
	defer func() {
		if value := recover(); value != nil {
			c.log.Error("a stored crate cannot be described", "cid", id, "panic", panicText(value), "stack", string(debug.Stack()))
			d, err = described{}, errPanicked
		}
	}()
	if d, ok := c.lookUp(id); ok {
		return d, nil
	}
	crate, err := read(ctx)
	if err != nil {
		return described{}, err
	}
	d = describe(crate)
	c.keep(id, d)
	return d, nil
}

// panicText is what may stand in a log of what was panicked with: the runtime's
// own words, of others, which may quote what they choked on, the type alone.
func panicText(value any) string {
	if err, ok := value.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", value)
}

func (c *readmes) lookUp(id storage.CID) (described, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.kept[id]
	return d, ok
}

// keep empties the cache when it would get too large: what is looked at comes back.
func (c *readmes) keep(id storage.CID, d described) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes+d.bytes() > maxCached {
		clear(c.kept)
		c.bytes = 0
	}
	if _, have := c.kept[id]; !have {
		c.kept[id] = d
		c.bytes += d.bytes()
	}
}

// describe renders crate's README and lets go of its source.
func describe(crate *cargo.Crate) described {
	source := crate.Readme
	lean := *crate
	lean.Readme = nil
	d := described{Crate: &lean}
	if len(source) == 0 {
		return d
	}
	if isMarkdown(crate.ReadmePath) {
		if rendered, ok := renderMarkdown(source); ok {
			d.Readme = rendered
			return d
		}
	}
	d.Plain = plainText(source)
	return d
}

func isMarkdown(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".md", ".markdown", ".mkd", ".mdown":
		return true
	case "":
		return true // cargo's README: crates.io takes it for Markdown too
	}
	return false
}

// plainText is source as text, with characters that only look like themselves.
func plainText(source []byte) string {
	text := strings.ToValidUTF8(string(source), string(utf8.RuneError))
	return tameLines(strings.ReplaceAll(text, "\r\n", "\n"))
}

// renderMarkdown turns a README into HTML that may stand in a page; ok is false
// where it is too large or too involved for that.
func renderMarkdown(source []byte) (rendered template.HTML, ok bool) {
	if len(source) > maxMarkdown || !utf8.Valid(source) || tooInvolved(source) {
		return "", false
	}
	var raw bytes.Buffer
	if err := markdown.Convert(source, &raw); err != nil || raw.Len() > maxRendered {
		return "", false
	}
	clean, err := fitIn(allowed().SanitizeBytes(raw.Bytes()))
	if err != nil || len(clean) > maxRendered {
		return "", false
	}
	return template.HTML(clean), true
}

// tooInvolved finds what would take the renderer much time or memory.
func tooInvolved(source []byte) bool {
	work, cells, block, rows, columns, marks := 0.0, 0, 0, 0, 0, 0
	end := func() {
		work += float64(block) * float64(block)
		cells += rows * columns
		block, rows, columns = 0, 0, 0
	}
	for line := range bytes.Lines(source) {
		if len(bytes.TrimLeft(line, " \t>\r\n")) == 0 {
			end()
		}
		block, rows, columns = block+len(line), rows+1, max(columns, bytes.Count(line, []byte("|")))
		lead := len(line) - len(bytes.TrimLeft(line, " \t>-+*0123456789.)"))
		if lead > maxNesting {
			return true
		}
		if trimmed := bytes.TrimLeft(line, " >"); len(trimmed) > 0 && trimmed[0] == '[' {
			marks++ // what may define a link
		}
	}
	end()
	return work > maxWork || cells > maxCells || marks > maxMarks
}

// markdown is GitHub's flavour, with raw HTML passed on to the sanitiser.
var markdown = goldmark.New(
	goldmark.WithExtensions(
		extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute)),
		extension.Strikethrough, extension.Linkify, extension.TaskList,
	),
	goldmark.WithRendererOptions(gmhtml.WithUnsafe(), renderer.WithNodeRenderers(util.Prioritized(taskBox{}, 100))),
)

// The boxes of task lists.
const (
	taskOpen = "☐ "
	taskDone = "☑ "
)

// taskBox draws the boxes of task lists as characters: a page has no inputs but ours.
type taskBox struct{}

// RegisterFuncs implements renderer.NodeRenderer.
func (taskBox) RegisterFuncs(r renderer.NodeRendererFuncRegisterer) {
	r.Register(extast.KindTaskCheckBox, func(w util.BufWriter, _ []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
		box := taskOpen
		if n.(*extast.TaskCheckBox).IsChecked {
			box = taskDone
		}
		if !entering {
			return ast.WalkContinue, nil
		}
		_, err := w.WriteString(box)
		return ast.WalkContinue, err
	})
}

// allowed is what of HTML may come out of a README. Whatever is not named here goes.
var allowed = sync.OnceValue(allowList)

func allowList() *bluemonday.Policy {
	p := bluemonday.NewPolicy()
	p.AllowElements("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "div", "blockquote", "pre", "code", "samp", "kbd",
		"em", "strong", "b", "i", "del", "s", "ins", "sub", "sup", "mark", "small", "ul", "li", "dl", "dt", "dd",
		"table", "thead", "tbody", "tr", "details", "summary")
	p.AllowAttrs("start").Matching(bluemonday.Integer).OnElements("ol")
	p.AllowElements("ol")
	p.AllowAttrs("align").Matching(bluemonday.CellAlign).OnElements("th", "td")
	p.AllowElements("th", "td")
	p.AllowURLSchemes("http", "https", "mailto")
	p.AllowRelativeURLs(true) // fitIn keeps only those that lead to a heading
	p.RequireParseableURLs(true)
	p.AllowAttrs("href").OnElements("a")
	p.AllowAttrs("src", "alt").OnElements("img") // which fitIn turns into text
	return p
}
