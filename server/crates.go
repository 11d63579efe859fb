package server

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
)

// publish is PUT /api/v1/crates/new (Cargo reference, web API, "Publish").
func (s *Server) publish(w http.ResponseWriter, r *http.Request) error {
	var publisher policy.Asker
	done, err := s.upload(w, r, s.crateLimit()+maxJSONSlack, func(asker policy.Asker, envelope []byte, body io.Reader) (registry.Published, error) {
		publisher = asker
		return s.registry.PublishCrate(r.Context(), asker, envelope, body)
	})
	if err != nil {
		return err
	}
	type warnings struct {
		Categories []string `json:"invalid_categories"`
		Badges     []string `json:"invalid_badges"`
		Other      []string `json:"other"`
	}
	verb := "published as"
	if done.Repeated {
		verb = "was published before, unchanged, as"
	}
	other := []string{fmt.Sprintf("%s %s, record %s, log index %d", verb, done.CID, done.Record, done.Index)}
	if why := s.registry.HiddenFrom(r.Context(), publisher, done); why != "" {
		other = append(other, "cargo will wait in vain for the version to appear, a minute long: press Ctrl-C, it is published. Its publisher may not build with it now: "+why)
	}
	for _, upstream := range done.Upstreams {
		other = append(other, fmt.Sprintf("%s has a crate named %s too, which is another one: who leaves out `registry` in a dependency gets that; where names like this are yours alone, an admin adds them to private_names", upstream, done.Subject.Name()))
	}
	writeJSON(w, http.StatusOK, struct {
		Warnings warnings `json:"warnings"`
	}{warnings{Categories: []string{}, Badges: []string{}, Other: other}})
	return nil
}

func (s *Server) download(w http.ResponseWriter, r *http.Request) error {
	v, err := s.crateVersion(w, r)
	if err != nil {
		return err
	}
	return s.content(w, r, v, "application/gzip", s.crateVersion)
}

func (s *Server) crateVersion(w http.ResponseWriter, r *http.Request) (registry.Judged, error) {
	asker, err := s.reader(w, r)
	if err != nil {
		return registry.Judged{}, err
	}
	return s.registry.Version(r.Context(), asker, record.KindCrate, param(r, "crate"), param(r, "version"))
}

// acknowledged is what cargo wants to hear of a change. Owners need both members.
type acknowledged struct {
	OK      bool   `json:"ok"`
	Message string `json:"msg"`
}

// yank is DELETE …/yank and PUT …/unyank.
func (s *Server) yank(yanked bool) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		asker, envelope, err := s.signer(r)
		if err != nil {
			return err
		}
		rec, err := record.Parse(envelope)
		if err != nil {
			return err
		}
		subject, err := record.VersionSubject(record.KindCrate, param(r, "crate"), param(r, "version"))
		if err != nil {
			return fmt.Errorf("%w: %v", registry.ErrNotFound, err)
		}
		body, ok := rec.Body().(*record.Yank)
		if !ok || body.Yanked != yanked || rec.Subject() != subject {
			return fmt.Errorf("%w: the token's record does not say this change of %s", registry.ErrRequest, subject)
		}
		receipt, err := s.registry.Submit(r.Context(), asker, envelope, nil)
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, acknowledged{OK: true, Message: fmt.Sprintf("record %s, log index %d", receipt.Record, receipt.Index)})
		return nil
	}
}

func (s *Server) owners(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.reader(w, r)
	if err != nil {
		return err
	}
	owners, err := s.registry.Owners(r.Context(), asker, param(r, "crate"))
	if err != nil {
		return err
	}
	type user struct {
		ID    int     `json:"id"`
		Login string  `json:"login"`
		Name  *string `json:"name"`
	}
	users := []user{}
	for i, d := range owners {
		users = append(users, user{ID: i + 1, Login: string(d)})
	}
	return s.answer(w, r, struct {
		Users []user `json:"users"`
	}{users})
}

// changeOwners is PUT and DELETE …/owners: the registry signs, on the strength
// of the own-intent that the token carries.
func (s *Server) changeOwners(add bool) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		asker, envelope, err := s.signer(r)
		if errors.Is(err, registry.ErrNoRecord) {
			// Who is no owner was given a session without an own-intent: that is what to
			// say, of a crate that the asker may know of.
			if _, err := s.reader(w, r); err != nil {
				return err
			}
			err = cmp.Or(s.registry.CheckOwner(r.Context(), asker, param(r, "crate")), err)
		}
		if err != nil {
			return err
		}
		var request struct {
			Users []string `json:"users"`
		}
		if err := readJSON(w, r, maxSmallBody, &request); err != nil {
			return err
		}
		var named []did.DID
		for _, user := range request.Users {
			d, err := did.Parse(user)
			if err != nil {
				return fmt.Errorf("%w: owners are named by their DID: %v", registry.ErrRequest, err)
			}
			named = append(named, d)
		}
		name, toAdd, toRemove, verb := param(r, "crate"), named, []did.DID(nil), "added to"
		if !add {
			toAdd, toRemove, verb = nil, named, "removed from"
		}
		receipt, err := s.registry.ChangeOwners(r.Context(), asker, name, envelope, toAdd, toRemove)
		s.noteAct(r, asker, envelope, err)
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, acknowledged{OK: true, Message: fmt.Sprintf("%s the owners of %s: record %s, log index %d", verb, name, receipt.Record, receipt.Index)})
		return nil
	}
}

// search is GET /api/v1/crates?q=&per_page=&page=.
func (s *Server) search(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.reader(w, r)
	if err != nil {
		return err
	}
	release, err := s.searches.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer release()
	perPage, err := queryInt(r, "per_page", 10, 1, 100)
	if err != nil {
		return err
	}
	page, err := queryInt(r, "page", 1, 1, 10_000)
	if err != nil {
		return err
	}
	found, total, err := s.registry.Search(r.Context(), asker, r.URL.Query().Get("q"), perPage, (page-1)*perPage)
	if err != nil {
		return err
	}
	type crate struct {
		Name        string `json:"name"`
		MaxVersion  string `json:"max_version"`
		Description string `json:"description"`
	}
	crates := []crate{}
	for _, f := range found {
		crates = append(crates, crate(f))
	}
	type meta struct {
		Total int `json:"total"`
	}
	return s.answer(w, r, struct {
		Crates []crate `json:"crates"`
		Meta   meta    `json:"meta"`
	}{crates, meta{total}})
}

func queryInt(r *http.Request, name string, fallback, least, most int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%w: %s is a number from %d to %d", registry.ErrRequest, name, least, most)
	}
	return n, nil
}

// readJSON reads a body of at most most bytes strictly.
func readJSON(w http.ResponseWriter, r *http.Request, most int64, into any) error {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("%w: the body is not JSON of the form expected here", registry.ErrRequest)
	}
	return nil
}
