package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

func TestReadmeBecomesPartOfAPage(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"headings stand below the page's": {"# Hello, World\n## Hello, World", `<h3 id="readme-hello-world" class="was-h1">Hello, World</h3>` + "\n" + `<h4 id="readme-hello-world-1" class="was-h2">Hello, World</h4>`},
		"and leave out no level":          {"## A\n#### B\n# C", `<h3 id="readme-a" class="was-h2">A</h3>` + "\n" + `<h4 id="readme-b" class="was-h4">B</h4>` + "\n" + `<h3 id="readme-c" class="was-h1">C</h3>`},
		"and so do raw ones":              {"<h1 id=content class=skip>Raw</h1>", `<h3 id="readme-raw" class="was-h1">Raw</h3>`},
		"links to headings":               {"[a](#Hello-world)", `<p><a href="#readme-hello-world">a</a></p>`},
		"links":                           {"[a](https://x.example/?a=1&b=2)", `<p><a href="https://x.example/?a=1&amp;b=2" rel="nofollow noopener noreferrer">a</a></p>`},
		"addresses":                       {"see https://x.example/ and <me@x.example>", `<p>see <a href="https://x.example/" rel="nofollow noopener noreferrer">https://x.example/</a> and <a href="mailto:me@x.example" rel="nofollow noopener noreferrer">me@x.example</a></p>`},
		"links that lead nowhere here":    {"[license](LICENSE) [up](../x) [root](/etc) [other](//x.example) [js](javascript:x)", `<p><span>license</span> <span>up</span> <span>root</span> <span>other</span> js</p>`},
		"pictures are text":               {"![two arrows](https://x.example/a.png)", `<p><a href="https://x.example/a.png" rel="nofollow noopener noreferrer" class="picture">two arrows</a></p>`},
		"of a link, its text":             {"[![build](https://x.example/a.svg)](https://x.example/)", `<p><a href="https://x.example/" rel="nofollow noopener noreferrer"><span class="picture">build</span></a></p>`},
		"that are not on the web":         {"![](a.png) ![b](data:image/png;base64,AAAA)", `<p><span class="picture">picture</span> <span class="picture">b</span></p>`},
		"code":                            {"```rust\nlet a = \"<b>\";\n```", "<pre tabindex=\"0\"><code>let a = &#34;&lt;b&gt;&#34;;\n</code></pre>"},
		"tables scroll":                   {"a|b\n-:|:-\n1|2", `<div class="wide" tabindex="0"><table>`},
		"tasks":                           {"- [x] a\n- [ ] b", "<ul>\n<li class=\"task\">☑ a</li>\n<li class=\"task\">☐ b</li>\n</ul>"},
		"unbalanced HTML is balanced":     {"</div></main><div><b>a", `<div><b>a</b></div>`},
		"text that turns is marked":       {"a\u202eb\u200bc\u2066d", "<p>a\ufffdbc\ufffdd</p>"},
	} {
		got, ok := renderMarkdown([]byte(c.source))
		if !ok || !strings.Contains(strings.TrimSpace(string(got)), c.want) {
			t.Errorf("%s: %v\n got %s\nwant %s", name, ok, got, c.want)
		}
	}
}

func TestReadmesThatAreNoMarkdownAreText(t *testing.T) {
	for name, c := range map[string]struct {
		path, source string
		plain        bool
	}{
		"README.md": {"README.md", "a", false}, "README": {"README", "a", false}, "readme.Markdown": {"x/readme.Markdown", "a", false},
		"README.txt": {"README.txt", "<b>", true}, "README.rst": {"README.rst", "a", true},
		"not UTF-8": {"README.md", "a\xff", true}, "too large": {"README.md", strings.Repeat("a\n\n", maxMarkdown/2), true},
	} {
		d := describe(&cargo.Crate{ReadmePath: c.path, Readme: []byte(c.source)})
		if (d.Plain != "") != c.plain || (d.Readme == "") != c.plain || d.Crate.Readme != nil {
			t.Errorf("%s: %.40q, %.40q", name, d.Plain, d.Readme)
		}
	}
}

// costly are texts that take a Markdown renderer time or memory out of all
// proportion; whatever is made of them is made soon.
var costly = []string{
	"[", "![", "*a_", "> ", ">", "- ", "1. ", "`", "``a`", "<a ", "&", "[a](", "[a]: x\n", "[a]: x\n\n", "|a", "a|b\n-|-\n|", "www.a", "http://a", "a@b.", "_a ", "**a", "~~a",
	"# a\n", "# a\n\n", "<!--", "<![CDATA[", "<?", "(", "[a](b \"", "***", "_*", "\t", "* ", "a\n- ", "[[a]", "![](", "<div>\n\n", "<b>", "<details>\n\n", "- a\n  ", "<table><tr><td>", "<p><a><ul><li>",
}

func TestCostlyReadmesAreDoneSoon(t *testing.T) {
	const most = 20 * time.Second // of a very busy machine with the race detector; without either it is a hundredth
	sources := map[string]string{}
	for _, size := range []int{8 << 10, 20 << 10, maxMarkdown} {
		for _, text := range costly {
			sources[fmt.Sprintf("%.20q %d", text, size)] = strings.Repeat(text, size/len(text))
		}
	}
	var stairs strings.Builder
	for i := range 60 {
		stairs.WriteString(strings.Repeat(" ", 2*i) + "- a\n")
	}
	sources["stairs"] = strings.Repeat(stairs.String()+"\n", maxMarkdown/(stairs.Len()+1))
	sources["wide table"] = strings.Repeat("a|", 5000) + "\n" + strings.Repeat("-|", 5000) + "\n" + strings.Repeat("|\n", 5000)
	sources["many tables"] = strings.Repeat(strings.Repeat("a|", 90)+"\n"+strings.Repeat("-|", 90)+"\n"+strings.Repeat("|\n", 90)+"\n", 400)
	for name, source := range sources {
		start := time.Now()
		rendered, ok := renderMarkdown([]byte(source))
		if took := time.Since(start); took > most || len(rendered) > maxRendered {
			t.Errorf("%s: %s, %d bytes, %v", name, took, len(rendered), ok)
		}
	}
}

func TestReadmesAreReadOnceAndAFewAtATime(t *testing.T) {
	c := newReadmes(slog.New(slog.DiscardHandler))
	var reads atomic.Int64
	read := func(context.Context) (*cargo.Crate, error) {
		reads.Add(1)
		return &cargo.Crate{ReadmePath: "README.md", Readme: []byte("# a")}, nil
	}
	id := storage.CIDOf([]byte("a"))
	for range 3 {
		if d, err := c.get(context.Background(), id, read); err != nil || d.Readme == "" {
			t.Fatal(d, err)
		}
	}
	if reads.Load() != 1 {
		t.Errorf("read %d times", reads.Load())
	}
	// Places are taken by reads that hang, however impatient those are who asked for them.
	hang := make(chan struct{})
	for i := range mostReadmes {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, err := c.get(ctx, storage.CIDOf([]byte{byte(i)}), func(context.Context) (*cargo.Crate, error) { <-hang; return nil, io.ErrUnexpectedEOF })
		if !errors.Is(err, errBusy) {
			t.Errorf("%v", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.get(ctx, storage.CIDOf([]byte("b")), read); !errors.Is(err, errBusy) {
		t.Errorf("%v", err)
	}
	close(hang)
	if _, err := c.get(context.Background(), storage.CIDOf([]byte("b")), read); err != nil {
		t.Error(err)
	}
	if _, err := c.get(context.Background(), storage.CIDOf([]byte("c")), func(context.Context) (*cargo.Crate, error) { return nil, io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestKeptReadmesAreBounded(t *testing.T) {
	c := newReadmes(slog.New(slog.DiscardHandler))
	for i := range 100 {
		c.keep(storage.CIDOf([]byte{byte(i)}), described{Crate: &cargo.Crate{}, Plain: strings.Repeat("a", 1<<20)})
		if c.bytes > maxCached {
			t.Fatalf("%d bytes", c.bytes)
		}
	}
}

func TestTame(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "a\nb\tc": "a b c", "a\x1b[31mb\x00": "a[31mb", "x\u202ey\u2069": "x\ufffdy\ufffd", "\ufeffa\u200bb": "ab", "שלום 👩‍🔬": "שלום 👩‍🔬",
	} {
		if got := tame(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

// Whatever a README says, what comes out holds nothing but listed elements with
// listed attributes, and means the same when a browser reads it.
func FuzzReadme(f *testing.F) {
	for _, text := range append(costly, "# a\n[b](javascript:x)", "<svg><style><img src=x onerror=a>", "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
		"<noscript><p title=\"</noscript><img src=x onerror=a>\">", "<a href=' javascript:a'>", "- [x] a\n\n|a|\n|-|\n|b|", "<b><p>a</b></p><li><table>x<td>y") {
		f.Add(strings.Repeat(text, 3))
	}
	f.Fuzz(func(t *testing.T, source string) {
		rendered, ok := renderMarkdown([]byte(source))
		if !ok {
			return
		}
		doc, err := html.Parse(strings.NewReader("<!doctype html><html><body><main><div>" + string(rendered) + "</div><footer></footer></main>"))
		if err != nil {
			t.Fatal(err)
		}
		for n := range doc.Descendants() {
			checkTame(t, n, string(rendered))
		}
	})
}

func checkTame(t *testing.T, n *html.Node, all string) {
	t.Helper()
	const known = " html head body main div footer h3 h4 h5 h6 p br hr blockquote pre code samp kbd em strong b i del s ins sub sup mark small ul ol li dl dt dd table thead tbody tr th td details summary a span "
	switch {
	case n.Type == html.CommentNode:
		t.Fatalf("a comment: %s", all)
	case n.Type != html.ElementNode:
		return
	case !strings.Contains(known, " "+n.Data+" ") || n.Namespace != "":
		t.Fatalf("<%s>: %s", n.Data, all)
	case n.Data == "footer" && n.Parent.Data != "main":
		t.Fatalf("the page's frame is broken: %s", all)
	}
	for _, a := range n.Attr {
		u, err := url.Parse(a.Val)
		switch {
		case a.Key == "href" && err == nil && (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "mailto" || strings.HasPrefix(a.Val, "#"+idPrefix)):
		case a.Key == "id" && strings.HasPrefix(a.Val, idPrefix):
		case a.Key == "class" && strings.Contains(" wide picture task was-h1 was-h2 was-h3 was-h4 was-h5 was-h6 ", " "+a.Val+" "):
		case a.Key == "tabindex" && a.Val == "0", a.Key == "rel", a.Key == "align", a.Key == "start":
		default:
			t.Fatalf("<%s %s=%q>: %s", n.Data, a.Key, a.Val, all)
		}
	}
}
