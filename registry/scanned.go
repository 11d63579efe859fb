package registry

import (
	"context"

	"phoenix-lab.org/aln-registry/registry/state"
)

func (r *Registry) scanned(ctx context.Context, v state.Version) ([]string, error) {
	return nil, nil
}
