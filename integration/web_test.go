package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

const gentleReadme = "# demo-one\n\n[![build](https://ci.example/badge.svg)](https://ci.example/)\n\nHow to use it:\n\n```rust\nfn main() {}\n```\n\n" +
	"| a | b |\n|--:|---|\n| 1 | 2 |\n\n- [x] done\n- [ ] to do\n\n<details><summary>More</summary>Here.</details>\n\n![a picture](https://pictures.example/p.png)\n"

// A person looks around: signs in on the page that was closed to them, and is
// led back; nothing on the way is stopped by the policy or asked elsewhere.
func TestAMemberLooksAroundInABrowser(t *testing.T) {
	l := newLab(t)
	l.operator.login(l, l.operator.folder)
	l.operator.put(l, "demo-one", "0.1.0", packCrate(t, "demo-one", "0.1.0", "description = \"a gentle crate\"\nkeywords = [\"gentle\"]\n", [2]string{"README.md", gentleReadme}))
	b := newBrowser(t)
	b.open(l.url + "/")
	wantSays(t, b.text(), "aln-registry login "+l.url, "For members")
	b.open(l.url + "/artifacts/crate/demo-one")
	wantSays(t, b.text(), "For members only")
	if strings.Contains(b.text(), "gentle") {
		t.Error("a stranger reads about the crate")
	}
	session := l.operator.session("read", 15*time.Minute)
	b.do(chromedp.SetValue(chromedp.CSS("#session"), session))
	b.leave("form.signin button")
	wantSays(t, b.text(), "a gentle crate", "How to use it", "☑ done", "cargo add --registry aln demo-one")
	if to := run(b, chromedp.Location()); to != l.url+"/artifacts/crate/demo-one" {
		t.Errorf("signing in led to %s", to)
	}
	b.wantQuiet("signing in", l.url)
	for _, page := range []string{"/", "/me", "/search?q=gentle", "/artifacts", "/artifacts/crate", "/artifacts/aln-shard", "/artifacts/crate/demo-one/0.1.0", "/rules", "/grants", "/log", "/record/0", "/record/2", "/no/such/page"} {
		b.open(l.url + page)
		b.wantQuiet(page, l.url)
	}
	b.open(l.url + "/me")
	wantSays(t, b.text(), l.operator.did(), "Sign out")
	cookies := b.cookies(l.url)
	if len(cookies) != 1 || cookies[0].Value != session || !cookies[0].HTTPOnly || cookies[0].SameSite != network.CookieSameSiteStrict || cookies[0].Expires == -1 {
		t.Errorf("cookies: %+v", cookies)
	}
	wantNoAPI(t, l, cookies[0])
	b.leave("main form button")
	if left := b.cookies(l.url); len(left) != 0 {
		t.Errorf("after signing out: %+v", left)
	}
	b.open(l.url + "/artifacts/crate/demo-one")
	wantSays(t, b.text(), "For members only")
	b.wantQuiet("signing out", l.url)
}

func (b *browser) cookies(url string) []*network.Cookie {
	b.t.Helper()
	found, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{url}})
	if err != nil {
		b.t.Fatal(err)
	}
	return found.Cookies
}

// wantNoAPI: to cargo's and the JSON routes the cookie says nothing.
func wantNoAPI(t *testing.T, l *lab, c *network.Cookie) {
	t.Helper()
	for _, path := range []string{"/index/config.json", "/index/de/mo/demo-one", "/api/v1/crates", "/api/v1/crates/demo-one/0.1.0/download", "/v1/members", "/v1/artifacts", "/v1/records/1"} {
		req, err := http.NewRequest(http.MethodGet, l.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s answers a cookie with %d", path, resp.StatusCode)
		}
	}
}

// hostileTexts are tried as README, each alone and all together, and as
// description, license, feature and file names where these allow it. BAD is
// another origin, RUN a script that would be noticed.
var hostileTexts = []string{
	"<script>RUN</script>\n\n<SCRIPT SRC=BAD/x.js></SCRIPT>\n\n<scr<script>ipt>RUN</script>",
	"<img src=x onerror=\"RUN\">\n\n<img src=BAD/i.png srcset='BAD/j.png 2x' loading=eager>\n\n![a](BAD/md.png)\n\n<picture><source srcset=BAD/s.png><img src=BAD/p.png></picture>",
	"[a](javascript:RUN) [b](JaVaScRiPt:RUN) [c](&#106;avascript:RUN) [d](java\tscript:RUN) [e](data:text/html,<script>RUN</script>) [f](vbscript:RUN) <javascript:RUN>\n\n[g][h]\n\n[h]: javascript:RUN\n\n<a href=\"\x01javascript:RUN\">i</a> <a href=' javascript:RUN'>j</a>",
	"<svg onload=RUN></svg>\n\n<svg><script>RUN</script></svg>\n\n<svg><animate onbegin=RUN attributeName=x dur=1s></svg>\n\n<svg><use href=BAD/u.svg#x></svg>\n\n<math><mi xlink:href='javascript:RUN'>m</mi></math>",
	"<iframe src=BAD/frame></iframe>\n\n<iframe srcdoc='<script>RUN</script>'></iframe>\n\n<object data=BAD/o></object>\n\n<embed src=BAD/e>\n\n<frameset><frame src=BAD/f></frameset>\n\n<portal src=BAD/p></portal>",
	"<meta http-equiv=refresh content='0;url=BAD/refresh'>\n\n<base href=BAD/>\n\n<link rel=stylesheet href=BAD/l.css>\n\n<link rel=prefetch href=BAD/pre>\n\n<link rel=icon href=BAD/icon.png>",
	"<style>body{background:url(BAD/css.png)}@import 'BAD/imp.css';</style>\n\n<p style=\"background:url(BAD/attr.png);position:fixed;inset:0\">over everything</p>\n\n<table background=BAD/t.png><tr><td>t</td></tr></table>\n\n<body background=BAD/b.png onload=RUN>",
	"<form action=BAD/form method=post><input name=session autofocus onfocus=RUN><button>Sign in</button></form>\n\n<button formaction='javascript:RUN'>b</button>\n\n<input type=image src=BAD/in.png>\n\n<details open ontoggle=RUN><summary>s</summary></details>\n\n<textarea autofocus onfocus=RUN></textarea>",
	"<!-- --!><script>RUN</script> -->\n\n<!--><img src=x onerror=RUN>-->\n\n<![CDATA[<script>RUN</script>]]>\n\n<?xml <img src=x onerror=RUN>?>\n\n<!DOCTYPE html [<!ENTITY x \"<script>RUN</script>\">]>&x;",
	"<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=RUN&gt;\">\n\n<svg></p><style><a id=\"</style><img src=1 onerror=RUN>\">\n\n<noscript><p title=\"</noscript><img src=x onerror=RUN>\">\n\n<form><math><mtext></form><form><mglyph><style></math><img src onerror=RUN>",
	"<p title='</p><img src=x onerror=RUN>'>\n\n<a href='x\" onmouseover=\"RUN'>q</a>\n\n`<img src=x onerror=RUN>` &lt;script&gt;RUN&lt;/script&gt; &#60;script&#62;RUN&#60;/script&#62;\n\n```html\" onload=\"RUN\n<script>RUN</script>\n```\n\n[x](BAD/l \"t\\\" onclick=RUN\")",
	"<xmp><img src=x onerror=RUN></xmp>\n\n<plaintext><img src=x onerror=RUN>\n\n<title><img src=x onerror=RUN></title>\n\n<template><script>RUN</script></template>\n\n<select><option><style><img src=x onerror=RUN></select>",
	"</div></section></main></body></html><script>RUN</script><div><h1>Sign in again</h1></div>\n\n</pre></code></td></table><img src=x onerror=RUN>",
	"<video src=BAD/v.mp4 autoplay poster=BAD/po.png onerror=RUN></video>\n\n<audio src=BAD/a.mp3 autoplay onerror=RUN></audio>\n\n<video><source onerror=RUN src=BAD/s.mp4></video>\n\n<marquee onstart=RUN>m</marquee>\n\n<track src=BAD/t.vtt>",
	"\u202egnp.tpircs\u202c a\u2066b\u2069 \u200bz\ufeff \u0085 | <b onclick=RUN>\u2028RUN\u2029</b>\n\n{{.Asker}} ${RUN} {{7*7}} <%= RUN %>",
	"<a name=x id=content class=skip href=# ping=BAD/ping target=_top>p</a> <img name=body src=x> <a id=pwned></a><a id=pwned name=pwned href=BAD/clobber>c</a> <form name=pwned><input name=parentNode></form>",
}

func TestHostileCratesDoNothingInABrowser(t *testing.T) {
	var reached atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reached.Add(1) }))
	defer elsewhere.Close()
	l := newLab(t)
	u := l.operator
	u.login(l, u.folder)
	fill := strings.NewReplacer("BAD", elsewhere.URL, "RUN", "window.pwned=1;document.pwned=1;alert(1)")
	var texts []string
	for _, text := range slices.Concat(hostileTexts, moreHostileTexts) {
		texts = append(texts, fill.Replace(text))
	}
	texts = append(texts, strings.Join(texts, "\n\n"))
	for i, text := range texts {
		short := inOneLine(text, 900)
		manifest := fmt.Sprintf("description = %s\nlicense = %s\nlinks = %s\nhomepage = %s\nrepository = 'https://x.example/\"><script>alert(1)</script>'\n[target.'cfg(feature = \"<img src=x onerror=alert(1)>\")'.dependencies]\nlibc = '1'\n",
			tomlString(inOneLine(text, 3000)), tomlString(short), tomlString(short), tomlString(elsewhere.URL+"/?q=<script>alert(1)</script>"))
		name := fmt.Sprintf("hostile-%d", i)
		u.put(l, name, "1.0.0", packCrate(t, name, "1.0.0", manifest,
			[2]string{"README.md", text}, [2]string{"src/' onclick=alert(1) b.rs", ""}))
		u.put(l, name, "2.0.0-a.onerror", packCrate(t, name, "2.0.0-a.onerror", "readme = \"' onerror=alert(1) &lt;b&gt;.txt\"\n", [2]string{"' onerror=alert(1) &lt;b&gt;.txt", text}))
	}
	records := u.hostileRecords(l, fill)
	b := newBrowser(t)
	b.open(l.url + "/me")
	b.do(chromedp.SetValue(chromedp.CSS("#session"), u.session("read", 30*time.Minute)))
	b.leave("form.signin button")
	pages := slices.Concat([]string{"/", "/artifacts/crate", "/search?q=hostile", "/log"}, reflections, records)
	for i := range texts {
		pages = append(pages, fmt.Sprintf("/artifacts/crate/hostile-%d/1.0.0", i), fmt.Sprintf("/artifacts/crate/hostile-%d/2.0.0-a.onerror", i))
	}
	for _, page := range pages {
		b.open(l.url + page)
		b.wantTame(page)
		b.wantQuiet(page, l.url)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("another origin was asked %d times", n)
	}
	// The alarms work: what a hole in the sanitiser would let into a page is stopped by the policy, and seen.
	run(b, chromedp.Evaluate[bool](`document.body.innerHTML += '<img src="`+elsewhere.URL+`/hole" onerror="window.pwned=1">', true`))
	time.Sleep(300 * time.Millisecond)
	if run(b, chromedp.Evaluate[bool]("'pwned' in window")) {
		t.Error("a handler in the page ran")
	}
	b.mu.Lock() // not before: the tab's events wait for it
	defer b.mu.Unlock()
	if all := strings.Join(b.messages, "\n"); !strings.Contains(all, "Content Security Policy") || reached.Load() != 0 {
		t.Errorf("the policy stopped nothing (%d requests): %s", reached.Load(), all)
	}
}

// wantTame looks at the page as the browser built it: no element, attribute or
// address that could do anything, and other people's text only where it belongs.
func (b *browser) wantTame(page string) {
	b.t.Helper()
	found := run(b, chromedp.Evaluate[[]string](`(() => {
		const bad = [];
		for (const e of document.querySelectorAll('*')) {
			if (/^(script|style|iframe|frame|object|embed|svg|math|base|template|noscript|video|audio|portal|textarea|select|marquee|xmp|plaintext)$/i.test(e.tagName)) bad.push('<' + e.tagName + '>');
			if (e.namespaceURI !== 'http://www.w3.org/1999/xhtml') bad.push('namespace of ' + e.tagName);
			for (const a of e.attributes) {
				if (/^on/i.test(a.name) || /^(style|srcset|srcdoc|formaction|ping|background|poster)$/i.test(a.name)) bad.push(e.tagName + ' ' + a.name);
				if (/^(href|src|action)$/i.test(a.name) && !/^(https?:\/\/|mailto:|\/|#)/.test(a.value)) bad.push(a.name + '=' + a.value);
				if (a.name === 'src' && !a.value.startsWith('/assets/')) bad.push('src=' + a.value);
			}
		}
		for (const m of document.head.querySelectorAll('meta[http-equiv]')) bad.push('meta ' + m.content);
		for (const e of document.querySelectorAll('body meta, body link, body title')) bad.push('in the body: ' + e.tagName);
		if (document.querySelectorAll('h1').length !== 1) bad.push('more or fewer than one h1');
		if (document.querySelectorAll('main').length !== 1 || !document.querySelector('main ~ footer')) bad.push('the frame of the page is broken');
		if (document.querySelectorAll('form').length !== document.querySelectorAll('form.find, main > form.begins, main > section[aria-label="Sign in"] > form.signin').length) bad.push('a form that is not ours');
		if (/[\u202a-\u202e\u2066-\u2069]/.test(document.body.innerText)) bad.push('text that turns what follows');
		if (document.querySelectorAll('#content').length !== 1) bad.push('an id was taken');
		return bad;
	})()`))
	if len(found) > 0 {
		b.t.Errorf("%s holds %q", page, found)
	}
}

// inOneLine is text of at most so many bytes, as a manifest's fields take it.
func inOneLine(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// tomlString is s as a basic string.
func tomlString(s string) string {
	var quoted strings.Builder
	for _, r := range s {
		fmt.Fprintf(&quoted, `\U%08X`, r)
	}
	return `"` + quoted.String() + `"`
}
