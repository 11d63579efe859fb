package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	endian "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// publisher speaks to the registry as cargo does, without cargo's start-up
// time: tokens come from the credential provider, requests are cargo's own.
type publisher struct {
	base  string
	home  client.Home
	did   did.DID
	agent *client.Client
	http  *http.Client
	// via is the address of the server to ask, whatever the registry's URL; "": any.
	via string
}

// newPublisher makes a person with an identity of their own, or takes the one in home.
func newPublisher(t testing.TB, base, home string) *publisher {
	t.Helper()
	p := &publisher{base: base, home: client.OpenHome(home)}
	identity, err := p.home.Identity("")
	if errors.Is(err, client.ErrNoIdentity) {
		identity, err = p.home.CreateIdentity("", rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.did = identity.DID()
	p.reconnect()
	return p
}

// reconnect forgets the connections to a server that is gone.
func (p *publisher) reconnect() {
	if p.http != nil {
		p.http.CloseIdleConnections()
	}
	transport := &http.Transport{}
	if p.via != "" {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, p.via)
		}
	}
	p.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	p.agent = client.New(client.Config{Home: p.home, HTTP: transport, Now: time.Now, Rand: rand.Reader, Version: "test"})
}

// token is what the credential provider gives cargo for an operation.
func (p *publisher) token(ctx context.Context, operation string, r release) (string, error) {
	request := fmt.Sprintf(`{"v":1,"registry":{"index-url":"sparse+%s/index/"},"kind":"get","operation":%q,"name":%q,"vers":%q,"cksum":%q}`+"\n",
		p.base, operation, r.name, r.version, r.cid.Hex())
	var out bytes.Buffer
	if err := p.agent.Provide(ctx, strings.NewReader(request), &out); err != nil {
		return "", err
	}
	_, line, _ := strings.Cut(out.String(), "\n")
	var answer struct {
		Ok  struct{ Token string }
		Err *struct{ Kind, Message string }
	}
	if err := json.Unmarshal([]byte(line), &answer); err != nil {
		return "", fmt.Errorf("provider: %w: %s", err, line)
	}
	if answer.Err != nil {
		return "", fmt.Errorf("provider: %s %s", answer.Err.Kind, answer.Err.Message)
	}
	return answer.Ok.Token, nil
}

// refusal is an answer of the registry that is no success.
type refusal struct {
	status int
	text   string
	// retryAfter is the header of that name.
	retryAfter string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.status, r.text) }

// send does one request of cargo's web API. A *refusal is an answer; any other
// error says nothing about what the registry did.
func (p *publisher) send(ctx context.Context, method, path, token string, body []byte) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.base+"/api/v1/crates/"+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", token)
	resp, err := p.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", &refusal{resp.StatusCode, string(text), resp.Header.Get("Retry-After")}
	}
	return string(text), nil
}

// receipt is an acknowledgement: this record stands at this index.
type receipt struct {
	record record.ID
	index  int64
}

// readReceipt finds "record <id>, log index <n>" in an answer.
func readReceipt(text string) (receipt, error) {
	_, rest, _ := strings.Cut(text, "record ")
	id, rest, ok := strings.Cut(rest, ", log index ")
	digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	index, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || len(id) != 64 {
		return receipt{}, fmt.Errorf("an answer without record and log index: %s", text)
	}
	return receipt{record.ID(id), index}, nil
}

// release is a version with its bytes and who publishes it.
type release struct {
	who           int
	name, version string
	crate         []byte
	cid           storage.CID
}

func (r release) key() string { return r.name + "@" + r.version }

func (r release) subject(t testing.TB) record.Subject {
	t.Helper()
	s, err := record.VersionSubject(record.KindCrate, r.name, r.version)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newRelease packs a crate with size bytes that do not compress.
func newRelease(rng *mathrand.Rand, who int, name, version string, size int) release {
	noise := make([]byte, size)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	manifest := fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\ndescription = \"test\"\nlicense = \"MIT\"\n", name, version)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	for _, f := range []struct {
		name string
		data []byte
	}{{"Cargo.toml", []byte(manifest)}, {"src/lib.rs", nil}, {"noise.bin", noise}} {
		header := &tar.Header{Name: name + "-" + version + "/" + f.name, Mode: 0o644, Size: int64(len(f.data)), Format: tar.FormatGNU}
		if err := errors.Join(w.WriteHeader(header), writeAll(w, f.data)); err != nil {
			panic(err) // nothing but memory is involved
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		panic(err)
	}
	return release{who: who, name: name, version: version, crate: packed.Bytes(), cid: storage.CIDOf(packed.Bytes())}
}

func writeAll(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

// frameOf is the body of cargo's publish request.
func frameOf(r release) []byte {
	metadata := fmt.Sprintf(`{"name":%q,"vers":%q,"deps":[],"features":{},"authors":[]}`, r.name, r.version)
	var frame []byte
	for _, part := range [][]byte{[]byte(metadata), r.crate} {
		frame = endian.LittleEndian.AppendUint32(frame, uint32(len(part)))
		frame = append(frame, part...)
	}
	return frame
}

// publish does what `cargo publish` does after packaging.
func (p *publisher) publish(ctx context.Context, r release) (receipt, error) {
	token, err := p.token(ctx, "publish", r)
	if err != nil {
		return receipt{}, err
	}
	text, err := p.send(ctx, http.MethodPut, "new", token, frameOf(r))
	if err != nil {
		return receipt{}, err
	}
	return readReceipt(text)
}

// yank is `cargo yank`, with undo `cargo yank --undo`.
func (p *publisher) yank(ctx context.Context, r release, undo bool) (receipt, error) {
	operation, method := "yank", http.MethodDelete
	if undo {
		operation, method = "unyank", http.MethodPut
	}
	token, err := p.token(ctx, operation, r)
	if err != nil {
		return receipt{}, err
	}
	text, err := p.send(ctx, method, r.name+"/"+r.version+"/"+operation, token, nil)
	if err != nil {
		return receipt{}, err
	}
	return readReceipt(text)
}

// owner is `cargo owner --add` or `--remove`.
func (p *publisher) owner(ctx context.Context, name string, who did.DID, remove bool) (receipt, error) {
	method := http.MethodPut
	if remove {
		method = http.MethodDelete
	}
	token, err := p.token(ctx, "owners", release{name: name})
	if err != nil {
		return receipt{}, err
	}
	text, err := p.send(ctx, method, name+"/owners", token, fmt.Appendf(nil, `{"users":[%q]}`, who))
	if err != nil {
		return receipt{}, err
	}
	return readReceipt(text)
}

// admitPublishers makes the publishers members, as the lab's operator.
func (l *lab) admitPublishers(ctx context.Context, people ...*publisher) {
	l.t.Helper()
	operator := newPublisher(l.t, l.reached(), l.operator.home)
	if _, err := operator.agent.Login(ctx, l.reached(), ""); err != nil {
		l.t.Fatal(err)
	}
	registry, err := operator.agent.Open(l.reached())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range people {
		body := &record.Member{Roles: []string{"publisher"}, Tier: particle.TierCoreStakeholder, StakeholderAddrs: []string{}}
		if _, err := registry.SignAndSubmit(ctx, client.Draft{Subject: record.MemberSubject(p.did), Body: body}); err != nil {
			l.t.Fatal(err)
		}
		if _, err := p.agent.Login(ctx, l.reached(), ""); err != nil {
			l.t.Fatal(err)
		}
	}
}

// people makes n publishers who are members.
func (l *lab) people(ctx context.Context, n int) []*publisher {
	l.t.Helper()
	var people []*publisher
	folder := l.t.TempDir()
	for i := range n {
		people = append(people, newPublisher(l.t, l.reached(), filepath.Join(folder, strconv.Itoa(i))))
	}
	l.admitPublishers(ctx, people...)
	return people
}
