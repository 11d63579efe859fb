package server

import (
	"net/http"

	"phoenix-lab.org/aln-registry/registry"
)

// logKeys is GET /log/keys: what proves the log's keys, and the settings in force,
// to whoever knows entry 0. Nobody gets more than that entry itself, which is enough
// while the keys are those that it names; later settings are for members.
func (s *Server) logKeys(w http.ResponseWriter, r *http.Request) error {
	w.Header()["Vary"], w.Header()["Cache-Control"] = varyAsker, privateNoCache
	asker, err := s.asker(r)
	if err != nil {
		return err
	}
	items, err := s.registry.LogKeysProof(r.Context(), asker)
	if err != nil {
		return err
	}
	return s.answer(w, r, struct {
		Records []registry.BundleItem `json:"records"`
	}{items})
}
