package client

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"phoenix-lab.org/aln-registry/did"
)

const webHost = did.DID("did:web:host.example")

func webIdentity(t *testing.T) (Home, Identity) {
	t.Helper()
	h := OpenHome(t.TempDir())
	i, err := h.CreateWebIdentity("", webHost, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return h, i
}

// holds reports which of the identities' keys the document has.
func holds(t *testing.T, raw []byte, identities ...Identity) (list []bool) {
	t.Helper()
	if err := checkDocument(raw, webHost); err != nil {
		t.Fatal(err)
	}
	for _, i := range identities {
		list = append(list, canSign(i, raw))
	}
	return list
}

func TestRotationKeepsTheKeyInUseUntilItIsFinished(t *testing.T) {
	h, first := webIdentity(t)
	raw, err := first.Document(false)
	if err != nil || !holds(t, raw, first)[0] {
		t.Fatal(err)
	}
	next, err := first.Rotate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Rotate(rand.Reader); !errors.Is(err, ErrIdentityExists) {
		t.Errorf("a second rotation: %v", err)
	}
	if used, err := h.Identity(""); err != nil || used.KeyID() != first.KeyID() {
		t.Errorf("%v, %v", used, err)
	}
	if list, err := h.Identities(); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	for both, want := range map[bool][2]bool{false: {false, true}, true: {true, true}} {
		raw, err := first.Document(both)
		if err != nil {
			t.Fatal(err)
		}
		if got := holds(t, raw, first, next); [2]bool(got) != want {
			t.Errorf("both %v: %v", both, got)
		}
	}
	old, err := first.finishRotation()
	if err != nil {
		t.Fatal(err)
	}
	used, err := h.Identity("")
	if err != nil || used.KeyID() != next.KeyID() {
		t.Errorf("%v, %v", used, err)
	}
	if _, rotating, err := used.Next(); rotating || err != nil {
		t.Errorf("still rotating: %v", err)
	}
	kept, err := LoadIdentity(old)
	if err != nil || kept.KeyID() != first.KeyID() {
		t.Errorf("%v, %v", kept, err)
	}
}

func TestRotationInterruptedIsFinishedAgain(t *testing.T) {
	h, first := webIdentity(t)
	next, err := first.Rotate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := first.KeyID().Fragment
	if err := os.Link(first.Path, first.Path+".old-"+name[len(name)-8:]); err != nil { // and then the power went
		t.Fatal(err)
	}
	if used, err := h.Identity(""); err != nil || used.KeyID() != first.KeyID() {
		t.Errorf("%v, %v", used, err)
	}
	if _, err := first.finishRotation(); err != nil {
		t.Fatal(err)
	}
	if used, err := h.Identity(""); err != nil || used.KeyID() != next.KeyID() {
		t.Errorf("%v, %v", used, err)
	}
}

// Other programs name keys as they like; not every name is one for a file.
func TestRotationOfAKeyWithAnyName(t *testing.T) {
	for fragment, suffix := range map[string]string{"key-1": ".old-key-1", "keys/1": ".old-keys-1", "a?b:c*d": ".old-a-b-c-d", "x/../../y": ".old-" + "-------y"} {
		key, err := webKey(webHost, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key.ID = string(webHost) + "#" + fragment
		first, err := OpenHome(t.TempDir()).ImportIdentity("", key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.Rotate(rand.Reader); err != nil {
			t.Fatal(err)
		}
		if old, err := first.finishRotation(); err != nil || old != first.Path+suffix {
			t.Errorf("%s: kept as %s, %v; want %s", fragment, old, err, first.Path+suffix)
		}
	}
}

func TestOnlyADidWebHasADocument(t *testing.T) {
	h := OpenHome(t.TempDir())
	i, err := h.CreateIdentity("", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Document(false); !errors.Is(err, ErrNoDocument) {
		t.Error(err)
	}
	if _, err := i.Rotate(rand.Reader); !errors.Is(err, ErrNoDocument) {
		t.Error(err)
	}
	if _, err := h.CreateWebIdentity("web", i.DID(), rand.Reader); !errors.Is(err, ErrNoDocument) {
		t.Error(err)
	}
	if _, err := h.CreateWebIdentity("web", webHost, bytes.NewReader(nil)); err == nil {
		t.Error("a key without randomness")
	}
	if _, err := os.Stat(filepath.Join(h.Path(), folderKeys, "web.jwk")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestAnothersNextKeyIsRefused(t *testing.T) {
	h, first := webIdentity(t)
	other, err := h.CreateWebIdentity("other", "did:web:else.example", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other.Path, first.Path+nextSuffix); err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.Next(); !errors.Is(err, did.ErrKeyFile) {
		t.Error(err)
	}
	if _, err := first.Document(false); !errors.Is(err, did.ErrKeyFile) {
		t.Error(err)
	}
}
