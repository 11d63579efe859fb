package main

import (
	"fmt"

	"phoenix-lab.org/aln-registry/storage"
)

// grantVariable is the environment's --grant.
const grantVariable = "ALN_GRANT"

// grantCID is the flag --grant: under which EnvGrant is asked.
type grantCID struct{ id storage.CID }

// Set implements pflag.Value.
func (g *grantCID) Set(text string) (err error) {
	g.id, err = parseGrant(text)
	return err
}

// String implements pflag.Value.
func (g *grantCID) String() string {
	if g.id.IsZero() {
		return ""
	}
	return g.id.String()
}

// Type implements pflag.Value.
func (g *grantCID) Type() string { return "CID" }

func parseGrant(text string) (storage.CID, error) {
	id, err := storage.ParseCID(text)
	if err != nil {
		return storage.CID{}, fmt.Errorf("%.80q is not the CID of a grant (bafkrei…); `aln-registry grant list` shows them", text)
	}
	return id, nil
}
