package registry

import (
	"errors"
	"slices"
	"testing"
)

// Clients log in to a URL that the settings name, so what names it no more, or
// names what no client could ask, is not put in force.
func TestSettingsThatWouldShutPeopleOutOfLoginAreRefused(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	own, next := r.IndexURL(), "sparse+https://new.example/index/"
	set := func(r *Registry, urls ...string) error {
		settings := r.Settings().Registry
		settings.IndexURLs = urls
		return w.submit(r, person{w.admin}, &settings)
	}
	for name, urls := range map[string][]string{
		"no URL":              {own, "foo"},
		"not of a sparse one": {own, "https://new.example/index/"},
		"not an index":        {own, "sparse+https://new.example"},
		"no host":             {own, "sparse+https:///index/"},
		"of another scheme":   {own, "sparse+ftp://new.example/index/"},
		"with a password":     {own, "sparse+https://me:secret@new.example/index/"},
		"with a query":        {own, "sparse+https://new.example/index/?"},
		"without its own":     {next},
	} {
		if err := set(r, urls...); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := r.Settings().IndexURLs; !slices.Equal(got, []string{own}) {
		t.Fatalf("in force: %q", got)
	}

	// A move: the new one is named, served by, and then the old one given up.
	if err := set(r, own, next); err != nil {
		t.Fatal(err)
	}
	r.PublicURL = "https://new.example"
	if err := set(r, next); err != nil {
		t.Error(err)
	}
	// Started by a URL that they do not name, the server takes what mends it, and all else.
	r.PublicURL = "https://third.example"
	for _, urls := range [][]string{{next, own}, {next, r.IndexURL()}} {
		if err := set(r, urls...); err != nil {
			t.Errorf("%q: %v", urls, err)
		}
	}
	if err := set(r, next); !errors.Is(err, ErrRequest) {
		t.Errorf("given up again: %v", err)
	}
	r.Close()
	w.close()
}
