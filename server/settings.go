package server

import (
	"net/http"
	"strings"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// settings is GET /v1/settings, for members: those in force. A program that
// signs changes of them reads the record itself, which nobody can word otherwise.
func (s *Server) settings(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.member(w, r); err != nil {
		return err
	}
	in := s.registry.Settings()
	return s.answer(w, r, struct {
		Record         record.ID        `json:"record"`
		DocumentRecord record.ID        `json:"document_record"`
		Settings       *record.Registry `json:"settings"`
	}{in.Record, in.DocumentRecord, &in.Registry})
}

// proposals is GET /v1/proposals, for members: what waits for votes.
func (s *Server) proposals(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.member(w, r); err != nil {
		return err
	}
	open, err := s.registry.OpenProposals(r.Context())
	if err != nil {
		return err
	}
	type item struct {
		Record    record.ID        `json:"record"`
		Proposer  did.DID          `json:"proposer"`
		Approvals []did.DID        `json:"approvals"`
		Needed    int              `json:"needed"`
		Settings  *record.Registry `json:"settings"`
	}
	items := []item{}
	for _, p := range open {
		items = append(items, item{p.Record, p.Approvals[0], p.Approvals, s.registry.Settings().AdminThreshold, &p.Registry})
	}
	return s.answer(w, r, struct {
		Proposals []item `json:"proposals"`
	}{items})
}

// documentPath is the route of the registry's own DID document: where its
// did:web says that it is, as requests for it arrive (underPublicPath); for a
// did:key the usual place, where there is none.
func (s *Server) documentPath() string {
	const usual = "/.well-known/did.json"
	path := s.registry.Origin().WebPath()
	if path == "" {
		return usual
	}
	if inner, ok := strings.CutPrefix(path, PublicPath(s.registry.PublicURL)+"/"); ok {
		return "/" + inner
	}
	return path
}
