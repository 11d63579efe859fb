package cratesioproxy

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	mostConnections = 64 // to one host
	mostBulk        = 48 // of them for crates, so that slow ones leave room for the index
	mostRedirects   = 5
	headerBytes     = 64 << 10
	// streamBuffer is how much of an answer may come before it is read: enough for 10 MB a
	// second at a distance of 100 ms. What a connection may hold is more than all of its
	// answers, so that one that is not read does not hold the others.
	streamBuffer = 1 << 20
)

// newTransport is how requests travel: bounded in connections, in headers and in the time
// that each step before the body takes. How long bodies take is watched by watch.
func newTransport(s Setting) (*http.Transport, error) {
	certificates, err := s.certificates()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: certificates, ClientSessionCache: tls.NewLRUClientSessionCache(0)},
		ForceAttemptHTTP2:   true,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second,
			MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: 128 * streamBuffer,
		},
		ResponseHeaderTimeout:  15 * time.Second,
		MaxIdleConns:           2 * mostConnections,
		MaxIdleConnsPerHost:    mostConnections,
		MaxConnsPerHost:        mostConnections,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: headerBytes,
		ReadBufferSize:         16 << 10,
		DisableCompression:     true, // decoded here, within bounds
	}
	if s.Proxy != "" {
		proxy, err := url.Parse(s.Proxy)
		if err != nil { // ParseSetting made it of one
			return nil, refuse("the proxy of %s is not a URL", s.Name)
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	return t, nil
}

func newClient(t *http.Transport) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: follow}
}

// errRedirect: upstream sends elsewhere than this registry goes.
var errRedirect = errors.New("its redirect is not followed")

// follow says whether a redirect is followed: five at most, and never from https to
// what others can read and change. What opens the first host is not for another.
func follow(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) > mostRedirects || r.URL.Scheme != first.Scheme || r.URL.User != nil {
		return errRedirect
	}
	r.Header.Del("Referer")
	if r.URL.Host != first.Host {
		r.Header.Del("Authorization")
	}
	return nil
}
