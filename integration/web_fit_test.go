package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// asSeen says what is wrong with a page as it is laid out: what stands out of
// the window or of its place, levels of headings left out, names given twice,
// and text that is hard to read (WCAG 2.2: 1.4.3, 1.4.10).
const asSeen = `(() => {
	const bad = [], wide = document.documentElement.clientWidth;
	if (document.documentElement.scrollWidth > wide) bad.push('the page is wider than the window by ' + (document.documentElement.scrollWidth - wide));
	for (const e of document.querySelectorAll('table'))
		if (!e.closest('.wide') && e.getBoundingClientRect().right > e.parentElement.getBoundingClientRect().right + 1) bad.push('a table is wider than its place');
	let last = 0;
	for (const h of document.querySelectorAll('h1,h2,h3,h4,h5,h6')) {
		if (+h.tagName[1] > last + 1) bad.push('h' + last + ' is followed by ' + h.tagName + ' ' + h.textContent);
		last = +h.tagName[1];
	}
	const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
	for (const id of ids.filter((id, i) => ids.indexOf(id) !== i)) bad.push('two elements are called ' + id);
	const numbers = c => { const n = c.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
	const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (texts.nextNode()) {
		const e = texts.currentNode.parentElement, style = getComputedStyle(e);
		if (!texts.currentNode.data.trim() || !e.getClientRects().length) continue;
		let ground = e;
		while (ground !== document.body && numbers(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
		const [a, b] = [style.color, getComputedStyle(ground).backgroundColor].map(c => light(numbers(c))).sort((x, y) => y - x);
		const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && +style.fontWeight >= 700;
		if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) bad.push('hard to read: ' + texts.currentNode.data.trim().slice(0, 40));
		if (parseFloat(style.fontSize) < 12) bad.push('small: ' + texts.currentNode.data.trim().slice(0, 40));
	}
	return bad;
})()`

// Pages keep within windows of every width, by day and by night, however long
// the names are that people choose.
func TestPagesFitTheirWindow(t *testing.T) {
	l := newLab(t)
	u := l.operator
	u.login(l, u.folder)
	long := "a-crate-whose-name-is-as-long-as-the-rules-allow-it-to-be-abcdef"
	version := "10.20.30-alpha.20261126.nightly.0123456789abcdef.very.long+build.meta.data"
	word := strings.Repeat("averylongwordwithoutspaces", 20)
	readme := gentleReadme + "\n## " + word + "\n\n#### Two levels down\n\n" + word + " `" + word + "`\n\n| " + strings.Repeat("a column | ", 12) + "\n|" + strings.Repeat("---|", 12) + "\n| " + strings.Repeat("some words | ", 12) + "\n"
	u.put(l, long, version, packCrate(t, long, version, fmt.Sprintf("description = %q\nlicense = %q\nkeywords = [\"%[3]s\"]\nhomepage = \"https://%[1]s.example/%[1]s\"\n[features]\n%[3]s = []\n[dependencies]\n%[4]s = { version = \">=1.2.3, <1.4.0-alpha.beta.gamma.delta\", features = [\"%[3]s\"] }\n",
		word, word[:200], word[:20], long), [2]string{"README.md", readme}))
	u.put(l, "demo-one", "0.1.0", packCrate(t, "demo-one", "0.1.0", "", [2]string{"README.md", gentleReadme}))
	b := newBrowser(t)
	b.open(l.url + "/me")
	b.wantFits("/me", 320, 1280)
	b.open(l.url + "/log")
	b.wantFits("closed", 320, 1280)
	b.do(chromedp.SetValue(chromedp.CSS("#session"), u.session("audit", 30*time.Minute)))
	b.leave("form.signin button")
	for _, page := range []string{"/", "/me", "/search?q=" + word[:190], "/search?q=crate", "/artifacts", "/artifacts/crate", "/artifacts/aln-shard", "/artifacts/crate/" + long, "/artifacts/crate/demo-one", "/rules", "/grants", "/audit", "/log", "/record/0", "/record/2", "/no/such/page"} {
		b.open(l.url + page)
		b.wantFits(page, 320, 390, 641, 865, 1057, 1280) // the style sheet's limits among them
	}
}

func (b *browser) wantFits(page string, widths ...int64) {
	b.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
		if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
			b.t.Fatal(err)
		}
		for _, width := range widths {
			window := emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 600}
			if _, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, window); err != nil {
				b.t.Fatal(err)
			}
			if found := run(b, chromedp.Evaluate[[]string](asSeen)); len(found) > 0 {
				b.t.Errorf("%s, %d wide, %s: %q", page, width, scheme, found)
			}
		}
	}
}
