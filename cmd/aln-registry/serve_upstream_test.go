package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cratesioproxy "phoenix-lab.org/aln-registry/cratesio-proxy"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/server"
)

// Every error of the proxy is one that the server has an answer for, and none is two.
func TestErrorsOfUpstreamsAreTheServersToo(t *testing.T) {
	known := []error{registry.ErrNotFound, server.ErrUpstreamDown, server.ErrUpstreamRefused, server.ErrUpstreamBroken, server.ErrUpstreamBusy}
	for _, c := range []struct{ err, want error }{
		{cratesioproxy.ErrNotFound, registry.ErrNotFound},
		{cratesioproxy.ErrOffline, registry.ErrNotFound},
		{cratesioproxy.ErrUnavailable, server.ErrUpstreamDown},
		{cratesioproxy.ErrRefused, server.ErrUpstreamRefused},
		{cratesioproxy.ErrBroken, server.ErrUpstreamBroken},
		{cratesioproxy.ErrMismatch, server.ErrUpstreamBroken},
		{cratesioproxy.ErrSnapshot, server.ErrUpstreamBroken},
		{fmt.Errorf("%w: %w", cratesioproxy.ErrBroken, cratesioproxy.ErrSnapshot), server.ErrUpstreamBroken},
		{cratesioproxy.ErrBusy, server.ErrUpstreamBusy},
	} {
		err := told(fmt.Errorf("crates-io: %w", c.err))
		for _, one := range known {
			if errors.Is(err, one) != (one == c.want) { //nolint:errorlint // which of them it is
				t.Errorf("%v: matches %v: %v", c.err, one, errors.Is(err, one))
			}
		}
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.err.Error()) {
			t.Errorf("%v became %v", c.err, err)
		}
	}
	if other := errors.New("the catalog is full"); told(other) != other || told(nil) != nil { //nolint:errorlint // the same
		t.Error("what is not of upstreams is changed")
	}
}

func TestUpstreamSettingsThatAreRefused(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]upstreamFlags{
		"no scheme":             {urls: []string{"https://index.crates.io/"}},
		"a password":            {urls: []string{"sparse+https://user:s3cret@host/"}},
		"a token":               {urls: []string{"sparse+https://host/?token=s3cret"}},
		"in the clear":          {urls: []string{"sparse+http://host/"}},
		"two of one name":       {urls: []string{"lab=sparse+https://a/", "lab=sparse+https://b/"}},
		"none, and another":     {urls: []string{"none sparse+https://a/"}},
		"fresh before it comes": {fresh: -time.Second},
		"less than nothing":     {cacheMB: -1},
	} {
		_, err := f.settings()
		if !errors.As(err, new(usageError)) || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "--upstream") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without a flag it is crates.io's own; a variable of the environment may name several.
func TestUpstreamsThatAreTaken(t *testing.T) {
	for text, want := range map[string][]string{
		"":                   {"crates-io=sparse+https://index.crates.io/"},
		"none":               {},
		"sparse+https://a/i": {"crates-io=sparse+https://a/i/"},
		" none  lab=sparse+https://b/ \n other=sparse+https://c/ ": {"lab=sparse+https://b/", "other=sparse+https://c/"},
	} {
		settings, err := upstreamFlags{urls: []string{text}}.settings()
		got := []string{}
		for _, s := range settings {
			got = append(got, s.String())
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestBeforeThereAreUpstreamsNoneHasACrate(t *testing.T) {
	if has, untold := new(lookout).known(t.Context(), "serde"); has != nil || untold != nil {
		t.Errorf("%q, %q", has, untold)
	}
}

// Where nothing may go of what is held, all of it is not looked through again and again: only
// when more is held, or after a while.
func TestWhatMayNotGoIsNotLookedThroughAgainAndAgain(t *testing.T) {
	now := time.Now()
	c := cramped{held: 10, until: now.Add(crampedFor)}
	if !c.since(now) || !c.still(10) || !c.still(9) || c.still(11) || c.since(now.Add(crampedFor)) || (cramped{}).since(now) {
		t.Errorf("%+v", c)
	}
}
