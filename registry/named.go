package registry

import (
	"context"
	"fmt"
	"strings"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// checkNamed refuses a grant that names what is not published here or is not what
// it is named as, and a rule that cannot be made ready. The log does not hold it to
// that (Apply knows neither), so it is looked at before the record goes in; who is
// not entitled to the record has been refused already. A list of crates may be of any
// kind, the shards are aln-shards.
func (r *Registry) checkNamed(ctx context.Context, rec *record.Record, attachments state.Attachments) error {
	switch body := rec.Body().(type) {
	case *record.Quarantine:
		if _, err := policy.CompileRules([]policy.NamedRule{{ID: rec.Subject().Rule(), QuarantineRule: body.QuarantineRule}}); err != nil {
			return fmt.Errorf("%w: %v", ErrRequest, err)
		}
	case *record.Grant:
		g, err := particle.ParseEnvGrant(attachments[rec.Subject().Grant()])
		if err != nil {
			return fmt.Errorf("%w: %v", ErrRequest, err)
		}
		return r.checkGrant(ctx, g)
	}
	return nil
}

// shard is a particle that a grant names.
type shard struct {
	member string
	id     *storage.CID
	// kind is the kind that it has to be published as, "" for any.
	kind record.Kind
	most int64
	read func(raw []byte) error
}

func (r *Registry) checkGrant(ctx context.Context, g particle.EnvGrant) error {
	for _, s := range []shard{
		{"memory_pool", g.MemoryPool, record.KindALNShard, particle.MaxBytes, parses(particle.ParseMemoryPoolShard)},
		{"execution_domain", g.ExecutionDomain, record.KindALNShard, particle.MaxBytes, parses(particle.ParseExecutionDomain)},
		{"allowed_crates_list", g.AllowedCratesList, "", mostListBytes, parses(particle.ParseList)},
	} {
		if s.id == nil {
			continue
		}
		if err := r.checkShard(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func parses[T any](parse func([]byte) (T, error)) func([]byte) error {
	return func(raw []byte) error {
		_, err := parse(raw)
		return err
	}
}

func (r *Registry) checkShard(ctx context.Context, s shard) error {
	keys, err := r.Catalog.VersionsByCID(ctx, *s.id, r.Size())
	if err != nil {
		return err
	}
	if !publishedAs(s.kind, keys) {
		kind := s.kind
		if kind == "" {
			kind = record.KindALNShard
		}
		return fmt.Errorf("%w: %s names %s, which is not published here as an %s; publish it first, with `aln-registry publish FILE --kind %s --name NAME --version 1.0.0`", ErrRequest, s.member, s.id, kind, kind)
	}
	size, err := r.Blobs.Stat(ctx, *s.id)
	if err != nil {
		return fmt.Errorf("%w: %s: %v", ErrUnavailable, s.member, err)
	}
	if size > s.most {
		return fmt.Errorf("%w: %s names %s, which has %d bytes; at most %d are read of it", ErrRequest, s.member, s.id, size, s.most)
	}
	raw, err := readBlob(ctx, r.Blobs, *s.id, s.most)
	if err != nil {
		return fmt.Errorf("%w: %s: %v", ErrUnavailable, s.member, err)
	}
	if err := s.read(raw); err != nil {
		return fmt.Errorf("%w: %s names %s, which is not what belongs there: %v", ErrRequest, s.member, s.id, err)
	}
	return nil
}

// publishedAs reports whether one of keys is of a version of kind ("": of any).
func publishedAs(kind record.Kind, keys []string) bool {
	for _, key := range keys {
		if kind == "" || strings.HasPrefix(key, versionPrefixes[kind]) {
			return true
		}
	}
	return false
}
