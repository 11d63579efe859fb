package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	// recordValidity is the time from signing a record to its last acceptable
	// entry: long enough for the upload that it goes with.
	recordValidity = 15 * time.Minute
	// intentValidity is that of an own-intent (FORMATS §2).
	intentValidity = 120 * time.Second

	// MaxDownload bounds one artifact, in bytes.
	MaxDownload = 1 << 30
	// maxAttachment bounds a DID document or intent, in bytes.
	maxAttachment = 64 << 10
)

// Registry is one pinned registry, asked as one identity. Safe for concurrent use.
type Registry struct {
	client   *Client
	pin      Pin
	web      web
	identity *Identity // nil: nobody, only what is public can be asked
	grant    string    // CID of the EnvGrant that its sessions name, "" for none
}

// Pin returns what is known of the registry.
func (r *Registry) Pin() Pin { return r.pin }

// ClockOffset is how far the registry's clock was ahead of ours at its last
// answer; 0 while that is less than half a minute.
func (r *Registry) ClockOffset() time.Duration { return time.Duration(r.web.offset.Load()) }

// Identity returns who asks; false when there is no identity.
func (r *Registry) Identity() (Identity, bool) {
	if r.identity == nil {
		return Identity{}, false
	}
	return *r.identity, true
}

// read does a GET as a reader: with a read session where there is an identity,
// anonymously otherwise. A cached session that the registry no longer takes is replaced once.
func (r *Registry) read(ctx context.Context, path string, limit int64) (data []byte, header http.Header, err error) {
	err = r.asReader(ctx, func(token string) error {
		data, header, err = r.web.bytes(ctx, call{method: http.MethodGet, path: path, token: token}, limit)
		return err
	})
	return data, header, err
}

func (r *Registry) readJSON(ctx context.Context, path string, limit int64, into any) error {
	return r.asReader(ctx, func(token string) error {
		return r.web.json(ctx, call{method: http.MethodGet, path: path, token: token}, limit, into)
	})
}

func (r *Registry) asReader(ctx context.Context, do func(token string) error) error {
	if r.identity == nil {
		return do("")
	}
	session, err := r.Session(ctx, particle.ScopeRead, "", 0)
	if err != nil {
		return err
	}
	err = do(session.Token)
	var refused *APIError
	if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		return err
	}
	if _, err := r.DropSession(ctx); err != nil {
		return err
	}
	if session, err = r.Session(ctx, particle.ScopeRead, "", 0); err != nil {
		return err
	}
	return do(session.Token)
}

// Heads is what the asker needs to sign a record about a thing (FORMATS §2).
type Heads struct {
	Thing string `json:"thing"`
	// Prev is the last record about the thing, empty for none.
	Prev record.ID `json:"prev"`
	// By entitles the asker, empty: nothing does.
	By record.ID `json:"by"`
	// Key put the asker's DID document in force, empty for did:key.
	Key    record.ID `json:"key"`
	Origin did.DID   `json:"origin"`
}

// Heads asks for the heads of the thing that s is about.
func (r *Registry) Heads(ctx context.Context, s record.Subject) (Heads, error) {
	if s.Kind() == "" {
		r = r.Bare()
	}
	var h Heads
	if err := r.readJSON(ctx, "/v1/heads/"+escapePath(s.Thing()), maxAnswer, &h); err != nil {
		return Heads{}, err
	}
	if h.Thing != s.Thing() || h.Origin != r.pin.Origin {
		return Heads{}, fmt.Errorf("%w: asked for the heads of %s at %s, got those of %.80q at %.80q", ErrAnswer, s.Thing(), r.pin.Origin, h.Thing, h.Origin)
	}
	return h, nil
}

// escapePath escapes each segment of a path once more.
func escapePath(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// Draft is a record that the user wants made; the rest of it comes from the
// registry's heads.
type Draft struct {
	Subject record.Subject
	// Digest is the artifact's sha256 for publish, zero otherwise.
	Digest [sha256.Size]byte
	Body   record.Body
	// Attachments are the blobs that the body names: DID documents.
	Attachments [][]byte
}

// Sign fetches the heads, and signs d for submission within validity.
// ErrNotEntitled when the registry knows of nothing that lets us.
func (r *Registry) Sign(ctx context.Context, d Draft, validity time.Duration) (*record.Record, error) {
	h, err := r.Heads(ctx, d.Subject)
	if err != nil {
		return nil, err
	}
	return r.sign(h, d, validity)
}

func (r *Registry) sign(h Heads, d Draft, validity time.Duration) (*record.Record, error) {
	if r.identity == nil {
		return nil, r.nobody()
	}
	if h.By == "" {
		return nil, r.notEntitled(h, d.Subject)
	}
	at, err := r.web.registryTime()
	if err != nil {
		return nil, err
	}
	return record.Sign(record.Draft{
		Subject: d.Subject, Digest: d.Digest, Body: d.Body,
		Header: record.Header{Registry: r.pin.Origin, IssuedAt: at, Expires: at.Add(validity), Prev: h.Prev, By: h.By, Key: h.Key},
	}, r.identity.Signer())
}

// notEntitled says that nothing lets us change the thing s.
func (r *Registry) notEntitled(h Heads, s record.Subject) error {
	if r.identity == nil {
		return r.nobody()
	}
	return fmt.Errorf("%w: %s", ErrNotEntitled, r.howToBeEntitled(h, s))
}

// howToBeEntitled says who can help whom with what command.
func (r *Registry) howToBeEntitled(h Heads, s record.Subject) string {
	me := r.identity.DID()
	switch {
	case !s.Grant().IsZero():
		return fmt.Sprintf("%s needs the role grantor, and %s has not got it; an admin gives it with `aln-registry member add`, which is told all roles that are to stay", s, me)
	case s.Rule() != "":
		return fmt.Sprintf("%s needs the role reviewer, and %s has not got it; an admin gives it with `aln-registry member add`, which is told all roles that are to stay", s, me)
	case s.Kind() == "":
		return fmt.Sprintf("only an admin may change %s, and %s is not one", s, me)
	case h.Prev == "":
		return fmt.Sprintf("a new name needs the role publisher; an admin gives it to you with `aln-registry member add %s --role publisher`", me)
	}
	return fmt.Sprintf("%s is not an owner of %s; an owner adds you with `%s`", me, s.Name(), record.AddOwnerCommand(s.Kind(), s.Name(), me))
}

// Submitted is where a record went.
type Submitted struct {
	Record record.ID `json:"record"`
	Index  int64     `json:"index"`
}

// SignAndSubmit signs d and puts it into the log. Errors: those of Sign;
// *APIError, with status 409 when the thing changed since its heads were fetched. Where
// that was a change of our own to an artifact, of which who told the heads did not know
// yet, d is signed anew: it says what to change, not what is to come of it.
func (r *Registry) SignAndSubmit(ctx context.Context, d Draft) (Submitted, error) {
	h, err := r.Heads(ctx, d.Subject)
	if err != nil {
		return Submitted{}, err
	}
	done, err := r.signAndSubmit(ctx, h, d)
	if refused := (*APIError)(nil); d.Subject.Kind() != "" && errors.As(err, &refused) && refused.Code == codeStale {
		if now, ok := r.overtaken(ctx, d.Subject, h); ok {
			return r.signAndSubmit(ctx, now, d)
		}
	}
	return done, err
}

// codeStale is the registry's word for a record whose prev is not the last one.
const codeStale = "stale"

func (r *Registry) signAndSubmit(ctx context.Context, h Heads, d Draft) (Submitted, error) {
	rec, err := r.sign(h, d, recordValidity)
	if err != nil {
		return Submitted{}, err
	}
	return r.Submit(ctx, rec, d.Attachments)
}

// Submit puts a signed record into the log, with a session for it alone. A registry
// that cannot take it now is asked again: prev lets no record in twice.
func (r *Registry) Submit(ctx context.Context, rec *record.Record, attachments [][]byte) (Submitted, error) {
	if rec.Subject().Kind() == "" {
		r = r.Bare()
	}
	session, err := r.Session(ctx, rec.Scope(), rec.ID(), changeLifetime)
	if err != nil {
		return Submitted{}, err
	}
	body, err := encodeSubmission(rec.Envelope(), attachments)
	if err != nil {
		return Submitted{}, err
	}
	var done Submitted
	again := false
	err = r.web.untilReady(ctx, func() error {
		err := r.web.json(ctx, call{method: http.MethodPost, path: "/v1/records", token: session.Token, contentType: "application/json", body: body}, maxAnswer, &done)
		if again {
			if found, ok := r.enteredBefore(ctx, rec, err); ok {
				done, err = found, nil
			}
		}
		again = true
		return err
	})
	if err != nil {
		return Submitted{}, err
	}
	if done.Record != rec.ID() || done.Index < 0 {
		return Submitted{}, fmt.Errorf("%w: submitted %s, the registry speaks of %.80q at %d", ErrAnswer, rec.ID(), done.Record, done.Index)
	}
	return done, nil
}

// Record fetches the record whose identity or CID id is, and checks that it is
// that record; not its signature. index is where the registry says it stands.
func (r *Registry) Record(ctx context.Context, id string) (rec *record.Record, index int64, err error) {
	data, header, err := r.read(ctx, recordPath(id), record.MaxEnvelope)
	if err != nil {
		return nil, 0, err
	}
	return parseRecord(id, data, header)
}

// PublicRecord is Record for one that needs no session: entry 0's.
func (r *Registry) PublicRecord(ctx context.Context, id string) (rec *record.Record, index int64, err error) {
	return r.web.record(ctx, id)
}

func parseRecord(id string, data []byte, header http.Header) (*record.Record, int64, error) {
	rec, err := record.Parse(data)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: record %s: %w", ErrAnswer, id, err)
	}
	if id != string(rec.ID()) && id != rec.CID().String() {
		return nil, 0, fmt.Errorf("%w: asked for the record %s, got %s", ErrAnswer, id, rec.ID())
	}
	index, err := strconv.ParseInt(header.Get("ALN-Log-Index"), 10, 64)
	if err != nil || index < 0 || index > translog.MaxSize {
		return nil, 0, fmt.Errorf("%w: record %s without a log index", ErrAnswer, id)
	}
	return rec, index, nil
}

// Attachment fetches a blob that the record id names, and checks its digest.
func (r *Registry) Attachment(ctx context.Context, id string, cid storage.CID) ([]byte, error) {
	return r.attachment(ctx, id, cid, maxAttachment)
}

func (r *Registry) attachment(ctx context.Context, id string, cid storage.CID, most int64) ([]byte, error) {
	data, _, err := r.read(ctx, attachmentPath(id, cid), most)
	if err != nil {
		return nil, err
	}
	return data, checkCID(data, cid)
}

func recordPath(id string) string { return "/v1/records/" + url.PathEscape(id) }

func attachmentPath(id string, cid storage.CID) string {
	return recordPath(id) + "/attachments/" + cid.String()
}

func checkCID(data []byte, want storage.CID) error {
	if got := storage.CIDOf(data); got != want {
		return fmt.Errorf("%w: asked for %s, got bytes that are %s", ErrAnswer, want, got)
	}
	return nil
}

// Member is a member as the registry tells it.
type Member struct {
	DID    did.DID   `json:"did"`
	Roles  []string  `json:"roles"`
	Tier   string    `json:"tier"`
	Admin  bool      `json:"admin"`
	Record record.ID `json:"record"`
}

// Members lists the members.
func (r *Registry) Members(ctx context.Context) ([]Member, error) {
	var answer struct {
		Members []Member `json:"members"`
	}
	err := r.Bare().readJSON(ctx, "/v1/members", maxBundle, &answer)
	return answer.Members, err
}

// Artifact is one version as the registry tells it: a claim, not a proof (Evidence).
type Artifact struct {
	Kind      record.Kind   `json:"kind"`
	Name      string        `json:"name"`
	Version   string        `json:"version"`
	CID       storage.CID   `json:"cid"`
	Record    record.ID     `json:"record"`
	Index     int64         `json:"index"`
	Time      time.Time     `json:"time"`
	Yanked    bool          `json:"yanked"`
	Publisher did.DID       `json:"publisher"`
	MediaType string        `json:"media_type"`
	Evidence  []storage.CID `json:"evidence"`
}

// Artifact asks for one version.
func (r *Registry) Artifact(ctx context.Context, s record.Subject) (Artifact, error) {
	var a Artifact
	if err := r.readJSON(ctx, artifactPath(s), maxAnswer, &a); err != nil {
		return Artifact{}, err
	}
	if a.Kind != s.Kind() || cargo.CanonicalName(a.Name) != cargo.CanonicalName(s.Name()) || a.CID.IsZero() {
		return Artifact{}, fmt.Errorf("%w: asked for %s, got %.80q", ErrAnswer, s, string(a.Kind)+"/"+a.Name)
	}
	return a, nil
}

func artifactPath(s record.Subject) string {
	return "/v1/artifacts/" + escapePath(string(s.Kind())+"/"+s.Name()+"/"+s.Version())
}

// Checkpoint fetches the log's latest signed checkpoint; nothing of it is verified.
func (r *Registry) Checkpoint(ctx context.Context) ([]byte, error) { return r.web.checkpoint(ctx) }

func (w web) checkpoint(ctx context.Context) ([]byte, error) {
	data, _, err := w.bytes(ctx, call{method: http.MethodGet, path: "/log/checkpoint"}, translog.MaxNoteBytes)
	return data, err
}

func (w web) tile(ctx context.Context, path string) ([]byte, error) {
	data, _, err := w.bytes(ctx, call{method: http.MethodGet, path: "/log/" + path}, translog.MaxBundleBytes)
	return data, err
}

// Download writes a version's bytes, at most MaxDownload, to out and returns the
// CID of what was written: the caller compares it with what it expects before
// it uses the bytes.
func (r *Registry) Download(ctx context.Context, s record.Subject, out io.Writer) (cid storage.CID, size int64, err error) {
	return r.download(ctx, downloadPath(s), out)
}

func copyHashed(out io.Writer, in io.Reader) (storage.CID, int64, error) {
	digest := sha256.New()
	size, err := io.Copy(io.MultiWriter(out, digest), io.LimitReader(in, MaxDownload+1))
	if err != nil {
		return storage.CID{}, size, fmt.Errorf("download: %w", err)
	}
	if size > MaxDownload {
		return storage.CID{}, size, fmt.Errorf("%w: longer than %d bytes", ErrAnswer, int64(MaxDownload))
	}
	return storage.CIDFromDigest([sha256.Size]byte(digest.Sum(nil))), size, nil
}

// Time is the time to sign and judge with: this computer's, corrected where the
// registry's clock was seen to differ. ErrClock.
func (r *Registry) Time() (time.Time, error) { return r.web.registryTime() }
