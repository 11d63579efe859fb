package cratesioproxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	maxConfigBytes = 64 << 10
	maxDL          = 2 << 10
	maxCrateURL    = 8 << 10
	configFresh    = 10 * time.Minute
	configName     = "config.json" // no crate is called so
)

// IndexConfig is what an upstream's config.json says of where its crates are.
type IndexConfig struct {
	dl           string // with a marker
	authRequired bool
}

// Cargo's markers (Cargo reference, "Index configuration").
const (
	markCrate       = "{crate}"
	markVersion     = "{version}"
	markPrefix      = "{prefix}"
	markLowerPrefix = "{lowerprefix}"
	markChecksum    = "{sha256-checksum}"
)

// ParseIndexConfig reads a config.json of an index at the URL index. Members that it
// does not know pass unread. Errors match ErrBroken.
func ParseIndexConfig(data []byte, index string) (IndexConfig, error) {
	if len(data) > maxConfigBytes {
		return IndexConfig{}, fmt.Errorf("%w: its config.json has more than %d bytes", ErrBroken, maxConfigBytes)
	}
	var raw struct {
		DL           string `json:"dl"`
		AuthRequired bool   `json:"auth-required"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return IndexConfig{}, fmt.Errorf("%w: its config.json is not JSON of the expected shape", ErrBroken)
	}
	if raw.DL == "" || len(raw.DL) > maxDL {
		return IndexConfig{}, fmt.Errorf("%w: its config.json has no dl, or one of more than %d bytes", ErrBroken, maxDL)
	}
	c := IndexConfig{dl: raw.DL, authRequired: raw.AuthRequired}
	if !containsMark(c.dl) {
		c.dl += "/{crate}/{version}/download"
	}
	if err := c.check(index); err != nil {
		return IndexConfig{}, err
	}
	return c, nil
}

func containsMark(dl string) bool {
	for _, m := range []string{markCrate, markVersion, markPrefix, markLowerPrefix, markChecksum} {
		if strings.Contains(dl, m) {
			return true
		}
	}
	return false
}

// check holds dl to an address that is as safe as the index's: of the same scheme, with
// one host for all crates, and without credentials.
func (c IndexConfig) check(index string) error {
	scheme, _, ok := strings.Cut(c.dl, "://")
	host := c.host()
	if wanted, _, _ := strings.Cut(index, "://"); !ok || scheme != wanted {
		return fmt.Errorf("%w: the dl in its config.json is not of %s, as its index is", ErrBroken, wanted)
	}
	if host == "" || strings.ContainsAny(host, "{}@?#") {
		return fmt.Errorf("%w: the dl in its config.json names no one host", ErrBroken)
	}
	_, err := c.url("a", "1.0.0", strings.Repeat("0", 64))
	return err
}

// host is the one host of all crates.
func (c IndexConfig) host() string {
	_, rest, _ := strings.Cut(c.dl, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// url is where the crate is, as cargo makes it.
func (c IndexConfig) url(name, version, checksum string) (string, error) {
	prefix := prefixOf(name)
	text := strings.NewReplacer(markCrate, name, markVersion, version, markPrefix, prefix,
		markLowerPrefix, strings.ToLower(prefix), markChecksum, checksum).Replace(c.dl)
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || len(text) > maxCrateURL {
		return "", fmt.Errorf("%w: the dl in its config.json makes no URL", ErrBroken)
	}
	return text, nil
}

// prefixOf is the folders in which an index has a name's file. name is a valid crate name.
func prefixOf(name string) string {
	switch len(name) {
	case 1, 2:
		return string(rune('0' + len(name)))
	case 3:
		return "3/" + name[:1]
	default:
		return name[:2] + "/" + name[2:4]
	}
}

// settings is an upstream's config.json as it was last seen.
type settings struct {
	mu      sync.Mutex
	value   IndexConfig
	known   bool
	checked time.Time
}

func (s *settings) get(now time.Time) (c IndexConfig, known, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := now.Sub(s.checked)
	return s.value, s.known, s.known && age >= 0 && age < configFresh
}

func (s *settings) put(c IndexConfig, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.known, s.checked = c, true, now
}

// isSince reports whether it was seen after then.
func (s *settings) isSince(then time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known && s.checked.After(then)
}

// config returns what config.json says, asking for it where that was not done for a
// while. What it once said stands while upstream does not tell.
func (u *Upstream) config(ctx context.Context) (IndexConfig, error) {
	c, known, fresh := u.settings.get(u.proxy.Clock())
	if fresh {
		return c, nil
	}
	r, resting := u.resting.get(configName)
	resting = resting && u.proxy.Clock().Before(r.until)
	if known {
		if !resting {
			u.configs.join(u.proxy, configName, indexTime, u.fetchConfig)
		}
		return c, nil
	}
	if resting {
		return IndexConfig{}, r.err
	}
	asked := u.configs.join(u.proxy, configName, indexTime, u.firstConfig)
	if err := asked.wait(ctx); err != nil {
		return IndexConfig{}, err
	}
	c, _, _ = u.settings.get(u.proxy.Clock())
	return c, nil
}

// moved is what config.json says by now, where err may come of that c is not true any more: crates
// have moved, or are for who has a token. false where it says the same, or c was seen a moment ago, and
// of a host that asked to be left alone: it is there, and may be that of the index.
func (u *Upstream) moved(ctx context.Context, c IndexConfig, err error) (IndexConfig, bool) {
	ofPlace := errors.Is(err, ErrNotFound) || errors.Is(err, ErrRefused) || errors.Is(err, ErrBroken) || errors.Is(err, ErrUnavailable)
	var open *openError
	alone := RetryAfter(err) > 0 && !(errors.As(err, &open) && open.dead)
	if !ofPlace || alone || errors.Is(err, ErrMismatch) || errors.Is(err, errPrivate) || ctx.Err() != nil {
		return c, false
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime) // somebody waits for the crate
	defer cancel()
	now := u.proxy.Clock()
	if r, there := u.resting.get(configName); !u.settings.isSince(now.Add(-staleRest)) && !(there && now.Before(r.until)) {
		if u.configs.join(u.proxy, configName, indexTime, u.fetchConfig).wait(ctx) != nil {
			return c, false
		}
	}
	said, _, _ := u.settings.get(now)
	return said, said != c
}

// wantConfig asks for config.json ahead of the first crate. Of a host that is taken for dead it asks
// nothing: the one question at the end of a rest is for what somebody waits for.
func (u *Upstream) wantConfig() {
	if u.index.isDead() {
		return
	}
	now := u.proxy.Clock()
	_, known, _ := u.settings.get(now)
	if r, there := u.resting.get(configName); !known && !(there && now.Before(r.until)) {
		u.configs.join(u.proxy, configName, indexTime, u.firstConfig)
	}
}

// firstConfig is fetchConfig where nothing is known, which another may have ended a moment ago.
func (u *Upstream) firstConfig(ctx context.Context) error {
	if _, known, _ := u.settings.get(u.proxy.Clock()); known {
		return nil
	}
	return u.fetchConfig(ctx)
}

func (u *Upstream) fetchConfig(ctx context.Context) error {
	var c IndexConfig
	err := u.try(ctx, never, func(ctx context.Context, alone bool) error {
		return u.ask(ctx, question{host: u.index, url: u.setting.Index + configName, header: acceptGzip(), alone: alone}, func(resp *http.Response, body *watched) error {
			data, leave, err := u.readBody(ctx, resp, body, maxConfigBytes)
			defer leave()
			if err == nil {
				c, err = ParseIndexConfig(data, u.setting.Index)
			}
			return err
		})
	})
	now := u.proxy.Clock()
	if err != nil {
		u.resting.put(configName, rest{err, now.Add(troubleRest)})
		return err
	}
	if before, known, _ := u.settings.get(now); known && before.host() != c.host() {
		u.files.elsewhere()
	}
	u.settings.put(c, now)
	return nil
}

// mayHaveToken reports whether the token is for the host of address too: config.json names
// any it likes, and whoever writes that is not to get the token elsewhere.
func (u *Upstream) mayHaveToken(address string) bool {
	to, err := url.Parse(address)
	if err != nil {
		return false
	}
	index, err := url.Parse(u.setting.Index)
	return err == nil && (to.Host == index.Host || u.setting.TokenHost != "" && to.Host == u.setting.TokenHost)
}
