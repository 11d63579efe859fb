package server

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func (l *lab) getWith(path, token string, header ...string) reply {
	l.t.Helper()
	a := ask{method: http.MethodGet, path: path, token: token, header: http.Header{}}
	for i := 0; i < len(header); i += 2 {
		a.header.Set(header[i], header[i+1])
	}
	return l.do(a)
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// revalidatable are answers whose ETag is the hash of their bytes.
func revalidatable(l *lab) []string {
	return []string{
		"/index/config.json", "/index/de/mo/demo-one", "/crates-io/index/config.json", "/crates-io/index/re/mo/remote", "/upstream/lab/index/re/mo/remote", "/api/v1/crates/demo-one/0.1.0/download", "/v1/records/1",
		"/v1/records/" + l.ownRecord + "/attachments/" + l.intent, "/log/checkpoint", "/log/tile/0/000.p/1", "/log/tile/entries/000.p/1",
	}
}

func TestETagIsTheHashAndAnswers304(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.upstreams.offer("remote", "1.0.0")
	token := l.session(l.member, "read")
	for _, path := range revalidatable(l) {
		t.Run(path, func(t *testing.T) {
			full := l.get(path, token).want(t, 200)
			etag := full.header.Get("ETag")
			if etag != `"`+hashOf(full.body)+`"` {
				t.Fatalf("ETag %s of bytes with sha256 %s", etag, hashOf(full.body))
			}
			// Cargo sends If-None-Match alone; that it must suffice is what others got wrong.
			for _, match := range []string{etag, `"other", ` + etag, "W/" + etag} {
				again := l.getWith(path, token, "If-None-Match", match).want(t, 304)
				if len(again.body) != 0 || again.header.Get("ETag") != etag || again.header.Get("Cache-Control") != full.header.Get("Cache-Control") {
					t.Errorf("304 for %s: %s", match, again)
				}
				if fmt.Sprint(again.header.Values("Vary")) != fmt.Sprint(full.header.Values("Vary")) {
					t.Errorf("304 varies by %q, 200 by %q", again.header.Values("Vary"), full.header.Values("Vary"))
				}
			}
			for _, other := range []string{`"0000"`, etag[:len(etag)-2] + `x"`, strings.Trim(etag, `"`)} {
				if r := l.getWith(path, token, "If-None-Match", other).want(t, 200); !bytes.Equal(r.body, full.body) {
					t.Errorf("another body for If-None-Match %s", other)
				}
			}
		})
	}
}

// Who may not see it is not told that it is unchanged either.
func TestConditionalsAreLookedAtAfterTheDecision(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.upstreams.offer("remote", "1.0.0")
	token, useless := l.session(l.member, "read"), l.forge(l.member, "chat")
	for _, path := range revalidatable(l) {
		if strings.HasPrefix(path, "/log/") {
			continue
		}
		etag := l.get(path, token).want(t, 200).header.Get("ETag")
		for _, match := range []string{etag, "*"} {
			l.getWith(path, "", "If-None-Match", match).want(t, 401)
			l.getWith(path, useless, "If-None-Match", match).want(t, 403)
		}
	}
	l.getWith("/index/no/th/nothing", token, "If-None-Match", "*").want(t, 404)
}

func TestIndexFilesArePackedForWhoTakesIt(t *testing.T) {
	l := newLab(t)
	for i := range 6 {
		l.publish(l.owner, "demo-one", fmt.Sprintf("0.1.%d", i))
	}
	const path = "/index/de/mo/demo-one"
	token := l.session(l.member, "read")
	plain := l.get(path, token).want(t, 200)
	if plain.header.Get("Content-Encoding") != "" || len(plain.body) < gzipFrom {
		t.Fatalf("plain: %s", plain)
	}
	packed := l.getWith(path, token, "Accept-Encoding", "br, gzip;q=0.5").want(t, 200)
	if packed.header.Get("Content-Encoding") != "gzip" || !strings.Contains(fmt.Sprint(packed.header.Values("Vary")), "Accept-Encoding") {
		t.Fatalf("packed: %v", packed.header)
	}
	unpacked, err := io.ReadAll(must(gzip.NewReader(bytes.NewReader(packed.body))))
	if err != nil || !bytes.Equal(unpacked, plain.body) || len(packed.body) >= len(plain.body) {
		t.Errorf("packed %d bytes of %d do not unpack to the plain ones: %v", len(packed.body), len(plain.body), err)
	}
	if packed.header.Get("ETag") == plain.header.Get("ETag") {
		t.Error("two representations with one strong ETag")
	}
	l.getWith(path, token, "Accept-Encoding", "identity", "If-None-Match", packed.header.Get("ETag")).want(t, 200) // who could not read what it has
	for _, etag := range []string{plain.header.Get("ETag"), packed.header.Get("ETag")} {
		again := l.getWith(path, token, "Accept-Encoding", "gzip", "If-None-Match", etag).want(t, 304)
		if again.header.Get("Content-Encoding") != "" || again.header.Get("ETag") != etag { // what the client has, not what it would get
			t.Errorf("304: %v", again.header)
		}
	}
	for _, refused := range []string{"gzip;q=0", "gzip; q=0", "gzip;q=0.0", "identity", ""} {
		if r := l.getWith(path, token, "Accept-Encoding", refused).want(t, 200); r.header.Get("Content-Encoding") != "" {
			t.Errorf("packed for Accept-Encoding %q", refused)
		}
	}
}

func TestDownloadInRanges(t *testing.T) {
	l := newLab(t)
	l.demo()
	token := l.session(l.member, "read")
	const path = "/api/v1/crates/demo-one/0.1.0/download"
	whole := l.get(path, token).want(t, 200)
	if !bytes.Equal(whole.body, crateFile("demo-one", "0.1.0")) || whole.header.Get("Content-Type") != "application/gzip" {
		t.Fatalf("%v, %d bytes", whole.header, len(whole.body))
	}
	part := l.getWith(path, token, "Range", "bytes=10-19").want(t, 206)
	if !bytes.Equal(part.body, whole.body[10:20]) || part.header.Get("Content-Range") != fmt.Sprintf("bytes 10-19/%d", len(whole.body)) {
		t.Errorf("%s", part)
	}
	// A range of other bytes than the client has the beginning of is the whole.
	if r := l.getWith(path, token, "Range", "bytes=10-19", "If-Range", `"other"`).want(t, 200); !bytes.Equal(r.body, whole.body) {
		t.Error("If-Range with another ETag gives a part")
	}
	l.getWith(path, token, "Range", "bytes=10-19", "If-Range", whole.header.Get("ETag")).want(t, 206)
	l.getWith(path, token, "Range", fmt.Sprintf("bytes=%d-", len(whole.body))).want(t, 416)
	l.getWith(path, "", "Range", "bytes=0-0").want(t, 401)
}

// A yank changes what the index says, and with it its ETag.
func TestIndexETagFollowsTheLog(t *testing.T) {
	l := newLab(t)
	l.demo()
	token := l.session(l.member, "read")
	before := l.get("/index/de/mo/demo-one", token).want(t, 200, `"yanked":false`)
	l.yank(l.owner, "demo-one", "0.1.0")
	after := l.getWith("/index/de/mo/demo-one", token, "If-None-Match", before.header.Get("ETag")).want(t, 200, `"yanked":true`)
	if after.header.Get("ETag") == before.header.Get("ETag") {
		t.Error("one ETag for two index files")
	}
}
