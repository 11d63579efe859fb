package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// daemons are the processes of one part. They work in one folder, and end with
// this process however it ends: a shell that waits for the end of its input then
// kills those whose pid files lie in the folder and that work there.
type daemons struct {
	folder string
	watch  io.Closer
	gone   chan struct{} // the shell has ended

	mu      sync.Mutex
	running map[string]*daemon
}

type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// watcher reads nothing until the test's process has ended.
const watcher = `cd / && cat >/dev/null
for f in "$0"/*.pid; do
	[ -f "$f" ] || continue
	p=$(cat "$f")
	[ "$(readlink "/proc/$p/cwd")" = "$0" ] && kill -KILL "$p"
done
sleep 0.1
rm -rf "$0"`

// newDaemons makes the folder of a part named name.
func newDaemons(t testing.TB, name string) *daemons {
	t.Helper()
	folder, err := os.MkdirTemp("", "aln-"+name+"-*")
	if err != nil {
		t.Fatal(err)
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", watcher, folder)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = apart() // an interrupt at the terminal is the test's, not the shell's
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &daemons{folder: folder, watch: stdin, gone: make(chan struct{}), running: map[string]*daemon{}}
	go func() { cmd.Wait(); close(d.gone) }()
	return d
}

// remove kills what runs and removes the folder.
func (d *daemons) remove() {
	d.kill()
	d.watch.Close()
	<-d.gone
}

// start runs a program as the daemon name, unless one runs that was not ended by
// us; what it prints goes to name.out.
func (d *daemons) start(name string, env []string, program string, args ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running[name] != nil {
		return nil
	}
	out, err := os.OpenFile(filepath.Join(d.folder, name+".out"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.folder, out, out
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = apart()
	if err := cmd.Start(); err != nil {
		return err
	}
	one := &daemon{cmd, make(chan struct{})}
	d.running[name] = one
	go func() { cmd.Wait(); close(one.exited) }()
	return os.WriteFile(d.pidFile(name), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

func (d *daemons) pidFile(name string) string { return filepath.Join(d.folder, name+".pid") }

// exited is closed when the daemon has ended.
func (d *daemons) exited(name string) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one := d.running[name]; one != nil {
		return one.exited
	}
	ended := make(chan struct{})
	close(ended)
	return ended
}

// kill ends daemons (none: all) as a power cut would, as far as processes go.
func (d *daemons) kill(names ...string) { d.end(syscall.SIGKILL, 0, names) }

// end sends the daemons a signal and waits until they have ended; those that
// have not within limit are killed, and are the error.
func (d *daemons) end(signal syscall.Signal, limit time.Duration, names []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(names) == 0 {
		for name := range d.running {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if one := d.running[name]; one != nil {
			one.cmd.Process.Signal(signal)
		}
	}
	var failures []error
	for _, name := range names {
		one := d.running[name]
		if one == nil {
			continue
		}
		if signal != syscall.SIGKILL {
			select {
			case <-one.exited:
			case <-time.After(limit):
				one.cmd.Process.Kill()
				failures = append(failures, fmt.Errorf("testbed: %s did not stop within %s", name, limit))
			}
		}
		<-one.exited
		delete(d.running, name)
		os.Remove(d.pidFile(name))
	}
	return errors.Join(failures...)
}

// said is the end of what a daemon printed.
func (d *daemons) said(name string) string {
	text, err := os.ReadFile(filepath.Join(d.folder, name+".out"))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-4000):]))
}
