//go:build unix

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// What appears meanwhile may be a pipe, which is not waited for.
func TestGetWaitsForNoPipe(t *testing.T) {
	folder := t.TempDir()
	temporary, pipe := filepath.Join(folder, ".temporary"), filepath.Join(folder, "pipe")
	if err := os.WriteFile(temporary, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- place(os.Link, temporary, pipe, storage.CIDOf(nil)) }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a pipe was taken for the file")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("waits for a writer of the pipe")
	}
}
