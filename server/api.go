package server

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	grantType = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	// indexHeader says where in the log a record stands.
	indexHeader = "ALN-Log-Index"
)

// mint is POST /v1/session (RFC 7523 §2.1).
func (s *Server) mint(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return fmt.Errorf("%w: the body is a form", registry.ErrRequest)
	}
	r.Body = http.MaxBytesReader(w, r.Body, 8<<10)
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return fmt.Errorf("%w: the body is not a form", registry.ErrRequest)
	}
	if r.PostForm.Get("grant_type") != grantType {
		return fmt.Errorf("%w: grant_type is not %s", registry.ErrRequest, grantType)
	}
	token, life, err := s.registry.Mint(r.Context(), r.PostForm.Get("assertion"))
	s.metrics.minted(err)
	if err != nil {
		s.noteUnminted(r, r.PostForm.Get("assertion"), err)
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"`
	}{token, "Bearer", int64(life.Seconds())})
	return nil
}

func (s *Server) heads(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	// A thing holds % signs of its own, so the path is decoded once, from its escaped form.
	thing, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/v1/heads/"))
	if err != nil {
		return fmt.Errorf("%w: the path is not percent-encoded rightly", registry.ErrRequest)
	}
	heads, err := s.registry.HeadsFor(r.Context(), asker, thing)
	if err != nil {
		return err
	}
	return s.answer(w, r, heads)
}

// submit is POST /v1/records.
func (s *Server) submit(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	var request struct {
		Record      []byte   `json:"record"`
		Attachments [][]byte `json:"attachments"`
	}
	if err := readJSON(w, r, maxSmallBody, &request); err != nil {
		return err
	}
	receipt, err := s.registry.Submit(r.Context(), asker, request.Record, request.Attachments)
	s.noteAct(r, asker, request.Record, err)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Record record.ID `json:"record"`
		Index  int64     `json:"index"`
	}{receipt.Record, receipt.Index})
	return nil
}

// record is GET /v1/records/{id}: by identity, by CID of the envelope, or by log index.
func (s *Server) record(w http.ResponseWriter, r *http.Request) error {
	stored, err := s.storedRecord(w, r)
	if err != nil {
		return err
	}
	if err := s.stillReads(r, stored); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/vnd.dsse.envelope.v1+json")
	w.Header().Set(indexHeader, strconv.FormatInt(stored.Index, 10))
	return s.revalidated(w, r, stored.Record.Envelope())
}

func (s *Server) storedRecord(w http.ResponseWriter, r *http.Request) (registry.Stored, error) {
	w.Header().Set("Vary", "Authorization")
	w.Header().Set("Cache-Control", "private, no-cache")
	asker, err := s.asker(r)
	if err != nil {
		return registry.Stored{}, err
	}
	text := param(r, "id")
	if cid, err := storage.ParseCID(text); err == nil {
		return s.registry.RecordByCID(r.Context(), asker, cid)
	}
	if index, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(index, 10) == text {
		return s.registry.RecordAt(r.Context(), asker, index)
	}
	id, err := record.ParseID(text)
	if err != nil {
		return registry.Stored{}, fmt.Errorf("%w: %q is neither a record's identity nor a CID nor a log index", registry.ErrNotFound, text)
	}
	return s.registry.Record(r.Context(), asker, id)
}

// stillReads says why who asks may not read stored by now: blob storage, where it came from
// or what it names, may have taken longer than it took to remove them.
func (s *Server) stillReads(r *http.Request, stored registry.Stored) error {
	asker, err := s.asker(r)
	if err != nil {
		return err
	}
	return s.registry.MayReadRecord(r.Context(), asker, stored)
}

func (s *Server) attachment(w http.ResponseWriter, r *http.Request) error {
	stored, err := s.storedRecord(w, r)
	if err != nil {
		return err
	}
	id, err := storage.ParseCID(param(r, "cid"))
	if err != nil {
		return fmt.Errorf("%w: %v", registry.ErrNotFound, err)
	}
	release, err := s.attachments.take(r.Context(), askerOf(r)) // an index file of an upstream is large
	if err != nil {
		return err
	}
	defer release()
	raw, err := s.registry.Attachment(r.Context(), stored, id)
	if err != nil {
		return err
	}
	if err := s.stillReads(r, stored); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	return s.revalidated(w, r, raw)
}

func (s *Server) members(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.member(w, r); err != nil {
		return err
	}
	members, err := s.registry.Members(r.Context())
	if err != nil {
		return err
	}
	type item struct {
		DID    string    `json:"did"`
		Roles  []string  `json:"roles"`
		Tier   string    `json:"tier"`
		Admin  bool      `json:"admin"`
		Record record.ID `json:"record"`
	}
	items := []item{}
	for _, m := range members {
		items = append(items, item{string(m.DID), m.Roles, m.Tier, s.registry.IsAdmin(m.DID), m.Record})
	}
	return s.answer(w, r, struct {
		Members []item `json:"members"`
	}{items})
}

// version finds the artifact version that the path names, if the asker may know of it.
func (s *Server) version(w http.ResponseWriter, r *http.Request) (registry.Judged, error) {
	asker, err := s.reader(w, r)
	if err != nil {
		return registry.Judged{}, err
	}
	kind, err := record.ParseKind(param(r, "kind"))
	if err != nil {
		return registry.Judged{}, fmt.Errorf("%w: %v", registry.ErrNotFound, err)
	}
	return s.registry.Version(r.Context(), asker, kind, param(r, "name"), param(r, "version"))
}

func (s *Server) artifact(w http.ResponseWriter, r *http.Request) error {
	v, err := s.version(w, r)
	if err != nil {
		return err
	}
	return s.answer(w, r, versionOf(v))
}

// bundle is for members: among the records are those of members and settings. With
// ?source= it is about a version of a crate of another registry.
func (s *Server) bundle(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.member(w, r); err != nil {
		return err
	}
	may, gather, err := s.bundleOf(w, r)
	if err == nil {
		err = may()
	}
	if err != nil {
		return err
	}
	release, err := s.proofs.take(r.Context(), anyone)
	if err != nil {
		return err
	}
	defer release()
	items, err := gather()
	if err != nil {
		return err
	}
	if _, err := s.member(w, r); err != nil { // by now: it is made of many blobs
		return err
	}
	if err := may(); err != nil {
		return err
	}
	return s.answer(w, r, struct {
		Records []registry.BundleItem `json:"records"`
	}{items})
}

// bundleOf is how to ask whether who asks may have the bundle that the path names, and how
// to make it.
func (s *Server) bundleOf(w http.ResponseWriter, r *http.Request) (may func() error, gather func() ([]registry.BundleItem, error), err error) {
	kind, err := record.ParseKind(param(r, "kind"))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %v", registry.ErrNotFound, err)
	}
	upstream, err := sourceAsked(r, kind)
	if err != nil {
		return nil, nil, err
	}
	var v registry.Judged
	if upstream == "" {
		may = func() (err error) {
			v, err = s.version(w, r)
			return err
		}
		return may, func() ([]registry.BundleItem, error) { return s.registry.Bundle(r.Context(), v) }, nil
	}
	var asker policy.Asker
	may = func() (err error) {
		if asker, err = s.reader(w, r); err == nil {
			_, err = s.registry.UpstreamVersion(r.Context(), asker, upstream, param(r, "name"), param(r, "version"), [32]byte{})
		}
		return err
	}
	return may, func() ([]registry.BundleItem, error) {
		return s.registry.UpstreamBundle(r.Context(), asker, upstream, param(r, "name"), param(r, "version"))
	}, nil
}

func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) error {
	note, err := s.registry.Checkpoint(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache") // an old one kept by somebody between would look frozen
	return s.revalidated(w, r, note)
}

func (s *Server) tile(w http.ResponseWriter, r *http.Request) error {
	tile, err := s.registry.Tile(r.Context(), strings.TrimPrefix(r.URL.Path, "/log/"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	// A tile of a log never changes (C2SP tlog-tiles).
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	return s.revalidated(w, r, tile)
}

func (s *Server) didDocument(w http.ResponseWriter, r *http.Request) error {
	document, err := s.registry.Document(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/did+json")
	return s.revalidated(w, r, document)
}

// front and me say in words what to type; the pages for auditors come with package web.
func (s *Server) front(w http.ResponseWriter, _ *http.Request) error {
	asText(w, http.StatusOK, "", "This is an aln-registry: "+string(s.registry.Origin())+
		"\nIn your crate's folder, type:\n\n    aln-registry login "+s.registry.PublicURL+
		"\n\nThe log is at "+s.registry.PublicURL+"/log/checkpoint")
	return nil
}

func (s *Server) me(w http.ResponseWriter, _ *http.Request) error {
	asText(w, http.StatusOK, "", "There is no token to copy here: sessions are minted from your own key, for minutes.\nIn your crate's folder, type:\n\n    aln-registry login "+
		s.registry.PublicURL+"\n\nand cargo asks for a session by itself whenever it needs one.")
	return nil
}
