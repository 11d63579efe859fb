package cratesioproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

const (
	mostConnections = 64 // to one host
	mostAlone       = 4  // besides, of those that nobody shares
	mostBulk        = 48 // of them for crates, so that slow ones leave room for the index
	mostRedirects   = 5
	// headerBytes is what the headers of an answer may take. Of HTTP/2 more is read, since what is
	// beyond that ends the connection, and with it the answers to others.
	headerBytes     = 64 << 10
	wireHeaderBytes = 4 * headerBytes
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
	proxy, err := s.proxy()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}
	if s.isPlain() {
		dialer.ControlContext = onlyHere
	}
	return &http.Transport{
		Proxy:                  proxy,
		OnProxyConnectResponse: connected,
		DialContext:            inTurn(dialer),
		TLSHandshakeTimeout:    5 * time.Second,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: certificates, ClientSessionCache: tls.NewLRUClientSessionCache(0)},
		ForceAttemptHTTP2:      true,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second,
			MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: 128 * streamBuffer,
		},
		ResponseHeaderTimeout:  15 * time.Second,
		MaxIdleConns:           2 * mostConnections,
		MaxIdleConnsPerHost:    mostConnections,
		MaxConnsPerHost:        mostConnections,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: wireHeaderBytes,
		ReadBufferSize:         16 << 10,
		DisableCompression:     true, // decoded here, within bounds
	}, nil
}

// aloneOf is t for requests that have a connection of their own each, by HTTP/1.1: what comes
// over it is the answer to that one.
func aloneOf(t *http.Transport) *http.Transport {
	alone := &http.Transport{
		Proxy: t.Proxy, OnProxyConnectResponse: t.OnProxyConnectResponse, DialContext: t.DialContext,
		TLSHandshakeTimeout: t.TLSHandshakeTimeout, TLSClientConfig: t.TLSClientConfig.Clone(),
		ResponseHeaderTimeout: t.ResponseHeaderTimeout, MaxConnsPerHost: mostAlone, DisableKeepAlives: true,
		MaxResponseHeaderBytes: t.MaxResponseHeaderBytes, ReadBufferSize: t.ReadBufferSize, DisableCompression: true,
		Protocols: new(http.Protocols),
	}
	alone.TLSClientConfig.NextProtos = nil // where t has put HTTP/2
	alone.Protocols.SetHTTP1(true)
	return alone
}

// errNotHere: plain http is for this computer alone.
var errNotHere = errors.New("it leads to another computer by plain http, which whoever stands in between could read and change")

// onlyHere refuses to connect to another computer, whatever name that has: one that is this
// computer's today may be another's tomorrow.
func onlyHere(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !to.Addr().Unmap().IsLoopback() {
		return errNotHere
	}
	return nil
}

// closedProxy is a proxy that does not let a request through. What it says of that, which may be
// anything, is not repeated.
type closedProxy struct{ status int }

func (c *closedProxy) Error() string {
	return fmt.Sprintf("the proxy on the way to it answers HTTP %d %s", c.status, http.StatusText(c.status))
}

// connected is nil where a proxy lets through.
func connected(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode != http.StatusOK {
		return &closedProxy{answer.StatusCode}
	}
	return nil
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
