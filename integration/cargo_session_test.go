package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// sessionsSeen notes which session each request of a build came with.
type sessionsSeen struct {
	mu       sync.Mutex
	requests []seenRequest
}

type seenRequest struct {
	path, token string
	status      int
}

func (s *sessionsSeen) note(r *http.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, seenRequest{r.Request.URL.Path, r.Request.Header.Get("Authorization"), r.StatusCode})
}

func (s *sessionsSeen) all() []seenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seenRequest{}, s.requests...)
}

// A build begins with a session that has two minutes left, and takes longer:
// an answer of the index arrives only when that session has expired. Cargo asks
// the provider again and the build goes on. Nothing here is sped up: the
// session, the server's clock and cargo's are the real ones.
func TestABuildOutlivesItsSession(t *testing.T) {
	t.Parallel()
	const life = 123 * time.Second // the provider hands out what has two minutes left
	var seen sessionsSeen
	slow := make(chan time.Duration, 1)
	l := newFrontLab(t, &frontDoor{leave: func(r *http.Response) {
		seen.note(r)
		if strings.HasSuffix(r.Request.URL.Path, "/index/mi/dd/middle") {
			select {
			case wait := <-slow:
				time.Sleep(wait)
			default:
			}
		}
	}})
	u := l.operator
	chain := []string{"bottom", "middle", "topmost"}
	for i, name := range chain {
		toml := ""
		if i > 0 {
			toml = "[dependencies]\n" + chain[i-1] + " = { version = \"0.1\", registry = \"aln\" }\n"
		}
		must(t, u.publish(l, u.crate(name, "0.1.0", toml, "")))
	}

	builder := l.newMember()
	builder.extra = []string{"CARGO_HTTP_TIMEOUT=300"}
	app := builder.crate("app", "0.1.0", "[dependencies]\ntopmost = { version = \"0.1\", registry = \"aln\" }\n", "")
	builder.login(l, app)
	dropSessions(t, builder)
	first := builder.session(particle.ScopeRead, life)
	expires := time.Now().Add(life)
	seen.mu.Lock()
	seen.requests = nil
	seen.mu.Unlock()

	slow <- life + time.Second
	must(t, builder.cargo(app, "build"))
	if time.Now().Before(expires) {
		t.Fatal("the build was over before its session")
	}
	if status, _, body := l.get("/index/config.json", first); status != http.StatusUnauthorized || !strings.Contains(string(body), "expired") {
		t.Errorf("the first session is still good: status %d: %s", status, body)
	}
	before, after := 0, 0
	for _, r := range seen.all() {
		switch {
		case !strings.HasPrefix(r.path, "/index/") && !strings.HasSuffix(r.path, "/download"):
			continue
		case r.token == "": // cargo's first question, to learn that it needs one
		case r.status != http.StatusOK:
			t.Errorf("%s: status %d", r.path, r.status)
		case r.token == first:
			before++
		default:
			after++
		}
	}
	// config.json, topmost and middle; then bottom and the three downloads.
	if before != 3 || after != 4 {
		t.Errorf("%d requests with the first session and %d with later ones, want 3 and 4: %v", before, after, paths(seen.all()))
	}
}

func paths(requests []seenRequest) []string {
	var list []string
	for _, r := range requests {
		list = append(list, fmt.Sprintf("%s:%d", r.path, r.status))
	}
	return list
}

func dropSessions(t *testing.T, u *user) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(u.home, "sessions")); err != nil {
		t.Fatal(err)
	}
}

// What the provider tells cargo of a session's end is the session's own end,
// and one that is about to end is not handed out any more.
func TestTheProviderTellsTheTruthAboutSessions(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	u.login(l, u.folder)
	dropSessions(t, u)
	token, expires := u.askProvider(l)
	if token != u.session(particle.ScopeRead, 0) {
		t.Error("the session is not kept for the next question")
	}
	if left := time.Until(time.Unix(expires, 0)); left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("the session has %s left, want a quarter of an hour", left)
	}
	if said := tokenExpiry(t, token); expires > said || said-expires > 2 {
		t.Errorf("the provider says that the session ends at %d, the session says %d", expires, said)
	}
	if again, _ := u.askProvider(l); again != token {
		t.Error("a fresh session was not handed out again")
	}
	dropSessions(t, u)
	tired := u.session(particle.ScopeRead, 90*time.Second)
	if next, _ := u.askProvider(l); next == tired {
		t.Error("a session that is about to end was handed out")
	}
}

// askProvider does what cargo does before it reads.
func (u *user) askProvider(l *lab) (token string, expiration int64) {
	u.t.Helper()
	cmd := exec.Command(binary, "--cargo-plugin")
	cmd.Env = u.environment()
	cmd.Stdin = strings.NewReader(`{"v":1,"registry":{"index-url":"sparse+` + l.url + `/index/"},"kind":"get","operation":"read","args":[]}` + "\n")
	out, err := cmd.Output()
	if err != nil {
		u.t.Fatalf("provider: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var answer struct {
		Ok struct {
			Token      string `json:"token"`
			Cache      string `json:"cache"`
			Expiration int64  `json:"expiration"`
		}
	}
	if len(lines) != 2 || lines[0] != `{"v":[1]}` || json.Unmarshal([]byte(lines[1]), &answer) != nil || answer.Ok.Cache != "expires" {
		u.t.Fatalf("the provider answers %q", out)
	}
	return answer.Ok.Token, answer.Ok.Expiration
}

// tokenExpiry is the exp that a token carries.
func tokenExpiry(t *testing.T, token string) int64 {
	t.Helper()
	var claims struct {
		Exp    int64 `json:"exp"`
		Expiry int64 `json:"expiry"`
	}
	parts := strings.Split(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[len(parts)/2])
	if err != nil || json.Unmarshal(raw, &claims) != nil {
		t.Fatalf("not a session: %v", err)
	}
	return max(claims.Exp, claims.Expiry)
}
