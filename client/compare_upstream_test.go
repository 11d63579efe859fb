package client

import (
	"net/http"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

// A line on which cargo crashes is served to nobody, and is not missed; every other one is.
func TestALineThatMakesCargoCrashIsNotMissed(t *testing.T) {
	line := func(version, deps string) string {
		return `{"name":"serde","vers":"` + version + `","deps":[` + deps + `],"cksum":"` + strings.Repeat("0a", 32) + `"}` + "\n"
	}
	fine, crash, missing := line("1.0.0", ""), line("2.0.0", `{"name":"","req":"*"}`), line("3.0.0", "")
	snapshot := fine + crash + missing
	parsed, err := cargo.ParseUpstreamFile("serde", []byte(snapshot))
	if err != nil {
		t.Fatal(err)
	}
	crate := verify.UpstreamCrate{Upstream: "crates-io", Name: "serde"}
	for _, l := range parsed.Lines {
		crate.Versions = append(crate.Versions, verify.UpstreamVersion{
			Version: l.Version, CID: storage.CIDFromDigest(l.Digest), Resolves: l.Resolves, Snapshot: storage.CIDOf([]byte(snapshot)), Record: "0",
		})
	}
	f, _, r := loggedIn(t)
	f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/attachments/") {
			return false
		}
		_, _ = w.Write([]byte(snapshot))
		return true
	}
	found, err := r.compareUpstream(t.Context(), crate, []byte(fine), upstreamIndex{name: "crates-io", listed: true})
	if got := strings.Join(found.Differences, "; "); err != nil || len(found.Differences) != 1 || !strings.Contains(got, "3.0.0: it is in the log but not in the index") {
		t.Errorf("found %q, %v", got, err)
	}
}
