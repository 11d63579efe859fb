package policy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multibase"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// mac is a token that a verifier takes which lets the token choose the
// algorithm: a MAC whose key is what everybody knows of the signer.
func mac(header, claims string, key []byte) string {
	signed := b64(header) + "." + b64(claims)
	m := hmac.New(sha256.New, key)
	m.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// unaligned is JSON whose base64 is padded, where it is padded.
func unaligned(s string) string {
	for len(s)%3 == 0 {
		s = " " + s
	}
	return s
}

// strayBits is s in base64url, spelled with bits that no byte has.
func strayBits(t testing.TB, s string) string {
	t.Helper()
	encoded := b64(unaligned(s))
	return encoded[:len(encoded)-1] + string(encoded[len(encoded)-1]+1)
}

// sealParts signs two parts that may be any text.
func sealParts(t testing.TB, k did.PrivateKey, header, claims string) string {
	t.Helper()
	signature, err := k.Sign([]byte(header + "." + claims))
	if err != nil {
		t.Fatal(err)
	}
	return header + "." + claims + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// forgedTokens are more that no token of either type may be: signatures that
// the token itself explains, and spellings that another reader might take.
func forgedTokens(t testing.TB, k did.PrivateKey, typ, claims string) map[string]string {
	good, thief := headerOf(k, typ), newKey(t, 66)
	raw, _ := k.Public().Ed25519()
	hs := strings.Replace(good, `"EdDSA"`, `"HS256"`, 1)
	header := func(old, new string) string {
		return seal(t, k, replaced(t, good, old, new), claims)
	}
	claim := func(old, new string) string {
		return seal(t, k, good, replaced(t, claims, old, new))
	}
	jwk := `{"jwk":{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(must25519(t, thief)) + `"},`
	iat := claims[strings.Index(claims, `"iat":`):][:16]
	return map[string]string{
		"HS256 by the public key":        mac(hs, claims, raw),
		"HS256 by the public Multikey":   mac(hs, claims, []byte(k.Public().Multikey())),
		"HS256 by the kid":               mac(hs, claims, []byte(k.Public().URL().String())),
		"HS256 by nothing":               mac(hs, claims, nil),
		"EdDSA said, HMAC done":          mac(good, claims, raw),
		"HS512":                          header(`"EdDSA"`, `"HS512"`),
		"PS256":                          header(`"EdDSA"`, `"PS256"`),
		"Ed448":                          header(`"EdDSA"`, `"Ed448"`),
		"alg none with a space":          header(`"EdDSA"`, `"none "`),
		"alg nOnE":                       header(`"EdDSA"`, `"nOnE"`),
		"alg empty":                      header(`"EdDSA"`, `""`),
		"alg a list":                     header(`"EdDSA"`, `["EdDSA","none"]`),
		"alg with NUL":                   header(`"EdDSA"`, `"EdDSA\u0000"`),
		"its own jwk":                    seal(t, thief, replaced(t, good, `{`, jwk), claims),
		"its own jwk and kid":            seal(t, thief, replaced(t, headerOf(thief, typ), `{`, jwk), claims),
		"its own kid":                    seal(t, thief, headerOf(thief, typ), claims),
		"x5t":                            header(`{`, `{"x5t":"FORGED",`),
		"x5t#S256":                       header(`{`, `{"x5t#S256":"FORGED",`),
		"iss in the header":              header(`{`, `{"iss":"did:key:FORGED",`),
		"alg again, escaped":             header(`{`, `{"al\u0067":"none",`),
		"kid again, escaped":             header(`{`, `{"k\u0069d":"FORGED",`),
		"kid with a path":                header("#", "/FORGED#"),
		"kid with a query":               header("#", "?FORGED#"),
		"kid with two fragments":         header("#", "#FORGED#"),
		"kid in capitals":                header("did:key", "DID:KEY"),
		"kid with NUL":                   header("#", `\u0000#`),
		"kid null":                       header(`"kid":"`, `"kid":null,"x":"`),
		"kid a list":                     header(`"kid":"`, `"kid":[],"x":"`),
		"typ a list":                     header(`"`+typ+`"`, `["`+typ+`"]`),
		"typ with a parameter":           header(typ, typ+";x=1"),
		"header empty":                   sealParts(t, k, "", b64(claims)),
		"header of no members":           seal(t, k, `{}`, claims),
		"header a string":                seal(t, k, `"FORGED"`, claims),
		"header with a comment":          header(`{`, `{/**/`),
		"header with a BOM":              seal(t, k, "\ufeff"+good, claims),
		"header with stray bits":         sealParts(t, k, strayBits(t, good), b64(claims)),
		"header with a comma at its end": header(`}`, `,}`),
		"claims missing":                 sealParts(t, k, b64(good), ""),
		"claims with stray bits":         sealParts(t, k, b64(good), strayBits(t, claims)),
		"claims padded":                  sealParts(t, k, b64(good), b64(claims)+"="),
		"claims in standard base64":      sealParts(t, k, b64(good), base64.StdEncoding.EncodeToString([]byte(unaligned(claims)))),
		"claims with a space":            sealParts(t, k, b64(good), " "+b64(claims)),
		"claims with a tab":              sealParts(t, k, b64(good), b64(claims)+"\t"),
		"claims with NUL":                sealParts(t, k, b64(good), b64(claims)+"\x00"),
		"claims encoded twice":           seal(t, k, good, b64(claims)),
		"claims in UTF-16":               seal(t, k, good, "\xff\xfe{\x00}\x00"),
		"claims with a BOM":              seal(t, k, good, "\ufeff"+claims),
		"claims with a lone surrogate":   claim(`"jti":"`, `"jti":"\ud800`),
		"claims with a raw NUL":          claim(`"jti":"`, "\"jti\":\"\x00"),
		"claims with NaN":                claim(iat, `"iat":NaN,`),
		"claims with hex":                claim(iat, `"iat":0x6a5,`),
		"a deep unknown claim":           seal(t, k, good, replaced(t, claims, `{`, `{"x":`+strings.Repeat(`[`, 200)+strings.Repeat(`]`, 200)+`,`)),
		"aud null":                       claim(`"aud":"`, `"aud":null,"x":"`),
		"aud empty list":                 claim(`"aud":"`, `"aud":[],"x":"`),
		"aud of two":                     claim(`"aud":"`, `"aud":["https://evil.example/FORGED"],"x":"`),
		"aud twice":                      claim(`"aud":"`, `"aud":"https://evil.example/FORGED","aud":"`),
		"aud missing":                    claim(`"aud":"`, `"audience":"`),
		"iss twice":                      claim(`"iss":"`, `"iss":"did:key:FORGED","iss":"`),
		"iss in capitals":                claim(`"iss":"did:key`, `"iss":"DID:KEY`),
		"sub another's":                  claim(`"sub":"`+subjectIn(claims)+`"`, `"sub":"`+thief.Public().DID().String()+`"`),
		"sub with a fragment":            claim(`"sub":"`+subjectIn(claims)+`"`, `"sub":"`+subjectIn(claims)+`#x"`),
		"sub an object":                  claim(`"sub":"`, `"sub":{},"x":"`),
		"iat missing":                    claim(iat+`,`, ``),
		"iat null":                       claim(iat, `"iat":null`),
		"iat a string":                   claim(iat, `"iat":"`+iat[6:]+`"`),
		"iat a fraction":                 claim(iat, iat+`.5`),
		"iat negative":                   claim(iat, `"iat":-1`),
		"iat before 1970 by far":         claim(iat, `"iat":-9223372036854775808`),
		"iat beyond 64 bits":             claim(iat, `"iat":1e400`),
		"iat with a leading zero":        claim(iat, `"iat":0`+iat[6:]),
		"iat with a plus":                claim(iat, `"iat":+`+iat[6:]),
		"iat true":                       claim(iat, `"iat":true`),
		"exp in milliseconds":            claim(`"exp":`+expiryIn(claims), `"exp":`+expiryIn(claims)+`000`),
		"exp true":                       claim(`"exp":`+expiryIn(claims), `"exp":true`),
		"exp a list":                     claim(`"exp":`+expiryIn(claims), `"exp":[`+expiryIn(claims)+`]`),
		"exp before iat":                 claim(`"exp":`+expiryIn(claims), `"exp":1`),
		"scope an object":                claim(`"scope":"read`, `"scope":{},"x":"read`),
		"memory a string":                claim(`{`, `{"max_mem_mb":"1",`),
		"memory beyond 64 bits":          claim(`{`, `{"max_mem_mb":18446744073709551616,`),
		"memory minus zero":              claim(`{`, `{"max_mem_mb":-0,`),
		"grant null":                     claim(`{`, `{"grant":null,`),
		"grant a list":                   claim(`{`, `{"grant":["bafkrei"],`),
		"rec empty":                      claim(`{`, `{"rec":"",`),
		"rec a number":                   claim(`{`, `{"rec":0,`),
		"an address of null":             claim(`{`, `{"stakeholder_addr":null,`),
	}
}

func replaced(t testing.TB, s, old, new string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("no %q in %s", old, s)
	}
	return strings.Replace(s, old, new, 1)
}

func must25519(t testing.TB, k did.PrivateKey) []byte {
	t.Helper()
	raw, ok := k.Public().Ed25519()
	if !ok {
		t.Fatal("no Ed25519 key")
	}
	return raw
}

func subjectIn(claims string) string {
	_, rest, _ := strings.Cut(claims, `"sub":"`)
	subject, _, _ := strings.Cut(rest, `"`)
	return subject
}

func expiryIn(claims string) string { return claims[strings.Index(claims, `"exp":`)+6:][:10] }

func TestForgedSessionsAreRefused(t *testing.T) {
	k := newKey(t, 1)
	for name, token := range forgedTokens(t, k, typeSession, claimsOf(t, goodSession(t))) {
		t.Run(name, func(t *testing.T) { checkRefusal(t, name, token, session(t, token, goodHolder(t), now)) })
	}
}

func TestForgedAssertionsAreRefused(t *testing.T) {
	k := newKey(t, 2)
	claims := claimsOf(t, goodAssertion(t))
	cases := forgedTokens(t, k, typeAssertion, claims)
	edit := func(old, new string) string {
		return seal(t, k, headerOf(k, typeAssertion), replaced(t, claims, old, new))
	}
	maps.Copy(cases, map[string]string{
		"aud a list":              edit(`"aud":"`+testURL+`"`, `"aud":["`+testURL+`"]`),
		"aud with a slash":        edit(testURL, testURL+"/"),
		"aud with a query":        edit(testURL, testURL+"?FORGED"),
		"aud with a fragment":     edit(testURL, testURL+"#FORGED"),
		"aud in capitals":         edit("registry.example", "REGISTRY.example"),
		"aud with a port":         edit("registry.example", "registry.example:443"),
		"aud with a final dot":    edit("registry.example", "registry.example."),
		"aud of plain http":       edit("https://registry", "http://registry"),
		"aud of a user":           edit("https://registry", "https://FORGED@registry"),
		"aud of dots":             edit("/v1/session", "/v1/../v1/session"),
		"aud percent-encoded":     edit("/v1/session", "/v1/%73ession"),
		"aud the origin":          edit(testURL, newKey(t, 1).Public().DID().String()),
		"aud with a space":        edit(testURL, testURL+" "),
		"jti of 15":               edit(secretID, "Sxsecretsecret4"),
		"jti of 65":               edit(secretID, strings.Repeat("j", 65)),
		"jti with NUL":            edit(secretID, `Sxsecretsecret42\u0000`),
		"jti of the last rune":    edit(secretID, `Sxsecretsecret`+"\U0010ffff"),
		"jti with a line break":   edit(secretID, `Sxsecret\nsecret42`),
		"jti with a space":        edit(secretID, "Sxsecret secret4"),
		"jti of another alphabet": edit(secretID, "Sxsecretsecretéé"),
		"lifetime a string":       edit(`"lifetime":300`, `"lifetime":"300"`),
		"lifetime a fraction":     edit(`"lifetime":300`, `"lifetime":300.0`),
		"lifetime beyond 64 bits": edit(`"lifetime":300`, `"lifetime":18446744073709551616`),
		"lifetime zero, written":  edit(`"lifetime":300`, `"lifetime":0`),
		"lifetime null":           edit(`"lifetime":300`, `"lifetime":null`),
		"roles asked for":         edit(`{`, `{"roles":["publisher"],`),
		"host_did asked for":      edit(`{`, `{"host_did":"did:key:FORGED",`),
	})
	for name, token := range cases {
		t.Run(name, func(t *testing.T) { checkRefusal(t, name, token, assertion(t, token, now)) })
	}
}

// Signatures in other forms than the one of FORMATS §1, all of them true in a
// laxer reading, and signatures that a lax verifier takes for any message.
func TestSignaturesInOtherForms(t *testing.T) {
	ed, p256 := newKey(t, 1), p256Key(t, 5)
	order := elliptic.P256().Params().N
	der := func(sig []byte) []byte {
		out, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	join := slices.Concat[[]byte]
	ones, zeros := bytes.Repeat([]byte{0xff}, 32), make([]byte, 32)
	for name, c := range map[string]struct {
		key  did.PrivateKey
		form func(sig []byte) []byte
	}{
		"ES256 in DER": {p256, der},
		"ES256 with a high s": {p256, func(s []byte) []byte {
			return join(s[:32], new(big.Int).Sub(order, new(big.Int).SetBytes(s[32:])).FillBytes(make([]byte, 32)))
		}},
		"ES256, s before r":         {p256, func(s []byte) []byte { return join(s[32:], s[:32]) }},
		"ES256 of 63 bytes":         {p256, func(s []byte) []byte { return s[1:] }},
		"ES256 of 65 bytes":         {p256, func(s []byte) []byte { return join([]byte{0}, s) }},
		"ES256 of 66 bytes, r wide": {p256, func(s []byte) []byte { return join([]byte{0}, s[:32], []byte{0}, s[32:]) }},
		"ES256 of P-384's length":   {p256, func(s []byte) []byte { return join(make([]byte, 16), s[:32], make([]byte, 16), s[32:]) }},
		"ES256, r and s zero":       {p256, func([]byte) []byte { return join(zeros, zeros) }},
		"ES256, r zero":             {p256, func(s []byte) []byte { return join(zeros, s[32:]) }},
		"ES256, s zero":             {p256, func(s []byte) []byte { return join(s[:32], zeros) }},
		"ES256, r the order":        {p256, func(s []byte) []byte { return join(order.Bytes(), s[32:]) }},
		"ES256, s the order":        {p256, func(s []byte) []byte { return join(s[:32], order.Bytes()) }},
		"ES256, all ones":           {p256, func([]byte) []byte { return join(ones, ones) }},
		"ES256 with a recovery id":  {p256, func(s []byte) []byte { return join(s, []byte{27}) }},
		"EdDSA, s and the order":    {ed, plusOrder},
		"EdDSA, s without end":      {ed, func(s []byte) []byte { return join(s[:32], ones) }},
		"EdDSA, R the identity":     {ed, func(s []byte) []byte { return join([]byte{1}, zeros[1:], s[32:]) }},
		"EdDSA, R zero":             {ed, func(s []byte) []byte { return join(zeros, s[32:]) }},
		"EdDSA, identity and zero":  {ed, func([]byte) []byte { return join([]byte{1}, zeros[1:], zeros) }},
		"EdDSA, R not canonical":    {ed, func(s []byte) []byte { return join([]byte{0xee}, ones[:30], []byte{0x7f}, s[32:]) }},
		"EdDSA of 63 bytes":         {ed, func(s []byte) []byte { return s[:63] }},
		"EdDSA of 65 bytes":         {ed, func(s []byte) []byte { return join(s, []byte{0}) }},
		"EdDSA twice":               {ed, func(s []byte) []byte { return join(s, s) }},
		"EdDSA of nothing":          {ed, func([]byte) []byte { return []byte{0} }},
		"EdDSA, s before R":         {ed, func(s []byte) []byte { return join(s[32:], s[:32]) }},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := SignSession(goodSession(t), c.key.Public().Algorithm(), signer(c.key))
			if err != nil {
				t.Fatal(err)
			}
			signed, encoded := token[:strings.LastIndexByte(token, '.')+1], token[strings.LastIndexByte(token, '.')+1:]
			signature, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil {
				t.Fatal(err)
			}
			for form, want := range map[string]bool{encoded: true, base64.RawURLEncoding.EncodeToString(c.form(signature)): false} {
				parsed, err := ParseSession(signed + form)
				if err == nil {
					err = parsed.Verify(c.key.Public())
				}
				if (err == nil) != want {
					t.Errorf("as signed %t: %v", want, err)
				}
			}
		})
	}
	// The high s is true by the standard library, or the case tells nothing.
	digest := sha256.Sum256([]byte("m"))
	signature, err := p256.Sign([]byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), compressed(t, p256.Public()))
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))))
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.Verify(key, digest[:], r, s.Sub(order, s)) {
		t.Error("crypto/ecdsa refuses a high s by itself")
	}
}

// plusOrder adds the order of Ed25519's group to a signature's s: the same
// scalar, another spelling.
func plusOrder(signature []byte) []byte {
	order, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	s := slices.Clone(signature[32:])
	slices.Reverse(s)
	sum := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	slices.Reverse(sum)
	return append(slices.Clone(signature[:32]), sum...)
}

// compressed is the point of a P-256 key, out of its Multikey.
func compressed(t *testing.T, k did.PublicKey) []byte {
	t.Helper()
	_, value, err := multibase.Decode(k.Multikey())
	if err != nil {
		t.Fatal(err)
	}
	return value[2:]
}

// Every bit of a token of either type and algorithm, every length that it can be
// cut to, and every byte left out or doubled.
func TestAlteredTokensAreRefused(t *testing.T) {
	host := p256Key(t, 2)
	a := goodAssertion(t)
	a.Issuer, a.Subject = host.Public().DID(), host.Public().DID()
	for name, c := range map[string]struct {
		sign func() (string, error)
		take func(string) error
	}{
		"a session": {
			func() (string, error) { return SignSession(goodSession(t), did.EdDSA, signer(newKey(t, 1))) },
			func(s string) error { return session(t, s, goodHolder(t), now) },
		},
		"an assertion by P-256": {
			func() (string, error) { return SignAssertion(a, did.ES256, signer(host)) },
			func(s string) error {
				parsed, err := ParseAssertion(s)
				if err != nil {
					return err
				}
				if err := parsed.Verify(host.Public()); err != nil {
					return err
				}
				if d := CheckAssertion(parsed, testURL, now.Add(-time.Hour), now); d != nil {
					return d
				}
				return nil
			},
		},
	} {
		token, err := c.sign()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.take(token); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range token {
			for bit := range 8 {
				flipped := []byte(token)
				flipped[i] ^= 1 << bit
				if c.take(string(flipped)) == nil {
					t.Errorf("%s: byte %d, bit %d: nobody noticed", name, i, bit)
				}
			}
			for what, altered := range map[string]string{
				"cut": token[:i], "left out": token[:i] + token[i+1:], "doubled": token[:i+1] + token[i:], "followed by NUL": token[:i+1] + "\x00" + token[i+1:],
			} {
				if altered != token && c.take(altered) == nil {
					t.Errorf("%s: byte %d %s: nobody noticed", name, i, what)
				}
			}
		}
	}
}

// What is typed as one is never the other, though the same key signed both.
func TestSessionsAndAssertionsAreNotTakenForEachOther(t *testing.T) {
	k := newKey(t, 2)
	me := k.Public().DID()
	both := particle.SessionToken{
		Issuer: me, Subject: me, Audience: me, IssuedAt: now.Unix(), Expiry: now.Add(time.Minute).Unix(),
		ID: secretID, HostDID: me.String(), Roles: []string{}, Scope: "read",
	}
	asSession, err := SignSession(both, did.EdDSA, signer(k))
	if err != nil {
		t.Fatal(err)
	}
	asAssertion, err := SignAssertion(goodAssertion(t), did.EdDSA, signer(k))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAssertion(asSession); !errors.Is(err, ErrToken) {
		t.Errorf("a session as assertion: %v", err)
	}
	if _, err := ParseSession(asAssertion); !errors.Is(err, ErrToken) {
		t.Errorf("an assertion as session: %v", err)
	}
	// Nor with the other's claims under the right type.
	for name, token := range map[string]string{
		"an assertion's claims": seal(t, k, headerOf(k, typeSession), claimsOf(t, goodAssertion(t))),
		"a session's claims":    seal(t, k, headerOf(k, typeAssertion), claimsOf(t, goodSession(t))),
	} {
		_, errSession := ParseSession(token)
		_, errAssertion := ParseAssertion(token)
		if errSession == nil || errAssertion == nil {
			t.Errorf("%s: %v, %v", name, errSession, errAssertion)
		}
	}
}
