package integration

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// syscalls are those that change what a file system holds, or make it durable,
// and those by which bytes could come into a file unseen: the model refuses these.
const syscalls = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,rename,renameat,renameat2," +
	"link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,sync_file_range,fallocate," +
	"copy_file_range,sendfile,splice"

// call is one system call that succeeded, at the moment it was done.
type call struct {
	name   string
	args   []argument
	result int64
}

// argument is one argument of a call: a number or flags as text, a string's
// bytes, and the path of a file descriptor.
type argument struct {
	text  string
	bytes []byte
	path  string
}

func (a argument) number() int64 {
	n, err := strconv.ParseInt(a.text, 0, 64)
	if err != nil {
		return -1
	}
	return n
}

// strace is a program that runs the binary under strace and writes what it did to a file.
func strace(t *testing.T, program string) (wrapper, trace string) {
	t.Helper()
	install(t, "strace", "strace")
	folder := t.TempDir()
	wrapper, trace = filepath.Join(folder, "traced"), filepath.Join(folder, "trace")
	script := fmt.Sprintf("#!/bin/sh\nexec strace -f -y -xx -s 8388608 -e signal=none -e trace=%s -o %s %s \"$@\"\n", syscalls, trace, program)
	if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return wrapper, trace
}

// install has Debian's package when the program is missing; without it the test fails.
func install(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	cmd := exec.Command("sh", "-c", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "+pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s is needed: %v\n%s", program, err, out)
	}
}

// readTrace parses strace's output. A call that others interrupted counts where it ended.
func readTrace(t *testing.T, path string) []call {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var calls []call
	begun := map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		pid, rest, _ := strings.Cut(lines.Text(), " ")
		rest = strings.TrimLeft(rest, " ")
		if head, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
			begun[pid] = head
			continue
		}
		if strings.HasPrefix(rest, "<... ") {
			_, tail, _ := strings.Cut(rest, " resumed>")
			rest = begun[pid] + tail
			delete(begun, pid)
		}
		if strings.HasPrefix(rest, "+++") || strings.HasPrefix(rest, "---") {
			continue
		}
		c, ok, err := parseCall(rest)
		if err != nil {
			t.Fatalf("trace: %v: %.200s", err, rest)
		}
		if ok {
			calls = append(calls, c)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return calls
}

// parseCall reads "name(arg, arg) = result …"; ok is false for a call that failed.
func parseCall(line string) (c call, ok bool, err error) {
	name, rest, found := strings.Cut(line, "(")
	end := strings.LastIndex(rest, ") ")
	if !found || end < 0 {
		return c, false, fmt.Errorf("not a call")
	}
	_, result, found := strings.Cut(rest[end:], "= ")
	if !found {
		return c, false, fmt.Errorf("no result")
	}
	digits := result[:len(result)-len(strings.TrimLeft(result, "-0123456789"))]
	if digits == "" { // "?": the process ended in it
		return c, false, nil
	}
	c = call{name: name}
	if c.result, err = strconv.ParseInt(digits, 10, 64); err != nil {
		return c, false, err
	}
	for _, text := range splitArguments(rest[:end]) {
		a, err := parseArgument(text)
		if err != nil {
			return c, false, err
		}
		c.args = append(c.args, a)
	}
	return c, c.result >= 0, nil
}

// splitArguments cuts at commas outside of brackets; strings are all in hex.
func splitArguments(s string) []string {
	var parts []string
	depth, start := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 0 {
				parts = append(parts, strings.TrimSpace(s[start:i]))
				start = i + 1
			}
		}
	}
	return append(parts, strings.TrimSpace(s[start:]))
}

func parseArgument(s string) (argument, error) {
	if strings.HasPrefix(s, `"`) {
		if strings.HasSuffix(s, "...") {
			return argument{}, fmt.Errorf("a string was cut")
		}
		data, err := unhex(strings.Trim(s, `"`))
		return argument{bytes: append([]byte{}, data...)}, err
	}
	text, rest, ok := strings.Cut(s, "<")
	if !ok {
		return argument{text: s}, nil
	}
	path := rest[:max(0, strings.LastIndexByte(rest, '>'))]
	if strings.Contains(path, `\x`) {
		data, err := unhex(strings.TrimSuffix(path, "(deleted)"))
		if err != nil {
			return argument{}, err
		}
		path = string(data)
	}
	return argument{text: text, path: path}, nil
}

// unhex reads \x2f\x74….
func unhex(s string) ([]byte, error) {
	return hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(`\x`), nil)))
}

func TestTraceIsRead(t *testing.T) {
	for line, want := range map[string]string{
		`pwrite64(12<\x2f\x61>, "\x00\x01", 2, 4096) = 2`:                      `pwrite64=2 12:/a: ::"\x00\x01" 2:: 4096::`,
		`openat(AT_FDCWD<\x2f>, "\x61", O_RDWR|O_CREAT, 0600) = 7<\x2f\x61>`:   `openat=7 AT_FDCWD:/: ::"a" O_RDWR|O_CREAT:: 0600::`,
		`unlinkat(5<\x2f>, "\x62", 0) = -1 ENOENT (No such file or directory)`: `failed`,
		`fsync(8<\x2f\x61>)                      = 0`:                          `fsync=0 8:/a:`,
		`write(9<socket:[12]>, "\x4f\x29\x20", 3)    = 3`:                      `write=3 9:socket:[12]: ::"O) " 3::`,
		`exit_group(0) = ?`: `failed`,
	} {
		c, ok, err := parseCall(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got := "failed"
		if ok {
			got = fmt.Sprint(c.name, "=", c.result)
			for _, a := range c.args {
				if a.bytes != nil {
					got += fmt.Sprintf(" ::%q", a.bytes)
				} else {
					got += " " + a.text + ":" + a.path + ":"
				}
			}
		}
		if got != want {
			t.Errorf("%s: %s, not %s", line, got, want)
		}
	}
	if _, _, err := parseCall(`write(1<pipe:[2]>, "\x41"..., 9) = 9`); err == nil {
		t.Error("a string that was cut passes for whole")
	}
}
