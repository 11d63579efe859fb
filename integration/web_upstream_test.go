package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// longThere is a crate of upstream whose name and versions are as long as they may be.
const longThere = "a_crate_upstream_whose_name_is_as_long_as_the_rules_allow_it_abc"

// fillUpstreamPages has upstream do all that pages tell of: crates that are known, held and
// kept, a version that changed and one that was dropped, a name that is published here too. It
// returns the pages, and the newest import's index.
func (l *upstreamLab) fillUpstreamPages(u *user) (pages []string, last int64) {
	l.t.Helper()
	u.login(l.lab, u.folder)
	for _, version := range []string{"1.0.0", "1.1.0", "10.20.30-alpha.20261126.nightly.0123456789abcdef.very.long+build.meta"} {
		l.crates.Add(l.t, testbed.Version{Line: testbed.IndexLine{Name: longThere, Vers: version}, Crate: packCrate(l.t.(*testing.T), longThere, version, "")})
	}
	token := u.session(particle.ScopeRead, 10*time.Minute)
	read := func(name string) {
		l.t.Helper()
		if status, _, body := l.get("/crates-io/index/"+testbed.IndexPath(name), token); status != 200 {
			l.t.Fatalf("%s: %d %s", name, status, body)
		}
	}
	for _, name := range []string{longThere, "itoa", "serde", "ryu", "cfg-if"} {
		read(name)
	}
	line := l.newest("itoa")
	writeFiles(l.t, u.folder, map[string]string{"list.txt": fmt.Sprintf("itoa %s\n%s 1.0.0 # one\n", line.Vers, longThere)})
	said := must(l.t, u.aln(u.folder, "prefetch", "list.txt", "--pin", "ci/the-nightly-build-of-everything/main"))
	wantSays(l.t, said.stdout, "2 crates are held")
	if err := l.crates.Replace(longThere, "1.1.0", []byte("another crate")); err != nil {
		l.t.Fatal(err)
	}
	if err := l.crates.Drop(longThere, "1.0.0"); err != nil {
		l.t.Fatal(err)
	}
	read(longThere)
	last = l.logSize() - 1
	l.awaitAlarm("changed " + longThere)
	u.put(l.lab, "ryu", "0.1.0", packCrate(l.t.(*testing.T), "ryu", "0.1.0", "description = \"not the one that you think\"\n"))
	l.crates.Stop() // so that there is a trouble
	l.get("/crates-io/index/"+testbed.IndexPath("syn"), token)
	return []string{
		"/upstreams", "/upstreams/crates-io", "/upstreams/crates-io?q=none", "/upstreams/crates-io/crates/" + longThere, "/upstreams/crates-io/crates/serde", "/upstreams/crates-io/crates/ryu",
		"/upstreams/crates-io/alarms", fmt.Sprintf("/record/%d", last), "/search?q=a_crate", "/artifacts/crate/ryu", "/audit?rule=known-upstream",
	}, last
}

// Pages of other registries say what happened, keep within windows of every width, by day and
// by night, and nothing on them is stopped by the policy or asked elsewhere.
func TestPagesOfUpstreamsTellAndFit(t *testing.T) {
	l := newUpstreamLab(t, "--upstream-fresh", "0s", "--upstream-cache-mb", "64")
	u := l.operator
	pages, last := l.fillUpstreamPages(u)
	b := newBrowser(t)
	b.open(l.url + "/upstreams")
	wantSays(t, b.text(), "For members only")
	b.do(chromedp.SetValue(chromedp.CSS("#session"), u.session("audit", 30*time.Minute)))
	b.leave("form.signin button")
	for page, says := range map[string][]string{
		"/upstreams":           {"Last trouble", "it cannot be reached", "ci/the-nightly-build", "crate/ryu@0.1.0", "The bound is 64.0 MiB", "2 crates"},
		"/upstreams/crates-io": {longThere, "itoa", "serde"},
		"/upstreams/crates-io/crates/" + longThere: {"What crates-io said otherwise later", "changed", "dropped", "held", fmt.Sprint(last)},
		"/upstreams/crates-io/crates/ryu":          {"is published here too"},
		"/upstreams/crates-io/alarms":              {"changed", "dropped", longThere},
		fmt.Sprintf("/record/%d", last):            {"The registry says here what it saw", "subject", "Follows"},
		"/search?q=a_crate":                        {longThere, "Crates of other registries"},
		"/artifacts/crate/ryu":                     {"has a crate named ryu too"},
		"/audit?rule=known-upstream":               {"ryu", "Only entries with the rule"},
	} {
		b.open(l.url + page)
		wantSays(t, b.text(), says...)
		b.wantQuiet(page, l.url)
	}
	for _, page := range pages {
		b.open(l.url + page)
		b.wantFits(page, 320, 641, 865, 1280)
	}
	must(t, u.aln(u.folder, "log", "check"))
}
