package translog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var update = flag.Bool("update", false, "rewrite golden files")

func mustSign(t testing.TB, c Checkpoint, at time.Time, keys ...LogKey) []byte {
	t.Helper()
	signed, err := Sign(c, keys, at)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func publics(keys ...LogKey) []VerifierKey {
	var out []VerifierKey
	for _, k := range keys {
		out = append(out, k.Public())
	}
	return out
}

func TestSignedCheckpointIsTheGoldenOne(t *testing.T) {
	c := newTestLog(t, 7, "golden").checkpoint(t, 7)
	got := mustSign(t, c, testTime, testKey(t, 1), testKey(t, 2))
	const path = "testdata/checkpoint.golden"
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("signed checkpoint\n%s\nwant\n%s", got, want)
	}
	opened, err := Open(want, testOrigin, publics(testKey(t, 1)))
	if err != nil || opened.Checkpoint != c || !opened.CosignedAt.Equal(testTime) || opened.Text != string(c.Body()) {
		t.Errorf("Open = %+v, %v", opened, err)
	}
}

// The log's signature is what any signed-note reader verifies, and the
// cosignature what tlog-cosignature says, byte by byte.
func TestSignaturesFollowTheirSpecifications(t *testing.T) {
	key := testKey(t, 1)
	c := newTestLog(t, 3, "x").checkpoint(t, 3)
	signed := mustSign(t, c, testTime, key)
	encoded, err := note.NewEd25519VerifierKey(testOrigin, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(encoded)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil || len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 1 {
		t.Fatalf("note.Open = %+v, %v", n, err)
	}
	blob, err := base64.StdEncoding.DecodeString(n.UnverifiedSigs[0].Base64)
	if err != nil || len(blob) != 4+8+64 {
		t.Fatalf("cosignature of %d bytes, %v", len(blob), err)
	}
	id := sha256.Sum256(append([]byte(testOrigin+"\n\x04"), key.Public()...))
	if !bytes.Equal(blob[:4], id[:4]) {
		t.Errorf("key ID %x, want %x", blob[:4], id[:4])
	}
	if at := binary.BigEndian.Uint64(blob[4:12]); at != uint64(testTime.Unix()) {
		t.Errorf("time %d, want %d", at, testTime.Unix())
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", testTime.Unix(), c.Body())
	if !ed25519.Verify(key.Public(), []byte(message), blob[12:]) {
		t.Error("the cosignature does not verify over cosignature/v1, time and body")
	}
}

// Every bit of a note: of its text, of the log's signature, of the cosignature,
// of a second key's in a rotation, and of a witness's, which nobody looks at.
func TestEveryFlippedBitOfANoteIsNoticed(t *testing.T) {
	fresh, old, witness := testKey(t, 1), testKey(t, 2), testKey(t, 9)
	c := newTestLog(t, 3, "x").checkpoint(t, 3)
	n, err := note.Open(mustSign(t, c, testTime, fresh, old), note.VerifierList(verifier{name: testOrigin, key: fresh.Public()}))
	if err != nil {
		t.Fatal(err)
	}
	witnessed, err := note.Sign(n, cosigner{name: "witness.example/w1", key: witness, at: testTime})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		signed []byte
		keys   []VerifierKey
	}{
		"one key":    {mustSign(t, c, testTime, fresh), publics(fresh)},
		"a rotation": {mustSign(t, c, testTime, fresh, old), publics(fresh, old)},
		"a witness":  {witnessed, publics(fresh, old)},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := Open(test.signed, testOrigin, test.keys)
			if err != nil {
				t.Fatal(err)
			}
			for bit := range len(test.signed) * 8 {
				got, err := Open(flip(test.signed, bit), testOrigin, test.keys)
				if err == nil && (got.Checkpoint != want.Checkpoint || got.Text != want.Text || !got.CosignedAt.IsZero() && !got.CosignedAt.Equal(want.CosignedAt)) {
					t.Fatalf("bit %d: opened as %+v", bit, got)
				}
				if err != nil && !errors.Is(err, ErrCheckpoint) && !errors.Is(err, ErrOrigin) && !errors.Is(err, ErrSignature) {
					t.Fatalf("bit %d: %v is none of the errors promised", bit, err)
				}
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	log := newTestLog(t, 3, "x")
	c := log.checkpoint(t, 3)
	key, other := testKey(t, 1), testKey(t, 2)
	signed := mustSign(t, c, testTime, key)
	head, tail, _ := strings.Cut(string(signed), "\n\n")
	lines := strings.SplitAfter(tail, "\n")
	own, cosignature := lines[0], lines[1]
	foreign := c
	foreign.Origin = "did:key:zOther"
	grown := strings.Replace(head, "\n3\n", "\n4\n", 1)
	small := VerifierKey(append([]byte{1}, make([]byte, 31)...)) // the identity: verifies much

	for name, test := range map[string]struct {
		signed string
		keys   []VerifierKey
		want   error
	}{
		"another log":            {string(mustSign(t, foreign, testTime, key)), publics(key), ErrOrigin},
		"a stranger's key":       {string(mustSign(t, c, testTime, other)), publics(key), ErrSignature},
		"no known key":           {string(signed), nil, ErrSignature},
		"only cosigned":          {head + "\n\n" + cosignature, publics(key), ErrSignature},
		"changed text":           {grown + "\n\n" + tail, publics(key), ErrSignature},
		"cosignature moved":      {grown + "\n\n" + cosignature, publics(key), ErrSignature},
		"bad beside good":        {head + "\n\n" + own + flipLast(cosignature), publics(key), ErrSignature},
		"no signatures":          {head + "\n", publics(key), ErrCheckpoint},
		"empty signature block":  {head + "\n\n", publics(key), ErrCheckpoint},
		"extension line":         {head + "\nmore\n\n" + tail, publics(key), ErrCheckpoint},
		"text after signatures":  {string(signed) + "x", publics(key), ErrCheckpoint},
		"blank line inside":      {string(signed) + "\n" + own, publics(key), ErrCheckpoint},
		"too many signatures":    {head + "\n\n" + strings.Repeat(own, maxSignatures+1), publics(key), ErrCheckpoint},
		"too long":               {string(signed) + strings.Repeat("x", MaxNoteBytes), publics(key), ErrCheckpoint},
		"small-order key":        {string(signed), []VerifierKey{small}, ErrLogKey},
		"short key":              {string(signed), []VerifierKey{key.Public()[:31]}, ErrLogKey},
		"carriage returns":       {strings.ReplaceAll(string(signed), "\n", "\r\n"), publics(key), ErrCheckpoint},
		"empty":                  {"", publics(key), ErrCheckpoint},
		"known key, other alg's": {head + "\n\n" + swapID(t, own, cosignature), publics(key), ErrSignature},
	} {
		if got, err := Open([]byte(test.signed), testOrigin, test.keys); !errors.Is(err, test.want) {
			t.Errorf("%s: Open = %+v, %v, want %v", name, got, err, test.want)
		}
	}
}

// flipLast changes a bit of the signature in a signature line.
func flipLast(line string) string {
	space := strings.LastIndexByte(line, ' ')
	blob, _ := base64.StdEncoding.DecodeString(strings.TrimSuffix(line[space+1:], "\n"))
	blob[len(blob)-1] ^= 1
	return line[:space+1] + base64.StdEncoding.EncodeToString(blob) + "\n"
}

// swapID puts the key ID of one signature line before the signature of another.
func swapID(t *testing.T, idFrom, signatureFrom string) string {
	t.Helper()
	decode := func(line string) (string, []byte) {
		space := strings.LastIndexByte(line, ' ')
		blob, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line[space+1:], "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return line[:space+1], blob
	}
	prefix, id := decode(idFrom)
	_, signature := decode(signatureFrom)
	return prefix + base64.StdEncoding.EncodeToString(append(id[:4:4], signature[4:]...)) + "\n"
}

func TestRotationIsFollowedWithEitherKey(t *testing.T) {
	c := newTestLog(t, 3, "x").checkpoint(t, 3)
	old, fresh := testKey(t, 1), testKey(t, 2)
	signed := mustSign(t, c, testTime, fresh, old)
	for name, keys := range map[string][]VerifierKey{"old": publics(old), "new": publics(fresh), "both": publics(fresh, old), "twice": publics(fresh, fresh)} {
		opened, err := Open(signed, testOrigin, keys)
		if err != nil || opened.Checkpoint != c {
			t.Errorf("%s: %+v, %v", name, opened, err)
		}
		if cosigned := !opened.CosignedAt.IsZero(); cosigned != (name != "old") {
			t.Errorf("%s: cosigned at %v; only the first key cosigns", name, opened.CosignedAt)
		}
	}
}

func TestWitnessesAreIgnored(t *testing.T) {
	c := newTestLog(t, 3, "x").checkpoint(t, 3)
	key, witness := testKey(t, 1), testKey(t, 9)
	signed := mustSign(t, c, testTime, key)
	n, err := note.Open(signed, note.VerifierList(verifier{name: testOrigin, key: key.Public()}))
	if err != nil {
		t.Fatal(err)
	}
	witnessed, err := note.Sign(n, cosigner{name: "witness.example/w1", key: witness, at: testTime.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(witnessed, testOrigin, publics(key))
	if err != nil || !opened.CosignedAt.Equal(testTime) {
		t.Errorf("Open = %+v, %v", opened, err)
	}
	// The same key under another name is another signer.
	if opened, err = Open(witnessed, testOrigin, publics(witness)); !errors.Is(err, ErrSignature) {
		t.Errorf("Open = %+v, %v, want ErrSignature", opened, err)
	}
}

// Of several keys only the first vouches: a stolen key that was replaced can
// neither sign in the log's name nor make an old checkpoint look fresh.
func TestAReplacedKeyVouchesForNothing(t *testing.T) {
	c := newTestLog(t, 3, "x").checkpoint(t, 3)
	old, fresh := testKey(t, 1), testKey(t, 2)
	if opened, err := Open(mustSign(t, c, testTime, old), testOrigin, publics(fresh, old)); !errors.Is(err, ErrSignature) {
		t.Errorf("signed by the replaced key alone: %+v, %v", opened, err)
	}
	n, err := note.Open(mustSign(t, c, testTime, fresh), note.VerifierList(verifier{name: testOrigin, key: fresh.Public()}))
	if err != nil {
		t.Fatal(err)
	}
	polished, err := note.Sign(n, cosigner{name: testOrigin, key: old, at: testTime.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := Open(polished, testOrigin, publics(fresh, old)); err != nil || !opened.CosignedAt.Equal(testTime) {
		t.Errorf("cosigned by the replaced key later: %+v, %v", opened, err)
	}
	wrong := strings.Split(string(mustSign(t, c, testTime, fresh, old)), "\n")
	wrong[5] = strings.TrimSuffix(flipLast(wrong[5]+"\n"), "\n") // the old key's line
	if opened, err := Open([]byte(strings.Join(wrong, "\n")), testOrigin, publics(fresh, old)); !errors.Is(err, ErrSignature) {
		t.Errorf("a wrong signature by the replaced key: %+v, %v", opened, err)
	}
}

func TestSigningAnewChangesTheCosignatureAlone(t *testing.T) {
	c := newTestLog(t, 3, "x").checkpoint(t, 3)
	key, old := testKey(t, 1), testKey(t, 2)
	first := mustSign(t, c, testTime, key, old)
	second := mustSign(t, c, testTime.Add(time.Hour+300*time.Millisecond), key, old)
	opened, err := Open(second, testOrigin, publics(key, old))
	if err != nil || opened.Checkpoint != c || !opened.CosignedAt.Equal(testTime.Add(time.Hour)) {
		t.Fatalf("Open = %+v, %v", opened, err)
	}
	before, after := strings.Split(string(first), "\n"), strings.Split(string(second), "\n")
	for i := range before {
		if same := before[i] == after[i]; same != (i != len(before)-2) {
			t.Errorf("line %d: the same %t\n%s\n%s", i, same, before[i], after[i])
		}
	}
}

func TestSignRefuses(t *testing.T) {
	good := newTestLog(t, 3, "x").checkpoint(t, 3)
	key := testKey(t, 1)
	change := func(f func(*Checkpoint)) Checkpoint { c := good; f(&c); return c }
	for name, test := range map[string]struct {
		c    Checkpoint
		keys []LogKey
		at   time.Time
		want error
	}{
		"no key":             {good, nil, testTime, ErrLogKey},
		"zero key":           {good, []LogKey{{}}, testTime, ErrLogKey},
		"key twice":          {good, []LogKey{key, key}, testTime, ErrLogKey},
		"1970":               {good, []LogKey{key}, time.Unix(0, 0), ErrRange},
		"zero time":          {good, []LogKey{key}, time.Time{}, ErrRange},
		"no origin":          {change(func(c *Checkpoint) { c.Origin = "" }), []LogKey{key}, testTime, ErrCheckpoint},
		"origin of 2 lines":  {change(func(c *Checkpoint) { c.Origin = "a\nb" }), []LogKey{key}, testTime, ErrCheckpoint},
		"origin with space":  {change(func(c *Checkpoint) { c.Origin = "a b" }), []LogKey{key}, testTime, ErrCheckpoint},
		"origin with plus":   {change(func(c *Checkpoint) { c.Origin = "a+b" }), []LogKey{key}, testTime, ErrCheckpoint},
		"negative size":      {change(func(c *Checkpoint) { c.Size = -1 }), []LogKey{key}, testTime, ErrCheckpoint},
		"size beyond bounds": {change(func(c *Checkpoint) { c.Size = MaxSize + 1 }), []LogKey{key}, testTime, ErrCheckpoint},
		"empty, with a root": {change(func(c *Checkpoint) { c.Size = 0 }), []LogKey{key}, testTime, ErrCheckpoint},
	} {
		if signed, err := Sign(test.c, test.keys, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %q, %v, want %v", name, signed, err, test.want)
		}
	}
}

func TestParseCheckpointRefusesEveryOtherSpelling(t *testing.T) {
	root := tlog.Hash{1}.String()
	if c, err := ParseCheckpoint([]byte("o\n7\n" + root + "\n")); err != nil || c.Size != 7 || c.Root != (tlog.Hash{1}) || c.Origin != "o" {
		t.Fatalf("%+v, %v", c, err)
	}
	if c, err := ParseCheckpoint([]byte("o\n0\n" + emptyRoot.String() + "\n")); err != nil || c.Size != 0 {
		t.Fatalf("the empty log: %+v, %v", c, err)
	}
	for _, body := range []string{
		"", "\n\n\n", "o\n7\n" + root, "o\n7\n" + root + "\nx\n", "o\n7\n" + root + "\n\n", "\no\n7\n" + root + "\n",
		"o\n07\n" + root + "\n", "o\n+7\n" + root + "\n", "o\n-7\n" + root + "\n", "o\n7 \n" + root + "\n", "o\n0x7\n" + root + "\n",
		"o\n9007199254740992\n" + root + "\n", "o\n99999999999999999999\n" + root + "\n", "o\n0\n" + root + "\n",
		"o\n7\n" + root[:43] + "\n", "o\n7\n" + root[:42] + "B=\n", "o\n7\nAQ==\n", "\n7\n" + root + "\n", "o o\n7\n" + root + "\n",
		"o\r\n7\n" + root + "\n", "\xff\n7\n" + root + "\n", strings.Repeat("o", 256) + "\n7\n" + root + "\n", "o\n7\n\r" + root + "\n",
	} {
		if c, err := ParseCheckpoint([]byte(body)); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("ParseCheckpoint(%q) = %+v, %v, want ErrCheckpoint", body, c, err)
		}
	}
}

func TestLogKeyIsNeverPrinted(t *testing.T) {
	key := testKey(t, 0xAB)
	type nested struct {
		Key    LogKey
		hidden LogKey
	}
	value := nested{Key: key, hidden: key}
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "key", key, "nested", value)
	text := string(encoded) + logged.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		text += fmt.Sprintf(verb, key) + fmt.Sprintf(verb, value) + fmt.Sprintf(verb, &value) + fmt.Sprintf(verb, []LogKey{key})
	}
	for _, secret := range []string{"171 171", "171, 171", "abab", "ABAB", "0xab, 0xab", "q6ur", hex.EncodeToString(key.private()[:8])} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is printed: %s", secret, text)
		}
	}
	if !strings.Contains(text, redacted) {
		t.Errorf("nothing says what was left out: %s", text)
	}
}

func TestNewLogKeyRefusesHalvesThatDoNotBelongTogether(t *testing.T) {
	good := ed25519.NewKeyFromSeed(make([]byte, 32))
	for name, private := range map[string]ed25519.PrivateKey{"nil": nil, "seed only": good[:32], "other half": flip(good, 300)} {
		if _, err := NewLogKey(private); !errors.Is(err, ErrLogKey) {
			t.Errorf("%s: %v, want ErrLogKey", name, err)
		}
	}
}

// Signatures that a lax verifier takes: of small order, or with a point spelled
// in two ways. crypto/ed25519 accepts the first; FORMATS §1 does not.
func TestStrictVerifyRefusesWhatProvesNothing(t *testing.T) {
	identity := append([]byte{1}, make([]byte, 31)...)
	forged := append(bytes.Clone(identity), make([]byte, 32)...) // R = identity, s = 0
	if !ed25519.Verify(identity, []byte("anything"), forged) {
		t.Fatal("the forgery should pass crypto/ed25519, or it tests nothing")
	}
	if strictVerify(identity, []byte("anything"), forged) {
		t.Error("a small-order key verifies anything")
	}
	nonCanonical := bytes.Repeat([]byte{0xff}, 32) // y = 2^255-1, above the field's prime
	nonCanonical[31] = 0x7f
	if checkVerifierKey(nonCanonical) == nil {
		t.Error("a non-canonical point is taken for a key")
	}
	key := testKey(t, 1)
	good := ed25519.Sign(key.private(), []byte("m"))
	if !strictVerify(key.Public(), []byte("m"), good) {
		t.Error("a good signature is refused")
	}
	if strictVerify(key.Public(), []byte("m"), append(bytes.Clone(identity), good[32:]...)) {
		t.Error("a small-order R is taken")
	}
}

// Of whatever keys cosigned a note, the latest time counts; of a note with a wrong
// signature none.
func TestCosignedAtIsTheLatestTimeThatAnyOfTheKeysVouched(t *testing.T) {
	c := newTestLog(t, 7, "cosigned").checkpoint(t, 7)
	old, current, other := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	earlier := testTime.Add(-time.Hour)
	both := mustSign(t, c, earlier, old)
	_, signatures, _ := bytes.Cut(mustSign(t, c, testTime, current), []byte("\n\n"))
	both = append(both, signatures...)
	wrong := bytes.Replace(both, []byte("\n7\n"), []byte("\n8\n"), 1)
	for name, tt := range map[string]struct {
		note []byte
		keys []LogKey
		want time.Time
	}{
		"either":        {both, []LogKey{old, current}, testTime},
		"in any order":  {both, []LogKey{current, old}, testTime},
		"the first":     {both, []LogKey{old}, earlier},
		"neither":       {both, []LogKey{other}, time.Time{}},
		"no keys":       {both, nil, time.Time{}},
		"a wrong note":  {wrong, []LogKey{old, current}, time.Time{}},
		"no note":       {nil, []LogKey{old}, time.Time{}},
		"another's too": {both, []LogKey{old, current, other}, testTime},
	} {
		if got := CosignedAt(tt.note, testOrigin, publics(tt.keys...)); !got.Equal(tt.want) {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
