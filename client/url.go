package client

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// maxURL bounds URLs, in bytes.
const maxURL = 512

const howToWriteURLs = "write it like https://registry.example or http://127.0.0.1:8585"

// ParseURL returns the base URL of a registry in its one spelling (scheme, lower-
// case host, port unless it is the scheme's own, path without a slash at the end)
// from what a person or cargo may write: the base URL or the sparse index URL.
// Everything but https to anywhere and http to this computer is ErrURL.
func ParseURL(s string) (string, error) {
	text := strings.TrimPrefix(strings.TrimSpace(s), "sparse+")
	if len(text) > maxURL {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrURL, maxURL)
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("%w: %.80q; %s", ErrURL, text, howToWriteURLs)
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return "", fmt.Errorf("%w: %.80q; %s", ErrURL, text, howToWriteURLs)
	case strings.ContainsFunc(u.Host, notOfHost): // what a server names itself is printed and written to files
		return "", fmt.Errorf("%w: %.80q; a host has letters, digits, dots and hyphens, and a name in other letters is written in its xn-- form", ErrURL, text)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", fmt.Errorf("%w: it must not hold a user, a query or a fragment", ErrURL)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return "", fmt.Errorf("%w: %s would send credentials unencrypted over the network; use https://", ErrURL, u.Redacted())
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	path = strings.TrimRight(strings.TrimSuffix(path, "/index"), "/")
	return u.Scheme + "://" + canonicalHost(u) + path, nil
}

// notOfHost reports whether r is no part of a name, an address or a port.
func notOfHost(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_:[]", r)
}

func canonicalHost(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	port := u.Port()
	if port == "" || u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		return host
	}
	return host + ":" + port
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// IndexURL returns the name by which cargo calls the registry with that base URL.
func IndexURL(base string) string { return "sparse+" + base + "/index/" }
