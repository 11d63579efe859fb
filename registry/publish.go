package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// MaxArtifactBytes bounds an artifact that is no crate; crates have Limits.CrateBytes.
const MaxArtifactBytes = 64 << 20

// ErrTooLarge: an artifact has more bytes than this registry takes.
var ErrTooLarge = errors.New("too large")

// Published is what the publisher of an artifact is told.
type Published struct {
	Receipt
	CID     storage.CID
	Subject record.Subject
	// Upstreams are other registries that have a crate of this name, told with its first publish.
	Upstreams []string
}

// incoming is an artifact on its way in.
type incoming struct {
	record *record.Record
	// unwrap finds the artifact's bytes in the request's body.
	unwrap func() (io.Reader, error)
}

// PublishCrate takes the body of cargo's publish request together with the
// record that its credential provider signed.
func (r *Registry) PublishCrate(ctx context.Context, asker policy.Asker, envelope []byte, body io.Reader) (Published, error) {
	rec, err := record.Parse(envelope)
	if err != nil {
		return Published{}, err
	}
	if rec.Type() != record.TypePublish || rec.Subject().Kind() != record.KindCrate {
		return Published{}, fmt.Errorf("%w: the token carries a %s record for %s, not one that publishes a crate", ErrRequest, rec.Type(), rec.Subject())
	}
	return r.publishArtifact(ctx, asker, incoming{record: rec, unwrap: func() (io.Reader, error) { return unframe(rec, body, r.Limits) }})
}

// Publish takes the bare bytes of the version that subject names, of any kind,
// together with the record that its publisher signed.
func (r *Registry) Publish(ctx context.Context, asker policy.Asker, envelope []byte, subject record.Subject, body io.Reader) (Published, error) {
	rec, err := record.Parse(envelope)
	if err != nil {
		return Published{}, err
	}
	if rec.Type() != record.TypePublish || rec.Subject() != subject {
		return Published{}, fmt.Errorf("%w: the token carries a %s record for %s, not one that publishes %s", ErrRequest, rec.Type(), rec.Subject(), subject)
	}
	return r.publishArtifact(ctx, asker, incoming{record: rec, unwrap: func() (io.Reader, error) { return body, nil }})
}

// publishArtifact is the one way in for bytes. The record is judged before the
// body is read; the bytes are checked while they stream (a crate's tarball,
// manifest and dependencies; of every kind size and digest); only then is the
// blob stored and the record queued. Owners' same bytes again are not read at all.
func (r *Registry) publishArtifact(ctx context.Context, asker policy.Asker, in incoming) (Published, error) {
	if err := checkSession(asker, in.record, particle.ScopePublish); err != nil {
		return Published{}, err
	}
	id := storage.CIDFromDigest(in.record.Digest())
	s := &submission{record: in.record, attachments: state.Attachments{}}
	if repeated, err := r.precheck(ctx, asker, s); err != nil {
		return Published{}, err
	} else if repeated != nil && r.intact(ctx, id) {
		return Published{Receipt: *repeated, CID: id, Subject: in.record.Subject()}, nil
	}
	spool, err := openSpool(r.Spool)
	if err != nil {
		return Published{}, err
	}
	defer spool.Close()
	var size int64
	s.crate, size, err = r.receive(in, spool)
	if err = cmp.Or(spool.failed, err); err != nil {
		return Published{}, err
	}
	if s.crate != nil {
		if err := s.crate.CheckPublish(indexSettings(r.Settings())); err != nil {
			return Published{}, err
		}
		s.scan = r.scanUpload(ctx, id, spool)
	}
	s.artifact = &brought{id, size, spool}
	_, named, err := r.artifactOf(ctx, in.record.Subject().Kind(), in.record.Subject().Name())
	if err != nil {
		return Published{}, err
	}
	done := Published{CID: id, Subject: in.record.Subject()}
	if done.Receipt, err = r.storeAndSubmit(ctx, s); err == nil && !named {
		done.Upstreams = r.alsoUpstream(ctx, asker, done.Subject)
	}
	return done, err
}

// HiddenFrom says why the resolvers of asker, who published p, do not pick it: by
// a rule, a grant or the cooldown, in the words of its refusal; "" where they do,
// or where its publisher has yanked it or nothing can be decided now. Cargo waits
// for a version to appear in the view of who published it.
func (r *Registry) HiddenFrom(ctx context.Context, asker policy.Asker, p Published) string {
	j, err := r.Version(ctx, asker, p.Subject.Kind(), p.Subject.Name(), p.Subject.Version())
	var denial *policy.Denial
	switch {
	case err != nil && errors.As(err, &denial):
		return denial.Error()
	case errors.Is(err, ErrNotFound):
		return "the EnvGrant that binds this host does not list it; ask a grantor of this registry"
	case err != nil || j.Decision.Listed:
		return ""
	case j.Decision.Allow: // a rule's grace
		return j.Decision.Reason()
	}
	return j.Decision.Refusal(j.Name, j.Version.Version)
}

// intact reports whether the blob id is stored and whole; one that is not is
// mended by whoever publishes its bytes again.
func (r *Registry) intact(ctx context.Context, id storage.CID) bool {
	blob, err := r.Blobs.Open(ctx, id)
	if err != nil {
		return false
	}
	return blob.Close() == nil
}

// unframe finds the .crate in the body of cargo's publish request.
func unframe(rec *record.Record, body io.Reader, l cargo.Limits) (io.Reader, error) {
	frame, crate, _, err := cargo.ReadPublish(body, l)
	if err != nil {
		return nil, err
	}
	if subject := rec.Subject(); frame.Name != subject.Name() || frame.Vers.String() != subject.Version() {
		return nil, fmt.Errorf("%w: the request publishes %s@%s, its record %s", ErrRequest, frame.Name, frame.Vers, subject)
	}
	return crate, nil
}

// receive checks an artifact's bytes while copying them to spool, and returns
// how many they are; crate is nil for the other kinds.
func (r *Registry) receive(in incoming, spool io.Writer) (crate *cargo.Crate, size int64, err error) {
	content, err := in.unwrap()
	if err != nil {
		return nil, 0, err
	}
	digest, subject := sha256.New(), in.record.Subject()
	content = io.TeeReader(content, io.MultiWriter(digest, spool))
	if subject.Kind() == record.KindCrate {
		if crate, err = cargo.Inspect(content, subject.Name(), subject.Version(), r.Limits); err != nil {
			return nil, 0, err
		}
		size = crate.CompressedBytes
	} else if size, err = drain(content); err != nil {
		return nil, 0, err
	}
	if [sha256.Size]byte(digest.Sum(nil)) != in.record.Digest() {
		return nil, 0, fmt.Errorf("%w: the uploaded bytes are not those that the record signs; publish again", ErrRequest)
	}
	return crate, size, nil
}

// drain reads content to its end and counts it.
func drain(content io.Reader) (int64, error) {
	size, err := io.Copy(io.Discard, io.LimitReader(content, MaxArtifactBytes+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return 0, fmt.Errorf("%w: the upload ends before what it announces; publish again", ErrRequest)
	case err != nil:
		return 0, err
	case size > MaxArtifactBytes:
		return 0, TooLarge()
	}
	return size, nil
}

// TooLarge refuses an artifact of more than MaxArtifactBytes.
func TooLarge() error {
	return fmt.Errorf("%w: an artifact has at most %d bytes here; publish it in parts, and a manifest that names their CIDs", ErrTooLarge, MaxArtifactBytes)
}
