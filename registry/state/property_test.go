package state

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// strangers are never admitted, whatever a random log says.
var strangers = []actor{mallory, webActor("did:web:stranger.example", 50, bothUses...)}

// TestRandomLogs applies random records, right and wrong, by members and
// strangers. Of every one: Apply answers without a panic, the same twice, and a
// refusal changes nothing (world.apply). And of the whole: strangers change
// nothing, every artifact keeps an owner, no version's bytes change, no applied
// record applies again, and the log alone gives the same state.
func TestRandomLogs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		for _, s := range strangers {
			if s.doc != nil {
				w.attach(s.doc)
			}
		}
		w.attach(wanda2.doc)
		bytesOf := map[string]storage.CID{}
		for range rapid.IntRange(1, 16).Draw(rt, "steps") {
			w.randomStep(rt)
			w.checkInvariants(rt, bytesOf)
		}
		replay := w.log[rapid.IntRange(1, len(w.log)-1).Draw(rt, "replayed")]
		entry := replay.entry
		entry.Index, entry.Time = w.next, w.now
		if w.apply(entry, replay.record, w.attachments) == nil {
			rt.Fatalf("entry %d applied twice", replay.entry.Index)
		}
		w.checkReplay()
	})
}

func (w *world) randomStep(rt *rapid.T) {
	who := rapid.SampledFrom(append([]actor{registry, alice, pat, olga, bob, wanda, wanda2}, strangers...)).Draw(rt, "who")
	text, body := w.randomBody(rt)
	var edits []func(*attempt)
	switch rapid.IntRange(0, 11).Draw(rt, "wrong") {
	case 0:
		edits = append(edits, prev(otherID))
	case 1:
		edits = append(edits, by(w.anyID(rt)))
	case 2:
		edits = append(edits, key(w.anyID(rt)))
	case 3:
		edits = append(edits, signedBy(mallory.key))
	case 4:
		edits = append(edits, detached)
	case 5:
		edits = append(edits, document(storage.CIDOf(wanda.doc)))
	}
	if w.try(who, text, body, edits...) == nil {
		for _, s := range strangers {
			if who.id() == s.id() {
				rt.Fatalf("a stranger's record was applied: %s", w.last.Envelope())
			}
		}
	}
}

// anyID draws an identity of a record of the log.
func (w *world) anyID(rt *rapid.T) record.ID {
	return rapid.SampledFrom(w.log).Draw(rt, "cited").record.ID()
}

func (w *world) randomBody(rt *rapid.T) (string, record.Body) {
	insider := rapid.SampledFrom([]actor{alice, pat, olga, bob, wanda})
	name := rapid.SampledFrom([]string{"crate/demo-one", "crate/Demo_One", "crate/b", "manifest/b"}).Draw(rt, "name")
	version := name + "@" + rapid.SampledFrom([]string{"1.0.0", "1.0.0+b", "2.0.0"}).Draw(rt, "version")
	switch rapid.IntRange(0, 8).Draw(rt, "type") {
	case 0, 1:
		body := &record.Publish{}
		if strings.HasPrefix(name, "manifest/") {
			body.MediaType = "text/plain"
		}
		return version, body
	case 2:
		return version, &record.Yank{Yanked: rapid.Bool().Draw(rt, "yanked")}
	case 3, 4:
		add, remove := insider.Draw(rt, "add"), insider.Draw(rt, "remove")
		body := own(dids(add), []did.DID{})
		if add.id() != remove.id() {
			body.Remove = dids(remove)
		}
		if rapid.Bool().Draw(rt, "intent") {
			body.Intent = w.intent(insider.Draw(rt, "intending"), name)
		}
		return name, body
	case 5:
		a := insider.Draw(rt, "member")
		return member(a), w.rolesOf(a, rapid.SliceOfDistinct(rapid.SampledFrom([]string{RolePublisher, RoleAuditor}), rapid.ID[string]).Draw(rt, "roles")...)
	case 6:
		body := change(w, rapid.SampledFrom([]actor{wanda, wanda2}).Draw(rt, "document").doc)
		if rapid.Bool().Draw(rt, "stolen") {
			since := rapid.Int64Range(0, w.next+1).Draw(rt, "since")
			body.CompromisedSince = &since
		}
		return member(wanda), body
	case 7:
		list := rapid.SliceOfNDistinct(insider, 1, 3, actor.id).Draw(rt, "admins")
		return "registry", settings(admins(rapid.IntRange(1, len(list)).Draw(rt, "threshold"), list...))
	}
	body := approve(w.anyID(rt))
	if rapid.IntRange(0, 3).Draw(rt, "reject") == 0 {
		body = reject(body.Record)
	}
	return "registry", body
}

func (w *world) checkInvariants(rt *rapid.T, bytesOf map[string]storage.CID) {
	set := w.settings()
	for _, admin := range set.Admins {
		if !w.member(admin).Active() {
			rt.Fatalf("the admin %s is not a member", admin)
		}
	}
	for k, value := range w.store {
		switch {
		case strings.HasPrefix(k, "artifact/"):
			a, err := DecodeArtifact(value)
			if err != nil || len(a.Owners) == 0 {
				rt.Fatalf("%s: %+v, %v", k, a, err)
			}
		case strings.HasPrefix(k, "version/"):
			v, err := DecodeVersion(value)
			if err != nil {
				rt.Fatal(err)
			}
			if was, ok := bytesOf[k]; ok && was != v.CID {
				rt.Fatalf("%s was %s and is %s", k, was, v.CID)
			}
			bytesOf[k] = v.CID
		case strings.HasPrefix(k, MemberPrefix()):
			if m, err := DecodeMember(value); err != nil || k != MemberPrefix()+m.DID.String() {
				rt.Fatalf("%s: %+v, %v", k, m, err)
			}
		}
	}
}

func TestKeysOfStateAreApart(t *testing.T) {
	for _, k := range []record.Kind{record.KindCrate, record.KindALNShard} {
		if got, want := ArtifactPrefix(k), fmt.Sprintf("artifact/%s/", k); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if got, want := VersionPrefix(k, "A-b"), fmt.Sprintf("version/%s/a_b/", k); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
