package cratesioproxy

import (
	"io"
	"net/http"
	"testing"
	"time"
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
			until(t, "config.json is known", func() bool { _, known, _ := l.upstream.settings.get(l.proxy.Clock()); return known })
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

// A Last-Modified that lies ahead would have upstream answer for ever that nothing has changed.
func TestALastModifiedThatLiesAheadIsNotSentBack(t *testing.T) {
	const made = "Tue, 01 Sep 2026 10:00:00 GMT" // the lab's clock shows 2027, this one's is right
	for name, c := range map[string]struct {
		date, modified string
		sent           bool
	}{
		"before the answer":                {made, "Tue, 01 Sep 2026 09:00:00 GMT", true},
		"after it":                         {made, "Tue, 01 Sep 2026 10:00:01 GMT", false},
		"of its second":                    {made, made, false},
		"of an answer that lies ahead":     {"Fri, 01 Jan 2049 10:00:00 GMT", "Fri, 01 Jan 2049 09:00:00 GMT", false},
		"of an answer at no time":          {"some day", "Tue, 01 Sep 2026 09:00:00 GMT", true},
		"ahead, of an answer at no time":   {"some day", "Fri, 01 Jan 2049 09:00:00 GMT", false},
		"no date":                          {made, `"1"`, false},
		"the end of time":                  {made, "Fri, 31 Dec 9999 23:59:59 GMT", false},
		"before time":                      {made, "Mon, 01 Jan 0001 00:00:00 GMT", true},
		"a date of the fifties, as of old": {made, "Tuesday, 01-Sep-26 09:00:00 GMT", true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			sent := make(chan string, 2)
			l.on("/so/me/some", func(w http.ResponseWriter, r *http.Request) {
				sent <- r.Header.Get("If-Modified-Since")
				w.Header().Set("Date", c.date)
				w.Header().Set("Last-Modified", c.modified)
				if r.Header.Get("If-Modified-Since") != "" {
					w.WriteHeader(http.StatusNotModified)
					return
				}
				io.WriteString(w, line("some", "1.0.0"))
			})
			for range 2 {
				if err := l.refresh("some"); err != nil {
					t.Fatal(err)
				}
				l.pass(DefaultFresh)
			}
			if first, again := <-sent, <-sent; first != "" || (again == c.modified) != c.sent || again != "" && !c.sent {
				t.Errorf("sent %q, then %q; Last-Modified was %q", first, again, c.modified)
			}
		})
	}
	// The same where this clock was wrong when it was noted.
	if noted := "Fri, 01 Jan 2049 09:00:00 GMT"; isPast(noted, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Error("what was noted by a clock that was ahead is sent")
	}
}

// That another index was asked a moment ago does not make what it said this one's.
func TestWhatAnotherIndexSaidAMomentAgoIsNotFresh(t *testing.T) {
	l := newLab(t, nil)
	first := line("some", "1.0.0")
	l.on("/so/me/some", tagged(first, `"1"`))
	for range 2 { // it is entered, and found unchanged
		if err := l.refresh("some"); err != nil {
			t.Fatal(err)
		}
		l.pass(DefaultFresh)
	}
	until(t, "it is noted", func() bool {
		f, _, _ := l.facts.File(t.Context(), CratesIO, "some")
		return l.proxy.Clock().Sub(f.Checked) == DefaultFresh
	})
	until(t, "config.json is known", func() bool { _, known, _ := l.upstream.settings.get(l.proxy.Clock()); return known })
	l.pass(-time.Minute)
	l.upstream.entries = newRecent[string, entry](mostEntries)
	l.upstream.setting.Index = l.server.URL + "/mirror/"
	l.on("/mirror/config.json", text(`{"dl":"`+l.server.URL+`/dl/{crate}/{version}"}`))
	l.on("/mirror/so/me/some", tagged(first+line("some", "1.0.1"), `"1"`))
	if err := l.refresh("some"); err != nil || l.requests("/mirror/so/me/some") != 1 || l.evidence.imports() != 2 {
		t.Errorf("%v, asked %d times, %d imports", err, l.requests("/mirror/so/me/some"), l.evidence.imports())
	}
}
