package server

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// cratesIO is the name of crates.io, whose paths begin with it alone.
const cratesIO = "crates-io"

// naming says which upstream a request is about.
type naming func(r *http.Request) string

func isCratesIO(*http.Request) string { return cratesIO }

// byName is the naming of the paths of all others.
func byName(r *http.Request) string {
	if name := param(r, "name"); name != cratesIO { // it has one address
		return name
	}
	return ""
}

// ofAny is the naming of the JSON API, for which all are alike.
func ofAny(r *http.Request) string { return param(r, "name") }

// upstreamBase is the path before an upstream's index and downloads.
func upstreamBase(name string) string {
	if name == cratesIO {
		return "/" + cratesIO
	}
	return "/upstream/" + name
}

// knownUpstream is the name that of finds, if there is such an upstream.
func (s *Server) knownUpstream(r *http.Request, of naming) (string, error) {
	name := of(r)
	if slices.Contains(s.upstreamNames, name) {
		return name, nil
	}
	return "", fmt.Errorf("%w: this registry takes crates from no upstream of that name, %.80q (`aln-registry upstream list` says from which; whoever runs it names others with serve --upstream)", registry.ErrNotFound, name)
}

// upstreamConfig is GET …/index/config.json.
func (s *Server) upstreamConfig(of naming) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := s.ownReader(w, r); err != nil {
			return err
		}
		upstream, err := s.knownUpstream(r, of)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		dl := s.registry.PublicURL + upstreamBase(upstream) + "/dl/{crate}/{version}/{sha256-checksum}"
		return s.revalidated(w, r, cargo.ConfigJSON(dl, "", true))
	}
}

// upstreamIndex is GET …/index/*.
func (s *Server) upstreamIndex(of naming) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := s.ownReader(w, r); err != nil {
			return err
		}
		upstream, err := s.knownUpstream(r, of)
		if err != nil {
			return err
		}
		rest := param(r, "*")
		name := path.Base(rest)
		if rest != cargo.IndexPath(name) {
			return fmt.Errorf("%w: no such file in the index", registry.ErrNotFound)
		}
		if err := s.refresh(r, upstream, name); err != nil {
			return s.alike(err)
		}
		asker, err := s.ownReader(w, r) // by now: upstream takes as long as it likes
		if err != nil {
			return err
		}
		file, err := s.upstreamFile(r, asker, upstream, name)
		if err != nil {
			return unheld(r, s.alike(err))
		}
		w.Header()["Content-Type"] = plainText
		s.send(w, r, file.Plain, file.Packed)
		return nil
	}
}

// upstreamFile is a crate's index file as asker may see it. Offline it has only what is
// held, so that nobody resolves what cannot be had.
func (s *Server) upstreamFile(r *http.Request, asker policy.Asker, upstream, name string) (*registry.IndexFile, error) {
	if !s.upstreamsOffline {
		return s.registry.UpstreamIndexFile(r.Context(), asker, upstream, name, nil)
	}
	held := func(ctx context.Context, ids []storage.CID) (map[storage.CID]bool, error) {
		return s.upstreams.Held(ctx, upstream, ids)
	}
	return s.registry.UpstreamIndexFile(r.Context(), asker, upstream, name, held)
}

const (
	// maxUpstreamQuestions is how many questions about crates of which nothing is known are
	// under way, maxUpstreamQuestionsEach of one member. Whoever has more waits: cargo asks
	// for hundreds at once, and most are answered in no time.
	maxUpstreamQuestions     = 1024
	maxUpstreamQuestionsEach = 128
)

// refresh has upstream asked for the index file of a crate, unless its name is one
// that no upstream is ever asked for, or none at all, or r forbids to ask. How it ends tells nothing of what an asker may see.
func (s *Server) refresh(r *http.Request, upstream, name string) error {
	return s.askFor(r, upstream, name, false)
}

// renew is refresh for who misses something in what is known.
func (s *Server) renew(r *http.Request, upstream, name string) error {
	return s.askFor(r, upstream, name, true)
}

func (s *Server) askFor(r *http.Request, upstream, name string, anew bool) error {
	if err := s.askable(upstream, name); err != nil || onlyCached(r) {
		return err
	}
	_, known, err := s.registry.UpstreamCrate(r.Context(), upstream, name)
	if err != nil {
		return err
	}
	if !known { // of what is known there are not so many, and nobody waits long
		leave, err := s.upstreamQuestions.take(r.Context(), askerOf(r))
		if err != nil {
			return err
		}
		defer leave()
	}
	return s.upstreams.Refresh(r.Context(), askerOf(r), upstream, strings.ToLower(name), anew)
}

// askable refuses names that no upstream is asked for, with one error for all.
func (s *Server) askable(upstream, name string) error {
	if _, err := record.UpstreamSubject(upstream, name); err != nil || s.registry.PrivateName(cargo.CanonicalName(name)) {
		return fmt.Errorf("%w: no such crate upstream", registry.ErrNotFound)
	}
	return nil
}

// listUpstreams is GET /v1/upstreams.
func (s *Server) listUpstreams(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.member(w, r); err != nil {
		return err
	}
	type item struct {
		Name     string `json:"name"`
		Source   string `json:"source"`
		Upstream string `json:"upstream"`
		IndexURL string `json:"index_url"`
		Down     bool   `json:"down"`
		// Trouble is "" where there is none now.
		Trouble   string     `json:"trouble"`
		TroubleAt *time.Time `json:"trouble_at"`
	}
	state, items := s.upstreams.State(), []item{}
	for _, u := range state.All {
		items = append(items, item{u.Name, u.Source, u.Index, "sparse+" + s.registry.PublicURL + upstreamBase(u.Name) + "/index/", u.Down, u.Trouble, orNever(u.TroubleAt)})
	}
	return s.answer(w, r, struct {
		Offline   bool   `json:"offline"`
		Upstreams []item `json:"upstreams"`
	}{state.Offline, items})
}
