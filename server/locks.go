package server

import (
	"fmt"
	"net/http"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// Sizes of pages of locks.
const (
	defaultLocks = 100
	mostLocks    = 1000
	// mostLacks is how much is told of what a lock lacks.
	mostLacks = 1000
)

// locks is GET /v1/locks: ?after=&limit=.
func (s *Server) locks(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", defaultLocks, 1, mostLocks)
	if err != nil {
		return err
	}
	after := r.URL.Query().Get("after")
	if len(after) > maxLockName || !isLockName(after) {
		return fmt.Errorf("%w: after is not what an earlier page gave as next", registry.ErrRequest)
	}
	release, err := s.decisions.take(r.Context(), anyone)
	if err != nil {
		return err
	}
	found, more, err := s.registry.Locks(r.Context(), asker, after, limit)
	release()
	if err != nil {
		return err
	}
	type item struct {
		Lock  string        `json:"lock"`
		DID   string        `json:"did"`
		Since particle.Time `json:"since"`
		Pins  int64         `json:"pins"`
		Held  int64         `json:"held"`
		Bytes int64         `json:"bytes"`
		// Lacking is how many others the lock names.
		Lacking int64 `json:"lacking"`
		// Denied is how many of those held would not be served now to who asks.
		Denied int64 `json:"denied"`
	}
	items, next := []item{}, ""
	for _, l := range found {
		items = append(items, item{l.Lock, l.DID, particle.At(l.Since), l.Pins, l.Held, l.Bytes, l.Lacking, l.Denied})
	}
	if more && len(found) > 0 {
		next = found[len(found)-1].Lock
	}
	return s.answer(w, r, struct {
		Locks []item `json:"locks"`
		Next  string `json:"next"`
	}{items, next})
}

// lockOf is the lock that the path names.
func lockOf(r *http.Request) (string, error) {
	lock := param(r, "*")
	if lock == "" || len(lock) > maxLockName || !isLockName(lock) {
		return "", fmt.Errorf("%w: there is no such lock", registry.ErrNotFound)
	}
	return lock, nil
}

// lacks is GET /v1/locks/*: what a lock lacks, and what of it is held and denied now.
func (s *Server) lacks(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	lock, err := lockOf(r)
	if err != nil {
		return err
	}
	found, err := s.registry.Lacks(r.Context(), asker, lock, mostLacks)
	if err != nil {
		return err
	}
	release, err := s.decisions.take(r.Context(), anyone)
	if err != nil {
		return err
	}
	denied, err := s.registry.DeniedNow(r.Context(), asker, lock, mostLacks)
	release()
	if err != nil {
		return err
	}
	return s.answer(w, r, struct {
		Lock    string     `json:"lock"`
		Lacking []lackJSON `json:"lacking"`
		Denied  []lackJSON `json:"denied"`
	}{lock, lacksOf(found), lacksOf(denied)})
}

// lackJSON is a crate that a lock lacks, or of which it has no use now.
type lackJSON struct {
	Upstream string `json:"upstream"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	Why      string `json:"why"`
}

func lacksOf(all []registry.Lack) []lackJSON {
	items := []lackJSON{}
	for _, l := range all {
		items = append(items, lackJSON{l.Upstream, l.Name, l.Version, l.Why})
	}
	return items
}

// unpin is DELETE /v1/locks/*: ?before=TIME.
func (s *Server) unpin(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	lock, err := lockOf(r)
	if err != nil {
		return err
	}
	var before time.Time
	if text := r.URL.Query().Get("before"); text != "" {
		if before, err = time.Parse(time.RFC3339, text); err != nil {
			return fmt.Errorf("%w: before is not a time like 2026-01-31T12:00:00Z", registry.ErrRequest)
		}
	}
	removed, err := s.registry.Unpin(r.Context(), asker, lock, before)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Unpinned int64 `json:"unpinned"`
	}{removed})
	return nil
}
