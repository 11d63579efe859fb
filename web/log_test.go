package web

import (
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/record"
)

// turning is text that would turn what follows it, had it its way.
const turning = "a\u202eb\u2066c\u202bd"

// Whatever people may write that is shown somewhere, no page turns it.
func TestNoPageTurnsText(t *testing.T) {
	l := newLab(t)
	quoted := `"` + turning + `"`
	l.publish("turning", "1.0.0", "description = "+quoted+"\nlicense-file = \"LICENSE\"\nlinks = "+quoted+"\nhomepage = \"https://x.example/?"+turning+"\"\nrepository = \"https://x.example/"+turning+"\"\n"+
		"[target.'cfg(feature = "+quoted+")'.dependencies]\nlibc = \"1\"\n", [2]string{"LICENSE", turning}, [2]string{"README.md", "# " + turning + "\n\n[" + turning + "](https://x.example/" + turning + ") ![" + turning + "](a.png)\n\n`" + turning + "`"})
	l.publish("turning", "2.0.0", "readme = \"README.txt\"\nlicense = "+quoted+"\n", [2]string{"README.txt", turning})
	l.vote(turning)
	token := l.session(l.member, "read")
	pages := []string{"/", "/artifacts/crate", "/search?q=turning", "/search?q=" + turning, "/artifacts/crate/turning/1.0.0", "/artifacts/crate/turning/2.0.0", "/log"}
	for i := range l.registry.Size() {
		pages = append(pages, fmt.Sprintf("/record/%d", i))
	}
	marked := 0
	for _, page := range pages {
		body := l.get(strings.ReplaceAll(page, turning, "a%E2%80%AEb"), token).want(t, 200).Body.String()
		if strings.ContainsFunc(body, turnsText) {
			t.Errorf("%s turns text", page)
		}
		marked += strings.Count(body, "\ufffd")
	}
	if marked < 20 {
		t.Errorf("only %d marks in place of what turns text", marked)
	}
}

// vote has the member reject a proposal of the admin's for the reason given.
func (l *lab) vote(reason string) {
	l.t.Helper()
	settings := l.registry.Settings().Registry
	settings.Admins, settings.AdminThreshold = append(settings.Admins, didOf(l.member)), 2
	l.submit(l.admin, record.RegistrySubject(), &settings)
	proposed := settings
	proposed.ReleaseK++
	proposal := l.sign(l.admin, record.RegistrySubject(), &proposed)
	l.enter(l.admin, proposal)
	l.submit(l.member, record.RegistrySubject(), &record.Approve{Record: proposal.ID(), Verdict: record.VerdictReject, Reason: reason})
}

// The log's page is about one tree, also where an entry comes in between.
func TestLogPageIsOfOneCheckpoint(t *testing.T) {
	var l *lab
	var armed atomic.Bool
	l = newLab(t, anonymous, func(c *registry.Config) {
		clock := c.Clock
		c.Clock = func() time.Time { // the page asks it first for the note's age: too old, so that it is looked at again
			if armed.CompareAndSwap(true, false) {
				l.publish("between", "1.0.0", "")
				return clock().Add(2 * time.Hour)
			}
			return clock()
		}
	})
	size := l.registry.Size()
	armed.Store(true)
	page := l.get("/log", "").want(t, 200).Body.String()
	if armed.Load() || l.registry.Size() == size {
		t.Fatal("nothing came in between")
	}
	note := regexp.MustCompile(`<pre tabindex="0">did:key:[^\n]+\n(\d+)\n([^\n]+)\n`).FindStringSubmatch(page)
	shown := regexp.MustCompile(`<dt>Entries</dt><dd>(\d+)</dd>`).FindStringSubmatch(page)
	root := regexp.MustCompile(`<dt>Root</dt><dd><code class="id">([^<]+)</code>`).FindStringSubmatch(page)
	if note == nil || shown == nil || root == nil || note[1] != shown[1] || note[2] != root[1] {
		t.Errorf("the note says %q, the page %q and %q", note, shown, root)
	}
	if last := fmt.Sprintf(">Entries 0 to %d<", l.registry.Size()-1); note != nil && !strings.Contains(page, last) {
		t.Errorf("the list does not end where the tree does: %s", page)
	}
}
