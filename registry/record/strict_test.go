package record

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// TestParseRefusesLaxEnvelopes alters the envelope around a good payload.
func TestParseRefusesLaxEnvelopes(t *testing.T) {
	// An envelope with base64 of both kinds of difference: padding, + or /.
	v := vectorNamed(t, "approve")
	good := string(v.record.Envelope())
	payload := base64.StdEncoding.EncodeToString(v.record.payload)
	sig := base64.StdEncoding.EncodeToString(v.record.signature)
	keyid := v.record.Header().Signer.String()
	if !strings.HasSuffix(sig, "==") {
		t.Fatal("the vector's signature has no padding")
	}
	one := `{"keyid":"` + keyid + `","sig":"` + sig + `"}`
	replace := func(old, new string) string {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the envelope", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	last := sig[len(sig)-3]
	stray := sig[:len(sig)-3] + string(rune(last)+1) + "=="
	cases := map[string]string{
		"empty":                     "",
		"null":                      "null",
		"array":                     "[" + good + "]",
		"trailing bytes":            good + "x",
		"trailing newline":          good + "\n",
		"trailing object":           good + "{}",
		"leading space":             " " + good,
		"byte order mark":           "\ufeff" + good,
		"space after colon":         replace(`"payloadType":`, `"payloadType": `),
		"space in list":             replace(`[{"keyid"`, `[ {"keyid"`),
		"other key order":           `{"payloadType":"application/vnd.in-toto+json","payload":"` + payload + `","signatures":[` + one + `]}`,
		"other order in signature":  replace(one, `{"sig":"`+sig+`","keyid":"`+keyid+`"}`),
		"escape in a key":           replace(`"payload"`, `"p\u0061yload"`),
		"escape in a value":         replace(`"`+payload, `"\u00`+hex.EncodeToString([]byte(payload[:1]))+payload[1:]),
		"upper-case key":            replace(`"payload"`, `"Payload"`),
		"unknown key":               replace(`{"payload"`, `{"x":1,"payload"`),
		"unknown key in signature":  replace(`{"keyid"`, `{"x":1,"keyid"`),
		"duplicate key":             replace(`{"payload"`, `{"payload":"","payload"`),
		"duplicate sig":             replace(`"sig":`, `"sig":"`+sig+`","sig":`),
		"no payload":                replace(`"payload":"`+payload+`",`, ``),
		"no payloadType":            replace(`"payloadType":"application/vnd.in-toto+json",`, ``),
		"no signatures":             replace(`,"signatures":[`+one+`]`, ``),
		"no keyid":                  replace(`"keyid":"`+keyid+`",`, ``),
		"no sig":                    replace(`,"sig":"`+sig+`"`, ``),
		"null payload":              replace(`"`+payload+`"`, `null`),
		"null sig":                  replace(`"`+sig+`"`, `null`),
		"null signatures":           replace(`[`+one+`]`, `null`),
		"empty signatures":          replace(`[`+one+`]`, `[]`),
		"signature is null":         replace(one, `null`),
		"two signatures":            replace(one, one+`,`+one),
		"signatures is no list":     replace(`[`+one+`]`, one),
		"other payloadType":         replace(`application/vnd.in-toto+json`, `application/json`),
		"unpadded base64":           replace(sig, strings.TrimRight(sig, "=")),
		"padding too much":          replace(sig, sig+"="),
		"url base64":                replace(`"`+payload+`"`, `"`+base64.URLEncoding.EncodeToString(v.record.payload)+`"`),
		"stray bits in base64":      replace(sig, stray),
		"line break in base64":      replace(sig, sig[:8]+`\n`+sig[8:]),
		"raw line break in base64":  replace(sig, sig[:8]+"\n"+sig[8:]),
		"space in base64":           replace(sig, sig[:8]+" "+sig[8:]),
		"hex instead of base64":     replace(payload, hex.EncodeToString(v.record.payload)),
		"keyid of another key":      replace(keyid, edKey(t, 7).Public().URL().String()),
		"keyid without fragment":    replace(keyid, strings.Split(keyid, "#")[0]),
		"empty keyid":               replace(keyid, ""),
		"bytes that are no UTF-8":   replace(`"keyid":"`, "\"keyid\":\"\xff"),
		"larger than allowed":       replace(`{"payload"`, `{`+strings.Repeat(" ", MaxEnvelope)+`"payload"`),
		"nested beyond any measure": strings.Repeat(`[`, 30000),
	}
	// A payload whose base64 has no + or / would make one case say nothing.
	if !strings.ContainsAny(payload, "+/") {
		t.Fatal("the vector's payload has neither + nor / in base64")
	}
	for name, envelope := range cases {
		if r, err := Parse([]byte(envelope)); !errors.Is(err, ErrMalformed) || r != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse([]byte(good)); err != nil {
		t.Errorf("the envelope that the cases alter: %v", err)
	}
}

type edit struct {
	vector, name, old, new string
}

// payloadEdits each make one payload lax or wrong, replacing old by new.
func payloadEdits(t testing.TB) []edit {
	yankDigest := storage.CIDOf([]byte("crate/demo-one@0.1.0")).Hex()
	shard := storage.CIDOf(vectorGrant(t))
	self := edKey(t, 2).Public().DID().String()
	signer := p256Key(t, 3).Public().URL().String()
	return []edit{
		{"yank", "other statement type", "Statement/v1", "Statement/v0.1"},
		{"yank", "missing _type", `"_type":"https://in-toto.io/Statement/v1",`, ``},
		{"yank", "upper-case key", `"subject"`, `"Subject"`},
		{"yank", "unknown key", `{"_type"`, `{"extra":null,"_type"`},
		{"yank", "duplicate key", `{"_type"`, `{"predicateType":"x","_type"`},
		{"yank", "duplicate key by an escape", `"prev"`, `"b\u0079":null,"prev"`},
		{"yank", "two subjects", `"subject":[`, `"subject":[{"name":"registry","digest":{"sha256":"` + yankDigest + `"}},`},
		{"yank", "subject null", `"subject":[`, `"subject":[null,`},
		{"yank", "unknown key in subject", `{"name"`, `{"uri":"","name"`},
		{"yank", "second digest", `{"sha256"`, `{"sha512":"","sha256"`},
		{"yank", "wrong digest", yankDigest, storage.CIDOf([]byte("other")).Hex()},
		{"yank", "upper-case digest", yankDigest, strings.ToUpper(yankDigest)},
		{"yank", "short digest", yankDigest, yankDigest[2:]},
		{"yank", "empty digest", yankDigest, ""},
		{"yank", "missing digest", `,"digest":{"sha256":"` + yankDigest + `"}`, ``},
		{"publish", "digest of zeros", storage.CIDOf([]byte("bytes of demo-one-0.1.0.crate")).Hex(), strings.Repeat("0", 64)},
		{"import", "digest of zeros", storage.CIDOf([]byte(vectorSnapshot)).Hex(), strings.Repeat("0", 64)},
		{"import", "upper-case digest", storage.CIDOf([]byte(vectorSnapshot)).Hex(), strings.ToUpper(storage.CIDOf([]byte(vectorSnapshot)).Hex())},
		{"import", "no digest", storage.CIDOf([]byte(vectorSnapshot)).Hex(), ""},
		{"import", "a member of its own", `"key":null`, `"key":null,"etag":""`},
		{"import", "another name for the registry", "upstream/crates-io/", "upstream/crates.io/"},
		{"import", "no registry", "upstream/crates-io/", "upstream/"},
		{"import", "a version", "upstream/crates-io/Left-pad", "upstream/crates-io/Left-pad@1.0.0"},
		{"import", "about an artifact", "upstream/crates-io/Left-pad", "crate/left-pad"},
		{"import", "about an artifact's version", "upstream/crates-io/Left-pad", "crate/left-pad@1.0.0"},
		{"import", "about nothing here", "upstream/crates-io/Left-pad", "registry"},
		{"yank", "about a crate of another registry", "crate/demo-one@0.1.0", "upstream/crates-io/demo-one"},
		{"own", "about a crate of another registry", "crate/demo-one", "upstream/crates-io/demo-one"},
		{"publish", "about a crate of another registry", "crate/demo-one@0.1.0", "upstream/crates-io/demo-one"},
		{"yank", "foreign predicate", "urn:aln-registry:yank:v1", "https://slsa.dev/provenance/v1"},
		{"yank", "predicate null", `"predicate":{`, `"predicate":null,"x":{`},
		{"yank", "unknown key in predicate", `"yanked"`, `"also":1,"yanked"`},
		{"yank", "body of another type", `"yanked":true`, `"add":[],"remove":[],"intent":null`},
		{"yank", "unknown key without end", `"yanked"`, `"` + strings.Repeat("x", 30000) + `":1,"yanked"`},
		{"yank", "missing yanked", `,"yanked":true`, ``},
		{"yank", "yanked null", `"yanked":true`, `"yanked":null`},
		{"yank", "yanked a string", `"yanked":true`, `"yanked":"true"`},
		{"yank", "yanked a number", `"yanked":true`, `"yanked":1`},
		{"yank", "duplicate yanked", `"yanked":true`, `"yanked":false,"yanked":true`},
		{"yank", "missing prev", `"prev":"`, `"previous":"`},
		{"yank", "missing key", `"key":null,`, ``},
		{"yank", "empty key", `"key":null`, `"key":""`},
		{"yank", "key false", `"key":null`, `"key":false`},
		{"yank", "key an object", `"key":null`, `"key":{}`},
		{"yank", "upper-case identity", `"key":null`, `"key":"` + strings.Repeat("A", 64) + `"`},
		{"yank", "identity as a CID", `"key":null`, `"key":"` + storage.CIDOf(nil).String() + `"`},
		{"yank", "registry null", `"registry":"` + edKey(t, 1).Public().DID().String() + `"`, `"registry":null`},
		{"yank", "registry a URL", `"registry":"` + edKey(t, 1).Public().DID().String(), `"registry":"` + edKey(t, 1).Public().URL().String()},
		{"yank", "signer is not keyid", signer, edKey(t, 2).Public().URL().String()},
		{"yank", "signer without fragment", signer, strings.Split(signer, "#")[0]},
		{"yank", "time with fraction", "2026-07-01T12:00:00Z", "2026-07-01T12:00:00.0Z"},
		{"yank", "time with offset", "2026-07-01T12:00:00Z", "2026-07-01T12:00:00+00:00"},
		{"yank", "time in lower case", "2026-07-01T12:00:00Z", "2026-07-01t12:00:00z"},
		{"yank", "time with a space", "2026-07-01T12:00:00Z", "2026-07-01 12:00:00Z"},
		{"yank", "time without zone", "2026-07-01T12:00:00Z", "2026-07-01T12:00:00"},
		{"yank", "no such day", "2026-07-01T12:00:00Z", "2026-02-30T12:00:00Z"},
		{"yank", "leap second", "2026-07-01T12:00:00Z", "2026-06-30T23:59:60Z"},
		{"yank", "hour 24", "2026-07-01T12:00:00Z", "2026-07-01T24:00:00Z"},
		{"yank", "one-digit hour", "2026-07-01T12:00:00Z", "2026-07-01T9:00:00Z"},
		{"yank", "time a number", `"2026-07-01T12:00:00Z"`, `1782907200`},
		{"yank", "time null", `"2026-07-01T12:00:00Z"`, `null`},
		{"yank", "time empty", `2026-07-01T12:00:00Z`, ``},
		{"yank", "trailing data", `"yanked":true}}`, `"yanked":true}} {}`},
		{"yank", "lone surrogate", `"_type":"`, `"_type":"\ud800`},
		{"yank", "invalid UTF-8", `"_type":"`, "\"_type\":\"\xc3"},
		{"yank", "unknown key with a deep value", `"yanked"`, `"x":` + strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000) + `,"yanked"`},

		{"publish", "missing evidence", `,"evidence":["` + storage.CIDOf([]byte("evidence")).String() + `"]`, ``},
		{"publish", "evidence null", `["` + storage.CIDOf([]byte("evidence")).String() + `"]`, `null`},
		{"publish", "evidence of null", `["` + storage.CIDOf([]byte("evidence")).String() + `"]`, `[null]`},
		{"publish", "evidence as hex", storage.CIDOf([]byte("evidence")).String(), storage.CIDOf([]byte("evidence")).Hex()},
		{"publish", "evidence in upper case", storage.CIDOf([]byte("evidence")).String(), strings.ToUpper(storage.CIDOf([]byte("evidence")).String())},
		{"publish", "evidence twice", `"evidence":[`, `"evidence":["` + storage.CIDOf([]byte("evidence")).String() + `",`},
		{"publish", "crate with media type", `"evidence"`, `"media_type":"text/plain","evidence"`},
		{"publish", "crate with empty media type", `"evidence"`, `"media_type":"","evidence"`},
		{"publish", "crate with null media type", `"evidence"`, `"media_type":null,"evidence"`},
		{"publish-shard", "missing media type", `,"media_type":"application/vnd.aln.shard+json"`, ``},
		{"publish-shard", "media type in upper case", `vnd.aln.shard`, `vnd.ALN.shard`},
		{"publish-shard", "media type with parameter", `shard+json`, `shard+json;v=1`},
		{"publish-shard", "media type without subtype", `application/vnd.aln.shard+json`, `application`},

		{"member-publisher", "roles null", `["publisher","auditor"]`, `null`},
		{"member-publisher", "roles a string", `["publisher","auditor"]`, `"publisher"`},
		{"member-publisher", "role twice", `["publisher","auditor"]`, `["publisher","publisher"]`},
		{"member-publisher", "role with space", `"auditor"`, `"audi tor"`},
		{"member-publisher", "empty role", `"auditor"`, `""`},
		{"member-publisher", "role too long", `"auditor"`, `"` + strings.Repeat("a", 65) + `"`},
		{"member-publisher", "too many roles", `["publisher","auditor"]`, `[` + manyTexts(maxList+1) + `]`},
		{"member-publisher", "unknown tier", `"collaborator"`, `"root"`},
		{"member-publisher", "tier null", `"collaborator"`, `null`},
		{"member-publisher", "addresses null", `["addr:example:1"]`, `null`},
		{"member-publisher", "address with line break", `addr:example:1`, `addr\n1`},
		{"member-publisher", "address too long", `addr:example:1`, strings.Repeat("a", maxText+1)},
		{"member-publisher", "document of a did:key", `"did_document":null`, `"did_document":"` + storage.CIDOf(nil).String() + `"`},
		{"member-publisher", "missing document", `"did_document":null,`, ``},
		{"member-publisher", "subject not encoded", `member/did%3Akey%3A`, `member/did:key:`},
		{"member-publisher", "lower-case percent-encoding", `member/did%3Akey%3A`, `member/did%3akey%3A`},
		{"member-publisher", "needless percent-encoding", `member/did%3Akey%3A`, `member/%64id%3Akey%3A`},
		{"member-web", "did:web without document", `"did_document":"` + storage.CIDOf([]byte("a DID document")).String() + `"`, `"did_document":null`},
		{"member-web", "empty document", storage.CIDOf([]byte("a DID document")).String(), ""},

		{"did", "index of 2^53", `"compromised_since":4`, `"compromised_since":9007199254740992`},
		{"did", "index below zero", `"compromised_since":4`, `"compromised_since":-1`},
		{"did", "index minus zero", `"compromised_since":4`, `"compromised_since":-0`},
		{"did", "index a fraction", `"compromised_since":4`, `"compromised_since":4.0`},
		{"did", "index with exponent", `"compromised_since":4`, `"compromised_since":4e0`},
		{"did", "index with leading zero", `"compromised_since":4`, `"compromised_since":04`},
		{"did", "index a string", `"compromised_since":4`, `"compromised_since":"4"`},
		{"did", "index beyond 64 bits", `"compromised_since":4`, `"compromised_since":18446744073709551620`},
		{"did", "missing index", `,"compromised_since":4`, ``},
		{"did", "document null", `"did_document":"` + storage.CIDOf([]byte("the next DID document")).String() + `"`, `"did_document":null`},

		{"own", "add null", `"add":["` + self + `"]`, `"add":null`},
		{"own", "remove null", `"remove":[]`, `"remove":null`},
		{"own", "missing intent", `,"intent":null`, ``},
		{"own", "intent empty", `"intent":null`, `"intent":""`},
		{"own", "nobody", `"add":["` + self + `"]`, `"add":[]`},
		{"own", "added twice", `"add":["`, `"add":["` + self + `","`},
		{"own", "added and removed", `"remove":[]`, `"remove":["` + self + `"]`},
		{"own", "no DID", `"remove":[]`, `"remove":["everybody"]`},
		{"own", "DID null", `"remove":[]`, `"remove":[null]`},
		{"own", "DID URL", `"remove":[]`, `"remove":["` + signer + `"]`},
		{"own-intent", "with a body", `"key":null`, `"key":null,"add":[]`},

		{"approve", "record null", `"record":"` + string(IDOf([]byte("a proposal"))) + `"`, `"record":null`},
		{"approve", "unknown verdict", `"verdict":"approve"`, `"verdict":"Approve"`},
		{"approve", "verdict null", `"verdict":"approve"`, `"verdict":null`},
		{"approve", "reason null", `"reason":"reviewed é <ok>???"`, `"reason":null`},
		{"approve", "reason too long", `reviewed`, strings.Repeat("x", maxReason)},
		{"approve", "terminal escape in reason", `reviewed`, `\u001b[2J`},

		{"registry", "did of another", `"did":"` + edKey(t, 1).Public().DID().String() + `"`, `"did":""`},
		{"registry", "document of a did:key", `"did_document":null`, `"did_document":"` + storage.CIDOf(nil).String() + `"`},
		{"registry", "no log key", `"log_keys":["` + edKey(t, 4).Public().Multikey() + `"]`, `"log_keys":[]`},
		{"registry", "log key of P-256", edKey(t, 4).Public().Multikey(), p256Key(t, 4).Public().Multikey()},
		{"registry", "log key twice", `"log_keys":[`, `"log_keys":["` + edKey(t, 4).Public().Multikey() + `",`},
		{"registry", "log keys null", `"log_keys":["` + edKey(t, 4).Public().Multikey() + `"]`, `"log_keys":null`},
		{"registry", "no index URL", `["sparse+http://127.0.0.1:8585/index/"]`, `[]`},
		{"registry", "index URL with space", `127.0.0.1:8585`, `127.0.0.1 :8585`},
		{"registry", "no admin", `"admins":["` + self + `"]`, `"admins":[]`},
		{"registry", "admins null", `"admins":["` + self + `"]`, `"admins":null`},
		{"registry", "admin twice", `"admins":["`, `"admins":["` + self + `","`},
		{"registry", "threshold of none", `"admin_threshold":1`, `"admin_threshold":0`},
		{"registry", "threshold nobody reaches", `"admin_threshold":1`, `"admin_threshold":2`},
		{"registry", "threshold null", `"admin_threshold":1`, `"admin_threshold":null`},
		{"registry", "threshold a fraction", `"admin_threshold":1`, `"admin_threshold":1.0`},
		{"registry", "release_k of none", `"release_k":2`, `"release_k":0`},
		{"registry", "release_k too large", `"release_k":2`, `"release_k":257`},
		{"registry", "age below zero", `"min_age_days":0`, `"min_age_days":-1`},
		{"registry", "age minus zero", `"min_age_days":0`, `"min_age_days":-0`},
		{"registry", "age of 2^53", `"min_age_days":0`, `"min_age_days":9007199254740992`},
		{"registry", "age null", `"min_age_days":0`, `"min_age_days":null`},
		{"registry", "missing age", `"min_age_days":0,`, ``},
		{"registry", "unknown access", `"guest":"deny"`, `"guest":"maybe"`},
		{"registry", "missing tier", `,"guest":"deny"`, ``},
		{"registry", "unknown tier", `"guest":"deny"`, `"guest":"deny","root":"allow"`},
		{"registry", "tier_default null", `"tier_default":{`, `"tier_default":null,"x":{`},
		{"registry", "other registries null", `"dependency_registries":[]`, `"dependency_registries":null`},
		{"registry", "private names null", `["lab-"]`, `null`},
		{"registry", "private name empty", `["lab-"]`, `[""]`},

		{"grant", "digest of the subject's name", shard.Hex(), storage.CIDOf([]byte("grant/" + shard.String())).Hex()},
		{"grant", "subject another shard", shard.String(), storage.CIDOf(nil).String()},
		{"grant", "subject as hex", shard.String(), shard.Hex()},
		{"grant", "subject in upper case", shard.String(), strings.ToUpper(shard.String())},
		{"grant", "with a body", `"key":null`, `"key":null,"reason":""`},
		{"revoke", "missing reason", `,"reason":"the runner was sold"`, ``},
		{"revoke", "reason null", `"the runner was sold"`, `null`},
		{"revoke", "reason too long", `the runner`, strings.Repeat("x", maxReason)},
		{"revoke", "terminal escape in reason", `the runner`, `\u001b[2J`},
		{"quarantine", "rule in upper case", `rule/left-pad`, `rule/Left-Pad`},
		{"quarantine", "rule null", `"rule":{`, `"rule":null,"x":{`},
		{"quarantine", "rule beside the header", `"rule":{"effect":"deny",`, `"effect":"deny","rule":{`},
		{"quarantine", "unknown effect", `"effect":"deny"`, `"effect":"allow"`},
		{"quarantine", "unknown mode", `"mode":"enforce"`, `"mode":"audit"`},
		{"quarantine", "mode null", `"mode":"enforce"`, `"mode":null`},
		{"quarantine", "unknown key in the rule", `"mode":"enforce"`, `"mode":"enforce","also":1`},
		{"quarantine", "unknown key in match", `"names":["left-pad"`, `"kinds":[],"names":["left-pad"`},
		{"quarantine", "match that describes nothing", `"content":["blake3"]`, `"content":[]},{"names":[],"versions":"","hashes":[],"publishers":[],"sources":[],"content":[]`},
		{"quarantine", "names null", `["left-pad","left-pad-*"]`, `null`},
		{"quarantine", "name with a slash", `"left-pad-*"`, `"left/pad"`},
		{"quarantine", "name twice", `"left-pad-*"`, `"left-pad"`},
		{"quarantine", "versions that are none", `>=1.2, <2`, `newest`},
		{"quarantine", "versions null", `">=1.2, <2"`, `null`},
		{"quarantine", "missing versions", `"versions":"",`, ``},
		{"quarantine", "hash cut short", storage.CIDOf([]byte("evidence")).Hex()[:63] + "0", storage.CIDOf([]byte("evidence")).Hex()[:63]},
		{"quarantine", "unknown source", `mirror/lab-2`, `git`},
		{"quarantine", "unknown recogniser", `["blake3"]`, `["sha1"]`},
		{"quarantine", "empty reason", `"reason":"it vanished once"`, `"reason":""`},
		{"quarantine", "line break in reason", `it vanished`, `it\nvanished`},
		{"quarantine", "evidence empty", `"evidence":"` + storage.CIDOf([]byte("evidence")).String() + `"`, `"evidence":""`},
		{"quarantine", "expires with a fraction", `"expires":"2026-07-03T12:00:00Z"`, `"expires":"2026-07-03T12:00:00.0Z"`},
		{"quarantine", "expires a number", `"expires":"2026-07-03T12:00:00Z"`, `"expires":1`},
		{"quarantine", "missing expires", `"expires":"2026-07-03T12:00:00Z",`, ``},
		{"quarantine", "grace to the end", `"grace":"2026-07-02T12:00:00Z"`, `"grace":"2026-07-03T12:00:00Z"`},
		{"quarantine", "waiver with a grace", `"effect":"deny"`, `"effect":"waive_min_age"`},
		{"release", "missing evidence", `,"evidence":"` + storage.CIDOf([]byte("evidence")).String() + `"`, ``},
		{"release", "reason null", `"it is back"`, `null`},
		{"release", "of a grant", `rule/left-pad`, `grant/` + shard.String()},
		{"approve-release", "record null", `"record":"`, `"record":null,"x":"`},
	}
}

func manyTexts(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"role%d"`, i)
	}
	return strings.Join(list, ",")
}

func TestParseRefusesLaxPayloads(t *testing.T) {
	named := map[string]vector{}
	for _, v := range vectors(t) {
		named[v.name] = v
	}
	for _, e := range payloadEdits(t) {
		payload := string(named[e.vector].record.payload)
		if !strings.Contains(payload, e.old) {
			t.Errorf("%s, %s: there is no %q in %s", e.vector, e.name, e.old, payload)
			continue
		}
		envelope := reseal(t, keyOf(t, e.vector), strings.Replace(payload, e.old, e.new, 1))
		r, err := Parse(envelope)
		if !errors.Is(err, ErrMalformed) || errors.Is(err, ErrUnknownType) || r != nil {
			t.Errorf("%s, %s: %v", e.vector, e.name, err)
		}
		if err != nil && len(err.Error()) > 2048 {
			t.Errorf("%s, %s: an error of %d bytes", e.vector, e.name, len(err.Error()))
		}
	}
}

func TestUnknownTypesAreToldFromMalformedRecords(t *testing.T) {
	payload := string(vectorNamed(t, "yank").record.payload)
	for _, predicate := range []string{"urn:aln-registry:yank:v2", "urn:aln-registry:advisory:v1", "urn:aln-registry::v1", "urn:aln-registry:yank", "urn:aln-registry:" + strings.Repeat("x", 9000) + ":v1"} {
		_, err := Parse(reseal(t, keyOf(t, "yank"), strings.Replace(payload, "urn:aln-registry:yank:v1", predicate, 1)))
		if !errors.Is(err, ErrUnknownType) || !strings.Contains(err.Error(), "upgrade") || len(err.Error()) > 1024 {
			t.Errorf("%.60s: %v", predicate, err)
		}
	}
}

// TestSubjectsFitTypes tries every type's record about every kind of subject.
func TestSubjectsFitTypes(t *testing.T) {
	fits := map[Type][]string{
		TypeRegistry: {"registry"}, TypeApprove: {"registry", "rule"}, TypeMember: {"member"}, TypeDID: {"member"},
		TypePublish: {"version"}, TypeYank: {"version"}, TypeOwn: {"artifact"}, TypeOwnIntent: {"artifact"},
		TypeGrant: {"grant"}, TypeRevoke: {"grant"}, TypeQuarantine: {"rule"}, TypeRelease: {"rule"}, "import": nil,
	}
	subjects := map[string]Subject{
		"registry": RegistrySubject(), "member": MemberSubject(edKey(t, 1).Public().DID()),
		"version": mustSubject(t, "manifest/a@1.0.0"), "artifact": mustSubject(t, "manifest/a"), "none": {},
		"grant": GrantSubject(storage.CIDOf(nil)), "rule": mustSubject(t, "rule/registry"),
	}
	for recordType, fit := range fits {
		for name, s := range subjects {
			if got := s.fits(recordType); got != slices.Contains(fit, name) {
				t.Errorf("%s about %s: %v", recordType, name, got)
			}
		}
	}
}
