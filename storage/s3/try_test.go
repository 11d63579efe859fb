package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// played is a store at a server that answers with f.
func played(t *testing.T, f http.HandlerFunc) *Store {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amz-Request-Id", "1")
		w.Header().Set("Last-Modified", "Thu, 26 Nov 2026 13:11:56 GMT")
		f(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return storeAt(t, server.URL)
}

// refuse answers as an object store that says no.
func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>because</Message></Error>", code)
}

func TestWhatAStoreSaysIsUnderstood(t *testing.T) {
	id := storage.CIDOf([]byte("bytes"))
	for _, test := range []struct {
		status int
		code   string
		want   error
		tries  int32 // 0: as many as patience allows, more than two
	}{
		{507, "XMinioStorageFull", storage.ErrFull, 1},
		{400, "XMinioAdminBucketQuotaExceeded", storage.ErrFull, 1},
		{403, "QuotaExceeded", storage.ErrFull, 1},
		{507, "", storage.ErrFull, 1},
		{404, "NoSuchBucket", storage.ErrUnavailable, 1},
		{403, "AccessDenied", storage.ErrUnavailable, mostRefused},
		{403, "RequestTimeTooSkewed", storage.ErrUnavailable, mostRefused},
		{400, "XAmzContentSHA256Mismatch", storage.ErrUnavailable, mostRefused},
		{503, "SlowDown", storage.ErrUnavailable, 0},
		{500, "InternalError", storage.ErrUnavailable, 0},
		{429, "TooManyRequests", storage.ErrUnavailable, 0},
		{409, "ConditionalRequestConflict", storage.ErrUnavailable, 0},
		{408, "RequestTimeout", storage.ErrUnavailable, 0},
		{502, "no XML", storage.ErrUnavailable, 0},
	} {
		t.Run(fmt.Sprintf("%d %s", test.status, test.code), func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int32
			s := played(t, func(w http.ResponseWriter, r *http.Request) {
				tries.Add(1)
				io.Copy(io.Discard, r.Body)
				refuse(w, test.status, test.code)
			})
			err := s.Put(t.Context(), id, 5, strings.NewReader("bytes"))
			if !errors.Is(err, test.want) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if n := tries.Load(); test.tries != 0 && n != test.tries || test.tries == 0 && n < 3 {
				t.Errorf("%d tries, want %d", n, test.tries)
			}
		})
	}
}

// A store that accepts and never answers, in each place where it can stop.
func TestAStoreThatHangsIsGivenUp(t *testing.T) {
	id := storage.CIDOf([]byte("bytes"))
	for name, hang := range map[string]http.HandlerFunc{
		"before the answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in the body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			w.Write([]byte("by"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := played(t, hang)
			begin := time.Now()
			_, err := s.Open(t.Context(), id)
			if took := time.Since(begin); !unavailable(err) || took > 3*patienceOfTests {
				t.Errorf("Open: after %s error %v, want ErrUnavailable", took, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begin = time.Now()
			_, err = s.Read(ctx, "log/a")
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || unavailable(err) || took > time.Second {
				t.Errorf("Read with a deadline: after %s error %v, want the deadline's", took, err)
			}
		})
	}
}

// An attempt that hangs does not take all of the patience: the next one comes in time.
func TestAnAttemptThatHangsIsCut(t *testing.T) {
	var tries atomic.Int32
	data := []byte("bytes")
	s := played(t, func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) == 1 {
			<-r.Context().Done()
			return
		}
		w.Write(data)
	})
	if got, err := read(t, s, storage.CIDOf(data)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%q, %v", got, err)
	}
}

// A length that changes on its way is not taken for the blob's.
func TestALengthIsToldTwice(t *testing.T) {
	for name, test := range map[string]struct {
		lengths []string
		beside  string // what is stored beside the bytes
		want    int64  // -1: unavailable
	}{
		"with the number beside":      {[]string{"7", "5"}, "5", 5},
		"right at once":               {[]string{"5", "7"}, "5", 5},
		"without":                     {[]string{"7", "5", "5"}, "", 5},
		"a number beside that is not": {[]string{"5", "5"}, "6", 5},
		"always another":              {[]string{"1", "2", "3", "4", "5", "6", "7"}, "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			s := played(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", test.lengths[asked%len(test.lengths)])
				if test.beside != "" {
					w.Header().Set("X-Amz-Meta-Size", test.beside)
				}
				asked++
			})
			size, err := s.Stat(t.Context(), storage.CIDOf([]byte("bytes")))
			if test.want >= 0 && (size != test.want || err != nil) || test.want < 0 && !unavailable(err) {
				t.Errorf("Stat: %d, %v, want %d", size, err, test.want)
			}
		})
	}
}

// A list that has what was not asked for, or is not in order, has changed on its
// way: it is asked for again.
func TestAListThatCannotBeIsAskedForAgain(t *testing.T) {
	right := []string{"log/a", "log/b", "log/c"}
	for name, wrong := range map[string][]string{
		"out of order":  {"log/b", "log/a", "log/c"},
		"twice":         {"log/a", "log/a", "log/c"},
		"other prefix":  {"log/a", "lof/b", "log/c"},
		"before after":  {"log/0", "log/a"},
		"not even ours": {"\u00ff"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			s := played(t, func(w http.ResponseWriter, _ *http.Request) {
				keys := right
				if asked++; asked < 3 {
					keys = wrong
				}
				fmt.Fprint(w, "<ListBucketResult>")
				for _, key := range keys {
					fmt.Fprintf(w, "<Contents><Key>%s</Key></Contents>", key)
				}
				fmt.Fprint(w, "</ListBucketResult>")
			})
			if got := list(t, s, "log/", "log/9"); !slices.Equal(got, right) {
				t.Errorf("List: %v, want %v", got, right)
			}
		})
	}
}

// A body that comes a little at a time takes as long as it takes, longer than a
// store's patience; but not for ever.
func TestWhatMovesIsNotGivenUp(t *testing.T) {
	data := make([]byte, 4*slowest)
	id := storage.CIDOf(data)
	s := played(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		for part := range bytesOf(data, len(data)/20) {
			w.Write(part)
			w.(http.Flusher).Flush()
			select {
			case <-time.After(50 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	})
	s.patience = 400 * time.Millisecond
	if _, err := s.fetch(t.Context(), id, nowhere{}); err != nil {
		t.Error(err)
	}
	data = data[:20] // which the time for four seconds' worth of bytes is not given for
	if _, err := s.fetch(t.Context(), storage.CIDOf(data), nowhere{}); !unavailable(err) {
		t.Errorf("twenty bytes in a second: error %v, want ErrUnavailable", err)
	}
}

// A download that is cut goes on where it was cut, whatever the server makes of
// ranges.
func TestACutDownloadGoesOn(t *testing.T) {
	data := payload(4)
	id := storage.CIDOf(data)
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprint("ranges ", ranges), func(t *testing.T) {
			var sent atomic.Int64
			pieces := 0
			s := played(t, func(w http.ResponseWriter, r *http.Request) {
				pieces++
				from := 0
				if ranges {
					fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
				if from > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
					w.WriteHeader(http.StatusPartialContent)
				}
				end := len(data)
				if pieces < 5 {
					end = min(from+len(data)/5, len(data))
				}
				n, _ := w.Write(data[from:end])
				sent.Add(int64(n))
			})
			got, err := read(t, s, id)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if n := sent.Load(); ranges && n > int64(len(data))*5/4 {
				t.Errorf("%d bytes were sent for %d", n, len(data))
			}
		})
	}
}

// However far the temporary files are from there being room: nothing of what a
// spool held stays, and few bytes need no file.
func TestSpoolsLeaveNothing(t *testing.T) {
	folder := t.TempDir()
	for _, size := range []int{0, 1, inMemory, inMemory + 1, 3 * inMemory} {
		p := &spool{folder: folder}
		data := bytes.Repeat([]byte("s"), size)
		for round := range 2 {
			for part := range bytesOf(data, 100_000) {
				if _, err := p.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			r, err := p.reader()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("round %d: %d bytes came back as %d, %v", round, size, len(got), err)
			}
			if (p.file != nil) != (size > inMemory) {
				t.Errorf("%d bytes: in a file: %t", size, p.file != nil)
			}
			if err := p.reset(); err != nil {
				t.Fatal(err)
			}
		}
		p.free()
		if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
			t.Errorf("%d bytes left %v, %v", size, left, err)
		}
	}
	p := &spool{folder: folder + "/none"}
	if _, err := p.Write(make([]byte, inMemory+1)); !errors.As(err, new(settled)) {
		t.Errorf("no folder: error %v, want a settled one", err)
	}
}

// bytesOf is data in parts.
func bytesOf(data []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			n := min(size, len(data))
			if !yield(data[:n]) {
				return
			}
			data = data[n:]
		}
	}
}
