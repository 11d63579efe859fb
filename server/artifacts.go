package server

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// Sizes of pages: of artifacts, and of one artifact's versions.
const (
	defaultArtifacts = 50
	mostArtifacts    = 100
	defaultVersions  = 200
	mostVersions     = 1000
)

// artifactJSON is a name as the API tells it.
type artifactJSON struct {
	Kind         record.Kind `json:"kind"`
	Name         string      `json:"name"`
	Owners       []did.DID   `json:"owners"`
	VersionCount int         `json:"version_count"`
	Newest       versionJSON `json:"newest"`
}

// versionJSON is a version as the API tells it. The decision stands there only
// where something is denied.
type versionJSON struct {
	state.Version
	Decision *decisionJSON `json:"decision,omitzero"`
}

// decisionJSON says what an asker is denied of a version, and why.
type decisionJSON struct {
	// Listed: resolvers may pick it; Allow: its bytes may be had.
	Listed     bool        `json:"listed"`
	Allow      bool        `json:"allow"`
	Rule       policy.Rule `json:"rule"`
	RuleID     string      `json:"rule_id"`
	Reason     string      `json:"reason"`
	ValidUntil *time.Time  `json:"valid_until"`
}

func versionOf(v registry.Judged) versionJSON {
	d := v.Decision
	if d.Listed && d.Allow {
		return versionJSON{Version: v.Version}
	}
	told := &decisionJSON{Listed: d.Listed, Allow: d.Allow, Rule: d.Rule, RuleID: d.RuleID, Reason: d.Reason()}
	if !d.ValidUntil.IsZero() {
		told.ValidUntil = &d.ValidUntil
	}
	return versionJSON{v.Version, told}
}

func artifactOf(l registry.Listed) artifactJSON {
	a := artifactJSON{Kind: l.Kind, Name: l.Name, Owners: []did.DID{}, VersionCount: l.Versions, Newest: versionOf(l.Newest)}
	for _, o := range l.Owners {
		a.Owners = append(a.Owners, o.DID)
	}
	return a
}

// kind is the path's kind; the empty one where it names none.
func (s *Server) kind(r *http.Request) (record.Kind, error) {
	text := param(r, "kind")
	if text == "" {
		return "", nil
	}
	k, err := record.ParseKind(text)
	if err != nil {
		return "", fmt.Errorf("%w: %v", registry.ErrNotFound, err)
	}
	return k, nil
}

// artifacts is GET /v1/artifacts and /v1/artifacts/{kind}: ?q=&limit=&after=.
func (s *Server) artifacts(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.reader(w, r)
	if err != nil {
		return err
	}
	kind, err := s.kind(r)
	if err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", defaultArtifacts, 1, mostArtifacts)
	if err != nil {
		return err
	}
	release, err := s.searches.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer release()
	query := r.URL.Query()
	found, next, err := s.registry.Artifacts(r.Context(), asker, kind, query.Get("q"), query.Get("after"), limit)
	if err != nil {
		return err
	}
	listed := []artifactJSON{}
	for _, f := range found {
		listed = append(listed, artifactOf(f))
	}
	return s.answer(w, r, struct {
		Artifacts []artifactJSON `json:"artifacts"`
		Next      string         `json:"next"`
	}{listed, next})
}

// versions is GET /v1/artifacts/{kind}/{name}: ?limit=&after=.
func (s *Server) versions(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.reader(w, r)
	if err != nil {
		return err
	}
	kind, err := s.kind(r)
	if err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", defaultVersions, 1, mostVersions)
	if err != nil {
		return err
	}
	listed, versions, next, err := s.registry.Versions(r.Context(), asker, kind, param(r, "name"), r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	told := []versionJSON{}
	for _, v := range versions {
		told = append(told, versionOf(v))
	}
	return s.answer(w, r, struct {
		artifactJSON
		Versions []versionJSON `json:"versions"`
		Next     string        `json:"next"`
	}{artifactOf(listed), told, next})
}

// artifactContent is GET /v1/artifacts/{kind}/{name}/{version}/content. What
// somebody published is never anything that a browser shows, runs or styles with
// in this registry's name; its media type stands in the version's JSON.
func (s *Server) artifactContent(w http.ResponseWriter, r *http.Request) error {
	v, err := s.version(w, r)
	if err != nil {
		return err
	}
	file := v.Name + "-" + v.Version.Version // of letters, digits and . _ - + only
	if v.Kind == record.KindCrate {
		file += ".crate"
	}
	w.Header().Set("Content-Disposition", `attachment; filename="`+file+`"`)
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	return s.content(w, r, v, "application/octet-stream", s.version)
}

// judging says who asks, and judges the version that the path names for them.
type judging func(w http.ResponseWriter, r *http.Request) (registry.Judged, error)

// content sends the bytes of v, of which a part may be asked for, to whom they are
// not denied: that comes before anything is said about them. Blob storage takes as long
// as it likes, and whatever was acknowledged meanwhile holds: so it is judged again.
func (s *Server) content(w http.ResponseWriter, r *http.Request, v registry.Judged, mediaType string, again judging) error {
	if err := v.Refusal(); err != nil {
		return err
	}
	s.noteDryRun(r, v)
	etag := `"` + v.CID.Hex() + `"`
	// What needs no bytes opens none: opening a blob hashes all of it.
	if matches(r, etag) {
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("ETag", etag)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	o, err := s.open(r, v)
	if err != nil {
		return err
	}
	defer o.release()
	if o.waited {
		if v, err = again(w, r); err == nil {
			err = v.Refusal()
		}
		if err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("ETag", etag)
	if o.blob == nil {
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", strconv.FormatInt(o.size, 10))
		return nil
	}
	if b, ok := o.blob.(interface{ Bytes() []byte }); ok {
		serveBytes(w, r, b.Bytes())
		return nil
	}
	http.ServeContent(w, r, "", time.Time{}, o.blob)
	return nil
}

// opened are the bytes of an artifact, of which HEAD needs the size alone: no blob then.
type opened struct {
	blob    storage.Blob
	size    int64
	release func()
	// waited: blob storage was asked, which takes as long as it likes.
	waited bool
}

// open opens the bytes of v, with a place where they are not in memory.
func (s *Server) open(r *http.Request, v registry.Judged) (o opened, err error) {
	o.release = func() {}
	if r.Method == http.MethodHead {
		o.size, err = s.registry.ArtifactSize(r.Context(), v)
		o.waited = true
		return o, err
	}
	if o.blob, err = s.registry.CachedArtifact(r.Context(), v); err != nil {
		return o, err
	}
	if o.blob != nil {
		o.release = func() { o.blob.Close() }
		return o, nil
	}
	o.waited = true
	leave, err := s.downloads.take(r.Context(), askerOf(r))
	if err != nil {
		return o, err
	}
	blob, err := s.registry.OpenArtifact(r.Context(), v)
	if err != nil {
		leave()
		return o, err
	}
	o.blob, o.release = blob, func() { blob.Close(); leave() }
	if _, ok := blob.(interface{ Bytes() []byte }); ok {
		leave()
		o.release = func() { blob.Close() }
	}
	return o, nil
}

// publishArtifact is PUT /v1/artifacts/{kind}/{name}/{version}: the body is the
// bytes, the record stands behind the session's ~ (docs/FORMATS.md §5).
func (s *Server) publishArtifact(w http.ResponseWriter, r *http.Request) error {
	limit := int64(registry.MaxArtifactBytes)
	if param(r, "kind") == string(record.KindCrate) {
		limit = s.crateLimit()
	}
	done, err := s.upload(w, r, limit, func(asker policy.Asker, envelope []byte, body io.Reader) (registry.Published, error) {
		kind, err := s.kind(r)
		if err != nil {
			return registry.Published{}, err
		}
		if kind != record.KindCrate && r.ContentLength > limit {
			return registry.Published{}, registry.TooLarge()
		}
		subject, err := record.VersionSubject(kind, param(r, "name"), param(r, "version"))
		if err != nil {
			return registry.Published{}, fmt.Errorf("%w: %v", registry.ErrRequest, err)
		}
		return s.registry.Publish(r.Context(), asker, envelope, subject, body)
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		CID      storage.CID `json:"cid"`
		Record   record.ID   `json:"record"`
		Index    int64       `json:"index"`
		Repeated bool        `json:"repeated"`
	}{done.CID, done.Record, done.Index, done.Repeated})
	return nil
}

func (s *Server) crateLimit() int64 {
	if s.limits.CrateBytes > 0 {
		return s.limits.CrateBytes
	}
	return cargo.DefaultLimits().CrateBytes
}

// entering enters an upload for who sent it.
type entering func(asker policy.Asker, envelope []byte, body io.Reader) (registry.Published, error)

// upload does publish for the request's signer, with a place for it and a body of
// little more than limit bytes.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, limit int64, publish entering) (registry.Published, error) {
	body := &bodyReader{from: r.Body}
	// Clients read the answer only when they have sent everything; so what is not
	// wanted is let pass first, up to a limit, unless they wait to be told to send it.
	defer func() {
		if body.begun || r.Header.Get("Expect") == "" {
			letPass(r, drainFactor*limit)
		}
	}()
	asker, envelope, err := s.signer(r)
	if err != nil {
		return registry.Published{}, err
	}
	release, err := s.uploads.take(r.Context(), asker.DID)
	if err != nil {
		return registry.Published{}, err
	}
	defer release()
	return publish(asker, envelope, http.MaxBytesReader(w, body, limit+1)) // one more, so that who counts them can say it in words
}

// bodyReader notes whether anything was read.
type bodyReader struct {
	from  io.ReadCloser
	begun bool
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	b.begun = true
	return b.from.Read(p)
}

// Close implements io.Closer.
func (b *bodyReader) Close() error { return b.from.Close() }
