package integration

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// smallDisk mounts an ext4 file system of a few MiB, and returns its folder.
func smallDisk(t *testing.T) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	folder := t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 24<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.ext4", "-q", "-m", "0", "-J", "size=4", image)
	tool(t, "mount", "-o", "loop", image, folder)
	t.Cleanup(func() { tool(t, "umount", folder) })
	return folder
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// ballast fills a disk but for about left bytes.
type ballast struct {
	t    *testing.T
	path string
}

func (b ballast) leave(left int64) {
	b.t.Helper()
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 256<<10); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	info, err := f.Stat()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := f.Truncate(max(0, info.Size()-left)); err != nil {
		b.t.Fatal(err)
	}
}

func (b ballast) remove() {
	b.t.Helper()
	if err := os.Remove(b.path); err != nil {
		b.t.Fatal(err)
	}
}

// noise writes a file that cannot be packed.
func noise(t *testing.T, size int) string {
	t.Helper()
	content := make([]byte, size)
	rand.Read(content)
	path := filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const fullSentence = "the registry's disk is full, so nothing was changed; tell its operator to make room, then try again"

// A real disk fills: who publishes is told so in one sentence, whoever reads goes
// on reading, nothing that was acknowledged is lost, and with room again, however
// it came, the same server goes on.
func TestAFullDisk(t *testing.T) {
	disk := smallDisk(t)
	l := &lab{t: t, data: filepath.Join(disk, "data"), url: "http://" + steadyAddress(t)}
	l.operator = newUser(t)
	l.start()
	t.Cleanup(l.stop)
	u := l.operator
	must(t, u.aln(u.folder, "login", l.url))
	put := func(version, file string) result {
		return u.aln(u.folder, "publish", file, "--kind", "qpu-datashard", "--name", "noise", "--version", version)
	}
	first, large := noise(t, 64<<10), noise(t, 4<<20)
	must(t, put("1.0.0", first))
	token := strings.TrimSpace(must(t, u.aln(u.folder, "token", "--lifetime", "30m")).stdout)
	audit := strings.TrimSpace(must(t, u.aln(u.folder, "token", "--scope", "audit", "--lifetime", "30m")).stdout)

	// There is room for small things, and none for this one.
	filler := ballast{t, filepath.Join(disk, "ballast")}
	filler.leave(1 << 20)
	for range 3 {
		mustFail(t, put("2.0.0", large), fullSentence)
	}
	if free := regexp.MustCompile(`(?m)^aln_data_free_bytes (\S+)$`).FindStringSubmatch(l.figures(audit)); free == nil {
		t.Error("the free room is not told")
	}
	must(t, put("1.1.0", noise(t, 1000))) // what was refused has left nothing behind

	// There is no room at all.
	filler.leave(0)
	mustFail(t, put("2.0.0", large), "disk is full")
	l.awaitStatus("/readyz", http.StatusServiceUnavailable)
	l.reads(token, first)
	if log := l.log(); !strings.Contains(log, "code=disk-full") || strings.Contains(log, "panic") {
		t.Errorf("the operator is told:\n%s", log)
	}
	if figures := l.figures(audit); !strings.Contains(figures, `aln_http_refusals_total{code="disk-full"}`) {
		t.Error("the refusals are not counted")
	}

	// A start on a full disk serves what there is, or says why not.
	l.kill()
	if err := l.tryStart(); err != nil {
		if lines := strings.Split(strings.TrimSpace(l.log()), "\n"); !strings.Contains(lines[len(lines)-1], "disk is full") && !strings.Contains(lines[len(lines)-1], "no space left on device") {
			t.Errorf("%v; it says %s", err, lines[len(lines)-1])
		}
		filler.remove()
		l.start()
	} else {
		l.reads(token, first)
		filler.remove()
	}
	l.awaitStatus("/readyz", http.StatusOK)
	must(t, put("2.0.0", large))
	l.reads(token, first)
	must(t, u.aln(u.folder, "log", "check", "--full"))
}

// reads checks that what was published first can be had.
func (l *lab) reads(token, file string) {
	l.t.Helper()
	want, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	if status, _, got := l.get("/v1/artifacts/qpu-datashard/noise/1.0.0/content", token); status != http.StatusOK || !bytes.Equal(got, want) {
		l.t.Errorf("reading while the disk is full: %d", status)
	}
	for _, path := range []string{"/healthz", "/log/checkpoint", "/v1/artifacts/qpu-datashard/noise/1.1.0"} {
		if status, _, body := l.get(path, token); status != http.StatusOK {
			l.t.Errorf("%s while the disk is full: %d %s", path, status, body)
		}
	}
}

func (l *lab) figures(token string) string {
	l.t.Helper()
	status, _, body := l.get("/metrics", token)
	if status != http.StatusOK {
		l.t.Fatalf("/metrics: %d %s", status, body)
	}
	return string(body)
}

func (l *lab) awaitStatus(path string, want int) {
	l.t.Helper()
	var status int
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if status, _, _ = l.get(path, ""); status == want {
			return
		}
	}
	l.t.Fatalf("%s: %d, not %d\n%s", path, status, want, l.log())
}

// The first start on a disk without room says so, and is finished by the next one with room.
func TestAFirstStartOnAFullDisk(t *testing.T) {
	disk := smallDisk(t)
	l := &lab{t: t, data: filepath.Join(disk, "data"), url: "http://" + steadyAddress(t)}
	l.operator = newUser(t)
	filler := ballast{t, filepath.Join(disk, "ballast")}
	filler.leave(64 << 10)
	if err := l.tryStart(); err == nil {
		t.Fatal("it starts where there is no room")
	}
	if log := strings.TrimSpace(l.log()); strings.Count(log, "\n") != 0 || !strings.Contains(log, "disk is full") && !strings.Contains(log, "no space left on device") {
		t.Errorf("it says:\n%s", log)
	}
	filler.remove()
	l.start()
	l.stop()
}
