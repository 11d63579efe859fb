package did

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/durable"
)

// Private keys of RFC 8037 A.1 and RFC 6979 A.2.5, as key files hold them.
const (
	jwkEd25519 = `{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`
	jwkP256    = `{"kty":"EC","crv":"P-256","kid":"b","x":"YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y","y":"eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk","d":"ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE"}`
)

// negatedY is p − y of jwkP256: with its x a point of the curve, but another key.
const negatedY = "hvwB7vdHQ2db5RYWqddDmw0OTfTSgWCuiFw9ayu53WY"

// privateFile writes data as a key file would be.
func privateFile(t *testing.T, data string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.json")
	if err := durable.CreateFile(path, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func sameKeys(a, b []NamedKey) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, errX := a[i].Key.scalar()
		y, errY := b[i].Key.scalar()
		if a[i].ID != b[i].ID || a[i].Key.Public() != b[i].Key.Public() || errX != nil || errY != nil || !bytes.Equal(x, y) {
			return false
		}
	}
	return true
}

func TestKeyFilesAreAsInTheGoldenFiles(t *testing.T) {
	ed, p256 := testKeys(t)
	for _, test := range []struct {
		golden string
		keys   []NamedKey
	}{
		{"key-ed25519.json", []NamedKey{{ed.Public().URL().String(), ed}}},
		{"key-p256.json", []NamedKey{{p256.Public().URL().String(), p256}}},
		{"key-set.json", []NamedKey{{ed.Public().URL().String(), ed}, {"log", p256}}},
	} {
		want, err := os.ReadFile(filepath.Join("testdata", test.golden))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "key.json")
		if err := WriteKeyFile(path, test.keys); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: wrote %s, %v; want %s", test.golden, got, err, want)
		}
		if back, err := ReadKeyFile(path); err != nil || !sameKeys(back, test.keys) {
			t.Errorf("%s: read %v, %v; want %v", test.golden, back, err, test.keys)
		}
	}
}

func TestReadKeyFileTakesTheRFCsKeys(t *testing.T) {
	keys, err := ReadKeyFile(privateFile(t, `{"keys":[`+jwkEd25519+","+jwkP256+`]}`, 0o400))
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 || keys[0].ID != "a" || keys[1].ID != "b" || keys[0].Key.Public().Algorithm() != EdDSA || keys[1].Key.Public().Algorithm() != ES256 {
		t.Errorf("keys = %v", keys)
	}
	_, p256 := testKeys(t)
	if keys[1].Key.Public() != p256.Public() {
		t.Errorf("P-256 key = %v; want %v", keys[1].Key, p256)
	}
}

func TestWriteKeyFileNeverOverwrites(t *testing.T) {
	ed, p256 := testKeys(t)
	path := filepath.Join(t.TempDir(), "key.json")
	if err := WriteKeyFile(path, []NamedKey{{"a", ed}}); err != nil {
		t.Fatal(err)
	}
	if err := WriteKeyFile(path, []NamedKey{{"b", p256}}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second write: %v; want fs.ErrExist", err)
	}
	if keys, err := ReadKeyFile(path); err != nil || !sameKeys(keys, []NamedKey{{"a", ed}}) {
		t.Errorf("after it: %v, %v; want the first key", keys, err)
	}
}

func TestWriteKeyFileRefusesAndLeavesNothing(t *testing.T) {
	ed, p256 := testKeys(t)
	for name, test := range map[string]struct {
		keys []NamedKey
		want error
	}{
		"no keys":        {nil, ErrKeyFile},
		"too many keys":  {make([]NamedKey, maxFileKeys+1), ErrKeyFile},
		"a zero key":     {[]NamedKey{{ID: "a"}}, ErrNoKey},
		"no id":          {[]NamedKey{{Key: ed}}, ErrKeyFile},
		"id with spaces": {[]NamedKey{{"a b", ed}}, ErrKeyFile},
		"id too long":    {[]NamedKey{{strings.Repeat("a", 513), ed}}, ErrKeyFile},
		"one id twice":   {[]NamedKey{{"a", ed}, {"a", p256}}, ErrKeyFile},
	} {
		folder := t.TempDir()
		if err := WriteKeyFile(filepath.Join(folder, "key.json"), test.keys); !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", name, err, test.want)
		}
		if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
			t.Errorf("%s: left %v, %v", name, entries, err)
		}
	}
}

func TestReadKeyFileRefusesWhatIsNoFile(t *testing.T) {
	folder := t.TempDir()
	if _, err := ReadKeyFile(folder); !errors.Is(err, ErrKeyFile) {
		t.Errorf("folder: %v; want ErrKeyFile", err)
	}
	if _, err := ReadKeyFile(filepath.Join(folder, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v; want fs.ErrNotExist", err)
	}
}

// badKeyFiles are refused, and no error shows the private part.
var badKeyFiles = map[string]string{
	"nothing":                  "",
	"null":                     "null",
	"array":                    "[" + jwkEd25519 + "]",
	"two values":               jwkEd25519 + jwkEd25519,
	"cut off":                  jwkEd25519[:len(jwkEd25519)-1],
	"cut off in d":             jwkEd25519[:len(jwkEd25519)-10],
	"d unquoted":               strings.Replace(jwkEd25519, `"d":"`, `"d":`, 1),
	"d is an array":            strings.Replace(jwkEd25519, `"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"`, `"d":["nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"]`, 1),
	"unknown member":           strings.Replace(jwkEd25519, `{`, `{"oth":"",`, 1),
	"unknown member beside":    `{"keys":[` + jwkEd25519 + `],"more":1}`,
	"secret as a member":       `{"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A":1}`,
	"duplicate member":         strings.Replace(jwkEd25519, `{`, `{"kid":"z",`, 1),
	"duplicate d":              strings.Replace(jwkEd25519, `{`, `{"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",`, 1),
	"other case":               strings.Replace(jwkEd25519, `"d"`, `"D"`, 1),
	"empty set":                `{"keys":[]}`,
	"null set":                 `{"keys":null}`,
	"null in a set":            `{"keys":[null]}`,
	"set of sets":              `{"keys":[{"keys":[]}]}`,
	"too many":                 `{"keys":[` + strings.Repeat(jwkEd25519+",", maxFileKeys) + jwkP256 + `]}`,
	"one kid twice":            `{"keys":[` + jwkEd25519 + "," + jwkEd25519 + `]}`,
	"no kid":                   strings.Replace(jwkEd25519, `"kid":"a",`, ``, 1),
	"empty kid":                strings.Replace(jwkEd25519, `"kid":"a"`, `"kid":""`, 1),
	"kid with a newline":       strings.Replace(jwkEd25519, `"kid":"a"`, `"kid":"a\n"`, 1),
	"no d":                     `{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
	"no x":                     `{"kty":"OKP","crv":"Ed25519","kid":"a","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`,
	"padded d":                 strings.Replace(jwkEd25519, `f2A"`, `f2A="`, 1),
	"d with a line break":      strings.Replace(jwkEd25519, `f2A"`, `f2A\n"`, 1),
	"d with stray bits":        strings.Replace(jwkEd25519, `f2A"`, `f2B"`, 1),
	"x of another key":         strings.Replace(jwkEd25519, `"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`, `"PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"`, 1),
	"y of another key":         strings.Replace(jwkP256, "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk", negatedY, 1),
	"point off the curve":      strings.Replace(jwkP256, `"eQP`, `"eQQ`, 1),
	"y of an Ed25519 key":      strings.Replace(jwkEd25519, `{`, `{"y":"AA",`, 1),
	"no y":                     strings.Replace(jwkP256, `"y":"eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk",`, ``, 1),
	"scalar zero":              strings.Replace(jwkP256, "ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE", strings.Repeat("A", 43), 1),
	"scalar beyond the order":  strings.Replace(jwkP256, "ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE", strings.Repeat("_", 42)+"8", 1),
	"kty and crv disagree":     strings.Replace(jwkEd25519, "OKP", "EC", 1),
	"X25519":                   strings.Replace(jwkEd25519, "Ed25519", "X25519", 1),
	"symmetric":                `{"kty":"oct","k":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`,
	"larger than 64 KiB":       jwkEd25519 + strings.Repeat(" ", maxKeyFile),
	"larger than 64 KiB, text": strings.Repeat("a", maxKeyFile+1),
}

func TestReadKeyFileRefuses(t *testing.T) {
	secrets := []string{"nWGxne", "yafp2EW6", "yc2EW6", "9WmC6hEr0"}
	for name, data := range badKeyFiles {
		keys, err := ReadKeyFile(privateFile(t, data, 0o600))
		if !errors.Is(err, ErrKeyFile) || keys != nil {
			t.Errorf("%s: %v, %v; want ErrKeyFile", name, keys, err)
			continue
		}
		for _, secret := range secrets {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error shows the key: %v", name, err)
			}
		}
	}
}
