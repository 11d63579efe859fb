package cratesioproxy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// CratesIO is the name of the upstream that a registry has unless it is told otherwise.
const CratesIO = "crates-io"

const (
	cratesIOURL = "https://index.crates.io/"
	scheme      = "sparse+"
	// form is what a setting looks like; errors show it and nothing that was given where
	// a secret may stand.
	form = "sparse+https://host[:port]/path/ for crates.io's own, or NAME=sparse+https://host[:port]/path/[?token_file=FILE][&token_host=HOST][&ca=FILE][&proxy=URL] for another"

	mostUpstreams  = 32
	maxName        = 32
	maxSetting     = 4 << 10
	maxTokenBytes  = 8 << 10
	maxCertificate = 4 << 20
)

// Setting says where an upstream is and how to reach it. It holds no secret: those are
// in the files that it names.
type Setting struct {
	// Name is CratesIO, or one of a-z, 0-9 and -, beginning with a letter.
	Name string
	// Index is the base URL of the index, ending in a slash, without `sparse+`.
	Index string
	// TokenFile holds what goes into Authorization, "" for nothing. It is read for every
	// request, so that a token may be replaced.
	TokenFile string
	// TokenHost is the host, with its port where it has one, that gets it besides the
	// index's: some keep their crates elsewhere. "" for none.
	TokenHost string
	// CA is a file of the only certificates to trust, in PEM; "" for the system's.
	CA string
	// Proxy is the http, https or socks5 URL of a proxy, without credentials; "" for the one that
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY name.
	Proxy string
}

// Source is how policy and records call what comes from it: `crates-io`, or `upstream/<name>`.
func (s Setting) Source() string {
	if s.Name == CratesIO {
		return CratesIO
	}
	return "upstream/" + s.Name
}

// String is the setting as it may be typed again.
func (s Setting) String() string {
	query := []string{}
	for _, p := range []struct{ name, value string }{{"token_file", s.TokenFile}, {"token_host", s.TokenHost}, {"ca", s.CA}, {"proxy", s.Proxy}} {
		if p.value != "" {
			query = append(query, p.name+"="+url.QueryEscape(p.value))
		}
	}
	text := s.Name + "=" + scheme + s.Index
	if len(query) > 0 {
		text += "?" + strings.Join(query, "&")
	}
	return text
}

// ParseSettings reads the settings of all upstreams: crates.io's own index unless one
// of them is `none`, or says where else CratesIO is, and others under names. Errors
// match ErrSetting, say what to do, and show nothing that may be secret.
func ParseSettings(texts []string) ([]Setting, error) {
	settings, none := []Setting{}, false
	for _, text := range texts {
		if text == "none" {
			none = true
			continue
		}
		s, err := ParseSetting(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(settings, func(o Setting) bool { return o.Name == s.Name }) {
			return nil, refuse("two are called %s; give every upstream a name of its own", s.Name)
		}
		settings = append(settings, s)
	}
	at := slices.IndexFunc(settings, func(s Setting) bool { return s.Name == CratesIO })
	switch {
	case none && at >= 0:
		return nil, refuse("`none` turns crates-io off, and another says where it is; leave one of them out")
	case !none && at < 0:
		settings = slices.Insert(settings, 0, Setting{Name: CratesIO, Index: cratesIOURL})
	}
	if len(settings) > mostUpstreams {
		return nil, refuse("there are %d; at most %d are taken", len(settings), mostUpstreams)
	}
	return settings, nil
}

// ParseSetting reads one setting, which is not `none`.
func ParseSetting(text string) (Setting, error) {
	if len(text) > maxSetting {
		return Setting{}, refuse("it has more than %d characters", maxSetting)
	}
	s := Setting{Name: CratesIO}
	if before, after, ok := strings.Cut(text, "="); ok && !strings.ContainsAny(before, ":/?") {
		s.Name, text = before, after
		if err := checkName(s.Name); err != nil {
			return Setting{}, err
		}
	}
	address, ok := strings.CutPrefix(text, scheme)
	if !ok {
		return Setting{}, refuse("its address does not begin with %s; write %s", scheme, form)
	}
	u, err := url.Parse(address)
	if err != nil { // url.Parse would say the address
		return Setting{}, refuse("its address is not a URL; write %s", form)
	}
	if err := checkAddress(u); err != nil {
		return Setting{}, err
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Setting{}, refuse("what follows the question mark is not parameters; write %s", form)
	}
	s.Index = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/") + "/"}).String()
	return s, s.take(values)
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrSetting, fmt.Errorf(format, args...))
}

func checkName(name string) error {
	odd := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-")
	if name == "" || len(name) > maxName || odd != "" || name[0] < 'a' || strings.HasSuffix(name, "-") || name == "none" {
		return refuse("its name is not of a-z, 0-9 and -, beginning with a letter, at most %d characters; write %s", maxName, form)
	}
	return nil
}

// checkAddress holds the index's URL to what cannot be misread, and to https where
// somebody may stand in between.
func checkAddress(u *url.URL) error {
	switch {
	case u.User != nil:
		return refuse("credentials do not belong into its address, which others see; write them into a file, and ?token_file=FILE behind the address")
	case u.Scheme != "https" && u.Scheme != "http", u.Opaque != "", u.Hostname() == "", u.Fragment != "":
		return refuse("its address is not one of https and a host; write %s", form)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return refuse("its address begins with http://, and whoever stands in between could change what it says; use https:// (plain http is for this computer itself)")
	case strings.Contains(u.Path, "//"), strings.Contains(u.Path, ".."), strings.Trim(u.Path, pathCharacters) != "":
		return refuse("its path is not names of letters, digits, -, _, . and ~ between slashes")
	}
	return nil
}

const pathCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~/"

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parameters are those that a setting may have.
var parameters = []string{"token_file", "token_host", "ca", "proxy"}

// take reads the parameters; their values are not shown, since what is wrong may be a secret.
func (s *Setting) take(values url.Values) error {
	for name, given := range values {
		switch {
		case !slices.Contains(parameters, name) && looksSecret(name):
			return refuse("a secret does not belong into a setting, which others see; write it into a file, and ?token_file=FILE behind the address")
		case !slices.Contains(parameters, name):
			return refuse("there is a parameter that is none of token_host, token_file, ca and proxy; write %s", form)
		case len(given) > 1:
			return refuse("%s is given twice; leave one out", name)
		case given[0] == "":
			return refuse("%s is empty; leave it out or say what it is", name)
		case strings.ContainsFunc(given[0], func(r rune) bool { return r < ' ' || r == 0x7f }):
			return refuse("%s holds a control character", name)
		}
	}
	s.TokenFile, s.TokenHost, s.CA, s.Proxy = values.Get("token_file"), values.Get("token_host"), values.Get("ca"), values.Get("proxy")
	if s.CA != "" && !strings.HasPrefix(s.Index, "https:") {
		return refuse("ca is for an address with https")
	}
	if u, err := url.Parse("https://" + s.TokenHost); s.TokenHost != "" && (err != nil || u.Host != s.TokenHost || u.Hostname() == "" || s.TokenFile == "") {
		return refuse("token_host is a host, with its port where it has one, that gets what is in token_file too; write it like token_host=files.example:8443")
	}
	return s.checkProxy()
}

func looksSecret(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"token", "secret", "password", "passwd", "key", "auth", "user"}, func(part string) bool {
		return strings.Contains(name, part)
	})
}

func (s *Setting) checkProxy() error {
	if s.Proxy == "" {
		return nil
	}
	u, err := url.Parse(s.Proxy)
	switch {
	case err != nil, u.Opaque != "", u.Hostname() == "", u.RawQuery != "", u.Fragment != "", strings.Trim(u.Path, "/") != "",
		!slices.Contains([]string{"http", "https", "socks5"}, u.Scheme):
		return refuse("proxy is not the URL of one; write it like proxy=http://host:3128")
	case s.isPlain():
		return refuse("proxy is for an address with https; one of this computer is reached without")
	case u.User != nil:
		return refuse("credentials do not belong into proxy, which others see; leave proxy out, and set HTTPS_PROXY=http://user:password@host:port in the environment of this server")
	}
	s.Proxy = u.Scheme + "://" + u.Host
	return nil
}

// isPlain reports whether it is reached by plain http.
func (s Setting) isPlain() bool { return strings.HasPrefix(s.Index, "http:") }

// proxy is by which proxy a request goes: the one that is set, otherwise as HTTPS_PROXY and NO_PROXY
// say, and by none to this computer itself. What cannot be read as a proxy is an error, where
// net/http would go without.
func (s Setting) proxy() (func(*http.Request) (*url.URL, error), error) {
	if s.isPlain() {
		return nil, nil
	}
	if s.Proxy != "" {
		proxy, err := url.Parse(s.Proxy)
		if err != nil { // ParseSetting made it of one
			return nil, refuse("the proxy of %s is not the URL of one", s.Name)
		}
		return http.ProxyURL(proxy), nil
	}
	environment := httpproxy.FromEnvironment()
	if environment.HTTPSProxy != "" && !namesProxy(environment.HTTPSProxy) {
		return nil, refuse("HTTPS_PROXY in the environment of this server is not the URL of a proxy; write it like http://host:3128, or http://user:password@host:3128")
	}
	of := environment.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return of(r.URL) }, nil
}

// namesProxy reports whether text is the URL of a proxy, or its host and port, as is usual.
func namesProxy(text string) bool {
	u, err := url.Parse(text)
	if !strings.Contains(text, "://") {
		u, err = url.Parse("http://" + text)
	}
	return err == nil && u.Hostname() != "" && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme)
}

// token reads what goes into Authorization, "" where there is none.
func (s Setting) token() (string, error) {
	if s.TokenFile == "" {
		return "", nil
	}
	text, err := readBounded(s.TokenFile, maxTokenBytes)
	if err != nil {
		return "", refuse("the token_file of %s cannot be read: %w; name a file that this server may read, with the token in it, or leave token_file out", s.Name, err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", refuse("the token_file of %s, %s, does not hold one line of text; write the token into it and nothing else", s.Name, s.TokenFile)
	}
	return token, nil
}

// certificates reads the CA file, nil where there is none.
func (s Setting) certificates() (*x509.CertPool, error) {
	if s.CA == "" {
		return nil, nil
	}
	text, err := readBounded(s.CA, maxCertificate)
	if err != nil {
		return nil, refuse("the ca of %s cannot be read: %w; name a file that this server may read, with certificates in PEM, or leave ca out", s.Name, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, refuse("the ca of %s, %s, holds no certificate in PEM; write those to trust into it, or leave ca out", s.Name, s.CA)
	}
	return pool, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = errors.New("it is larger than such a file ever is")
	}
	return text, err
}
