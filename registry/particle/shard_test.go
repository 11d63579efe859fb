package particle

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/storage"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

var start = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func cid(text string) *storage.CID {
	id := storage.CIDOf([]byte(text))
	return &id
}

// exampleGrant has every member but allowed_crates_list.
func exampleGrant() EnvGrant {
	return EnvGrant{
		Registry: "did:web:registry.example", Issuer: "did:web:lab.example:people:gina", Subject: "did:web:runner.example%3A8443",
		NotBefore: At(start), Expires: At(start.Add(30 * 24 * time.Hour)), MaxMemMB: 1000, MaxDiskMB: 20000,
		AllowedCrates: []string{cid("a.crate").Hex(), cid("b.crate").String()}, MinAgeDays: 7,
		AllowedProtocols: []string{"https", "git"}, AllowedEndpoints: []string{"lab.example", "lab.example:8443"}, OffshoreFlag: true, Tier: TierCollaborator,
		MemoryPool: cid("a pool"), ExecutionDomain: cid("a domain"), Supersedes: cid("a grant"),
	}
}

// listGrant names a list blob and nothing that it need not.
func listGrant() EnvGrant {
	return EnvGrant{
		Registry: "did:web:registry.example", Issuer: "did:web:lab.example", Subject: "did:web:runner.example",
		NotBefore: At(start), Expires: At(start.Add(time.Second)), AllowedCratesList: cid("a list"),
		AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: TierGuest,
	}
}

func examplePool() MemoryPoolShard {
	return MemoryPoolShard{
		PoolID: "pool-1", OwnerDID: "did:web:lab.example", StakeholderAddrs: []string{"addr:example:1"}, MaxBytes: 2_097_152_000,
		EncryptionScheme: "AES-256-GCM", JurisdictionScope: "EU",
	}
}

func exampleDomain() ExecutionDomain {
	return ExecutionDomain{
		Name: "Offshore.Collab.Safe", CodeOrigins: []string{"hosted", "crates-io"}, Networking: []string{"lab.example:443"}, Syscalls: []string{"read", "write"}, Attestation: "none",
	}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// goldens are the files in testdata, which docs/FORMATS.md §7 names: a change is a
// change of the format.
func goldens(t testing.TB) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"envgrant.json": mustJSON(t, exampleGrant()), "envgrant-list.json": mustJSON(t, listGrant()),
		"memory-pool.json": mustJSON(t, examplePool()), "execution-domain.json": mustJSON(t, exampleDomain()),
		"crates.list": MarshalList([][32]byte{cid("b.crate").Digest(), cid("a.crate").Digest(), cid("b.crate").Digest()}),
	}
}

func TestGoldenParticles(t *testing.T) {
	for name, got := range goldens(t) {
		path := filepath.Join("testdata", name)
		if *update {
			if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, got, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestParticlesAreReadAsTheyAreWritten: also in another order and with white space.
func TestParticlesAreReadAsTheyAreWritten(t *testing.T) {
	for _, want := range []EnvGrant{exampleGrant(), listGrant()} {
		raw, err := want.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		rest, found := strings.CutSuffix(string(raw), `,"tier":"`+want.Tier+`"`+string(raw)[strings.Index(string(raw), `,"memory_pool"`):])
		if !found {
			t.Fatalf("tier is not where it was: %s", raw)
		}
		reordered := `{ "tier" : "` + want.Tier + "\",\n" + rest[1:] + string(raw)[strings.Index(string(raw), `,"memory_pool"`):]
		for _, spelled := range []string{string(raw), reordered} {
			if got, err := ParseEnvGrant([]byte(spelled)); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, %v", spelled, got, err)
			}
		}
	}
	if got, err := ParseMemoryPoolShard(mustJSON(t, examplePool())); err != nil || !reflect.DeepEqual(got, examplePool()) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseExecutionDomain(mustJSON(t, exampleDomain())); err != nil || !reflect.DeepEqual(got, exampleDomain()) {
		t.Errorf("%+v, %v", got, err)
	}
}

type edit struct{ name, old, new string }

func refuseEdits(t *testing.T, raw []byte, parse func([]byte) error, edits []edit) {
	t.Helper()
	if err := parse(raw); err != nil {
		t.Fatalf("what the edits alter: %v", err)
	}
	for _, e := range edits {
		if !strings.Contains(string(raw), e.old) {
			t.Errorf("%s: no %q in %s", e.name, e.old, raw)
			continue
		}
		err := parse([]byte(strings.Replace(string(raw), e.old, e.new, 1)))
		if !errors.Is(err, ErrMalformed) || len(err.Error()) > 1024 {
			t.Errorf("%s: %v", e.name, err)
		}
	}
}

// everyMemberCounts lets out, doubles and nulls each member of the object raw, and
// adds one.
func everyMemberCounts(t *testing.T, raw []byte, parse func([]byte) error, nullable ...string) {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(raw, &members); err != nil {
		t.Fatal(err)
	}
	without := func(name string) string {
		rest := map[string]any{}
		for k, v := range members {
			if k != name {
				rest[k] = v
			}
		}
		return string(mustJSON(t, rest))
	}
	for name := range members {
		some := mustJSON(t, members[name])
		for what, text := range map[string]string{
			"missing": without(name), "null": without(name)[:1] + `"` + name + `":null,` + without(name)[1:],
			"twice":      string(raw[:1]) + `"` + name + `":` + string(some) + `,` + string(raw[1:]),
			"upper case": without(name)[:1] + `"` + strings.ToUpper(name) + `":` + string(some) + `,` + without(name)[1:],
		} {
			err := parse([]byte(text))
			if what == "null" && slices.Contains(nullable, name) {
				if err != nil {
					t.Errorf("%s null: %v", name, err)
				}
			} else if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
	for what, text := range map[string]string{
		"unknown member": `{"extra":1,` + string(raw[1:]), "unknown member without end": `{"` + strings.Repeat("x", 30000) + `":1,` + string(raw[1:]), "data after it": string(raw) + "{}", "empty": "", "null": "null", "an array": "[" + string(raw) + "]",
		"invalid UTF-8": strings.Replace(string(raw), `":"`, "\":\"\xff", 1), "larger than allowed": string(raw) + strings.Repeat(" ", MaxBytes),
		"nested beyond any measure": strings.Repeat("[", MaxBytes),
	} {
		if err := parse([]byte(text)); !errors.Is(err, ErrMalformed) || len(err.Error()) > 1024 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func parseGrant(raw []byte) error { _, err := ParseEnvGrant(raw); return err }
func parsePool(raw []byte) error  { _, err := ParseMemoryPoolShard(raw); return err }
func parseDomain(raw []byte) error {
	_, err := ParseExecutionDomain(raw)
	return err
}

func TestParseEnvGrantRefuses(t *testing.T) {
	raw := mustJSON(t, exampleGrant())
	everyMemberCounts(t, raw, parseGrant, "memory_pool", "execution_domain", "supersedes")
	hash := cid("a.crate").Hex()
	refuseEdits(t, raw, parseGrant, []edit{
		{"registry no DID", `"did:web:registry.example"`, `"https://registry.example"`},
		{"issuer a DID URL", `:gina"`, `:gina#key-1"`},
		{"subject of another spelling", `did:web:runner.example%3A8443`, `did:web:Runner.example%3A8443`},
		{"not_before with a fraction", `"not_before":"2026-07-01T12:00:00Z"`, `"not_before":"2026-07-01T12:00:00.0Z"`},
		{"not_before with an offset", `"not_before":"2026-07-01T12:00:00Z"`, `"not_before":"2026-07-01T12:00:00+00:00"`},
		{"not_before a number", `"not_before":"2026-07-01T12:00:00Z"`, `"not_before":0`},
		{"not_before escaped", `"not_before":"2026-07`, `"not_before":"2026\u002d07`},
		{"no such day", `"not_before":"2026-07-01T`, `"not_before":"2026-06-31T`},
		{"expires when it begins", `"expires":"2026-07-31T12:00:00Z"`, `"expires":"2026-07-01T12:00:00Z"`},
		{"expires before it begins", `"expires":"2026-07-31T12:00:00Z"`, `"expires":"2026-06-30T12:00:00Z"`},
		{"memory below zero", `"max_mem_mb":1000`, `"max_mem_mb":-1`},
		{"memory minus zero", `"max_mem_mb":1000`, `"max_mem_mb":-0`},
		{"memory above the tier's", `"max_mem_mb":1000`, `"max_mem_mb":1001`},
		{"memory a fraction", `"max_mem_mb":1000`, `"max_mem_mb":1.0`},
		{"memory with an exponent", `"max_mem_mb":1000`, `"max_mem_mb":1e2`},
		{"memory beyond 64 bits", `"max_mem_mb":1000`, `"max_mem_mb":18446744073709551617`},
		{"memory a string", `"max_mem_mb":1000`, `"max_mem_mb":"1000"`},
		{"disk below zero", `"max_disk_mb":20000`, `"max_disk_mb":-1`},
		{"disk of 2^53", `"max_disk_mb":20000`, `"max_disk_mb":9007199254740992`},
		{"age below zero", `"min_age_days":7`, `"min_age_days":-7`},
		{"age of ages", `"min_age_days":7`, `"min_age_days":1048577`},
		{"unknown tier", `"tier":"collaborator"`, `"tier":"Collaborator"`},
		{"offshore_flag a string", `"offshore_flag":true`, `"offshore_flag":"true"`},
		{"offshore_flag a number", `"offshore_flag":true`, `"offshore_flag":1`},
		{"both lists", `"min_age_days"`, `"allowed_crates_list":"` + cid("a list").String() + `","min_age_days"`},
		{"crate twice", hash + `"`, hash + `","` + hash + `"`},
		{"crate twice in two spellings", cid("b.crate").String(), cid("a.crate").String()},
		{"crate in upper case", hash, strings.ToUpper(hash)},
		{"crate cut short", hash, hash[1:]},
		{"crate empty", hash, ""},
		{"all crates and one", hash, AllCrates},
		{"crate null", `"` + hash + `"`, `null`},
		{"protocol empty", `"https"`, `""`},
		{"protocol twice", `"git"`, `"https"`},
		{"protocol with a space", `"git"`, `"g it"`},
		{"endpoint with a line break", `"lab.example"`, `"lab\nexample"`},
		{"endpoint beyond ASCII", `"lab.example"`, `"lab.exämple"`},
		{"endpoint too long", `"lab.example"`, `"` + strings.Repeat("e", maxText+1) + `"`},
		{"too many endpoints", `["lab.example",`, `[` + manyTexts(maxList) + `,`},
		{"pool empty", cid("a pool").String(), ""},
		{"domain as hex", cid("a domain").String(), cid("a domain").Hex()},
		{"supersedes in upper case", cid("a grant").String(), strings.ToUpper(cid("a grant").String())},
	})
	list := mustJSON(t, listGrant())
	everyMemberCounts(t, list, parseGrant, "memory_pool", "execution_domain", "supersedes")
	refuseEdits(t, list, parseGrant, []edit{
		{"list empty", cid("a list").String(), ""},
		{"both lists, one of nothing", `"min_age_days"`, `"allowed_crates":[],"min_age_days"`},
	})
}

func manyTexts(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"e%d"`, i)
	}
	return strings.Join(list, ",")
}

func TestTiersBoundMemory(t *testing.T) {
	for tier, most := range map[string]int64{TierCoreStakeholder: 2_097_152_000 >> 20, TierCollaborator: 1_048_576_000 >> 20, TierGuest: 256} {
		if TierMemoryMB(tier) != most {
			t.Errorf("%s: %d, want %d", tier, TierMemoryMB(tier), most)
		}
		g := exampleGrant()
		g.Tier, g.MaxMemMB = tier, most
		if err := g.Check(); err != nil {
			t.Error(err)
		}
		g.MaxMemMB++
		if _, err := g.Marshal(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", tier, err)
		}
	}
	if TierMemoryMB("root") != 0 {
		t.Error("an unknown tier has memory")
	}
}

func TestWhatAGrantLists(t *testing.T) {
	g := exampleGrant()
	hashes, all, err := g.Hashes()
	if err != nil || all || !slices.Equal(hashes, [][32]byte{cid("a.crate").Digest(), cid("b.crate").Digest()}) {
		t.Errorf("%x, %v, %v", hashes, all, err)
	}
	g.AllowedCrates = []string{AllCrates}
	if hashes, all, err := g.Hashes(); err != nil || !all || hashes != nil {
		t.Errorf("%x, %v, %v", hashes, all, err)
	}
	g.AllowedCrates = []string{} // nothing, and said so
	raw, err := g.Marshal()
	if hashes, all, hashErr := g.Hashes(); err != nil || hashErr != nil || all || len(hashes) != 0 || !strings.Contains(string(raw), `"allowed_crates":[]`) {
		t.Errorf("%s, %v, %v", raw, err, hashErr)
	}
	for i := range MaxInlineCrates {
		g.AllowedCrates = append(g.AllowedCrates, cid(fmt.Sprint(i)).Hex())
	}
	if raw, err = g.Marshal(); err != nil || len(raw) > MaxBytes {
		t.Errorf("%d crates take %d bytes, %v", MaxInlineCrates, len(raw), err)
	}
	if _, err := ParseEnvGrant(raw); err != nil {
		t.Error(err)
	}
}

func TestParseMemoryPoolShardRefuses(t *testing.T) {
	raw := mustJSON(t, examplePool())
	everyMemberCounts(t, raw, parsePool)
	refuseEdits(t, raw, parsePool, []edit{
		{"no id", `"pool-1"`, `""`},
		{"id with a space", `"pool-1"`, `"pool 1"`},
		{"owner no DID", `did:web:lab.example`, `lab.example`},
		{"address twice", `"addr:example:1"`, `"addr:example:1","addr:example:1"`},
		{"bytes below zero", `"max_bytes":2097152000`, `"max_bytes":-1`},
		{"bytes of 2^53", `"max_bytes":2097152000`, `"max_bytes":9007199254740992`},
		{"terminal escape", `"EU"`, `"\u001b[2J"`},
	})
}

func TestParseExecutionDomainRefuses(t *testing.T) {
	raw := mustJSON(t, exampleDomain())
	everyMemberCounts(t, raw, parseDomain)
	refuseEdits(t, raw, parseDomain, []edit{
		{"no name", `"Offshore.Collab.Safe"`, `""`},
		{"syscall twice", `"read","write"`, `"read","read"`},
		{"origin with a tab", `"hosted"`, `"hos\tted"`},
		{"no attestation", `"none"`, `""`},
	})
}

func TestListsOfCrates(t *testing.T) {
	a, b := cid("a.crate").Hex()+"\n", cid("b.crate").Hex()+"\n"
	if b < a {
		a, b = b, a
	}
	for _, good := range []string{"", a, a + b} {
		hashes, err := ParseList([]byte(good))
		if err != nil || len(hashes) != len(good)/65 || string(MarshalList(hashes)) != good {
			t.Errorf("%q: %x, %v", good, hashes, err)
		}
	}
	for name, bad := range map[string]string{
		"not sorted": b + a, "twice": a + a, "no line end": a + b[:64], "carriage return": a[:64] + "\r\n", "empty line": "\n", "upper case": strings.ToUpper(a),
		"a comment": "#" + a[1:], "a space": " " + a[1:], "two files": a + strings.Repeat("\n", 65), "a CID": cid("a.crate").String() + "\n", "beyond ASCII": a[:62] + "é\n",
		"too many": strings.Repeat("\x00", 65*(MaxListed+1)),
	} {
		if hashes, err := ParseList([]byte(bad)); !errors.Is(err, ErrMalformed) || hashes != nil || len(err.Error()) > 256 {
			t.Errorf("%s: %d hashes, %v", name, len(hashes), err)
		}
	}
}

func TestParseHashReadsTwoSpellings(t *testing.T) {
	want := cid("x").Digest()
	for _, text := range []string{hex.EncodeToString(want[:]), cid("x").String()} {
		if got, err := ParseHash(text); err != nil || got != want {
			t.Errorf("%s: %x, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "*", strings.Repeat("g", 64), strings.ToUpper(cid("x").Hex()), "sha256:" + cid("x").Hex(), cid("x").Hex() + "0", strings.ToUpper(cid("x").String()), "z" + cid("x").String()[1:]} {
		if _, err := ParseHash(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestChecksNameTheSameBreachEveryTime: what Apply refuses, it refuses in the same words.
func TestChecksNameTheSameBreachEveryTime(t *testing.T) {
	grant := exampleGrant()
	grant.Registry, grant.Issuer, grant.Subject = "x", "y", "z"
	match := RuleMatch{Names: []string{""}, Hashes: []string{""}, Sources: []string{""}, Content: []string{""}}
	pool, domain := examplePool(), exampleDomain()
	pool.PoolID, pool.EncryptionScheme = "", ""
	domain.Name, domain.Attestation = "", ""
	for _, check := range []func() error{
		grant.Check, match.check,
		func() error { return parsePool(mustJSON(t, pool)) }, func() error { return parseDomain(mustJSON(t, domain)) },
	} {
		first := check()
		for range 50 {
			if again := check(); first == nil || again == nil || again.Error() != first.Error() {
				t.Fatalf("%v, then %v", first, again)
			}
		}
	}
}

func exampleRule(edits ...func(*QuarantineRule)) QuarantineRule {
	r := QuarantineRule{Effect: EffectDeny, Mode: ModeEnforce, Reason: "seen", Match: []RuleMatch{exampleMatch()}}
	for _, edit := range edits {
		edit(&r)
	}
	return r
}

func exampleMatch() RuleMatch {
	return RuleMatch{
		Names: []string{"left-pad", "Left_*"}, Versions: ">=1", Hashes: []string{cid("x").Hex()}, Publishers: []did.DID{"did:web:lab.example"},
		Sources: []string{SourceHosted, SourceCratesIO, "mirror/lab-2", "upstream/lab-3", UpstreamSource("lab-4")}, Content: []string{ContentBLAKE3},
	}
}

func TestRules(t *testing.T) {
	at := func(d time.Duration) *Time { v := At(start.Add(d)); return &v }
	match := func(edit func(*RuleMatch)) func(*QuarantineRule) {
		return func(r *QuarantineRule) { edit(&r.Match[0]) }
	}
	for name, edit := range map[string]func(*QuarantineRule){
		"as it is": func(*QuarantineRule) {}, "a dry run": func(r *QuarantineRule) { r.Mode = ModeDryRun }, "a waiver": func(r *QuarantineRule) { r.Effect = EffectWaiveMinAge },
		"an end": func(r *QuarantineRule) { r.Expires = at(2) }, "a grace": func(r *QuarantineRule) { r.Grace = at(0) },
		"a grace before its end": func(r *QuarantineRule) { r.Grace, r.Expires = at(0), at(time.Second) }, "all names": match(func(m *RuleMatch) { *m = RuleMatch{Names: []string{"*"}} }),
	} {
		if err := exampleRule(edit).Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, edit := range map[string]func(*QuarantineRule){
		"no effect": func(r *QuarantineRule) { r.Effect = "" }, "another mode": func(r *QuarantineRule) { r.Mode = "Enforce" },
		"nothing to match": func(r *QuarantineRule) { r.Match = nil }, "too much to match": func(r *QuarantineRule) { r.Match = slices.Repeat(r.Match, maxMatches+1) },
		"a match of nothing": match(func(m *RuleMatch) { *m = RuleMatch{} }),
		"no reason":          func(r *QuarantineRule) { r.Reason = "" }, "a long reason": func(r *QuarantineRule) { r.Reason = strings.Repeat("x", maxReason+1) },
		"a reason of two lines": func(r *QuarantineRule) { r.Reason = "a\nb" }, "a terminal escape": func(r *QuarantineRule) { r.Reason = "\x9b2J\u009b" },
		"a waiver with a grace": func(r *QuarantineRule) { r.Effect, r.Grace = EffectWaiveMinAge, at(0) },
		"a grace to its end":    func(r *QuarantineRule) { r.Grace, r.Expires = at(0), at(0) },
		"a name with a slash":   match(func(m *RuleMatch) { m.Names[0] = "a/b" }), "a name with ?": match(func(m *RuleMatch) { m.Names[0] = "a?" }),
		"a long name": match(func(m *RuleMatch) { m.Names[0] = strings.Repeat("a", 65) }), "a name twice": match(func(m *RuleMatch) { m.Names[1] = m.Names[0] }),
		"no hash": match(func(m *RuleMatch) { m.Hashes[0] = "beef" }), "no DID": match(func(m *RuleMatch) { m.Publishers[0] = "ann" }),
		"no source": match(func(m *RuleMatch) { m.Sources[0] = "mirror/" }), "crates.io by another name": match(func(m *RuleMatch) { m.Sources = []string{"upstream/" + UpstreamSource("crates-io")} }),
		"no upstream": match(func(m *RuleMatch) { m.Sources[0] = "upstream/" }), "an upstream's crate": match(func(m *RuleMatch) { m.Sources[0] = "upstream/lab/x" }), "a mirror in upper case": match(func(m *RuleMatch) { m.Sources[0] = "mirror/Lab" }),
		"no recogniser": match(func(m *RuleMatch) { m.Content[0] = "BLAKE3" }), "versions of two lines": match(func(m *RuleMatch) { m.Versions = ">=1,\n<2" }),
		"long versions": match(func(m *RuleMatch) { m.Versions = strings.Repeat(" ", 257) }),
	} {
		if err := exampleRule(edit).Check(); !errors.Is(err, ErrMalformed) || len(err.Error()) > 1024 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for id, good := range map[string]bool{"blake3": true, "0": true, "a.b_c-d": true, strings.Repeat("a", 64): true, "": false, "A": false, "-a": false, ".a": false, "a/b": false, "a b": false, strings.Repeat("a", 65): false} {
		if err := CheckRuleID(id); (err == nil) != good || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestShippedRules(t *testing.T) {
	rules := ShippedRules()
	if !slices.IsSortedFunc(rules, func(a, b ShippedRule) int { return strings.Compare(a.ID, b.ID) }) || len(rules) == 0 {
		t.Errorf("%+v", rules)
	}
	for _, r := range rules {
		if err := errors.Join(CheckRuleID(r.ID), r.Check()); err != nil {
			t.Errorf("%s: %v", r.ID, err)
		}
		if got, ok := Shipped(r.ID); !ok || !reflect.DeepEqual(got, r.QuarantineRule) {
			t.Errorf("%s: %+v", r.ID, got)
		}
	}
	if _, ok := Shipped("left-pad"); ok {
		t.Error("a rule is shipped that is not")
	}
	rules[0].Match[0].Names[0] = "changed"
	if got, _ := Shipped(rules[0].ID); got.Match[0].Names[0] == "changed" {
		t.Error("who was given the rules can change them for all")
	}
}
