package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// On a terminal prefetch draws how far it is, in one line that is gone in the end.
func TestPrefetchDrawsHowFarItIs(t *testing.T) {
	t.Parallel()
	l := newUpstreamLab(t)
	u := l.operator
	u.login(l.lab, u.folder)
	lines := l.offer("drawn", 24, 1<<10)
	l.crates.Use("/crates/drawn", testbed.Late(400*time.Millisecond), 0)
	writeFiles(t, u.folder, map[string]string{"Cargo.lock": lockNaming("drawn", lines...)})
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(keyboard) // an error is how a terminal ends
		shown <- string(all)
	}()
	c := exec.Command(binary, "prefetch", "Cargo.lock")
	c.Dir, c.Env, c.Stderr = u.folder, u.environment(), screen
	if err := c.Run(); err != nil {
		t.Error(err)
	}
	screen.Close()
	text := <-shown
	if !strings.Contains(text, "\r[") || !strings.Contains(text, "#.") || !strings.Contains(text, "] crates: ") || !strings.Contains(text, " of 24\x1b[K") {
		t.Errorf("no bar: %q", text)
	}
	if !strings.HasSuffix(text, "\r\x1b[K") || strings.Contains(text, "\n") {
		t.Errorf("not one line that is gone in the end: %q", text)
	}
}
