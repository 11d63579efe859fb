package did

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSignaturesOfTheRFCs(t *testing.T) {
	ed, p256 := testKeys(t)
	for _, test := range []struct {
		name    string
		key     PrivateKey
		message string
		sig     string
	}{
		{"RFC 8032 7.1 test 2", ed, "\x72", "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da" +
			"085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		// The RFC's s is f7cb1c94…, which is high; this is the order minus it.
		{"RFC 6979 A.2.5 sample", p256, "sample", "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716" +
			"0834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9"},
		{"RFC 6979 A.2.5 test", p256, "test", "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367" +
			"019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083"},
	} {
		sig, err := test.key.Sign([]byte(test.message))
		if err != nil || hex.EncodeToString(sig) != test.sig {
			t.Errorf("%s: %x, %v; want %s", test.name, sig, err, test.sig)
		}
		if err := test.key.Public().Verify([]byte(test.message), sig); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestGeneratedKeysSignAndDiffer(t *testing.T) {
	seen := map[PublicKey]bool{}
	for range 8 {
		ed, err := GenerateEd25519(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p256, err := GenerateP256(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []PrivateKey{ed, p256} {
			if seen[k.Public()] {
				t.Fatal("the same key twice")
			}
			seen[k.Public()] = true
			signer := k.Signer(k.Public().URL())
			sig, err := signer.Sign([]byte("message"))
			if err != nil {
				t.Fatal(err)
			}
			public, err := ResolveKey(signer.KeyID(), AssertionMethod, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := public.Verify([]byte("message"), sig); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestGenerationDependsOnItsRandomnessAlone(t *testing.T) {
	source := bytes.Repeat([]byte{7}, 32)
	for _, generate := range []func() (PrivateKey, error){
		func() (PrivateKey, error) { return GenerateEd25519(bytes.NewReader(source)) },
		func() (PrivateKey, error) { return GenerateP256(bytes.NewReader(source)) },
	} {
		a, errA := generate()
		b, errB := generate()
		if errA != nil || errB != nil || a.Public() != b.Public() {
			t.Errorf("%v, %v; %v, %v", a, errA, b, errB)
		}
	}
}

func TestGenerationFailsWithItsRandomness(t *testing.T) {
	if k, err := GenerateEd25519(strings.NewReader("short")); err == nil || !k.IsZero() {
		t.Errorf("Ed25519 of 5 bytes: %v, %v", k, err)
	}
	if k, err := GenerateP256(strings.NewReader("short")); err == nil || !k.IsZero() {
		t.Errorf("P-256 of 5 bytes: %v, %v", k, err)
	}
	// A source of nothing but ones never gives a scalar below the order.
	if k, err := GenerateP256(bytes.NewReader(bytes.Repeat([]byte{0xff}, 1024))); err == nil || !k.IsZero() {
		t.Errorf("P-256 of ones: %v, %v", k, err)
	}
}

func TestZeroPrivateKeyDoesNothing(t *testing.T) {
	var k PrivateKey
	if sig, err := k.Sign([]byte("message")); !errors.Is(err, ErrNoKey) || sig != nil {
		t.Errorf("Sign = %x, %v; want ErrNoKey", sig, err)
	}
	if _, ok := k.Ed25519(); ok || !k.IsZero() || !k.Public().IsZero() {
		t.Error("the zero key has a key")
	}
	if k.String() != "no private key" {
		t.Errorf("String = %q", k)
	}
}

func TestEd25519PrivateKeyIsACopy(t *testing.T) {
	ed, p256 := testKeys(t)
	raw, ok := ed.Ed25519()
	if !ok || len(raw) != 64 {
		t.Fatal("no Ed25519 key")
	}
	clear(raw)
	if again, _ := ed.Ed25519(); bytes.Equal(again, raw) {
		t.Error("Ed25519 hands out the key's own bytes")
	}
	if _, ok := p256.Ed25519(); ok {
		t.Error("a P-256 key gave an Ed25519 key")
	}
}

// TestPrivateKeysAreNeverShown prints keys in every way a programmer might by
// accident and looks for the material in the usual notations.
func TestPrivateKeysAreNeverShown(t *testing.T) {
	type hidden struct{ key PrivateKey } // fmt cannot call methods on its field
	type shown struct{ Key PrivateKey }
	ed, p256 := testKeys(t)
	for _, key := range []PrivateKey{ed, p256} {
		d, err := key.scalar()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		signer := key.Signer(key.Public().URL())
		for _, v := range []any{key, &key, hidden{key}, &hidden{key}, shown{key}, NamedKey{"id", key}, []PrivateKey{key},
			map[string]PrivateKey{"k": key}, signer, &signer, fmt.Errorf("x: %v", key)} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			fmt.Fprintln(&out, v)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", v)
			slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", v)
			if data, err := json.Marshal(v); err == nil {
				out.Write(data)
			}
		}
		text := out.String()
		for _, secret := range []string{
			string(d), hex.EncodeToString(d), strings.ToUpper(hex.EncodeToString(d)),
			base64.RawURLEncoding.EncodeToString(d), base64.StdEncoding.EncodeToString(d),
			strings.Trim(fmt.Sprint(d), "[]"), strings.Trim(fmt.Sprintf("%o", d), "[]"), strings.Trim(fmt.Sprintf("%b", d), "[]"),
			strings.Trim(fmt.Sprintf("%#v", d), "[]byte{}"),
		} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: printed as %q", key, secret)
			}
		}
		if !strings.Contains(text, "private key of "+key.Public().Multikey()) {
			t.Error("nothing says which key it was")
		}
	}
}
