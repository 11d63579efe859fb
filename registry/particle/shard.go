package particle

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"phoenix-lab.org/aln-registry/did"
)

// MemoryPoolShard is the particle that an EnvGrant's memory_pool names.
type MemoryPoolShard struct {
	PoolID            string   `json:"pool_id"`
	OwnerDID          did.DID  `json:"owner_did"`
	StakeholderAddrs  []string `json:"stakeholder_addrs"`
	MaxBytes          int64    `json:"max_bytes"`
	EncryptionScheme  string   `json:"encryption_scheme"`
	JurisdictionScope string   `json:"jurisdiction"`
}

// ParseMemoryPoolShard reads one strictly; the error wraps ErrMalformed.
func ParseMemoryPoolShard(raw []byte) (MemoryPoolShard, error) {
	p, err := parse[MemoryPoolShard]("MemoryPoolShard", raw)
	if err != nil {
		return MemoryPoolShard{}, err
	}
	if _, err := did.Parse(string(p.OwnerDID)); err != nil {
		return MemoryPoolShard{}, malformed("MemoryPoolShard: owner_did: %v", err)
	}
	if p.MaxBytes < 0 || p.MaxBytes >= 1<<53 {
		return MemoryPoolShard{}, malformed("MemoryPoolShard: max_bytes %d is out of range", p.MaxBytes)
	}
	err = checkAll(texts{"pool_id", []string{p.PoolID}}, texts{"stakeholder_addrs", p.StakeholderAddrs},
		texts{"encryption_scheme", []string{p.EncryptionScheme}}, texts{"jurisdiction", []string{p.JurisdictionScope}})
	if err != nil {
		return MemoryPoolShard{}, err
	}
	return p, nil
}

// ExecutionDomain is the particle that an EnvGrant's execution_domain names:
// PhoenixLab.Safe, Offshore.Collab.Safe.
type ExecutionDomain struct {
	Name string `json:"name"`
	// CodeOrigins, Networking and Syscalls are what a job in the domain may run, reach and call.
	CodeOrigins []string `json:"code_origins"`
	Networking  []string `json:"networking"`
	Syscalls    []string `json:"syscalls"`
	Attestation string   `json:"attestation"`
}

// ParseExecutionDomain reads one strictly; the error wraps ErrMalformed.
func ParseExecutionDomain(raw []byte) (ExecutionDomain, error) {
	d, err := parse[ExecutionDomain]("ExecutionDomain", raw)
	if err != nil {
		return ExecutionDomain{}, err
	}
	err = checkAll(texts{"name", []string{d.Name}}, texts{"code_origins", d.CodeOrigins}, texts{"networking", d.Networking},
		texts{"syscalls", d.Syscalls}, texts{"attestation", []string{d.Attestation}})
	if err != nil {
		return ExecutionDomain{}, err
	}
	return d, nil
}

// SameJSON compares two JSON values but for the order of members, white space and
// escapes in strings (FORMATS §1); the error is that of one that is no JSON.
func SameJSON(a, b []byte) (bool, error) {
	// Not Canonicalize: it would take -0 for 0 and round large numbers.
	sorted := []jsontext.Options{jsontext.ReorderRawObjects(true), jsontext.PreserveRawStrings(false)}
	x, y := jsontext.Value(bytes.Clone(a)), jsontext.Value(bytes.Clone(b))
	if err := x.Format(sorted...); err != nil {
		return false, err
	}
	if err := y.Format(sorted...); err != nil {
		return false, err
	}
	return bytes.Equal(x, y), nil
}
