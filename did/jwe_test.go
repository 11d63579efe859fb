package did

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

var passphrase = []byte("correct horse")

func TestExportedKeyIsAsInTheGoldenFileAndComesBack(t *testing.T) {
	ed, _ := testKeys(t)
	key := NamedKey{ed.Public().URL().String(), ed}
	data, err := EncryptKey(key, passphrase, bytes.NewReader(bytes.Repeat([]byte{7}, 60)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/export-ed25519.jwe")
	if err != nil {
		t.Fatal(err)
	}
	if string(data)+"\n" != string(want) {
		t.Errorf("EncryptKey = %s; want %s", data, want)
	}
	back, err := DecryptKey(want, passphrase)
	if err != nil || !sameKeys([]NamedKey{back}, []NamedKey{key}) {
		t.Errorf("DecryptKey = %v, %v; want %v", back, err, key)
	}
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(string(data), ".")[0])
	if err != nil || !strings.Contains(string(header), `"p2c":600000`) {
		t.Errorf("header %s, %v; want 600000 iterations", header, err)
	}
}

// quickExport encrypts with the least iterations, for tests that need many.
func quickExport(t testing.TB, k NamedKey) string {
	t.Helper()
	data, err := encryptKey(k, passphrase, rand.Reader, minJWEIterations)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestGoJoseOpensWhatIsExported(t *testing.T) {
	ed, p256 := testKeys(t)
	for _, key := range []NamedKey{{"a", ed}, {"b", p256}} {
		object, err := jose.ParseEncryptedCompact(quickExport(t, key), []jose.KeyAlgorithm{jose.PBES2_HS512_A256KW}, []jose.ContentEncryption{jose.A256GCM})
		if err != nil {
			t.Fatal(err)
		}
		plaintext, err := object.Decrypt(passphrase)
		if err != nil {
			t.Fatal(err)
		}
		var jwk jose.JSONWebKey
		if err := jwk.UnmarshalJSON(plaintext); err != nil || jwk.KeyID != key.ID || jwk.IsPublic() || !jwk.Valid() {
			t.Errorf("go-jose reads %s as %v, %v", key.ID, jwk.KeyID, err)
		}
	}
}

func TestDecryptKeyOpensWhatGoJoseMakes(t *testing.T) {
	recipient := jose.Recipient{Algorithm: jose.PBES2_HS512_A256KW, Key: passphrase, PBES2Count: minJWEIterations}
	encrypter, err := jose.NewEncrypter(jose.A256GCM, recipient, nil)
	if err != nil {
		t.Fatal(err)
	}
	for id, jwk := range map[string]string{"a": jwkEd25519, "b": jwkP256} {
		object, err := encrypter.Encrypt([]byte(jwk))
		if err != nil {
			t.Fatal(err)
		}
		data, err := object.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		if k, err := DecryptKey([]byte(data), passphrase); err != nil || k.ID != id {
			t.Errorf("DecryptKey = %v, %v; want %s", k, err, id)
		}
	}
}

func TestTwoExportsOfOneKeyShareNothing(t *testing.T) {
	ed, _ := testKeys(t)
	a, b := quickExport(t, NamedKey{"a", ed}), quickExport(t, NamedKey{"a", ed})
	partsA, partsB := strings.Split(a, "."), strings.Split(b, ".")
	for i := range partsA {
		if partsA[i] == partsB[i] {
			t.Errorf("part %d is the same twice", i+1)
		}
	}
}

func TestEncryptKeyRefuses(t *testing.T) {
	ed, _ := testKeys(t)
	for name, test := range map[string]struct {
		key        NamedKey
		passphrase string
		random     int
		want       error
	}{
		"empty passphrase":      {NamedKey{"a", ed}, "", 60, ErrNoPassphrase},
		"NUL in the passphrase": {NamedKey{"a", ed}, "x\x00", 60, ErrNoPassphrase},
		"zero key":              {NamedKey{ID: "a"}, "x", 60, ErrNoKey},
		"no id":                 {NamedKey{Key: ed}, "x", 60, ErrKeyFile},
	} {
		data, err := EncryptKey(test.key, []byte(test.passphrase), bytes.NewReader(make([]byte, test.random)))
		if !errors.Is(err, test.want) || data != nil {
			t.Errorf("%s: %q, %v; want %v", name, data, err, test.want)
		}
	}
	if data, err := EncryptKey(NamedKey{"a", ed}, passphrase, bytes.NewReader(make([]byte, 59))); err == nil || data != nil {
		t.Errorf("too little randomness: %q, %v", data, err)
	}
}

func TestDecryptKeyNeedsThePassphrase(t *testing.T) {
	ed, _ := testKeys(t)
	data := []byte(quickExport(t, NamedKey{"a", ed}))
	for wrong, want := range map[string]error{
		"": ErrNoPassphrase, "correct horse\x00": ErrNoPassphrase,
		"correct hors": ErrPassphrase, "correct horse ": ErrPassphrase, "Correct horse": ErrPassphrase,
	} {
		if k, err := DecryptKey(data, []byte(wrong)); !errors.Is(err, want) || !k.Key.IsZero() {
			t.Errorf("%q: %v, %v; want %v", wrong, k, err, want)
		}
	}
}

// TestAlteredExportsAreRefused changes each character in turn: in the header,
// which is authenticated, as in all other parts.
func TestAlteredExportsAreRefused(t *testing.T) {
	ed, _ := testKeys(t)
	data := quickExport(t, NamedKey{"a", ed})
	for i := range data {
		altered := []byte(data)
		if altered[i]++; altered[i] == data[i] {
			t.Fatal("not altered")
		}
		k, err := DecryptKey(altered, passphrase)
		if !errors.Is(err, ErrPassphrase) && !errors.Is(err, ErrKeyFile) || !k.Key.IsZero() {
			t.Errorf("character %d altered: %v, %v; want a refusal", i, k, err)
		}
	}
}

func TestParseJWERefuses(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	salt := encode(make([]byte, 16))
	jwe := func(header string) string {
		return encode([]byte(header)) + "." + encode(make([]byte, 40)) + "." + encode(make([]byte, 12)) + ".AAAA." + encode(make([]byte, 16))
	}
	header := func(p2c string) string {
		return fmt.Sprintf(`{"alg":%q,"enc":%q,"p2s":%q,"p2c":%s}`, jweAlg, jweEnc, salt, p2c)
	}
	good := jwe(header("600000"))
	if _, err := parseJWE([]byte(good)); err != nil {
		t.Fatalf("the form that all below is made from: %v", err)
	}
	if _, err := parseJWE([]byte(jwe(header("2000000")))); err != nil {
		t.Errorf("2,000,000 iterations: %v", err)
	}
	parts := strings.Split(good, ".")
	for name, data := range map[string]string{
		"nothing":              "",
		"a JWK":                jwkEd25519,
		"four parts":           strings.Join(parts[:4], "."),
		"six parts":            good + ".",
		"2,000,001 iterations": jwe(header("2000001")),
		"2^63 iterations":      jwe(header("9223372036854775808")),
		"999 iterations":       jwe(header("999")),
		"no iterations":        jwe(header("0")),
		"negative iterations":  jwe(header("-1")),
		"iterations as text":   jwe(header(`"600000"`)),
		"iterations as float":  jwe(header("600000.5")),
		"another alg":          jwe(strings.Replace(header("600000"), jweAlg, "dir", 1)),
		"another enc":          jwe(strings.Replace(header("600000"), jweEnc, "A128GCM", 1)),
		"another cty":          jwe(strings.Replace(header("600000"), "{", `{"cty":"JWT",`, 1)),
		"compressed":           jwe(strings.Replace(header("600000"), "{", `{"zip":"DEF",`, 1)),
		"crit":                 jwe(strings.Replace(header("600000"), "{", `{"crit":["exp"],`, 1)),
		"duplicate alg":        jwe(strings.Replace(header("600000"), "{", `{"alg":"dir",`, 1)),
		"no salt":              jwe(strings.Replace(header("600000"), salt, "", 1)),
		"short salt":           jwe(strings.Replace(header("600000"), salt, encode(make([]byte, 7)), 1)),
		"long salt":            jwe(strings.Replace(header("600000"), salt, encode(make([]byte, 257)), 1)),
		"salt not base64url":   jwe(strings.Replace(header("600000"), salt, "++++", 1)),
		"header is no JSON":    jwe("x"),
		"header trails":        jwe(header("600000") + "{}"),
		"padding":              parts[0] + "=." + strings.Join(parts[1:], "."),
		"line break inside":    parts[0] + "\n." + strings.Join(parts[1:], "."),
		"leading space":        " " + good,
		"short wrapped key":    strings.Join([]string{parts[0], encode(make([]byte, 32)), parts[2], parts[3], parts[4]}, "."),
		"short nonce":          strings.Join([]string{parts[0], parts[1], encode(make([]byte, 8)), parts[3], parts[4]}, "."),
		"short tag":            strings.Join([]string{parts[0], parts[1], parts[2], parts[3], encode(make([]byte, 12))}, "."),
		"too large":            strings.Join([]string{parts[0], parts[1], parts[2], strings.Repeat("A", maxJWE), parts[4]}, "."),
	} {
		if _, err := DecryptKey([]byte(data), passphrase); !errors.Is(err, ErrKeyFile) {
			t.Errorf("%s: %v; want ErrKeyFile", name, err)
		}
	}
}

func TestDecryptedContentsAreCheckedLikeAFile(t *testing.T) {
	for name, jwk := range badKeyFiles {
		if len(jwk) > maxJWE/2 {
			continue // refused for its size, above
		}
		parts := jweParts{salt: make([]byte, saltSize), iterations: minJWEIterations, nonce: make([]byte, gcmNonceSize)}
		parts.protected = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"enc":%q,"p2s":%q,"p2c":%d}`,
			jweAlg, jweEnc, base64.RawURLEncoding.EncodeToString(parts.salt), parts.iterations))
		if err := parts.seal(passphrase, make([]byte, contentKeySize), []byte(jwk)); err != nil {
			t.Fatal(err)
		}
		if k, err := DecryptKey(parts.compact(), passphrase); !errors.Is(err, ErrKeyFile) || !k.Key.IsZero() {
			t.Errorf("%s: %v, %v; want ErrKeyFile", name, k, err)
		}
	}
}
