package server

import (
	"net/http"

	"phoenix-lab.org/aln-registry/registry"
)

// logKeys is GET /log/keys: what proves the log's keys to whoever knows entry 0.
// It is public like the log itself, since without it nobody could believe a
// checkpoint that was signed after a key was replaced.
func (s *Server) logKeys(w http.ResponseWriter, r *http.Request) error {
	items, err := s.registry.LogKeysProof(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-cache")
	return s.answer(w, r, struct {
		Records []registry.BundleItem `json:"records"`
	}{items})
}
