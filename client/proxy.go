package client

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// ProxySetting is what decides about a proxy, so that this program takes the
// way that cargo takes.
type ProxySetting struct {
	// Cargo is http.proxy of cargo's configuration, "" for none. It comes before
	// the environment, and NO_PROXY holds for it too, as with cargo (libcurl).
	Cargo string
	// Lookup reads the environment.
	Lookup func(name string) (string, bool)
}

// Proxy returns the function that http.Transport asks for the proxy of a
// request: cargo's setting, then HTTPS_PROXY, https_proxy, http_proxy (not
// HTTP_PROXY, which curl does not read either) and ALL_PROXY, except for hosts
// in NO_PROXY and this computer itself. ErrProxy when the setting names none.
func (s ProxySetting) Proxy() (func(*http.Request) (*url.URL, error), error) {
	config := httpproxy.Config{
		HTTPProxy: s.first("http_proxy", "all_proxy", "ALL_PROXY"), HTTPSProxy: s.first("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
		NoProxy: s.first("no_proxy", "NO_PROXY"),
	}
	if s.Cargo != "" {
		config.HTTPProxy, config.HTTPSProxy = s.Cargo, s.Cargo
	}
	for _, proxy := range []*string{&config.HTTPProxy, &config.HTTPSProxy} {
		var err error
		if *proxy, err = curlProxy(*proxy); err != nil {
			return nil, err
		}
	}
	decide := config.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return decide(r.URL) }, nil
}

func (s ProxySetting) first(names ...string) string {
	for _, name := range names {
		if value, ok := s.Lookup(name); ok && value != "" {
			return value
		}
	}
	return ""
}

// curlProxy gives a proxy what libcurl takes for granted: http:// where no
// scheme is said, and port 1080 (CURLOPT_PROXY), which for https is 443.
func curlProxy(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	full := text
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Hostname() == "" { // the text may hold a password, so it is not quoted
		return "", fmt.Errorf("%w: write it like http://proxy.example:3128", ErrProxy)
	}
	switch u.Scheme {
	case "http", "socks5", "socks5h":
		if u.Port() == "" {
			u.Host += ":1080"
		}
	case "https":
	default:
		return "", fmt.Errorf("%w: %.20q is none of http, https, socks5 and socks5h", ErrProxy, u.Scheme)
	}
	return u.String(), nil
}
