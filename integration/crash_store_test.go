package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// cold is a lab with a log of some releases whose server has been stopped.
type cold struct {
	*survivor
	releases []release
	// earlier is a copy of the catalog from before the last release.
	earlier string
}

func newCold(t *testing.T) *cold {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	c := &cold{survivor: newSurvivor(t, rng), earlier: t.TempDir()}
	c.start()
	c.people = c.lab.people(c.ctx, 1)
	for i := range 4 {
		if i == 3 {
			c.stop()
			copyFolder(t, c.earlier, c.data, "catalog.db*")
			c.start()
			c.people[0].reconnect()
		}
		r := newRelease(rng, 0, "stored", fmt.Sprintf("1.0.%d", i), 500)
		if err := c.release(c.ctx, r); err != nil {
			t.Fatal(err)
		}
		c.releases = append(c.releases, r)
	}
	c.stop()
	return c
}

// copied is a lab in the same state in a folder of its own.
func (c *cold) copied(t *testing.T) *cold {
	t.Helper()
	other := &cold{survivor: newSurvivor(t, c.rng), releases: c.releases, earlier: c.earlier}
	if err := os.CopyFS(other.data, os.DirFS(c.data)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(other.data, "keys", "registry.jwk"), 0o600); err != nil {
		t.Fatal(err)
	}
	return other
}

func copyFolder(t *testing.T, to, from, pattern string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(from, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s %s: %v", from, pattern, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(f)), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// object is the path of a log object.
func (c *cold) object(kind string, n int) string {
	return filepath.Join(c.data, "store", "log", kind, fmt.Sprintf("%016d", n))
}

func (c *cold) blob(id storage.CID) string {
	c.t.Helper()
	found, err := filepath.Glob(filepath.Join(c.data, "store", "blobs", "*", id.String()))
	if err != nil || len(found) != 1 {
		c.t.Fatalf("blob %s: %v %v", id, found, err)
	}
	return found[0]
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	replaceFile(t, path, data)
}

func replaceFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func moveFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// replaceBy gives the file at path the bytes of another.
func replaceBy(t *testing.T, path, other string) {
	t.Helper()
	data, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, path, data)
}

// coldHead is the number of entries in a cold lab's log: the pair, a member, four releases.
const coldHead = 7

func TestStoreThatContradictsTheCatalogIsNotServed(t *testing.T) {
	whole := newCold(t)
	for name, c := range map[string]struct {
		harm func(*testing.T, *cold)
		says string
	}{
		"catalog from an earlier copy": {func(t *testing.T, c *cold) {
			c.removeCatalog()
			copyFolder(t, c.data, c.earlier, "catalog.db*")
		}, "rebuild"},
		"catalog gone":               {func(_ *testing.T, c *cold) { c.removeCatalog() }, "rebuild"},
		"last entry altered":         {func(t *testing.T, c *cold) { flip(t, c.object("entry", coldHead-1)) }, "contradicts"},
		"first entry altered":        {func(t *testing.T, c *cold) { flip(t, c.object("entry", 0)) }, "contradicts"},
		"entry with another's bytes": {func(t *testing.T, c *cold) { replaceBy(t, c.object("entry", 4), c.object("entry", 3)) }, "contradicts"},
		"entry truncated":            {func(t *testing.T, c *cold) { replaceFile(t, c.object("entry", 5), nil) }, "contradicts"},
		"entry lost":                 {func(t *testing.T, c *cold) { moveFile(t, c.object("entry", 5), c.object("entry", 5)+"-lost") }, "entry"},
		"entry beyond the log":       {func(t *testing.T, c *cold) { replaceBy(t, c.object("entry", coldHead), c.object("entry", 3)) }, "rebuild"},
		"checkpoint altered":         {func(t *testing.T, c *cold) { flip(t, c.object("checkpoint", coldHead)) }, "contradicts"},
		"checkpoint of another size": {func(t *testing.T, c *cold) {
			replaceBy(t, c.object("checkpoint", coldHead), c.object("checkpoint", coldHead-1))
		}, "contradicts"},
		"checkpoint beyond the log": {func(t *testing.T, c *cold) {
			replaceBy(t, c.object("checkpoint", coldHead+2), c.object("checkpoint", coldHead))
		}, "rebuild"},
		"checkpoint lost": {func(t *testing.T, c *cold) {
			moveFile(t, c.object("checkpoint", coldHead), filepath.Join(c.data, "aside"))
		}, "checkpoint"},
		"stray object among the log's": {func(t *testing.T, c *cold) { replaceFile(t, filepath.Join(c.data, "store", "log", "entry", "7"), nil) }, "stray"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cold := whole.copied(t)
			c.harm(t, cold)
			cold.refuses(c.says)
		})
	}
}

// refuses: the server ends by itself, says so, and has served nothing.
func (c *cold) refuses(says string) {
	c.t.Helper()
	before := len(c.log())
	err := c.tryStart()
	c.kill() // it has ended, or else must
	if said := c.log()[before:]; err == nil || !strings.Contains(said, says) {
		c.t.Fatalf("started, or does not say %q: %v\n%s", says, err, said)
	}
}

// SQLite must not take the log of writes of a database that is gone for the
// new one's.
func TestWritesOfACatalogThatIsGoneAreNotTakenForTheNewOnes(t *testing.T) {
	c := newCold(t)
	c.start()
	c.people[0].reconnect()
	if err := c.release(c.ctx, newRelease(c.rng, 0, "stored", "2.0.0", 1)); err != nil {
		t.Fatal(err)
	}
	c.kill()
	if err := os.Remove(filepath.Join(c.data, "catalog.db")); err != nil {
		t.Fatal(err)
	}
	c.refuses("rebuild")
	c.rebuild()
	c.start()
	t.Cleanup(c.stop)
	c.check()
}

// A catalog from an earlier copy refuses, and after a rebuild nothing is missing.
func TestEarlierCatalogIsRebuiltToTheLatest(t *testing.T) {
	c := newCold(t)
	digest, size, root := c.stored()
	c.removeCatalog()
	copyFolder(t, c.data, c.earlier, "catalog.db*")
	c.refuses("rebuild")
	if r := c.rebuild(); r.State != digest || r.Before == "" || r.Before == digest {
		t.Errorf("state %s was rebuilt as %+v", digest, r)
	}
	if again, sizeAgain, rootAgain := c.stored(); again != digest || sizeAgain != size || rootAgain != root {
		t.Errorf("%s %d %s became %s %d %s", digest, size, root, again, sizeAgain, rootAgain)
	}
	c.start()
	t.Cleanup(c.stop)
	c.check()
}

func TestRebuildRefusesAStoreThatDoesNotHold(t *testing.T) {
	whole := newCold(t)
	for name, c := range map[string]struct {
		harm func(*testing.T, *cold)
		says string
	}{
		"a gap": {func(t *testing.T, c *cold) { moveFile(t, c.object("entry", 4), filepath.Join(c.data, "aside")) }, "entry 4 is missing"},
		"last entries gone": {func(t *testing.T, c *cold) {
			moveFile(t, c.object("entry", coldHead-1), filepath.Join(c.data, "aside"))
		}, "entry 6 is missing"},
		"an entry altered":            {func(t *testing.T, c *cold) { flip(t, c.object("entry", 2)) }, "entry 2"},
		"an entry with other bytes":   {func(t *testing.T, c *cold) { other := c.otherTime(5); replaceFile(t, c.object("entry", 5), other) }, "contradicts"},
		"the last checkpoint altered": {func(t *testing.T, c *cold) { flip(t, c.object("checkpoint", coldHead)) }, "contradicts"},
		"an older checkpoint altered": {func(t *testing.T, c *cold) { flip(t, c.object("checkpoint", coldHead-2)) }, "contradicts"},
		"a record's bytes gone":       {func(t *testing.T, c *cold) { moveFile(t, c.blob(c.recordOf(4)), filepath.Join(c.data, "aside")) }, "record of entry 4"},
		"a record's bytes altered":    {func(t *testing.T, c *cold) { flip(t, c.blob(c.recordOf(4))) }, "record of entry 4"},
		"a crate's bytes gone":        {func(t *testing.T, c *cold) { moveFile(t, c.blob(c.releases[0].cid), filepath.Join(c.data, "aside")) }, "crate of entry 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cold := whole.copied(t)
			before, size, root := cold.stored()
			c.harm(t, cold)
			mustFail(t, cold.operator.aln(cold.operator.folder, "rebuild", "--data", cold.data), c.says)
			if after, sizeAfter, rootAfter := cold.stored(); after != before || sizeAfter != size || rootAfter != root {
				t.Error("a rebuild that failed changed the catalog")
			}
		})
	}
}

// entry reads a stored entry.
func (c *cold) entry(n int) map[string]any {
	c.t.Helper()
	data, err := os.ReadFile(c.object("entry", n))
	entry := map[string]any{}
	if err == nil {
		err = json.Unmarshal(data, &entry)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return entry
}

func (c *cold) recordOf(n int) storage.CID {
	c.t.Helper()
	id, err := storage.ParseCID(c.entry(n)["record"].(string))
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// otherTime is a well-formed entry like n's, one second later in the same minute.
func (c *cold) otherTime(n int) []byte {
	c.t.Helper()
	data, err := os.ReadFile(c.object("entry", n))
	if err != nil {
		c.t.Fatal(err)
	}
	at := bytes.LastIndexByte(data, 'Z') - 1
	if data[at]++; data[at] > '9' {
		data[at] = '0'
	}
	return data
}

// Bytes that do not hash to their name are never handed out; what cannot be is
// an error to the asker, and the rest of the registry goes on.
func TestLostOrCorruptCrateIsNeverServed(t *testing.T) {
	c := newCold(t)
	for i, harm := range []func(path string){
		func(path string) { flip(t, path) },
		func(path string) { replaceFile(t, path, c.releases[1].crate[:100]) },
		func(path string) { moveFile(t, path, filepath.Join(c.data, "aside")) },
	} {
		harm(c.blob(c.releases[i].cid))
	}
	c.start()
	t.Cleanup(c.stop)
	reader := newPublisher(t, c.url, c.people[0].home.Path())
	token, err := reader.token(c.ctx, "read", release{})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range c.releases[:3] {
		for _, byteRange := range []string{"", "bytes=0-9"} {
			status, body := download(t, reader, r, token, byteRange)
			if status < http.StatusInternalServerError || bytes.Contains(body, []byte{0x1f, 0x8b}) {
				t.Errorf("%s, harmed in way %d, was served with status %d: %d bytes", r.key(), i, status, len(body))
			}
		}
	}
	if status, body := download(t, reader, c.releases[3], token, ""); status != http.StatusOK || !bytes.Equal(body, c.releases[3].crate) {
		t.Errorf("%s: status %d, %d bytes", c.releases[3].key(), status, len(body))
	}
	// Who publishes the same bytes again mends the store.
	for _, r := range c.releases[:3] {
		if _, err := reader.publish(c.ctx, r); err != nil {
			t.Errorf("%s again: %v", r.key(), err)
		}
		if status, body := download(t, reader, r, token, ""); status != http.StatusOK || !bytes.Equal(body, r.crate) {
			t.Errorf("%s, published again: status %d, %d bytes", r.key(), status, len(body))
		}
	}
}

func download(t *testing.T, p *publisher, r release, token, byteRange string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, p.base+"/api/v1/crates/"+r.name+"/"+r.version+"/download", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// A killed server leaves no uploads behind outside its data folder, and the
// next start clears what it left inside.
func TestKilledUploadsLeaveNothingBehind(t *testing.T) {
	s := newSurvivor(t, rand.New(rand.NewPCG(3, 4)))
	temporary := t.TempDir()
	s.operator.extra = append(s.operator.extra, "TMPDIR="+temporary)
	s.start()
	t.Cleanup(s.stop)
	s.people = s.lab.people(s.ctx, 1)
	p := s.people[0]
	r := newRelease(s.rng, 0, "large", "1.0.0", 3_000_000)
	token, err := p.token(s.ctx, "publish", r)
	if err != nil {
		t.Fatal(err)
	}
	body, sent := io.Pipe()
	go func() {
		frame := frameOf(r)
		sent.Write(frame[:len(frame)/2])
		s.kill()
		sent.CloseWithError(io.ErrUnexpectedEOF)
	}()
	req, err := http.NewRequest(http.MethodPut, s.url+"/api/v1/crates/new", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	if resp, err := p.http.Do(req); err == nil {
		resp.Body.Close()
		t.Fatalf("answered %s to half an upload", resp.Status)
	}
	s.start()
	for _, folder := range []string{temporary, filepath.Join(s.data, "store", "incoming")} {
		left, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range left {
			t.Errorf("%s was left behind in %s", f.Name(), folder)
		}
	}
	p.reconnect()
	if err := s.release(s.ctx, r); err != nil {
		t.Error(err)
	}
}
