package registry

import (
	"context"
	"errors"
	"testing"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

func TestNothingIsToldOfWhatIsNotThere(t *testing.T) {
	ctx := context.Background()
	r, _ := openTest(t)
	if _, err := r.Spelling(ctx, reader, record.KindCrate, "none"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, _, err := r.VersionsOf(ctx, reader, record.KindCrate, "none"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := r.Describe(ctx, Judged{Version: state.Version{Kind: record.KindManifest}}); !errors.Is(err, ErrRequest) {
		t.Error(err)
	}
	if times, err := r.EntryTimes(ctx, 0, r.Size()); err != nil || len(times) != genesisEntries || times[0].IsZero() {
		t.Error(times, err)
	}
	if _, err := r.EntryTimes(ctx, 0, r.Size()+1); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
