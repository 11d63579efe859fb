package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo terminal: the side of who types, and the program's.
func terminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return keyboard, screen
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func TestAnInterruptAtThePassphrasePromptGivesTheTerminalBack(t *testing.T) {
	_, screen := terminal(t) // screen is left to the reader that nothing breaks off
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := &app{in: screen, out: io.Discard, err: io.Discard}
	ended := make(chan error, 1)
	go func() {
		_, err := a.passphrase(ctx, "passphrase: ", true)
		ended <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); echoes(t, screen); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the terminal shows what is typed")
		}
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on asking")
	}
	if !echoes(t, screen) {
		t.Error("the terminal does not show what is typed any more")
	}
}

func TestAPassphraseIsReadFromATerminal(t *testing.T) {
	for typed, want := range map[string]string{"open sesame\nopen sesame\n": "", "open sesame\nopen\n": "the two passphrases differ"} {
		keyboard, screen := terminal(t)
		defer screen.Close()
		a := &app{in: screen, out: io.Discard, err: io.Discard}
		if _, err := keyboard.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		got, err := a.passphrase(t.Context(), "passphrase: ", true)
		if want == "" && (err != nil || string(got) != "open sesame") || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q: %q, %v", typed, got, err)
		}
	}
}
