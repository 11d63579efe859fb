package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// viewer is somebody who sees one view of each index file.
type viewer struct{ name, token string }

// seen is an answer to a viewer, and what was asked.
type seen struct {
	who, path, coding string
	token             string
	reply
}

func (s seen) String() string { return fmt.Sprintf("%s, %s, %q", s.who, s.path, s.coding) }

// viewers are a lab's that see different versions of demo-one and remote, so many that each view is worth compressing.
func viewers(l *lab) []viewer {
	l.t.Helper()
	var versions []string
	for i := range 12 {
		versions = append(versions, fmt.Sprintf("1.0.%d", i))
		l.publish(l.owner, "demo-one", versions[i])
	}
	l.upstreams.offer("remote", versions...)
	hashes := func(of ...int) (all []string) {
		for _, i := range of {
			all = append(all, hashOf(crateFile("demo-one", versions[i])), hashOf(crateFile("remote", versions[i])))
		}
		return all
	}
	two, other, far := l.newHost(particle.TierGuest, "builder"), l.newHost(particle.TierGuest, "builder"), l.newHost(particle.TierGuest, "builder")
	l.grant(two, func(g *particle.EnvGrant) { g.AllowedCrates = hashes(0, 1) })
	l.grant(other, func(g *particle.EnvGrant) { g.AllowedCrates = hashes(0, 2) })
	l.grant(far, func(g *particle.EnvGrant) { g.OffshoreFlag, g.AllowedCrates = true, hashes(0, 1, 2, 3, 4, 6, 7, 8) })
	l.quarantine("a-version", func(q *particle.QuarantineRule) {
		q.Match[0].Names, q.Match[0].Versions = []string{"demo-one", "remote"}, "=1.0.5"
	})
	return []viewer{
		{"anonymous", ""}, {"a member", l.session(l.member, "read")}, {"another member, who sees the same", l.session(l.owner, "read")},
		{"one with a grant of two", l.session(two, "read")}, {"one with a grant of another two", l.session(other, "read")}, {"one offshore", l.session(far, "read")},
	}
}

var indexRoots = map[string]string{"/index": "de/mo/demo-one", "/public/index": "de/mo/demo-one", "/crates-io/index": "re/mo/remote", "/upstream/lab/index": "re/mo/remote"}

// A tag says that the client has what it would be sent, to the byte: that of another's view, of
// another index or in a coding that this request does not take gets the whole answer.
func TestATagIsGoodForTheVeryViewThatItCameWith(t *testing.T) {
	l := newLab(t, anonymous)
	var all []seen
	for _, who := range viewers(l) {
		for root, file := range indexRoots {
			for _, coding := range []string{"identity", "gzip"} {
				s := seen{who: who.name, path: root + "/" + file, coding: coding, token: who.token}
				s.reply = l.getWith(s.path, s.token, "Accept-Encoding", coding)
				if vary := strings.Join(s.header.Values("Vary"), ", "); !strings.Contains(vary, "Authorization") {
					t.Errorf("%s: varies by %q", s, vary)
				}
				if who.token == "" && root != "/public/index" {
					s.want(t, 401)
					continue
				}
				s.want(t, 200)
				all = append(all, s)
			}
		}
	}
	bodies := map[string]bool{}
	for _, s := range all {
		bodies[string(s.body)] = true
		for _, other := range all {
			same := bytes.Equal(s.body, other.body)
			if tags := s.header.Get("ETag") == other.header.Get("ETag"); tags != same {
				t.Errorf("%s and %s: the same bytes %v, the same tag %v", s, other, same, tags)
			}
			l.checkRevalidated(s, other, all)
		}
	}
	if want := 2 * 2 * 4; len(bodies) != want { // of two crates, in two codings: the view of members, and that of each grant
		t.Errorf("%d different bodies, not %d", len(bodies), want)
	}
}

// checkRevalidated asks for what s got, with the tag of other.
func (l *lab) checkRevalidated(s, other seen, all []seen) {
	l.t.Helper()
	want := 200
	for _, own := range all {
		// Its own, and where it takes compressed bytes also the plain ones of the same view.
		if own.who == s.who && own.path == s.path && (own.coding == s.coding || own.coding == "identity") && own.header.Get("ETag") == other.header.Get("ETag") {
			want = 304
		}
	}
	again := l.getWith(s.path, s.token, "Accept-Encoding", s.coding, "If-None-Match", other.header.Get("ETag"))
	switch {
	case again.status != want:
		l.t.Errorf("%s, with the tag of %s: %d, not %d", s, other, again.status, want)
	case want == 304 && (len(again.body) != 0 || again.header.Get("ETag") != other.header.Get("ETag")):
		l.t.Errorf("%s, with the tag of %s: %s", s, other, again)
	case want == 200 && !bytes.Equal(again.body, s.body):
		l.t.Errorf("%s, with the tag of %s: other bytes", s, other)
	}
	if got := strings.Join(again.header.Values("Vary"), ", "); got != "Authorization, Accept-Encoding" {
		l.t.Errorf("%s, with the tag of %s: varies by %q", s, other, got)
	}
}

// How clients and caches write what they have (RFC 9110 §8.8.3, §13.1.2).
func TestIfNoneMatchIsReadAsItIsWritten(t *testing.T) {
	const tag = `"0123"`
	for name, c := range map[string]struct {
		lines []string
		want  bool
	}{
		"none":                           {nil, false},
		"the tag":                        {[]string{tag}, true},
		"a weak one":                     {[]string{"W/" + tag}, true},
		"one of several":                 {[]string{`"a", W/"b",` + tag + ` , "c"`}, true},
		"on a second line":               {[]string{`"a"`, tag}, true},
		"on a third, after an empty one": {[]string{`"a"`, "", "\t" + tag + " "}, true},
		"after empty elements":           {[]string{`, ,"a",, ` + tag}, true},
		"after one with a comma":         {[]string{`"a,b", ` + tag}, true},
		"the star":                       {[]string{" * "}, true},
		"a star within a tag":            {[]string{`"a*b"`}, false},
		"a tag that is a star":           {[]string{`"*"`}, false},
		"a star after a comma in a tag":  {[]string{`"a,*"`, `"a,*,b"`}, false},
		"a tag within a tag":             {[]string{`"a, ` + strings.Trim(tag, `"`) + `"`}, false},
		"a star among tags":              {[]string{`"a", *`}, false},
		"a star on a second line":        {[]string{`"a"`, "*"}, false},
		"no quotes":                      {[]string{strings.Trim(tag, `"`)}, false},
		"a quote too few":                {[]string{strings.TrimSuffix(tag, `"`)}, false},
		"a longer one":                   {[]string{`"01234"`, `"0123 "`}, false},
		"small w":                        {[]string{"w/" + tag}, false},
		"nothing between two":            {[]string{`"a"` + tag}, false},
	} {
		r := &http.Request{Header: http.Header{"If-None-Match": c.lines}}
		if got := matches(r, tag); got != c.want {
			t.Errorf("%s: %q: %v", name, c.lines, got)
		}
	}
}

// What holds for matches holds for every answer with a tag.
func TestEveryTagIsLookedForOnAllLines(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.upstreams.offer("remote", "1.0.0")
	token := l.session(l.member, "read")
	for _, path := range append(revalidatable(l), "/v1/artifacts/crate/demo-one/0.1.0/content", remoteDL("/crates-io")) {
		etag := l.get(path, token).want(t, 200).header.Get("ETag")
		for _, lines := range [][]string{{`"a*b"`}, {`"*"`, `"a,*"`}} {
			if r := l.do(ask{method: http.MethodGet, path: path, token: token, header: http.Header{"If-None-Match": lines}}); r.status != 200 {
				t.Errorf("%s with %q: %d", path, lines, r.status)
			}
		}
		if r := l.do(ask{method: http.MethodGet, path: path, token: token, header: http.Header{"If-None-Match": {`"a"`, etag}}}); r.status != 304 {
			t.Errorf("%s with its tag on the second line: %d", path, r.status)
		}
	}
}
