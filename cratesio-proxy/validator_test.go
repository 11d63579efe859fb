package cratesioproxy

import (
	"net/http"
	"testing"
)

// Validators are of one index: another that happens to use the same, a mirror that is behind
// perhaps, would answer for ever that nothing has changed. Nor does that a crate was not there
// any more count for another.
func TestWhatOneIndexSaidDoesNotCountForAnother(t *testing.T) {
	for name, c := range map[string]struct {
		first func(body string) http.HandlerFunc // of the second visit to the first index
		check func(l *lab) bool
	}{
		"validators": {func(body string) http.HandlerFunc { return tagged(body, `"1"`) }, func(l *lab) bool {
			return l.proxy.Figures().Unchanged == 1 && l.evidence.imports() == 2 && l.evidence.imported[1] == line("some", "1.0.0")+line("some", "1.0.1")
		}},
		"that it is gone": {func(string) http.HandlerFunc { return status(404) }, func(l *lab) bool {
			return l.evidence.imports() == 1 || l.evidence.imported[1] != ""
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			first := line("some", "1.0.0")
			l.on("/so/me/some", tagged(first, `"1"`))
			if err := l.refresh("some"); err != nil {
				t.Fatal(err)
			}
			l.on("/so/me/some", c.first(first))
			l.pass(DefaultFresh)
			if err := l.refresh("some"); err != nil {
				t.Fatal(err)
			}
			status := map[string]int{"validators": 200, "that it is gone": 404}[name]
			until(t, "it is noted", func() bool {
				f, _, _ := l.facts.File(t.Context(), CratesIO, "some")
				return f.Status == status && f.IndexURL == l.server.URL+"/"
			})
			// As after a restart with another address.
			l.upstream.entries, l.upstream.resting = newRecent[string, entry](mostEntries), newRecent[string, rest](mostResting)
			l.upstream.setting.Index = l.server.URL + "/mirror/"
			l.on("/mirror/config.json", text(`{"dl":"`+l.server.URL+`/dl/{crate}/{version}"}`))
			if status == 200 {
				l.on("/mirror/so/me/some", tagged(first+line("some", "1.0.1"), `"1"`))
			}
			l.pass(vanishedFor)
			if err := l.refresh("some"); err != nil || l.requests("/mirror/so/me/some") != 1 || !c.check(l) {
				t.Errorf("%v, %d imports, %d unchanged", err, l.evidence.imports(), l.proxy.Figures().Unchanged)
			}
		})
	}
}
