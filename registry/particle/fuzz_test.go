package particle

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// fuzzJSON: what parse accepts is read again from what is written of it, and what
// it refuses is malformed.
func fuzzJSON[T any](f *testing.F, parse func([]byte) (T, error), seeds ...[]byte) {
	for _, seed := range seeds {
		f.Add(seed)
		f.Add(bytes.Replace(seed, []byte(":"), []byte(": "), 1))
		f.Add(bytes.Replace(seed, []byte(`"`), []byte(`"\u0061`), 1))
	}
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := parse(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || len(err.Error()) > 4096 {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		raw := mustJSON(t, v)
		again, err := parse(raw)
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%s became %s: %v", data, raw, err)
		}
		if same, err := SameJSON(data, raw); err != nil || !same {
			t.Fatalf("%s was taken for %s", data, raw)
		}
	})
}

func FuzzParseEnvGrant(f *testing.F) {
	fuzzJSON(f, ParseEnvGrant, mustJSON(f, exampleGrant()), mustJSON(f, listGrant()))
}

func FuzzParseMemoryPoolShard(f *testing.F) {
	fuzzJSON(f, ParseMemoryPoolShard, mustJSON(f, examplePool()))
}

func FuzzParseExecutionDomain(f *testing.F) {
	fuzzJSON(f, ParseExecutionDomain, mustJSON(f, exampleDomain()))
}

// FuzzParseList: a list has one spelling.
func FuzzParseList(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(MarshalList([][32]byte{{1}, {2}}))
	f.Add([]byte(cid("x").Hex() + "\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hashes, err := ParseList(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || hashes != nil {
				t.Fatalf("%d hashes, %v", len(hashes), err)
			}
			return
		}
		if !bytes.Equal(MarshalList(hashes), data) {
			t.Fatalf("%q has another spelling", data)
		}
	})
}

// FuzzParseHash: a hash has two spellings.
func FuzzParseHash(f *testing.F) {
	f.Add(cid("x").Hex())
	f.Add(cid("x").String())
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHash(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		id := storage.CIDFromDigest(h)
		if text != id.Hex() && text != id.String() {
			t.Fatalf("%q is %s", text, id)
		}
	})
}
