package record

import "phoenix-lab.org/aln-registry/registry/particle"

// Scope is the scope that a session needs to carry r: admin for what only admins
// sign, publish for what others sign too (grantors and reviewers cannot have admin;
// the state says who is one). Whoever submits asks for it, the registry demands it.
func (r *Record) Scope() string {
	switch r.Type() {
	case TypePublish, TypeYank, TypeOwn, TypeOwnIntent, TypeGrant, TypeRevoke, TypeQuarantine, TypeRelease:
		return particle.ScopePublish
	case TypeApprove:
		if r.subject.Rule() != "" {
			return particle.ScopePublish
		}
	case TypeDID:
		if r.header.Signer.DID == r.subject.Member() {
			return particle.ScopePublish
		}
	}
	return particle.ScopeAdmin
}
