package client

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

// A line that says yanked, where the log has no yank, is a lie unless the registry says that it
// denies that version to us: not that it allows it, nor that it has none, nor of other bytes.
func TestAYankThatTheLogLacksIsADenialOrALie(t *testing.T) {
	id, at := storage.CIDOf([]byte("crate")), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	line := `{"name":"demo","vers":"0.1.0","deps":[],"cksum":"` + id.Hex() + `","features":{},"yanked":true,"pubtime":"2026-01-02T03:04:05Z"}` + "\n"
	for name, test := range map[string]struct {
		decision, line, want string
		denied               int
	}{
		"denied":                    {`"known":true,"listed":false,"allow":false,"rule":"quarantine","rule_id":"q1"`, line, "", 1},
		"allowed":                   {`"known":true,"listed":true,"allow":true,"rule":"tier"`, line, "the index says yanked true, the log false", 0},
		"not known":                 {`"known":false,"listed":false,"allow":false,"rule":"unknown"`, line, "the index says yanked true, the log false", 0},
		"other bytes":               {`"known":true,"listed":false,"allow":false,"rule":"unknown"`, line, "the index says yanked true, the log false", 0},
		"the registry does not say": {"", line, "the index says yanked true, the log false", 0},
		"denied, of another checksum": {
			`"known":true,"listed":false,"allow":false,"rule":"cooldown"`, strings.Replace(line, id.Hex(), strings.Repeat("0", 64), 1), "the index says checksum", 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, r := loggedIn(t)
			f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path != decisionsPath {
					return false
				}
				if test.decision == "" {
					http.Error(w, "no such page", http.StatusNotFound)
					return true
				}
				_, _ = w.Write([]byte(`{"decisions":[{"kind":"crate","name":"demo","version":"0.1.0",` + test.decision + `}]}`))
				return true
			}
			logged := []verify.CrateVersion{{Name: "demo", Version: "0.1.0", CID: id, Time: at}}
			found, err := r.compareCrate(t.Context(), "demo", logged, []byte(test.line))
			if err != nil {
				t.Fatal(err)
			}
			var denied int
			for _, n := range found.Denied {
				denied += n
			}
			got := strings.Join(found.Differences, "; ")
			if !strings.Contains(got, test.want) || (test.want == "") != (got == "") || denied != test.denied {
				t.Errorf("found %q, %v", got, found.Denied)
			}
		})
	}
}

// What was found is said though the registry does not answer a later question.
func TestWhatWasFoundIsSaidThoughALaterRequestFails(t *testing.T) {
	id, at := storage.CIDOf([]byte("crate")), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f, _, r := loggedIn(t)
	f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path != decisionsPath {
			return false
		}
		http.Error(w, "not today", http.StatusInternalServerError)
		return true
	}
	lie := `{"name":"demo","vers":"0.1.0","deps":[],"cksum":"` + strings.Repeat("0", 64) + `","features":{},"yanked":false,"pubtime":"2026-01-02T03:04:05Z"}` + "\n"
	yank := `{"name":"demo","vers":"0.2.0","deps":[],"cksum":"` + id.Hex() + `","features":{},"yanked":true,"pubtime":"2026-01-02T03:04:05Z"}` + "\n"
	logged := []verify.CrateVersion{{Name: "demo", Version: "0.1.0", CID: id, Time: at}, {Name: "demo", Version: "0.2.0", CID: id, Time: at}, {Name: "demo", Version: "0.3.0", CID: id, Time: at}}
	found, err := r.compareCrate(t.Context(), "demo", logged, []byte(lie+yank))
	if statusOf(err) != http.StatusInternalServerError {
		t.Errorf("the error is %v", err)
	}
	if got := strings.Join(found.Differences, "; "); len(found.Differences) != 2 || !strings.Contains(got, "demo@0.1.0: the index says checksum 0000") || !strings.Contains(got, "demo@0.3.0 is in the log") {
		t.Errorf("found %q", got)
	}
}
