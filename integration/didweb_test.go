package integration

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/did"
)

// webUser is a did:web member, whose document the operator took from a file.
type webUser struct {
	*user
	id did.DID
}

func newWebUser(t *testing.T, l *lab, id did.DID) *webUser {
	t.Helper()
	u := &webUser{newUser(t), id}
	must(t, u.aln(u.folder, "key", "new", "--did", string(id)))
	must(t, u.aln(u.folder, "key", "document", "--out", "first.json"))
	must(t, l.operator.aln(u.folder, "member", "add", string(id), "--role", "publisher", "--document", "first.json", "--registry", l.url))
	return u
}

// publishNew publishes a version of a crate by cargo and returns its folder.
func (u *user) publishNew(l *lab, name, version string) string {
	u.t.Helper()
	folder := u.crate(name, version, "", "pub fn it() {}\n")
	u.login(l, folder)
	must(u.t, u.cargo(folder, "publish", "--registry", "aln", "--no-verify"))
	return folder
}

// rotate changes the user's key at the lab's registry, and returns the key file of the old one.
func (u *webUser) rotate(document string) (old string) {
	u.t.Helper()
	must(u.t, u.aln(u.folder, "key", "rotate"))
	must(u.t, u.aln(u.folder, "key", "document", "--out", document))
	out := must(u.t, u.aln(u.folder, "did", "update", "--document", document, "--json")).stdout
	var update struct {
		OldKey string `json:"old_key"`
	}
	if err := json.Unmarshal([]byte(out), &update); err != nil || update.OldKey == "" {
		u.t.Fatalf("%v: %s", err, out)
	}
	return update.OldKey
}

// cachedSession is the read session that the user's home holds.
func (u *user) cachedSession() string {
	u.t.Helper()
	files, err := filepath.Glob(filepath.Join(u.home, "sessions", "*.json"))
	if err != nil || len(files) != 1 {
		u.t.Fatalf("%q, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		u.t.Fatal(err)
	}
	var cached struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(raw, &cached); err != nil || cached.Token == "" {
		u.t.Fatalf("%v in %s", err, files[0])
	}
	return cached.Token
}

func (l *lab) verified(name string) {
	l.t.Helper()
	must(l.t, l.operator.aln(l.operator.folder, "verify", name))
}

func TestADidWebPublisherChangesKeys(t *testing.T) {
	l := newLab(t)
	anna := newWebUser(t, l, "did:web:anna.example:people:anna")
	folder := anna.publishNew(l, "annas", "0.1.0")
	l.verified("annas@0.1.0")
	before := anna.cachedSession()
	if status, _, body := l.get("/v1/members", before); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}

	old := anna.rotate("second.json")
	if status, _, _ := l.get("/v1/members", before); status != http.StatusUnauthorized {
		t.Errorf("a session of the old key: %d", status)
	}
	thief := newUser(t) // who has a copy of the old key
	thief.extra = []string{"ALN_KEY_FILE=" + old}
	stolen := thief.crate("annas", "6.6.6", "", "")
	must(t, thief.aln(stolen, "login", l.url))
	mustFail(t, thief.cargo(stolen, "publish", "--registry", "aln", "--no-verify"), "knows no such key")
	mustFail(t, thief.cargo(stolen, "owner", "--registry", "aln", "--add", l.operator.did(), "annas"), "knows no such key")
	anna.publishNew(l, "annas", "0.2.0")
	must(t, anna.cargo(folder, "owner", "--registry", "aln", "--add", l.operator.did(), "annas"))
	l.verified("annas@0.1.0")
	l.verified("annas@0.2.0")

	// The next key is stolen too; what was published by it before stays.
	since := l.size()
	anna.publishNew(l, "annas", "0.3.0") // who can tell who that was?
	must(t, anna.aln(anna.folder, "key", "rotate"))
	must(t, anna.aln(anna.folder, "key", "document", "--out", "third.json"))
	l.verified("annas@0.3.0")
	must(t, l.operator.aln(anna.folder, "did", "update", "--member", string(anna.id), "--document", "third.json", "--compromised-since", strconv.FormatInt(since, 10)))
	mustFail(t, l.operator.aln(l.operator.folder, "verify", "annas@0.3.0"), "compromised from entry "+strconv.FormatInt(since, 10))
	l.verified("annas@0.1.0")
	l.verified("annas@0.2.0")
	mustFail(t, anna.aln(anna.folder, "member", "list"), "knows no such key")
	must(t, anna.aln(anna.folder, "did", "update", "--document", "third.json")) // puts the new key into use
	anna.publishNew(l, "annas", "0.4.0")
	l.verified("annas@0.4.0")

	must(t, l.operator.aln(anna.folder, "member", "remove", string(anna.id)))
	mustFail(t, anna.cargo(folder, "owner", "--registry", "aln", "--list", "annas"), "is not a member")
	l.verified("annas@0.4.0")
	must(t, l.operator.aln(l.operator.folder, "log", "check", "--full"))
}

// size is how many entries the lab's log has.
func (l *lab) size() int64 {
	l.t.Helper()
	_, _, note := l.get("/log/checkpoint", "")
	n, err := strconv.ParseInt(strings.Split(string(note), "\n")[1], 10, 64)
	if err != nil {
		l.t.Fatalf("%v: %s", err, note)
	}
	return n
}

func TestARegistryThatIsADidWeb(t *testing.T) {
	const id = did.DID("did:web:registry.example%3A8443:labs:one")
	l := newLab(t, "--did", string(id))
	status, _, raw := l.get("/labs/one/did.json", "")
	if document, err := did.ParseDocument(raw); status != http.StatusOK || err != nil || document.ID() != id {
		t.Fatalf("%d %s, %v", status, raw, err)
	}
	operator, bert := l.operator, newUser(t)
	folder := operator.publishNew(l, "theirs", "0.1.0")
	must(t, bert.aln(folder, "key", "new"))
	must(t, operator.aln(folder, "member", "add", bert.did(), "--role", "publisher"))
	must(t, operator.cargo(folder, "owner", "--registry", "aln", "--add", bert.did(), "theirs")) // the registry signs that
	bert.publishNew(l, "theirs", "0.2.0")
	l.verified("theirs@0.2.0")

	// Another document, with another key beside its own; one without its own is refused.
	spare := newUser(t)
	must(t, spare.aln(spare.folder, "key", "new", "--did", string(id)))
	must(t, spare.aln(spare.folder, "key", "document", "--out", "alone.json"))
	mustFail(t, operator.aln(spare.folder, "settings", "set", "--document", "alone.json"), "must hold the key that this registry signs with")
	both := withMethodsOf(t, raw, filepath.Join(spare.folder, "alone.json"))
	if err := os.WriteFile(filepath.Join(spare.folder, "both.json"), both, 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, operator.aln(spare.folder, "settings", "set", "--document", "both.json"))
	if _, _, now := l.get("/labs/one/did.json", ""); string(now) != string(both) {
		t.Errorf("published is %s", now)
	}
	must(t, operator.cargo(folder, "owner", "--registry", "aln", "--remove", bert.did(), "theirs")) // signed under the new document
	must(t, operator.aln(folder, "settings", "set", "--min-age-days", "0", "--release-k", "3"))     // which stays in force
	l.stop()
	l.start()
	must(t, operator.cargo(folder, "owner", "--registry", "aln", "--add", bert.did(), "theirs"))
	bert.publishNew(l, "theirs", "0.3.0")
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0"} {
		l.verified("theirs@" + version)
	}

	// The other key takes over; then the document lets the first one go.
	keys := filepath.Join(l.data, "keys", "registry.jwk")
	first, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	l.stop()
	swapKey(t, keys, string(id), filepath.Join(spare.home, "keys", "default.jwk"))
	l.start()
	must(t, operator.aln(spare.folder, "settings", "set", "--document", "alone.json"))
	must(t, operator.cargo(folder, "owner", "--registry", "aln", "--remove", bert.did(), "theirs"))
	for _, version := range []string{"0.1.0", "0.3.0"} {
		l.verified("theirs@" + version)
	}
	l.stop()
	second, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	writeKeys(t, keys, first)
	if err := l.tryStart(); err == nil || !strings.Contains(l.log(), "it must hold the key that this registry signs with") {
		t.Errorf("it runs with the key that it let go: %v\n%s", err, l.log())
	}
	l.cmd = nil // it has ended
	writeKeys(t, keys, second)
	l.start()
	carl := newUser(t)
	carl.login(l, folder) // who meets it only now
	must(t, operator.aln(folder, "log", "check", "--full"))
}

// swapKey puts the one key in the file next in the place of id's in a key file of several.
func swapKey(t *testing.T, path, id, next string) {
	t.Helper()
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	var key map[string]any
	for file, into := range map[string]any{path: &set, next: &key} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	for i, k := range set.Keys {
		if strings.HasPrefix(k["kid"].(string), id+"#") {
			set.Keys[i] = key
		}
	}
	raw, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	writeKeys(t, path, raw)
}

func writeKeys(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// withMethodsOf is document with the keys of the one in the file beside its own.
func withMethodsOf(t *testing.T, document []byte, file string) []byte {
	t.Helper()
	var one, two map[string]any
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for into, data := range map[*map[string]any][]byte{&one: document, &two: raw} {
		if err := json.Unmarshal(data, into); err != nil {
			t.Fatal(err)
		}
	}
	for _, member := range []string{"verificationMethod", "authentication", "assertionMethod", "capabilityInvocation"} {
		one[member] = slices.Concat(one[member].([]any), two[member].([]any))
	}
	out, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWhatSeveralAdminsEnactedIsProved: a member admitted under settings that
// two of three admins put in force publishes, and verify follows the votes.
func TestWhatSeveralAdminsEnactedIsProved(t *testing.T) {
	l := newLab(t)
	operator, bert, cleo := l.operator, newUser(t), newWebUser(t, l, "did:web:cleo.example")
	must(t, bert.aln(bert.folder, "key", "new"))
	must(t, operator.aln(operator.folder, "member", "add", bert.did(), "--role", "reviewer"))
	for _, u := range []*user{bert, cleo.user} {
		must(t, u.aln(u.folder, "login", l.url))
	}
	must(t, operator.aln(operator.folder, "settings", "set", "--add-admin", bert.did(), "--add-admin", string(cleo.id), "--admin-threshold", "2"))
	propose := func(args ...string) string {
		t.Helper()
		var proposed struct {
			Record  string `json:"record"`
			Enacted bool   `json:"enacted"`
		}
		out := must(t, operator.aln(operator.folder, append([]string{"settings", "set", "--json"}, args...)...)).stdout
		if err := json.Unmarshal([]byte(out), &proposed); err != nil || proposed.Enacted {
			t.Fatalf("%v: %s", err, out)
		}
		return proposed.Record
	}
	rejected := propose("--min-age-days", "9")
	must(t, bert.aln(bert.folder, "approve", rejected, "--reject"))
	enacted := propose("--release-k", "4")
	must(t, cleo.aln(cleo.folder, "approve", enacted))
	dora := newUser(t)
	must(t, dora.aln(dora.folder, "key", "new"))
	must(t, bert.aln(bert.folder, "member", "add", dora.did(), "--role", "publisher"))
	folder := dora.publishNew(l, "doras", "0.1.0")
	out := must(t, dora.aln(folder, "verify", "doras@0.1.0", "--json")).stdout
	if !strings.Contains(out, `"type": "approve"`) || !strings.Contains(out, enacted) || strings.Contains(out, rejected) {
		t.Errorf("it does not rest on the vote: %s", out)
	}
	must(t, dora.aln(folder, "log", "check", "--full"))
}
