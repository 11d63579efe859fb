package verify

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
)

// InForce are settings, as a replay of the records about them has it.
type InForce struct {
	// Record put them in force, or was the proposal that votes put in force.
	Record   record.ID
	Settings *record.Registry
	// Document is the registry's DID document; nil for a did:key.
	Document *did.Document
}

// Settings is Checkpoint, and what later ends in: each of its records judged, as
// proposals and votes by the admins of their time, the last that came into force is
// what counts. Settings that a compromised key put in force are nobody's: the check
// authority fails. That nothing later was left out the records cannot show; whoever
// acts on settings asks the registry for a sign that it stands by them today.
func Settings(note []byte, consistency tlog.TreeProof, pin Pin, entry0 Item, later ...Item) (InForce, translog.Opened, Verdict) {
	t, opened, v := checkpoint(note, consistency, pin, append([]Item{entry0}, later...))
	if !v.OK() {
		v.skip(CheckAuthority)
		return InForce{}, opened, v
	}
	in, err := t.inForce()
	v.add(CheckAuthority, err, "settings of the record %s are in force", in.Record)
	return in, opened, v
}

func (t *trail) inForce() (InForce, error) {
	l := t.council.registry
	if l != t.belief.settings {
		return InForce{}, fmt.Errorf("the settings of %s are in force, but rest on keys that count as compromised; the admins of %s have to enter settings anew", l, t.belief.settings)
	}
	in := InForce{Record: l.record.ID(), Settings: t.council.settings()}
	if in.Settings.DIDDocument == nil {
		return in, nil
	}
	var err error
	in.Document, err = t.document(*in.Settings.DIDDocument)
	return in, err
}
