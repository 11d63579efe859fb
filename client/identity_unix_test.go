//go:build unix

package client

import (
	"errors"
	"os"
	"testing"

	"phoenix-lab.org/aln-registry/did"
)

func TestAnIdentityThatOthersMayReadIsRefused(t *testing.T) {
	c, id := user(t)
	if err := os.Chmod(id.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.home.Identity(id.Name); !errors.Is(err, did.ErrKeyFileMode) {
		t.Errorf("readable by all: %v", err)
	}
}
