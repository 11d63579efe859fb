package policy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

var now = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

const (
	testURL  = "https://registry.example/v1/session"
	secretID = "Sxsecretsecret42" // a jti that no message may hold
)

func newKey(t testing.TB, seed byte) did.PrivateKey {
	t.Helper()
	k, err := did.GenerateEd25519(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func p256Key(t testing.TB, seed byte) did.PrivateKey {
	t.Helper()
	k, err := did.GenerateP256(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signer(k did.PrivateKey) did.Signer { return k.Signer(k.Public().URL()) }

func goodSession(t testing.TB) particle.SessionToken {
	mint, host := newKey(t, 1).Public().DID(), newKey(t, 2).Public().DID()
	return particle.SessionToken{
		Issuer: mint, Subject: host, Audience: mint, IssuedAt: now.Unix(), Expiry: now.Add(10 * time.Minute).Unix(),
		ID: secretID, HostDID: host.String(), Roles: []string{"publisher"}, Scope: "read publish", MaxJoules: 1<<64 - 1,
	}
}

func goodAssertion(t testing.TB) Assertion {
	host := newKey(t, 2).Public().DID()
	return Assertion{Issuer: host, Subject: host, Audience: testURL, IssuedAt: now.Unix(), Expiry: now.Add(time.Minute).Unix(), ID: secretID, Lifetime: 300, Scope: "read"}
}

func goodHolder(t testing.TB) Holder {
	return Holder{DID: newKey(t, 2).Public().DID(), Member: true, Roles: []string{"publisher"}, StakeholderAddrs: []string{"addr:1"}}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// seal signs header and claims as they are, right or wrong.
func seal(t testing.TB, k did.PrivateKey, header, claims string) string {
	t.Helper()
	signed := b64(header) + "." + b64(claims)
	signature, err := k.Sign([]byte(signed))
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func headerOf(k did.PrivateKey, typ string) string {
	return fmt.Sprintf(`{"alg":%q,"typ":%q,"kid":%q}`, k.Public().Algorithm(), typ, k.Public().URL())
}

func claimsOf(t testing.TB, v any) string {
	t.Helper()
	switch c := v.(type) {
	case particle.SessionToken:
		s, err := SignSession(c, did.EdDSA, signer(newKey(t, 1)))
		return claimsIn(t, s, err)
	case Assertion:
		s, err := SignAssertion(c, did.EdDSA, signer(newKey(t, 2)))
		return claimsIn(t, s, err)
	}
	t.Fatalf("%T", v)
	return ""
}

func claimsIn(t testing.TB, token string, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// session runs a token through everything that a request's does.
func session(t testing.TB, token string, holder Holder, at time.Time) error {
	t.Helper()
	parsed, err := ParseSession(token)
	if err != nil {
		return err
	}
	if err := parsed.Verify(newKey(t, 1).Public()); err != nil {
		return err
	}
	if _, d := CheckSession(parsed, holder, newKey(t, 1).Public().DID(), at); d != nil {
		return d
	}
	return nil
}

func assertion(t testing.TB, token string, at time.Time) error {
	t.Helper()
	parsed, err := ParseAssertion(token)
	if err != nil {
		return err
	}
	if err := parsed.Verify(newKey(t, 2).Public()); err != nil {
		return err
	}
	if d := CheckAssertion(parsed, testURL, now.Add(-time.Hour), at); d != nil {
		return d
	}
	return nil
}

// checkRefusal demands a refusal that a caller can branch on and that tells
// nothing of the token.
func checkRefusal(t *testing.T, name, token string, err error) {
	t.Helper()
	var d *Denial
	if err == nil || !errors.As(err, &d) && !errors.Is(err, ErrToken) && !errors.Is(err, did.ErrSignature) {
		t.Errorf("%s: %v", name, err)
		return
	}
	if d != nil && (d.Rule == "" || d.Reason == "") {
		t.Errorf("%s: denied without rule or reason", name)
	}
	text := err.Error()
	for _, part := range append(strings.Split(token, "."), secretID, "FORGED") {
		if len(part) >= 8 && strings.Contains(text, part) || part == "FORGED" && strings.Contains(text, part) {
			t.Errorf("%s: the message shows the token: %s", name, text)
		}
	}
	if len(text) > 600 {
		t.Errorf("%s: a message of %d bytes", name, len(text))
	}
}

// malformed are headers and claims that no token of either type may have; %s
// stands for the kid and the type.
func malformedTokens(t testing.TB, k did.PrivateKey, typ, claims string) map[string]string {
	good := headerOf(k, typ)
	token := seal(t, k, good, claims)
	parts := strings.Split(token, ".")
	header := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in %s", old, good)
		}
		return seal(t, k, strings.Replace(good, old, new, 1), claims)
	}
	claim := func(old, new string) string {
		if !strings.Contains(claims, old) {
			t.Fatalf("no %q in %s", old, claims)
		}
		return seal(t, k, good, strings.Replace(claims, old, new, 1))
	}
	stray := func(s string) string { return s[:len(s)-1] + string(s[len(s)-1]+1) }
	otherType := map[string]string{typeSession: typeAssertion, typeAssertion: typeSession}[typ]
	expires := claims[strings.Index(claims, `"exp":`)+6:][:10]
	return map[string]string{
		"empty": "", "one part": parts[0], "two parts": parts[0] + "." + parts[1], "four parts": token + ".", "five parts": token + "." + parts[1] + "." + parts[2],
		"only dots": "..", "JSON serialization": `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"leading space": " " + token, "trailing space": token + " ", "trailing newline": token + "\n", "scheme": "Bearer " + token,
		"line break in header":     parts[0][:4] + "\n" + parts[0][4:] + "." + parts[1] + "." + parts[2],
		"line break in claims":     parts[0] + "." + parts[1][:4] + "\r\n" + parts[1][4:] + "." + parts[2],
		"line break in signature":  parts[0] + "." + parts[1] + "." + parts[2][:4] + "\n" + parts[2][4:],
		"padded signature":         token + "==",
		"padded header":            parts[0] + "=." + parts[1] + "." + parts[2],
		"stray bits in signature":  stray(token),
		"standard base64":          parts[0] + "." + parts[1] + "." + base64.RawStdEncoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0xff, 0xbe}, 22)[:64]),
		"not base64":               parts[0] + "." + parts[1] + ".%%%%",
		"no signature":             parts[0] + "." + parts[1] + ".",
		"signature of zeros":       parts[0] + "." + parts[1] + "." + b64(strings.Repeat("\x00", 64)),
		"signature cut short":      parts[0] + "." + parts[1] + "." + parts[2][:84],
		"signature by another key": seal(t, newKey(t, 66), good, claims),
		"swapped claims":           parts[0] + "." + b64(strings.Replace(claims, `"scope":"read`, `"scope":"admin`, 1)) + "." + parts[2],
		"oversize":                 seal(t, k, good, claims+strings.Repeat(" ", MaxToken)),

		"alg none":             seal(t, k, strings.Replace(good, `"EdDSA"`, `"none"`, 1), claims),
		"alg none, unsigned":   b64(strings.Replace(good, `"EdDSA"`, `"none"`, 1)) + "." + parts[1] + ".",
		"alg NONE":             header(`"EdDSA"`, `"NONE"`),
		"alg HS256":            header(`"EdDSA"`, `"HS256"`),
		"alg RS256":            header(`"EdDSA"`, `"RS256"`),
		"alg ES384":            header(`"EdDSA"`, `"ES384"`),
		"alg ES256K":           header(`"EdDSA"`, `"ES256K"`),
		"alg Ed25519":          header(`"EdDSA"`, `"Ed25519"`),
		"alg in lower case":    header(`"EdDSA"`, `"eddsa"`),
		"alg of another key":   header(`"EdDSA"`, `"ES256"`),
		"alg missing":          header(`"alg":"EdDSA",`, ``),
		"alg null":             header(`"EdDSA"`, `null`),
		"alg twice":            header(`{`, `{"alg":"none",`),
		"alg key upper-case":   header(`"alg"`, `"Alg"`),
		"jwk":                  header(`{`, `{"jwk":{"kty":"OKP","crv":"Ed25519","x":"FORGED"},`),
		"jku":                  header(`{`, `{"jku":"https://evil.example/FORGED",`),
		"x5u":                  header(`{`, `{"x5u":"https://evil.example/FORGED",`),
		"x5c":                  header(`{`, `{"x5c":["FORGED"],`),
		"crit":                 header(`{`, `{"crit":["exp"],`),
		"crit empty":           header(`{`, `{"crit":[],`),
		"b64 false":            header(`{`, `{"b64":false,`),
		"zip":                  header(`{`, `{"zip":"DEF",`),
		"cty":                  header(`{`, `{"cty":"JWT",`),
		"typ of the other":     header(typ, otherType),
		"typ JWT":              header(typ, `JWT`),
		"typ with application": header(typ, `application/`+typ),
		"typ in capitals":      header(typ, strings.ToUpper(typ)),
		"typ missing":          header(`"typ":"`+typ+`",`, ``),
		"typ null":             header(`"`+typ+`"`, `null`),
		"typ twice":            header(`{`, `{"typ":"`+otherType+`",`),
		"kid missing":          header(`,"kid":"`+k.Public().URL().String()+`"`, ``),
		"kid a DID":            header("#"+k.Public().Multikey(), ``),
		"kid a URL":            header(k.Public().URL().String(), `https://evil.example/FORGED#k`),
		"kid a path":           header(k.Public().URL().String(), `../../FORGED`),
		"kid twice":            header(`{`, `{"kid":"FORGED",`),
		"kid of another":       header(k.Public().URL().String(), newKey(t, 66).Public().URL().String()),
		"header a list":        seal(t, k, `[`+good+`]`, claims),
		"header null":          seal(t, k, `null`, claims),
		"header trailing data": seal(t, k, good+`{}`, claims),
		"header not UTF-8":     header(`"EdDSA"`, "\"EdDSA\xff\""),

		"claims null":           seal(t, k, good, `null`),
		"claims empty":          seal(t, k, good, ``),
		"claims no members":     seal(t, k, good, `{}`),
		"claims a list":         seal(t, k, good, `[`+claims+`]`),
		"claims trailing data":  seal(t, k, good, claims+`{}`),
		"claims not UTF-8":      claim(`"jti":"`, "\"jti\":\"\xff"),
		"claims deep":           seal(t, k, good, strings.Repeat(`[`, 900)),
		"unknown claim":         claim(`{`, `{"nbf":1,`),
		"claim in capitals":     claim(`"scope"`, `"Scope"`),
		"exp twice":             claim(`{`, `{"exp":99999999999,`),
		"scope twice":           claim(`{`, `{"scope":"admin",`),
		"scope twice by escape": claim(`{`, `{"sc\u006fpe":"admin",`),
		"exp missing":           claim(`"exp":`+expires+`,`, ``),
		"exp null":              claim(`"exp":`+expires, `"exp":null`),
		"exp a string":          claim(`"exp":`+expires, `"exp":"`+expires+`"`),
		"exp a fraction":        claim(`"exp":`+expires, `"exp":`+expires+`.0`),
		"exp with exponent":     claim(`"exp":`+expires, `"exp":`+expires+`e0`),
		"exp beyond 64 bits":    claim(`"exp":`+expires, `"exp":99999999999999999999`),
		"exp the largest":       claim(`"exp":`+expires, `"exp":9223372036854775807`),
		"exp the smallest":      claim(`"exp":`+expires, `"exp":-9223372036854775808`),
		"exp minus zero":        claim(`"exp":`+expires, `"exp":-0`),
		"jti missing":           claim(`"jti":"`+secretID+`",`, ``),
		"jti null":              claim(`"jti":"`+secretID+`"`, `"jti":null`),
		"jti a number":          claim(`"jti":"`+secretID+`"`, `"jti":1`),
		"scope null":            claim(`"scope":"read`, `"scope":null,"x":"read`),
		"scope a list":          claim(`"scope":"read`, `"scope":["read"],"x":"read`),
		"iss null":              claim(`"iss":"`, `"iss":null,"x":"`),
		"iss no DID":            claim(`"iss":"did:key:`, `"iss":"https://FORGED`),
		"sub empty":             claim(`"sub":"`, `"sub":"","x":"`),
		"grant empty":           claim(`{`, `{"grant":"",`),
		"rec null":              claim(`{`, `{"rec":null,`),
		"joules negative":       strings.TrimSpace(seal(t, k, good, strings.Replace(strings.Replace(claims, `"max_joules":18446744073709551615`, `"x":1`, 1), `{`, `{"max_joules":-1,`, 1))),
	}
}

func TestMalformedAndForgedSessionsAreRefused(t *testing.T) {
	k, claims := newKey(t, 1), claimsOf(t, goodSession(t))
	cases := malformedTokens(t, k, typeSession, claims)
	edit := func(old, new string) string {
		t.Helper()
		if !strings.Contains(claims, old) {
			t.Fatalf("no %q in %s", old, claims)
		}
		return seal(t, k, headerOf(k, typeSession), strings.Replace(claims, old, new, 1))
	}
	cases["roles null"] = edit(`["publisher"]`, `null`)
	cases["roles missing"] = edit(`"roles":["publisher"],`, ``)
	cases["roles a string"] = edit(`["publisher"]`, `"publisher"`)
	cases["role null"] = edit(`["publisher"]`, `[null]`)
	cases["aud a list"] = edit(`"aud":"`+k.Public().DID().String()+`"`, `"aud":["`+k.Public().DID().String()+`"]`)
	cases["host_did missing"] = edit(`"host_did":"`+newKey(t, 2).Public().DID().String()+`",`, ``)
	cases["joules a fraction"] = edit(`18446744073709551615`, `1.5`)
	cases["joules beyond 64 bits"] = edit(`18446744073709551615`, `18446744073709551616`)
	cases["joules with exponent"] = edit(`18446744073709551615`, `1e3`)
	cases["joules zero"] = edit(`18446744073709551615`, `0`)
	if len(cases) < 60 {
		t.Errorf("only %d cases", len(cases))
	}
	for name, token := range cases {
		t.Run(name, func(t *testing.T) { checkRefusal(t, name, token, session(t, token, goodHolder(t), now)) })
	}
	if err := session(t, seal(t, k, headerOf(k, typeSession), claims), goodHolder(t), now); err != nil {
		t.Errorf("the token that the cases alter: %v", err)
	}
}

func TestMalformedAndForgedAssertionsAreRefused(t *testing.T) {
	k, claims := newKey(t, 2), claimsOf(t, goodAssertion(t))
	cases := malformedTokens(t, k, typeAssertion, claims)
	if len(cases) < 60 {
		t.Errorf("only %d cases", len(cases))
	}
	for name, token := range cases {
		t.Run(name, func(t *testing.T) { checkRefusal(t, name, token, assertion(t, token, now)) })
	}
	if err := assertion(t, seal(t, k, headerOf(k, typeAssertion), claims), now); err != nil {
		t.Errorf("the assertion that the cases alter: %v", err)
	}
}

func TestTokensOfP256(t *testing.T) {
	k := p256Key(t, 5)
	token, err := SignSession(goodSession(t), did.ES256, signer(k))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseSession(token)
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Verify(k.Public()); err != nil {
		t.Error(err)
	}
	if err := parsed.Verify(newKey(t, 1).Public()); !errors.Is(err, ErrToken) {
		t.Errorf("ES256 by an Ed25519 key: %v", err)
	}
	confused, err := SignSession(goodSession(t), did.EdDSA, signer(k))
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err = ParseSession(confused); err != nil {
		t.Fatal(err)
	}
	if err := parsed.Verify(k.Public()); !errors.Is(err, ErrToken) {
		t.Errorf("EdDSA stated, signed by P-256: %v", err)
	}
}

func TestParseGivesBackTheClaims(t *testing.T) {
	want := goodSession(t)
	token, err := SignSession(want, did.EdDSA, signer(newKey(t, 1)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSession(token)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := json.Marshal(want)
	b, errB := json.Marshal(got.Claims)
	if errA != nil || errB != nil || string(a) != string(b) || got.KeyID != newKey(t, 1).Public().URL() {
		t.Errorf("%s, want %s", b, a)
	}
	if _, err := ParseAssertion(token); !errors.Is(err, ErrToken) {
		t.Errorf("a session taken for an assertion: %v", err)
	}
}

func TestSignRefusesWhatIsTooLong(t *testing.T) {
	c := goodSession(t)
	c.Roles = []string{strings.Repeat("r", MaxToken)}
	if token, err := SignSession(c, did.EdDSA, signer(newKey(t, 1))); !errors.Is(err, ErrToken) || token != "" {
		t.Errorf("%d bytes, %v", len(token), err)
	}
}

func FuzzParseSession(f *testing.F) {
	for _, token := range malformedTokens(f, newKey(f, 1), typeSession, claimsOf(f, goodSession(f))) {
		f.Add(token)
	}
	token, err := SignSession(goodSession(f), did.EdDSA, signer(newKey(f, 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Fuzz(func(t *testing.T, s string) { checkParsed(t, s, ParseSession) })
}

func FuzzParseAssertion(f *testing.F) {
	for _, token := range malformedTokens(f, newKey(f, 2), typeAssertion, claimsOf(f, goodAssertion(f))) {
		f.Add(token)
	}
	token, err := SignAssertion(goodAssertion(f), did.EdDSA, signer(newKey(f, 2)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Fuzz(func(t *testing.T, s string) { checkParsed(t, s, ParseAssertion) })
}

// checkParsed: what is accepted is short, in one spelling of base64, and signed
// over exactly the bytes before the last dot.
func checkParsed[C any](t *testing.T, s string, parse func(string) (Token[C], error)) {
	token, err := parse(s)
	if err != nil {
		if !errors.Is(err, ErrToken) {
			t.Fatalf("an error of another kind: %v", err)
		}
		return
	}
	last := strings.LastIndexByte(s, '.')
	if len(s) > MaxToken || string(token.signed) != s[:last] || base64.RawURLEncoding.EncodeToString(token.signature) != s[last+1:] {
		t.Fatalf("accepted %q", s)
	}
	if token.KeyID == (did.URL{}) || token.algorithm != did.EdDSA && token.algorithm != did.ES256 {
		t.Fatalf("accepted with key %q, alg %q", token.KeyID, token.algorithm)
	}
}
