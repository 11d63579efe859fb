package durable

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestLockIsOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("Lock of what is locked: %v, %v, want ErrLocked", second, err)
	}
	if data, err := os.ReadFile(path); err != nil || len(data) != 0 {
		t.Errorf("a backup that reads the lock's file gets %q, %v", data, err)
	}
	first.Close()
	second, err := Lock(path)
	if err != nil {
		t.Fatalf("Lock of what was given up: %v", err)
	}
	second.Close()
}

func TestSharedLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var shared [2]*os.File
	for i := range shared {
		var err error
		if shared[i], err = LockShared(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range shared {
		if _, err := Lock(path); !errors.Is(err, ErrLocked) {
			t.Errorf("Lock of what is shared: error %v, want ErrLocked", err)
		}
		f.Close()
	}
	alone, err := Lock(path)
	if err != nil {
		t.Fatalf("Lock of what all have given up: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		f, err := LockShared(path)
		if err == nil {
			f.Close()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Errorf("LockShared did not wait for the exclusive lock: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	alone.Close()
	if err := <-got; err != nil {
		t.Errorf("LockShared: %v", err)
	}
}

// lockVariable makes this test's program lock the file that it names, and say so.
const lockVariable = "DURABLE_TEST_LOCK"

func TestALockDiesWithItsProcess(t *testing.T) {
	if path := os.Getenv(lockVariable); path != "" {
		if _, err := Lock(path); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("locked\n")
		select {}
	}
	path := filepath.Join(t.TempDir(), "lock")
	other := exec.Command(os.Args[0], "-test.run", "^TestALockDiesWithItsProcess$", "-test.timeout", "1m")
	other.Env = append(os.Environ(), lockVariable+"="+path)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Errorf("the other process said %q, %v", line, err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("Lock while another process has it: error %v, want ErrLocked", err)
	}
	other.Process.Kill()
	other.Wait()
	f, err := Lock(path)
	if err != nil {
		t.Fatalf("Lock after the other process was killed: %v", err)
	}
	f.Close()
}
