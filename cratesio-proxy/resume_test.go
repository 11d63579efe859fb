package cratesioproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
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

// An answer to a retry may be another than the one that was cut. While nobody has read any of that
// the new one counts alone; afterwards it is the same, or of no use, and no alarm.
func TestASecondAnswerIsNotMixedWithTheFirst(t *testing.T) {
	data, want := crate("some", 300_000)
	wrong := bytes.Repeat([]byte("x"), 100_000)
	for name, c := range map[string]struct {
		first []byte
		said  int
		read  bool // what comes of the first before the second
		want  error
	}{
		"wrong, of the right size":  {wrong, 300_000, false, nil},
		"wrong, of another size":    {wrong, 200_000, false, nil},
		"wrong, of unknown size":    {wrong, -1, false, nil},
		"wrong, and read":           {wrong, 300_000, true, ErrBroken},
		"right, and read":           {data[:100_000], 300_000, true, nil},
		"of another size, and read": {data[:100_000], 200_000, true, ErrBroken},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			read := make(chan struct{})
			l.on(dlPath(want), thenSends(c.first, c.said, func(w http.ResponseWriter, r *http.Request) {
				<-read
				r.Header.Del("Range")
				sends(data)(w, r)
			}))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			crate, err := l.upstream.Crate(ctx, want)
			if err != nil {
				t.Fatal(err)
			}
			defer crate.Close()
			var got []byte
			if c.read {
				got = make([]byte, 50_000)
				_, err = io.ReadFull(crate, got)
			}
			close(read)
			if err == nil {
				var more []byte
				if !c.read { // nobody reads before all is there, as when it is looked into
					var whole io.ReadCloser
					if whole, err = crate.Whole(ctx); err == nil {
						whole.Close()
					}
				}
				if err == nil {
					more, err = io.ReadAll(crate)
				}
				got = append(got, more...)
			}
			if !errors.Is(err, c.want) || err == nil && !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v; want %v", len(got), err, c.want)
			}
			if kinds := l.facts.kinds(); kinds != "" {
				t.Errorf("alarms: %s", kinds)
			}
		})
	}
}
