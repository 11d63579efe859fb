package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// A file that appears while another is fetched stays, on every file system.
func TestGetReplacesNoFile(t *testing.T) {
	const ours = "verified bytes"
	noLinks := func(string, string) error { return &os.LinkError{Op: "link", Err: syscall.EPERM} }
	for name, link := range map[string]func(string, string) error{"links": os.Link, "no links": noLinks} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			temporary, output := filepath.Join(folder, ".temporary"), filepath.Join(folder, "output")
			if err := os.WriteFile(temporary, []byte(ours), 0o600); err != nil {
				t.Fatal(err)
			}
			id := storage.CIDOf([]byte(ours))
			for range 2 { // again: the same bytes are there
				if err := place(link, temporary, output, id); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(output); err != nil || string(got) != ours {
					t.Fatalf("%q, %v", got, err)
				}
			}
			if err := os.WriteFile(output, []byte("somebody else's"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := place(link, temporary, output, id); err == nil {
				t.Error("another file was taken for ours")
			}
			if got, err := os.ReadFile(output); err != nil || string(got) != "somebody else's" {
				t.Errorf("it was replaced: %q, %v", got, err)
			}
		})
	}
}

// A copy that fails leaves nothing.
func TestGetLeavesNoHalfFile(t *testing.T) {
	folder := t.TempDir()
	output := filepath.Join(folder, "output")
	if err := copyNew(folder, output); err == nil { // a folder cannot be read
		t.Error("copied a folder")
	}
	if _, err := os.Lstat(output); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a file was left: %v", err)
	}
}
