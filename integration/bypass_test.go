package integration

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// blake3Source is enough of an implementation: domain flags and the permutation
// of the message words, with the initial values that SHA-256 has too.
const blake3Source = `
const CHUNK_START: u32 = 1 << 0;
const CHUNK_END: u32 = 1 << 1;
const PARENT: u32 = 1 << 2;
const ROOT: u32 = 1 << 3;
const KEYED_HASH: u32 = 1 << 4;
const DERIVE_KEY_CONTEXT: u32 = 1 << 5;
const DERIVE_KEY_MATERIAL: u32 = 1 << 6;
const IV: [u32; 8] = [
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
];
const MSG_PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
pub fn permute(m: &mut [u32; 16]) {
    let mut permuted = [0; 16];
    for i in 0..16 { permuted[i] = m[MSG_PERMUTATION[i]]; }
    *m = permuted;
}
pub fn flags(first: bool, last: bool) -> u32 {
    let mut f = 0;
    if first { f |= CHUNK_START; }
    if last { f |= CHUNK_END | ROOT; }
    f
}
pub fn unused() -> u32 { PARENT | KEYED_HASH | DERIVE_KEY_CONTEXT | DERIVE_KEY_MATERIAL | IV[0] }
pub fn v() -> &'static str { env!("CARGO_PKG_VERSION") }
`

// sha2Source has the same initial values, and blake2Source rounds of permutations.
const (
	sha2Source = `
pub const IV: [u32; 8] = [
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
];
pub const K: [u32; 4] = [0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5];
pub fn v() -> &'static str { env!("CARGO_PKG_VERSION") }
`
	blake2Source = `
pub const SIGMA: [[usize; 16]; 2] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
];
pub fn v() -> &'static str { env!("CARGO_PKG_VERSION") }
`
)

// quarantined is what the shipped rule must catch: by name, however spelled, and
// by what is inside, whatever the name.
func quarantined() []release {
	vendored := "use crate::fast::permute;\n"
	return []release{
		packed("blake3", "1.0.0", "", nil),
		packed("blake3", "1.1.0-rc.1", "", nil),
		packed("blake3", "1.2.0+really-not", "", nil),
		packed("Blake3_Derive", "0.1.0", "", nil),
		packed("blake3-", "0.1.0", "", nil),
		packed("B3Sum", "1.0.0", "", nil),
		packed("BAO", "0.12.0", "", nil),
		packed("blake-3", "1.0.0", "", crateFiles{"src/lib.rs": blake3Source}),
		packed("fasthash", "2.0.0", "", crateFiles{"src/lib.rs": blake3Source}),
		packed("toolbox", "0.3.0", "", crateFiles{"src/lib.rs": "pub mod fast;\n" + vendored, "src/fast.rs": blake3Source}),
		packed("vendoring", "0.1.0", "", crateFiles{"vendor/blake3-1.5.4/src/portable.rs": blake3Source}),
	}
}

// innocent is what the same rule must leave alone.
func innocent() []release {
	return []release{
		packed("plain", "1.0.0", "", nil),
		packed("sha2", "0.10.9", "", crateFiles{"src/lib.rs": sha2Source}),
		packed("blake2", "0.10.6", "", crateFiles{"src/lib.rs": blake2Source}),
		packed("blake30", "0.1.0", "", nil),
		packed("not-blake3", "0.1.0", "", nil),
	}
}

// attempt is a request for bytes that may not be had.
type attempt struct {
	method, path string
	header       []string
}

func (a attempt) String() string {
	return strings.Join(append([]string{a.method, a.path}, a.header...), " ")
}

// attempts are all ways to the bytes of r that anybody came up with.
func attempts(r release) []attempt {
	hash, cid := hexDigest(r.crate), r.cid.String()
	download := downloadPath(r.name, r.version)
	first := fmt.Sprintf("%%%02x", r.name[0])
	paths := []string{
		download,
		downloadPath(strings.ToUpper(r.name), r.version),
		downloadPath(strings.ToLower(r.name), r.version),
		downloadPath(swapped(r.name), r.version),
		downloadPath(first+r.name[1:], r.version),
		downloadPath(strings.ToUpper(first)+r.name[1:], strings.ReplaceAll(url.PathEscape(r.version), ".", "%2e")),
		downloadPath(r.name, strings.ReplaceAll(r.version, "+", "%2B")),
		downloadPath(r.name+".", r.version), downloadPath(r.name, r.version+"."),
		downloadPath(r.name+"%20", r.version), downloadPath(r.name+"%00", r.version),
		downloadPath(r.name, "v"+r.version), downloadPath(r.name, r.version+"+other"),
		download + "/", "/" + download, download + "?", download + "?version=" + r.version, download + ";a=b",
		"/api/v1/crates/x/../" + r.name + "/" + r.version + "/download",
		"/api/v1/crates/./" + r.name + "/" + r.version + "/download",
		"/api/v1/crates/x%2f..%2f" + r.name + "/" + r.version + "/download",
		"/index/../api/v1/crates/" + r.name + "/" + r.version + "/download",
		"/public" + download, "/public/index/../.." + download,
		"/ipfs/" + cid, "/ipfs/" + cid + "?format=raw", "/ipfs/" + cid + "?format=car", "/ipfs/" + strings.ToUpper(cid),
		"/ipns/" + cid, "/ipfs/f01551220" + hash + "?format=raw",
		"/v1/records/" + cid, "/v1/records/" + hash, "/v1/records/0/attachments/" + cid,
		"/v1/artifacts/crate/" + r.name + "/" + r.version + "/content",
		"/v1/artifacts/crate/" + strings.ToUpper(r.name) + "/" + r.version + "/content",
		"/v1/artifacts/crate/" + swapped(r.name) + "/" + r.version + "/content",
		"/v1/artifacts/Crate/" + r.name + "/" + r.version + "/content",
		"/v1/artifacts/aln-shard/" + r.name + "/" + r.version + "/content",
		"/artifacts/crate/" + r.name + "/" + r.version + "/download",
		"/mirror/self" + download, "/mirror/self/dl/" + r.name + "/" + r.version + "/download", "/mirror/hosted/dl/" + r.name + "/" + r.version + "/" + hash,
		"/crates-io/dl/" + r.name + "/" + r.version + "/" + hash, "/crates-io/dl/" + r.name + "/" + r.version + "/download",
		"/blobs/" + cid, "/log/tile/" + cid, "/log/tile/data/" + cid,
	}
	headers := [][]string{
		nil, {"Range", "bytes=0-99"}, {"Range", "bytes=-50"}, {"Range", "bytes=10-20,30-40"},
		{"If-None-Match", "*"}, {"If-None-Match", `"` + cid + `"`}, {"If-None-Match", `"` + hash + `"`}, {"If-Match", "*"}, {"If-Range", `"` + hash + `"`, "Range", "bytes=0-9"},
		{"Accept-Encoding", "gzip"}, {"Accept", "application/vnd.ipld.raw"}, {"X-Original-URL", downloadPath("plain", "1.0.0")},
		{"X-Forwarded-Host", "plain"}, {"If-Modified-Since", "Thu, 01 Jan 2099 00:00:00 GMT"},
	}
	var all []attempt
	for _, path := range paths {
		all = append(all, attempt{http.MethodGet, path, nil}, attempt{http.MethodHead, path, nil})
	}
	for _, header := range headers[1:] {
		for _, path := range []string{download, "/v1/artifacts/crate/" + r.name + "/" + r.version + "/content"} {
			all = append(all, attempt{http.MethodGet, path, header}, attempt{http.MethodHead, path, header})
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodOptions, "PROPFIND", "get"} {
		all = append(all, attempt{method, download, nil})
	}
	return all
}

// swapped is the name with - and _ taking each other's place.
func swapped(name string) string {
	return strings.Map(func(c rune) rune {
		switch c {
		case '-':
			return '_'
		case '_':
			return '-'
		}
		return c
	}, name)
}

// escaped tells how an answer lets bytes of r out, "" if it does not.
func (a reply) escaped(r release) string {
	if a.status < 400 && a.status != http.StatusMovedPermanently && a.status != http.StatusPermanentRedirect {
		return fmt.Sprintf("status %d", a.status)
	}
	if a.status == http.StatusGone || a.status == http.StatusUnavailableForLegalReasons {
		return fmt.Sprintf("status %d, which cargo does not take for an answer", a.status)
	}
	for at := 16; at+16 <= len(r.crate); at += 16 {
		if bytes.Contains(a.body, r.crate[at:at+16]) {
			return fmt.Sprintf("bytes from %d on", at)
		}
	}
	if a.status >= 500 {
		return fmt.Sprintf("status %d: %.200s", a.status, a.body)
	}
	return ""
}

// No way to a quarantined crate is open to anybody, its owner, admins and
// auditors included; the same ways lead to what is not quarantined.
func TestNoWayLeadsToAQuarantinedCrate(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	guest := l.member(particle.TierGuest, "visitor")
	l.grant(guest, func(g *particle.EnvGrant) { g.AllowedCrates = []string{particle.AllCrates} })
	l.uploads(quarantined()...)
	l.uploads(innocent()...)
	_, audit := l.operator.mint(l.lab, particle.ScopeAudit, "", nil)
	_, everything := l.operator.mint(l.lab, "read publish audit admin", "", nil)
	askers := map[string]string{
		"the owner": l.operator.token(l.lab, ""), "a guest who may have all": guest.token(l.lab, ""),
		"an auditor": audit, "an admin": everything, "a reviewer": l.reviewers[0].token(l.lab, ""), "nobody": "",
	}
	tried := 0
	for _, r := range quarantined() {
		for who, token := range askers {
			for _, a := range attempts(r) {
				got := l.ask(a.method, a.path, token, a.header...)
				tried++
				if out := got.escaped(r); out != "" {
					t.Errorf("%s %s to %s by %s: %s", r.name, r.version, a, who, out)
					break // one way is enough to tell of
				}
			}
		}
		owner := askers["the owner"]
		l.want(http.StatusForbidden, downloadPath(r.name, strings.ReplaceAll(r.version, "+", "%2B")), owner,
			r.name+" "+r.version+" is denied by rule quarantine blake3: ", "ask a reviewer", "aln-registry why "+r.name+"@"+r.version)
		if picked, listed := l.view(r.name, owner)[r.version]; picked || !listed {
			t.Errorf("%s %s: listed %t, to be picked %t; want it listed as yanked", r.name, r.version, listed, picked)
		}
	}
	for _, r := range innocent() {
		got := l.want(http.StatusOK, downloadPath(r.name, r.version), askers["a guest who may have all"])
		if !bytes.Equal(got.body, r.crate) {
			t.Errorf("%s %s: %d other bytes", r.name, r.version, len(got.body))
		}
		if !l.view(r.name, askers["the owner"])[r.version] {
			t.Errorf("%s %s is not to be picked", r.name, r.version)
		}
	}
	if tried < 5000 {
		t.Errorf("only %d attempts", tried)
	}
}

// A name is a name, however a rule or an asker spells it, and a version does not
// slip through a requirement by its ending.
func TestARuleHitsEverySpelling(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	releases := []release{
		packed("My-Crate_x", "1.2.0", "", nil), packed("My-Crate_x", "1.2.1-alpha.1", "", nil),
		packed("My-Crate_x", "1.2.1+linux", "", nil), packed("My-Crate_x", "1.3.0", "", nil),
	}
	l.uploads(releases...)
	token := l.operator.token(l.lab, "")
	for _, c := range []struct {
		id      string
		match   particle.RuleMatch
		allowed string // versions that stay, by a space
	}{
		{"spelled", particle.RuleMatch{Names: []string{"mY_cRATE-X"}}, ""},
		{"pattern", particle.RuleMatch{Names: []string{"MY_*"}}, ""},
		{"versions", particle.RuleMatch{Names: []string{"my-crate-x"}, Versions: "<1.3"}, "1.3.0"},
		{"caret", particle.RuleMatch{Names: []string{"my-crate-x"}, Versions: "=1.2.1"}, "1.2.0 1.3.0"},
		{"hash", particle.RuleMatch{Hashes: []string{hexDigest(releases[3].crate)}}, "1.2.0 1.2.1-alpha.1 1.2.1+linux"},
		{"cid", particle.RuleMatch{Hashes: []string{releases[3].cid.String()}}, "1.2.0 1.2.1-alpha.1 1.2.1+linux"},
		{"publisher", particle.RuleMatch{Publishers: dids(l.operator), Versions: "*"}, ""},
		{"source", particle.RuleMatch{Sources: []string{particle.SourceHosted}, Versions: ">=1.3"}, "1.2.0 1.2.1-alpha.1 1.2.1+linux"},
		{"elsewhere", particle.RuleMatch{Names: []string{"my-crate-x"}, Sources: []string{particle.SourceCratesIO}}, "1.2.0 1.2.1-alpha.1 1.2.1+linux 1.3.0"},
		{"other", particle.RuleMatch{Names: []string{"my-crate", "crate-x", "my-crate-x-y"}}, "1.2.0 1.2.1-alpha.1 1.2.1+linux 1.3.0"},
	} {
		l.rule(c.id, particle.QuarantineRule{Match: []particle.RuleMatch{c.match}})
		view := l.view("My-Crate_x", token)
		for _, r := range releases {
			want := hasWord(c.allowed, r.version)
			path := downloadPath(r.name, strings.ReplaceAll(r.version, "+", "%2B"))
			if got := l.ask(http.MethodGet, path, token); (got.status == http.StatusOK) != want || !want && !strings.Contains(string(got.body), "quarantine "+c.id) {
				t.Errorf("rule %s, %s: status %d, want allowed %t: %.200s", c.id, r.version, got.status, want, got.body)
			}
			if view[r.version] != want {
				t.Errorf("rule %s, %s: to be picked %t, want %t", c.id, r.version, view[r.version], want)
			}
		}
		l.release(c.id)
	}
}

func hasWord(words, word string) bool {
	return strings.Contains(" "+words+" ", " "+word+" ")
}
