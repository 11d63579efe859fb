package cratesioproxy

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"testing"
)

// thenSends serves data to the first attempt, in so many bytes as it says or without saying it, and
// breaks off; and what then says to all others.
func thenSends(data []byte, said int, then http.HandlerFunc) http.HandlerFunc {
	first := true
	return func(w http.ResponseWriter, r *http.Request) {
		if !first {
			then(w, r)
			return
		}
		first = false
		w.Header().Set("ETag", `"x"`)
		if said >= 0 {
			w.Header().Set("Content-Length", fmt.Sprint(said))
		}
		w.Write(data)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// continued answers 206, without saying how many bytes come.
func continued(data []byte, contentRange string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		w.(http.Flusher).Flush()
		w.Write(data)
	}
}

// What goes on after a cut is believed only where it says what it is, and fits what was said
// before: those who read have passed that on.
func TestWhatGoesOnFitsWhatWasSaid(t *testing.T) {
	data, want := crate("some", 300_000)
	for name, c := range map[string]struct {
		said int // at first
		then http.HandlerFunc
		want error
	}{
		"right":                       {300_000, continued(data[100_000:], "bytes 100000-299999/300000"), nil},
		"of unknown size":             {300_000, continued(data[100_000:], "bytes 100000-299999/*"), nil},
		"fewer were said":             {200_000, continued(data[100_000:], "bytes 100000-299999/300000"), ErrBroken},
		"fewer were said, and nobody": {200_000, continued(data[100_000:], "bytes 100000-199999/200000"), ErrBroken},
		"to an end before its begin":  {300_000, continued(data[100_000:], "bytes 100000-1/300000"), ErrBroken},
		"another part":                {300_000, continued(data[100_000:], "bytes 100001-299999/300000"), ErrBroken},
		"another whole":               {300_000, continued(data[100_000:], "bytes 100000-299999/9"), ErrBroken},
		"nonsense":                    {300_000, continued(data[100_000:], "bytes 100000-nonsense"), ErrBroken},
		"other units":                 {300_000, continued(data[100_000:], "lines 100000-299999/300000"), ErrBroken},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			l.on(dlPath(want), thenSends(data[:100_000], c.said, c.then))
			got, err := l.read(want)
			if !errors.Is(err, c.want) || err == nil && !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v; want %v", len(got), err, c.want)
			}
			if kinds := l.facts.kinds(); kinds != "" {
				t.Errorf("alarms: %s", kinds)
			}
		})
	}
}
