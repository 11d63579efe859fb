package server

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// signArtifact signs the publish record of content as a version of any kind.
func (l *lab) signArtifact(who did.PrivateKey, k record.Kind, name, version string, content []byte, evidence ...storage.CID) *record.Record {
	l.t.Helper()
	body := &record.Publish{Evidence: append([]storage.CID{}, evidence...)}
	if k != record.KindCrate {
		body.MediaType = "text/html"
	}
	return l.sign(who, must(record.VersionSubject(k, name, version)), body, sha256.Sum256(content))
}

// put publishes content through PUT /v1/artifacts, with a session for just that record.
func (l *lab) put(who did.PrivateKey, k record.Kind, name, version string, content []byte) reply {
	l.t.Helper()
	return l.putRecord(who, l.signArtifact(who, k, name, version, content), content)
}

func (l *lab) putRecord(who did.PrivateKey, rec *record.Record, content []byte) reply {
	l.t.Helper()
	return l.do(ask{method: http.MethodPut, path: artifactPath(rec.Subject()), token: l.carrying(who, rec), body: content})
}

func (l *lab) carrying(who did.PrivateKey, rec *record.Record) string {
	l.t.Helper()
	return l.credentialFor(l.session(who, "publish", func(a *policy.Assertion) { a.Rec = string(rec.ID()) }), rec)
}

func artifactPath(s record.Subject) string {
	return "/v1/artifacts/" + string(s.Kind()) + "/" + s.Name() + "/" + strings.ReplaceAll(s.Version(), "+", "%2B")
}

func TestEveryKindIsPublishedAndRead(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	for i, k := range record.Kinds() {
		name, content := "demo-one", []byte("<script>alert('"+string(k)+"')</script>")
		if k == record.KindCrate {
			content = crateFile(name, "1.0.0+b.1")
		}
		id := storage.CIDOf(content)
		l.put(l.owner, k, name, "1.0.0+b.1", content).want(t, 200, `"cid":"`+id.String()+`"`, fmt.Sprintf(`"index":%d`, 4+i), `"repeated":false`)
		path := "/v1/artifacts/" + string(k) + "/" + name
		l.get(path+"/1.0.0%2Bb.1", token).want(t, 200, `"kind":"`+string(k)+`"`, `"name":"demo-one"`, `"cid":"`+id.String()+`"`, `"version":"1.0.0+b.1"`)
		l.get(path, token).want(t, 200, `"owners":["`+string(didOf(l.owner))+`"]`, `"version_count":1`, `"newest":{"kind"`, `"next":""`)
		l.get("/v1/artifacts/"+string(k)+"?q=DEMO_O", token).want(t, 200, `"name":"demo-one"`)
		r := l.get(path+"/1.0.0+b.1/content", token).want(t, 200)
		if !bytes.Equal(r.body, content) {
			t.Errorf("%s: got %q", k, r.body)
		}
		checkInert(t, r, id)
	}
	// A crate that came this way is cargo's, too.
	l.get("/index/de/mo/demo-one", token).want(t, 200, `"vers":"1.0.0+b.1"`, `"cksum":"`+storage.CIDOf(crateFile("demo-one", "1.0.0+b.1")).Hex()+`"`)
	l.get("/api/v1/crates/demo-one/1.0.0+b.1/download", token).want(t, 200)
}

// checkInert: a browser neither shows nor runs what somebody published.
func checkInert(t *testing.T, r reply, id storage.CID) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff", "ETag": `"` + id.Hex() + `"`,
		"Content-Security-Policy": "default-src 'none'; sandbox", "Cross-Origin-Resource-Policy": "same-origin", "Accept-Ranges": "bytes",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	if got := r.header.Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="demo-one-1.0.0+b.1`) {
		t.Errorf("Content-Disposition %q", got)
	}
}

func TestContentRangesAndConditions(t *testing.T) {
	l := newLab(t)
	l.put(l.owner, record.KindManifest, "m", "1.0.0", []byte("0123456789")).want(t, 200)
	token, path := l.session(l.member, "read"), "/v1/artifacts/manifest/m/1.0.0/content"
	etag := `"` + storage.CIDOf([]byte("0123456789")).Hex() + `"`
	part := l.do(ask{method: http.MethodGet, path: path, token: token, header: http.Header{"Range": {"bytes=2-4"}}})
	if part.want(t, http.StatusPartialContent); string(part.body) != "234" {
		t.Errorf("range: %s", part)
	}
	l.do(ask{method: http.MethodGet, path: path, token: token, header: http.Header{"Range": {"bytes=10-"}}}).want(t, http.StatusRequestedRangeNotSatisfiable)
	l.do(ask{method: http.MethodGet, path: path, token: token, header: http.Header{"If-None-Match": {etag}}}).want(t, http.StatusNotModified)
	whole := l.do(ask{method: http.MethodGet, path: path, token: token, header: http.Header{"Range": {"bytes=2-4"}, "If-Range": {`"other"`}}})
	if whole.want(t, 200); string(whole.body) != "0123456789" {
		t.Errorf("If-Range of other bytes: %s", whole)
	}
	// Who may not read learns nothing by a condition.
	l.do(ask{method: http.MethodGet, path: path, header: http.Header{"If-None-Match": {etag}}}).want(t, 401)
}

func TestSameBytesAgainAndOtherBytes(t *testing.T) {
	l := newLab(t)
	first := l.put(l.owner, record.KindALNShard, "s", "1.0.0", []byte("bytes")).want(t, 200, `"repeated":false`)
	size := l.registry.Size()
	again := l.put(l.owner, record.KindALNShard, "s", "1.0.0", []byte("bytes")).want(t, 200, `"repeated":true`)
	if strings.Replace(string(first.body), "false", "true", 1) != string(again.body) || l.registry.Size() != size {
		t.Errorf("again: %s, log of %d, not %d", again.body, l.registry.Size(), size)
	}
	l.put(l.owner, record.KindALNShard, "s", "1.0.0", []byte("other")).want(t, 409, `"code":"taken"`, "publish a new version")
	l.put(l.owner, record.KindALNShard, "s", "1.0.0+build", []byte("other")).want(t, 409, `"code":"taken"`)
	l.put(l.member, record.KindALNShard, "s", "1.0.1", []byte("other")).want(t, 403, `"code":"not-entitled"`, "aln-registry owner add aln-shard/s")
	// The name is one of its kind: another kind's is another thing.
	l.put(l.member, record.KindManifest, "s", "1.0.0", []byte("bytes")).want(t, 200)
	if l.registry.Size() != size+1 {
		t.Errorf("log of %d, not %d", l.registry.Size(), size+1)
	}
}

func TestSizesOfArtifacts(t *testing.T) {
	l := newLab(t)
	l.put(l.owner, record.KindQPUDatashard, "empty", "1.0.0", nil).want(t, 200)
	full := make([]byte, registry.MaxArtifactBytes+1)
	full[0] = 1
	most := full[:registry.MaxArtifactBytes]
	l.put(l.owner, record.KindQPUDatashard, "full", "1.0.0", most).want(t, 200, storage.CIDOf(most).String())
	l.put(l.owner, record.KindQPUDatashard, "full", "1.0.1", full).want(t, 413, `"code":"too-large"`, "at most 67108864 bytes", "publish it in parts")
	rec := l.signArtifact(l.owner, record.KindQPUDatashard, "full", "1.0.1", full)
	l.streamed(rec, bytes.NewReader(full)).want(t, 413, "at most 67108864 bytes")
	l.streamed(rec, bytes.NewReader(append(full, full...))).want(t, 413, "at most 67108864 bytes")
	l.put(l.owner, record.KindCrate, "big", "1.0.0", storedGzip(smallCrate)).want(t, 413, `"code":"too-large"`, "`exclude` in Cargo.toml")
	l.get("/v1/artifacts/qpu-datashard/full", l.session(l.member, "read")).want(t, 200, `"version_count":1`)
}

// storedGzip is a gzip stream around a file of size bytes that are not compressed.
func storedGzip(size int) []byte {
	var packed bytes.Buffer
	z := must(gzip.NewWriterLevel(&packed, gzip.NoCompression))
	w := tar.NewWriter(z)
	must(0, w.WriteHeader(&tar.Header{Name: "big-1.0.0/noise", Mode: 0o644, Size: int64(size)}))
	must(w.Write(make([]byte, size)))
	must(0, w.Close())
	must(0, z.Close())
	return packed.Bytes()
}

// streamed sends a body of unknown length.
func (l *lab) streamed(rec *record.Record, body io.Reader) reply {
	l.t.Helper()
	req := must(http.NewRequest(http.MethodPut, l.url+artifactPath(rec.Subject()), io.MultiReader(body)))
	req.Header.Set("Authorization", l.carrying(l.owner, rec))
	resp := must((&http.Transport{DisableKeepAlives: true}).RoundTrip(req))
	defer resp.Body.Close()
	return reply{resp.StatusCode, resp.Header, must(io.ReadAll(resp.Body))}
}

func TestWhatTheRecordDoesNotSay(t *testing.T) {
	l := newLab(t)
	content := []byte("content")
	rec := l.signArtifact(l.owner, record.KindManifest, "m", "1.0.0", content)
	size := l.registry.Size()
	l.putRecord(l.owner, rec, []byte("Content")).want(t, 400, "not those that the record signs")
	l.putRecord(l.owner, rec, content[:6]).want(t, 400, "not those that the record signs")
	for _, path := range []string{"manifest/m/1.0.1", "manifest/n/1.0.0", "aln-shard/m/1.0.0", "crate/m/1.0.0", "manifest/M/1.0.0"} {
		l.do(ask{method: http.MethodPut, path: "/v1/artifacts/" + path, token: l.carrying(l.owner, rec), body: content}).want(t, 400, "not one that publishes")
	}
	put := func(path, token string) reply {
		return l.do(ask{method: http.MethodPut, path: "/v1/artifacts/" + path, token: token, body: content})
	}
	put("blob/m/1.0.0", l.carrying(l.owner, rec)).want(t, 404, "is not crate, aln-shard")
	put("manifest/m/1.0", l.carrying(l.owner, rec)).want(t, 400, "is not a version")
	put("manifest/-m/1.0.0", l.carrying(l.owner, rec)).want(t, 400, "is not a name")
	put("manifest/m/1.0.0", "").want(t, 401)
	put("manifest/m/1.0.0", l.session(l.owner, "publish")).want(t, 403, `"code":"no-record"`)
	put("manifest/m/1.0.0", l.credentialFor(l.session(l.member, "publish"), rec)).want(t, 403, "the record is signed by")
	yank := l.sign(l.owner, must(record.VersionSubject(record.KindManifest, "m", "1.0.0")), &record.Yank{Yanked: true})
	put("manifest/m/1.0.0", l.carrying(l.owner, yank)).want(t, 400, "carries a")
	crate := l.signArtifact(l.owner, record.KindCrate, "not-a-crate", "1.0.0", content)
	l.putRecord(l.owner, crate, content).want(t, 400, `"code":"crate-tarball"`)
	if l.registry.Size() != size {
		t.Errorf("something was entered: %d entries, not %d", l.registry.Size(), size)
	}
	l.putRecord(l.owner, rec, content).want(t, 200)
}

// An upload that is cut off leaves nothing, and its sender can go on.
func TestTruncatedUpload(t *testing.T) {
	l := newLab(t)
	content := bytes.Repeat([]byte("x"), 1<<20)
	rec := l.signArtifact(l.owner, record.KindManifest, "m", "1.0.0", content)
	req := must(http.NewRequest(http.MethodPut, l.url+artifactPath(rec.Subject()), io.LimitReader(bytes.NewReader(content), 1<<19)))
	req.ContentLength = int64(len(content))
	req.Header.Set("Authorization", l.carrying(l.owner, rec))
	if resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Errorf("half of it: %s", resp.Status)
	}
	l.get("/v1/artifacts/manifest/m", l.session(l.member, "read")).want(t, 404)
	l.putRecord(l.owner, rec, content).want(t, 200, `"repeated":false`)
}

// Who is refused is told so before a byte is sent, if they wait for it.
func TestRefusedBeforeTheBody(t *testing.T) {
	l := newLab(t)
	l.put(l.owner, record.KindManifest, "m", "1.0.0", []byte("x")).want(t, 200)
	content := make([]byte, 1<<20)
	rec := l.signArtifact(l.member, record.KindManifest, "m", "1.0.1", content)
	body := &counting{from: bytes.NewReader(content)}
	req := must(http.NewRequest(http.MethodPut, l.url+artifactPath(rec.Subject()), body))
	req.ContentLength = int64(len(content))
	req.Header.Set("Authorization", l.carrying(l.member, rec))
	req.Header.Set("Expect", "100-continue")
	resp := must((&http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: maxWait}).RoundTrip(req))
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || body.n != 0 {
		t.Errorf("%s after %d bytes", resp.Status, body.n)
	}
}

type counting struct {
	from io.Reader
	n    int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += n
	return n, err
}

// Of two who publish other bytes as one version at once, one wins.
func TestSecondWriterAtOnce(t *testing.T) {
	l := newLab(t)
	var all sync.WaitGroup
	replies := make([]reply, 4)
	for i := range replies {
		rec := l.signArtifact(l.owner, record.KindEvidenceBundle, "race", "1.0.0", []byte{byte(i / 2)})
		token := l.carrying(l.owner, rec)
		all.Go(func() {
			replies[i] = l.do(ask{method: http.MethodPut, path: artifactPath(rec.Subject()), token: token, body: []byte{byte(i / 2)}})
		})
	}
	all.Wait()
	count := map[int]int{}
	for i := range 2 {
		a, b := replies[2*i], replies[2*i+1]
		if a.status != b.status {
			t.Errorf("the same bytes twice: %s and %s", a, b)
		}
		count[a.status]++
	}
	if count[200] != 1 || count[409] != 1 {
		t.Errorf("answers %v", replies)
	}
}

func TestNamesOfEveryKind(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	for _, k := range []record.Kind{record.KindALNShard, record.KindEvidenceBundle, record.KindManifest, record.KindQPUDatashard} {
		for _, name := range []string{"0", "A.b-c_d", "9.9", "con", strings.Repeat("n", 64)} {
			l.put(l.owner, k, name, "1.0.0", []byte(name)).want(t, 200)
		}
		for _, other := range []string{"a.b-c_d", "A.b_c-d", "a.b_c_d", "CON"} {
			l.put(l.owner, k, other, "1.0.1", []byte(other)).want(t, 409, `"code":"taken"`, "are one name")
			l.get("/v1/artifacts/"+string(k)+"/"+other, token).want(t, 404, "it is spelled")
			l.get("/v1/artifacts/"+string(k)+"/"+other+"/1.0.0", token).want(t, 404)
			l.get("/v1/artifacts/"+string(k)+"/"+other+"/1.0.0/content", token).want(t, 404)
		}
	}
	rec := l.signArtifact(l.owner, record.KindManifest, "m", "1.0.0", nil)
	for _, bad := range []string{".m", "_m", "-m", "m%2Fn", "m%00", "m%40", "m%C3%A9", "%2E%2E", strings.Repeat("n", 65)} {
		l.do(ask{method: http.MethodPut, path: "/v1/artifacts/manifest/" + bad + "/1.0.0", token: l.carrying(l.owner, rec)}).want(t, 400)
		l.get("/v1/artifacts/manifest/"+bad, token).want(t, 404)
		l.get("/v1/artifacts/manifest/"+bad+"/1.0.0/content", token).want(t, 404)
	}
	l.get("/v1/artifacts/blob", token).want(t, 404, "is not crate, aln-shard")
	l.get("/v1/artifacts/manifest/nothing", token).want(t, 404, "there is no manifest named")
}

// page is a list as the API tells it.
type page struct {
	Artifacts []struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"artifacts"`
	Versions []struct {
		Version string `json:"version"`
	} `json:"versions"`
	Next string `json:"next"`
}

// walk asks for page after page of path and returns what they hold.
func (l *lab) walk(path, token string) (all []string, pages int) {
	l.t.Helper()
	for after := ""; ; pages++ {
		var p page
		if err := json.Unmarshal(l.get(path+"&after="+after, token).want(l.t, 200).body, &p); err != nil {
			l.t.Fatal(err)
		}
		for _, a := range p.Artifacts {
			all = append(all, a.Kind+"/"+a.Name)
		}
		for _, v := range p.Versions {
			all = append(all, v.Version)
		}
		if after = strings.ReplaceAll(p.Next, "+", "%2B"); after == "" {
			return all, pages + 1
		}
	}
}

func TestListsComeInPages(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	want := ""
	for _, k := range []record.Kind{record.KindALNShard, record.KindManifest} {
		for i := range 5 {
			name := fmt.Sprintf("Name-%d", i)
			l.put(l.owner, k, name, "1.0.0", []byte(name)).want(t, 200)
			want += string(k) + "/" + name + " "
		}
	}
	for limit, pages := range map[int]int{1: 10, 3: 4, 5: 2, 10: 1, 100: 1} {
		all, n := l.walk(fmt.Sprintf("/v1/artifacts?limit=%d", limit), token)
		if got := strings.Join(all, " ") + " "; got != want || n != pages {
			t.Errorf("limit %d: %s in %d pages, not %d", limit, got, n, pages)
		}
	}
	if all, _ := l.walk("/v1/artifacts/manifest?limit=2&q=ME_", token); len(all) != 5 {
		t.Errorf("manifests: %s", all)
	}
	if all, _ := l.walk("/v1/artifacts?limit=2&q=3", token); strings.Join(all, " ") != "aln-shard/Name-3 manifest/Name-3" {
		t.Errorf("names with a 3: %s", all)
	}
	if all, _ := l.walk("/v1/artifacts?q=%25", token); len(all) != 0 {
		t.Errorf("%% is no wildcard: %s", all)
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "after=x", "after=registry", "after=manifest/m@1.0.0", "q=" + strings.Repeat("a", 2000), "q=%FF"} {
		l.get("/v1/artifacts?"+query, token).want(t, 400)
	}

	versions := []string{"1.0.0", "1.0.0-rc.1", "1.10.0+b", "1.9.0", "2.0.0-rc.1"}
	for _, v := range versions {
		l.put(l.owner, record.KindManifest, "versions", v, []byte(v)).want(t, 200)
	}
	for limit, pages := range map[int]int{1: 5, 2: 3, 5: 1} {
		all, n := l.walk(fmt.Sprintf("/v1/artifacts/manifest/versions?limit=%d", limit), token)
		if strings.Join(all, " ") != strings.Join(versions, " ") || n != pages {
			t.Errorf("limit %d: %s in %d pages, not %d", limit, all, n, pages)
		}
	}
	for _, query := range []string{"limit=1001", "after=x"} {
		l.get("/v1/artifacts/manifest/versions?"+query, token).want(t, 400)
	}
	l.get("/v1/artifacts/manifest/versions", token).want(t, 200, `"version_count":5`, `"newest":{"kind":"manifest","name":"versions","version":"1.10.0+b"`)
	l.submit(l.owner, must(record.VersionSubject(record.KindManifest, "versions", "1.10.0+b")), &record.Yank{Yanked: true})
	l.get("/v1/artifacts/manifest?q=versions", token).want(t, 200, `"newest":{"kind":"manifest","name":"versions","version":"1.9.0"`)
	l.get("/v1/artifacts/manifest/versions/1.10.0+b/content", token).want(t, 200, "1.10.0+b") // yanked is not gone
}
