package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	endian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

// bigCrate is a crate that lies in a file, so that the test's own memory stays small too.
type bigCrate struct {
	release
	path string
	size int64
}

// newUpload writes a crate of nearly size bytes, not more: noise does not compress.
func newUpload(t *testing.T, folder, name string, size int64) bigCrate {
	t.Helper()
	u := bigCrate{release: release{name: name, version: "1.0.0"}, path: filepath.Join(folder, name)}
	u.size = u.write(t, size-32<<10)
	return u
}

func (u *bigCrate) write(t *testing.T, noise int64) int64 {
	t.Helper()
	f, err := os.Create(u.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digest := sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, digest), gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	block := make([]byte, 64<<10)
	rand.Read(block)
	manifest := fmt.Sprintf("[package]\nname = %q\nversion = %q\n", u.name, u.version)
	err = w.WriteHeader(&tar.Header{Name: u.name + "-1.0.0/Cargo.toml", Mode: 0o644, Size: int64(len(manifest)), Format: tar.FormatGNU})
	err = errors.Join(err, writeAll(w, []byte(manifest)))
	err = errors.Join(err, w.WriteHeader(&tar.Header{Name: u.name + "-1.0.0/noise.bin", Mode: 0o644, Size: noise, Format: tar.FormatGNU}))
	for left := noise; left > 0; left -= int64(len(block)) {
		err = errors.Join(err, writeAll(w, block[:min(left, int64(len(block)))]))
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	u.cid = storage.CIDFromDigest([32]byte(digest.Sum(nil)))
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// send publishes u as cargo would, from its file.
func (u bigCrate) send(ctx context.Context, p *publisher) error {
	token, err := p.token(ctx, "publish", u.release)
	if err != nil {
		return err
	}
	f, err := os.Open(u.path)
	if err != nil {
		return err
	}
	defer f.Close()
	metadata := fmt.Sprintf(`{"name":%q,"vers":%q}`, u.name, u.version)
	head := endian.LittleEndian.AppendUint32(nil, uint32(len(metadata)))
	head = endian.LittleEndian.AppendUint32(append(head, metadata...), uint32(u.size))
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.base+"/api/v1/crates/new", io.MultiReader(bytes.NewReader(head), f))
	if err != nil {
		return err
	}
	req.ContentLength = int64(len(head)) + u.size
	req.Header.Set("Authorization", token)
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &refusal{resp.StatusCode, string(text), resp.Header.Get("Retry-After")}
	}
	return err
}

// peak is the largest resident memory of a process since resetPeak, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

func resetPeak(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// productBinary builds what users run: without the race detector, whose shadow
// memory would drown what is measured.
func productBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aln-registry")
	if out, err := exec.Command("go", "build", "-o", path, module+"/cmd/aln-registry").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func TestLargeUploadsTakeNoMoreMemoryThanSmallOnes(t *testing.T) {
	const atOnce = 8
	const allowed = 32 << 20
	l := newLab(t)
	l.stop()
	l.program = productBinary(t)
	l.start()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	people := l.people(ctx, atOnce)
	for _, p := range people {
		p.http.Timeout = 2 * time.Minute
	}
	folder := t.TempDir()
	measure := func(round string, size int64) int64 {
		var uploads []bigCrate
		for i := range atOnce {
			uploads = append(uploads, newUpload(t, folder, fmt.Sprintf("%s-%d", round, i), size))
		}
		resetPeak(t, l.cmd.Process.Pid)
		errs := make(chan error, atOnce)
		for i, u := range uploads {
			go func() { errs <- u.send(ctx, people[i]) }()
		}
		for range atOnce {
			if err := <-errs; err != nil {
				t.Errorf("%s: %v", round, err)
			}
		}
		return peak(t, l.cmd.Process.Pid)
	}
	measure("first", 1<<20) // caches and pools fill
	small := measure("small", 1<<20)
	large := measure("large", cargo.DefaultLimits().CrateBytes)
	t.Logf("peak with %d uploads at once: %d MiB of 1 MiB each, %d MiB of 64 MiB each", atOnce, small>>20, large>>20)
	if large-small >= allowed {
		t.Errorf("memory rose by %d MiB, less than %d MiB is allowed", (large-small)>>20, allowed>>20)
	}
}
