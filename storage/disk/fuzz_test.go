package disk

import (
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// FuzzKey: an object's file lies in the store's folder, under its key, and not
// where the store keeps blobs, what arrives, or its lock.
func FuzzKey(f *testing.F) {
	for _, key := range []string{"log/entry/0000000000000007", "a-b/c", "../x", "/etc/passwd", "blobs/x", "a//b", "a/./b", "a\x00b", "lock", ""} {
		f.Add(key)
	}
	s := &Store{root: filepath.Join(f.TempDir(), "store")}
	f.Fuzz(func(t *testing.T, key string) {
		if storage.CheckKey(key) != nil {
			return
		}
		below, err := filepath.Rel(s.root, s.objectPath(key))
		if err != nil || filepath.ToSlash(below) != key || !filepath.IsLocal(below) || len(key) > 255 {
			t.Fatalf("%q is at %q, %v", key, below, err)
		}
		first, _, _ := strings.Cut(key, "/")
		for _, own := range []string{blobFolder, incomingFolder, lockFile} {
			if strings.EqualFold(first, own) {
				t.Fatalf("%q is the store's own", key)
			}
		}
	})
}
