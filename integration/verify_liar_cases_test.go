package integration

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// lies are logs that no honest registry has. Each returns what is verified, the
// check that has to fail and why; and what log check --full must say of which entry.
var lies = map[string]func(l *liar) lie{
	"a stranger publishes a new name, with a valid signature": func(l *liar) lie {
		l.publish(newKey(l.t), "demo-one", "0.1.0", nil, l.member)
		return lie{"demo-one@0.1.0", "authority", "a new name needs the signer's own member record", 2, "not entitled: "}
	},
	"a stranger publishes a version of somebody's crate": func(l *liar) lie {
		first := l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
		l.publish(newKey(l.t), "demo-one", "0.2.0", first, first)
		return lie{"demo-one@0.2.0", "authority", "did not make", 3, "not entitled: "}
	},
	"a stranger admits himself": func(l *liar) lie {
		stranger := newKey(l.t)
		self := l.log(stranger, record.MemberSubject(didOf(stranger)), &record.Member{
			Roles: []string{"publisher"}, Tier: "collaborator", StakeholderAddrs: []string{},
		}, nil, l.genesis)
		l.publish(stranger, "demo-one", "0.1.0", nil, self)
		return lie{"demo-one@0.1.0", "authority", "is not an admin", 2, "not entitled: "}
	},
	"a removed owner publishes": func(l *liar) lie {
		friend := newKey(l.t)
		l.admit(friend, nil, "publisher")
		first := l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
		added := l.own(l.admin, "demo-one", []did.DID{didOf(friend)}, nil, first, first)
		removed := l.own(l.admin, "demo-one", nil, []did.DID{didOf(friend)}, added, first)
		l.publish(friend, "demo-one", "0.2.0", removed, added)
		return lie{"demo-one@0.2.0", "history", "is no owner any more: removed by entry 5", 6, "not entitled: "}
	},
	"a removed member publishes what they own": func(l *liar) lie {
		friend := newKey(l.t)
		admitted := l.admit(friend, nil, "publisher")
		first := l.publish(friend, "demo-one", "0.1.0", nil, admitted)
		l.admit(friend, admitted)
		l.publish(friend, "demo-one", "0.2.0", first, first)
		return lie{"demo-one@0.2.0", "authority", "had been removed from the members", 5, "not entitled: "}
	},
	"a replayed yank": func(l *liar) lie {
		first := l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
		yanked := l.yank(l.admin, "demo-one", "0.1.0", true, first, first)
		l.yank(l.admin, "demo-one", "0.1.0", false, yanked, first)
		l.enter(yanked)
		return lie{"demo-one@0.1.0", "history", "repeats the record of entry 3", 5, "signed for an earlier state: "}
	},
	"a yank signed for an earlier state": func(l *liar) lie {
		first := l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
		l.publish(l.admin, "demo-one", "0.2.0", first, first)
		l.yank(l.admin, "demo-one", "0.1.0", true, first, first)
		return lie{"demo-one@0.1.0", "history", "signed for an earlier state", 4, "signed for an earlier state: "}
	},
	"another crate's publish entitles the signer": func(l *liar) lie {
		friend := newKey(l.t)
		admitted := l.admit(friend, nil, "publisher")
		theirs := l.publish(friend, "theirs", "0.1.0", nil, admitted)
		first := l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
		l.publish(friend, "demo-one", "0.2.0", first, theirs)
		return lie{"demo-one@0.2.0", "authority", "which entitles nobody to crate/demo_one", 5, "not entitled: "}
	},
	"a record signed for another registry": func(l *liar) lie {
		other := newLiar(l.t)
		other.admin = l.admin
		other.begin()
		first := other.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
		l.offer("demo-one@0.1.0", other.blobs["demo-one@0.1.0"])
		l.enter(first)
		return lie{"demo-one@0.1.0", "authority", "signed for the registry", 2, "record refused: signed for the registry "}
	},
	"a second publish of one version": func(l *liar) lie {
		first := l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
		l.log(l.admin, l.subject("demo-one", "0.1.0"), &record.Publish{Evidence: []storage.CID{}}, first, first, []byte("other bytes"))
		return lie{"demo-one@0.1.0", "history", "had been published before", 3, "already taken: "}
	},
	"other bytes than those signed": func(l *liar) lie {
		l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
		l.offer("demo-one@0.1.0", []byte("quite other bytes"))
		return lie{"demo-one@0.1.0", "bytes", "what was published has", -1, ""}
	},
}

type lie struct {
	version, check, reason string
	// entry is the one that breaks the rules, -1 for none.
	entry int
	full  string
}

func TestVerifyAgainstALyingRegistry(t *testing.T) {
	for name, tell := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLiar(t)
			u, app := l.reader()
			told := tell(l)
			wantFailedCheck(t, u.aln(app, "verify", told.version), told.check, told.reason)

			crateName, version, _ := strings.Cut(told.version, "@")
			lock := fmt.Sprintf("version = 4\n\n[[package]]\nname = %q\nversion = %q\nsource = \"sparse+%s/index/\"\nchecksum = \"%x\"\n",
				crateName, version, l.server.URL, sha256.Sum256(l.blobs[told.version]))
			writeFiles(t, app, map[string]string{"Cargo.lock": lock, crateName + "-" + version + ".crate": string(l.blobs[told.version])})
			mustFail(t, u.aln(app, "verify", "Cargo.lock"), told.check+": ", told.reason, "0 verified, 1 failed")
			wantFailedCheck(t, u.aln(app, "verify", filepath.Join(app, crateName+"-"+version+".crate")), told.check, told.reason)

			full := u.aln(app, "log", "check", "--full")
			if told.entry < 0 {
				return // bytes are no matter of the log
			}
			if want := fmt.Sprintf("FAIL  entry %d: %s", told.entry, told.full); full.status != 1 || !strings.Contains(full.stdout, want) {
				t.Errorf("log check --full must say %q:\n%s", want, full)
			}
		})
	}
}

// An answer of another crate's records, however true, proves nothing of this one.
func TestVerifyOfAnotherCratesRecord(t *testing.T) {
	l := newLiar(t)
	u, app := l.reader()
	l.publish(l.admin, "other-one", "0.1.0", nil, l.member)
	l.offer("demo-one@0.1.0", l.blobs["other-one@0.1.0"])
	wantFailedCheck(t, u.aln(app, "verify", "demo-one@0.1.0"), "record", "the evidence has one about crate/other-one@0.1.0")
	must(t, u.aln(app, "verify", "other-one@0.1.0"))
}

// Another registry at a pinned URL is not taken for the one that was met.
func TestAnotherRegistryAtThePinnedURL(t *testing.T) {
	l := newLiar(t)
	u, app := l.reader()
	l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
	l.origin = newKey(t)
	l.rewind(0)
	l.begin()
	l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
	for _, args := range [][]string{{"verify", "demo-one@0.1.0"}, {"log", "check"}, {"log", "check", "--full"}} {
		wantFailedCheck(t, u.aln(app, args...), "entry-0", "this is another log than the one you logged in to")
	}
	mustFail(t, u.aln(app, "login", l.server.URL), "this is not the registry that was met before")
}
