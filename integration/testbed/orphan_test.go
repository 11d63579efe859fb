package testbed

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// orphaned is what the test's own process is asked for when it runs itself.
const orphaned = "TESTBED_ORPHAN"

// A test's process that is killed, and cleans nothing up, leaves no store behind.
func TestAStoreEndsWithItsTest(t *testing.T) {
	if os.Getenv(orphaned) != "" {
		s := MinIO(t)
		fmt.Println("orphan", s.Folder(), hostOf(s))
		select {} // until it is killed
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestAStoreEndsWithItsTest$", "-test.timeout", "1m")
	child.Env = append(os.Environ(), orphaned+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var folder, host string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, _ := fmt.Sscanf(lines.Text(), "orphan %s %s", &folder, &host); n == 2 {
			break
		}
	}
	if folder == "" {
		t.Fatalf("the child has no store: %v", child.Wait())
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	err = until(10*time.Second, nil, func() error {
		if c, err := net.Dial("tcp", host); err == nil {
			c.Close()
			return errors.New("it still listens")
		}
		if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("its folder is there: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func hostOf(s *S3Server) string { return strings.TrimPrefix(s.Endpoint, "http://") }
