package server

import (
	"fmt"
	"net/http"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// Sizes of pages of grants.
const (
	defaultGrants = 100
	mostGrants    = 1000
)

// grantJSON is a grant as the API tells it.
type grantJSON struct {
	CID          storage.CID   `json:"cid"`
	Record       record.ID     `json:"record"`
	Index        int64         `json:"index"`
	Issuer       did.DID       `json:"issuer"`
	Subject      did.DID       `json:"subject"`
	NotBefore    particle.Time `json:"not_before"`
	Expires      particle.Time `json:"expires"`
	Tier         string        `json:"tier"`
	OffshoreFlag bool          `json:"offshore_flag"`
	Supersedes   *storage.CID  `json:"supersedes"`
	SupersededBy *storage.CID  `json:"superseded_by"`
	Revoked      bool          `json:"revoked"`
	InForce      bool          `json:"in_force"`
	Why          string        `json:"why"`
}

func grantOf(g registry.GrantInfo) grantJSON {
	return grantJSON{
		CID: g.CID, Record: g.Record, Index: g.Index, Issuer: g.Issuer, Subject: g.Subject,
		NotBefore: particle.At(g.NotBefore), Expires: particle.At(g.Expires), Tier: g.Tier, OffshoreFlag: g.Offshore,
		Supersedes: g.Supersedes, SupersededBy: g.SupersededBy, Revoked: g.Revoked != "", InForce: g.InForce, Why: g.Why,
	}
}

// grants is GET /v1/grants, for members: ?subject=&in_force=&limit=&after=.
func (s *Server) grants(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	of := registry.GrantFilter{}
	if subject := query.Get("subject"); subject != "" {
		if of.Subject, err = did.Parse(subject); err != nil {
			return fmt.Errorf("%w: subject: %v", registry.ErrRequest, err)
		}
	}
	if of.InForce, err = queryBool(r, "in_force"); err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", defaultGrants, 1, mostGrants)
	if err != nil {
		return err
	}
	release, err := s.searches.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer release()
	found, next, err := s.registry.Grants(r.Context(), of, query.Get("after"), limit)
	if err != nil {
		return err
	}
	told := []grantJSON{}
	for _, g := range found {
		told = append(told, grantOf(g))
	}
	return s.answer(w, r, struct {
		Grants []grantJSON `json:"grants"`
		Next   string      `json:"next"`
	}{told, next})
}

// grant is GET /v1/grants/{cid}, for members.
func (s *Server) grant(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.member(w, r); err != nil {
		return err
	}
	id, err := storage.ParseCID(param(r, "cid"))
	if err != nil {
		return fmt.Errorf("%w: %v", registry.ErrNotFound, err)
	}
	g, err := s.registry.Grant(r.Context(), id)
	if err != nil {
		return err
	}
	env, err := s.registry.EnvGrant(r.Context(), id)
	if err != nil {
		return err
	}
	return s.answer(w, r, struct {
		grantJSON
		Grant particle.EnvGrant `json:"grant"`
	}{grantOf(g), env})
}

// queryBool is whether the query says name=true; what is not there is false.
func queryBool(r *http.Request, name string) (bool, error) {
	switch r.URL.Query().Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, fmt.Errorf("%w: %s is true or false", registry.ErrRequest, name)
}

// orNever is nil for the zero time, which is never.
func orNever(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
