package client

import (
	"errors"
	"net/http"
	"testing"

	"phoenix-lab.org/aln-registry/registry/record"
)

// A vote that is entered is told as one, also when its effect cannot be asked for.
func TestAVoteThatIsEnteredIsToldAsOne(t *testing.T) {
	for name, test := range map[string]struct {
		broken, reject, unsure, enacted bool
	}{
		"in force":                       {enacted: true},
		"no answer to the question":      {broken: true, unsure: true},
		"a rejection puts none in force": {broken: true, reject: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, r := loggedIn(t)
			genesis := f.records[0]
			next := cloneSettings(genesis.Body().(*record.Registry))
			next.ReleaseK = 7
			proposal := f.sign(r.identity.Signer(), record.RegistrySubject(), [32]byte{}, record.Header{Prev: genesis.ID(), By: genesis.ID()}, next)
			f.log(proposal)
			f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
				switch {
				case req.URL.EscapedPath() == "/v1/heads/registry":
					writeJSON(w, map[string]any{"thing": "registry", "prev": proposal.ID(), "by": genesis.ID(), "key": nil, "origin": f.origin.Public().DID()})
				case req.URL.EscapedPath() == "/v1/settings" && test.broken:
					w.WriteHeader(http.StatusBadGateway)
				case req.URL.EscapedPath() == "/v1/settings":
					writeJSON(w, map[string]any{"record": proposal.ID(), "settings": next})
				default:
					return false
				}
				return true
			}
			vote, err := r.Approve(t.Context(), proposal.ID(), test.reject, "", func(_, _ *record.Registry) error { return nil })
			if err != nil || vote.Index != 3 || vote.Record != f.records[3].ID() {
				t.Fatalf("%+v, %v", vote, err)
			}
			var refused *APIError
			if vote.Enacted != test.enacted || (vote.Unsure != nil) != test.unsure || test.unsure && !errors.As(vote.Unsure, &refused) {
				t.Errorf("%+v", vote)
			}
		})
	}
}
